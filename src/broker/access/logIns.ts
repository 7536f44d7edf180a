import { createHmac, randomBytes } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import {
  type HashBy,
  nobodysHash,
  type ScryptHash,
  scryptText,
  type User,
  verifyPassword,
} from "../../base/passwords.ts";
import { Fifo } from "../fifo.ts";
import { addressKey } from "./addressKey.ts";
import { Slowdown } from "./slowdown.ts";

const nothing = new Uint8Array(0);

/** known: as once before, without hashing. busy: not looked at, there are too many. */
export type LogInResult =
  | { readonly kind: "right" | "known"; readonly user: User }
  | { readonly kind: "wrong" | "busy"; readonly user: undefined };

interface Origin {
  readonly address: string | undefined;
  /** False when its connection is gone: then nothing is worked out for it. */
  readonly wanted: () => boolean;
}

export interface PasswordLogIn extends Origin {
  readonly name: string;
  /** Undefined: none was sent. */
  readonly password: Uint8Array | undefined;
}

/** @param password undefined: none was sent, which is nobody's */
export type Verify = (kept: ScryptHash, password: Uint8Array | undefined, settled: (right: boolean) => void) => void;

/** The scrypt of a password, done by `hashBy`. */
export const verifyBy =
  (hashBy: HashBy): Verify =>
  (kept, password, settled) => {
    if (password === undefined) verifyPassword(nobodysHash, nothing, () => settled(false), hashBy);
    else verifyPassword(kept, password, settled, hashBy);
  };

export interface LogInsDeps {
  readonly clock: Clock;
  readonly connectTimeoutMs: number;
  /** As the users file has it now. */
  readonly user: (name: string) => User | undefined;
  readonly verify: Verify;
}

interface Job {
  readonly key: string;
  readonly login: PasswordLogIn;
  readonly settled: (result: LogInResult) => void;
  readonly done: () => void;
}

const waitingMax = 64;
/** Of one address, so that it cannot shut out all others. */
const waitingPerAddress = 32;
const rememberedMs = 10 * 60_000;
const rememberedMax = 4096;

/**
 * Log-ins, one scrypt at a time: 64 at once, on every core and in libuv's pool, took a sync from 0.4 ms to 3.1 s. Who logged in during the
 * last minutes with the same password is let in by a keyed digest of it instead, so a whole plant that comes back after a power cut costs nothing.
 */
export class LogIns {
  readonly #deps: LogInsDeps;
  readonly #slowdown: Slowdown;
  readonly #waiting = new Fifo<Job>();
  readonly #waitingOf = new Map<string, number>();
  #hashing = false;
  /** Of this process alone: the digests mean nothing anywhere else. */
  readonly #key = randomBytes(32);
  /** Digest to when it is forgotten, the oldest first. */
  readonly #remembered = new Map<string, number>();

  constructor(deps: LogInsDeps) {
    this.#deps = deps;
    this.#slowdown = new Slowdown(deps.clock, deps.connectTimeoutMs / 2);
  }

  /** Log-ins that wait for their hash. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Those that wait because log-ins of their address failed. */
  get held(): number {
    return this.#slowdown.held;
  }

  get remembered(): number {
    return this.#remembered.size;
  }

  /** Tries a password. `settled` is called once, perhaps before this returns; a refusal late, the later the more of the address failed. */
  password(login: PasswordLogIn, settled: (result: LogInResult) => void): void {
    const user = this.#deps.user(login.name);
    if (user !== undefined && login.password !== undefined && this.#knows(user, login.password)) {
      settled({ kind: "known", user });
      return;
    }
    const key = addressKey(login.address);
    const busy = (): void => settled({ kind: "busy", user: undefined });
    const go = (done: () => void): void => {
      if (!this.#hasRoom(key)) {
        busy();
        done();
      } else this.#enqueue({ key, login, settled, done });
    };
    this.#slowdown.enter(key, { go, busy, wanted: login.wanted });
  }

