import { createSecureContext } from "node:tls";
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { CertificateEnd } from "./certificateEnd.ts";
import type { Credentials, TlsOptions, UplinkOptions } from "./options.ts";

/** Small files of a disk that answers take milliseconds. */
const readMsMax = 5_000;

/** Readings at once, in the process: on a disk that does not answer each keeps one of libuv's four threads, and the journal's syncs need the others. */
const readingsMax = 2;

class Turns {
  #free = readingsMax;
  /** As many as there are uplinks, at most. */
  readonly #waiting: Array<() => void> = [];

  async take<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#free -= 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

const turns = new Turns();

/**
 * Password, certificate, key and authorities of an uplink, read from their files anew for each connection: certificates run out, and whoever renews
 * them writes files. Files that cannot be read, or do not belong together (the key is written after its certificate), change nothing: the last
 * that could be used stay in use, and `problem` says so.
 */
export class FreshCredentials {
  #now: Credentials;
  #problem: string | undefined;
  /** The reading that has not begun yet. Who asks while another one runs needs it, for that may have read what was replaced since. */
  #next: Promise<Credentials> | undefined;
  /** One at a time. Never rejects. */
  #last: Promise<unknown> = Promise.resolve();
  readonly #end = new CertificateEnd();
  readonly #reread: UplinkOptions["reread"];
  readonly #clock: Clock;
  readonly #log: Log;

  constructor({ password, tls, reread }: UplinkOptions, clock: Clock, log: Log) {
    this.#now = { password, tls };
    this.#reread = reread;
    this.#clock = clock;
    this.#log = log;
  }

  get now(): Credentials {
    return this.#now;
  }

  /** Whether anything of them lies in a file. */
  get inFiles(): boolean {
    return this.#reread !== undefined;
  }

  /** Why `now` is not what the files hold. Nothing secret. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** When our certificate ends (wall clock); NaN: there is none. */
  get endMs(): number {
    return this.#end.ms(this.#now.tls?.cert);
  }

  /** To be called every few seconds: says it when our certificate ends soon. A link that stays up may have read it long ago, so it is read anew first. */
  look(): void {
    if (!this.#end.isDue(this.#now.tls?.cert, this.#clock.wallMs(), this.#clock.monotonicMs())) return;
    void this.refresh().then(() => {
      const news = this.#end.news(this.#now.tls?.cert, this.#clock.wallMs());
      if (news !== undefined) this.#log.warn({}, news);
    });
  }

  /** Reads the files; `now` and `problem` are up to date when it resolves. Never rejects; takes 5 s at most. */
  async refresh(): Promise<void> {
    try {
      const next = await this.#read();
      if (!isDeepStrictEqual(next, this.#now)) {
        if (next.tls !== undefined) secureContext(next.tls);
        this.#now = next;
        this.#log.info({}, "password or TLS files have changed: taken over");
      }
      this.#problem = undefined;
    } catch (error) {
      const problem = `password and TLS files of before stay in use: ${messageOf(error)}`;
      if (problem !== this.#problem)
        this.#log.warn({ err: messageOf(error) }, "password and TLS files of before stay in use");
      this.#problem = problem;
    }
  }

  #read(): Promise<Credentials> {
    if (this.#next === undefined) {
      this.#next = this.#begin(this.#last);
      this.#last = this.#next.catch(() => {});
    }
    const reading = this.#next;
    return new Promise((resolve, reject) => {
      const late = (): void => reject(new Error(`they could not be read within ${readMsMax / 1000} s`));
      const timer = this.#clock.setTimer(readMsMax, late);
      reading.then(resolve, reject).finally(() => timer.cancel());
    });
  }

  async #begin(last: Promise<unknown>): Promise<Credentials> {
    await last;
    return turns.take(() => {
      this.#next = undefined;
      return this.#reread?.() ?? Promise.resolve(this.#now);
    });
  }
}

/** @throws Error when they cannot be used */
function secureContext({ ca, cert, key }: TlsOptions): void {
  try {
    if (ca !== undefined) checkWhole(String(ca));
    createSecureContext({
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    });
  } catch (cause) {
    throw new Error(`tls.ca, tls.cert and tls.key cannot be used: ${messageOf(cause)}`, { cause });
  }
}

/** OpenSSL takes the authorities up to the first that is not whole, and says nothing; of none, nobody is trusted. @throws Error */
function checkWhole(ca: string): void {
  const count = (what: RegExp): number => ca.match(what)?.length ?? 0;
  const ends = count(/^-----END [A-Z0-9 ]*CERTIFICATE-----/gm);
  if (ends === 0) throw new Error("tls.ca has no certificate in it");
  if (count(/^-----BEGIN /gm) !== count(/^-----END /gm)) throw new Error("tls.ca ends within a certificate");
}