  /** Tries a proof that takes no hashing (SCRAM); failures slow its address down as wrong passwords do. */
  proof(origin: Origin, verify: () => User | undefined, settled: (result: LogInResult) => void): void {
    const key = addressKey(origin.address);
    const go = (done: () => void): void => {
      const user = verify();
      if (user === undefined) this.#refuse(key, settled);
      else settled({ kind: "right", user });
      done();
    };
    this.#slowdown.enter(key, { go, busy: () => settled({ kind: "busy", user: undefined }), wanted: origin.wanted });
  }

  /** The users file may have been read again, with the same in it. */
  #holds(user: User): boolean {
    const now = this.#deps.user(user.name);
    return now !== undefined && scryptText(now.scrypt) === scryptText(user.scrypt);
  }

  /** Of one address fewer may wait than in all. Those whose connection is gone give their place up first. */
  #hasRoom(key: string): boolean {
    if (this.#fits(key)) return true;
    const gone: Job[] = [];
    for (let left = this.#waiting.size; left > 0; left -= 1) {
      const job = this.#take();
      if (job === undefined) break;
      if (job.login.wanted()) this.#add(job);
      else gone.push(job);
    }
    const fits = this.#fits(key);
    // Each lets another of its address in, who comes after this one.
    setImmediate(() => {
      for (const { done } of gone) done();
    });
    return fits;
  }

  #fits(key: string): boolean {
    return this.#waiting.size < waitingMax && (this.#waitingOf.get(key) ?? 0) < waitingPerAddress;
  }

  #enqueue(job: Job): void {
    this.#add(job);
    this.#hashNext();
  }

  #add(job: Job): void {
    this.#waiting.push(job);
    this.#waitingOf.set(job.key, (this.#waitingOf.get(job.key) ?? 0) + 1);
  }

  #take(): Job | undefined {
    const job = this.#waiting.shift();
    if (job === undefined) return undefined;
    const left = (this.#waitingOf.get(job.key) ?? 1) - 1;
    if (left > 0) this.#waitingOf.set(job.key, left);
    else this.#waitingOf.delete(job.key);
    return job;
  }

  #hashNext(): void {
    if (this.#hashing) return;
    const job = this.#take();
    if (job === undefined) return;
    if (!job.login.wanted()) {
      job.done();
      this.#hashNext();
      return;
    }
    this.#hashing = true;
    const { name, password } = job.login;
    const user = this.#deps.user(name);
    this.#deps.verify(user?.scrypt ?? nobodysHash, password, (right) => {
      this.#hashing = false;
      // Who was removed or given another password meanwhile is judged by what holds now.
      if (right && user !== undefined && this.#holds(user)) {
        if (password !== undefined) this.#remember(user, password);
        job.settled({ kind: "right", user });
      } else this.#refuse(job.key, job.settled);
      job.done();
      this.#hashNext();
    });
  }

  #refuse(key: string, settled: (result: LogInResult) => void): void {
    const delayMs = this.#slowdown.failed(key);
    const tell = (): void => settled({ kind: "wrong", user: undefined });
    if (delayMs === 0) tell();
    else this.#deps.clock.setTimer(delayMs, tell);
  }

  /** The stored hash is part of it: with another password, or another salt, nobody is remembered any more. */
  #digest(user: User, password: Uint8Array): string {
    const name = Buffer.from(user.name);
    const hmac = createHmac("sha256", this.#key).update(`${scryptText(user.scrypt)} ${name.length} `);
    return hmac.update(name).update(password).digest("base64");
  }

  #knows(user: User, password: Uint8Array): boolean {
    if (this.#remembered.size === 0) return false;
    const digest = this.#digest(user, password);
    const untilMs = this.#remembered.get(digest);
    if (untilMs === undefined) return false;
    this.#remembered.delete(digest);
    if (untilMs <= this.#deps.clock.monotonicMs()) return false;
    this.#remembered.set(digest, this.#deps.clock.monotonicMs() + rememberedMs);
    return true;
  }

  #remember(user: User, password: Uint8Array): void {
    const [oldest] = this.#remembered.keys();
    if (this.#remembered.size >= rememberedMax && oldest !== undefined) this.#remembered.delete(oldest);
    this.#remembered.set(this.#digest(user, password), this.#deps.clock.monotonicMs() + rememberedMs);
  }
}
