import { randomBytes, randomInt } from "node:crypto";
import { Backoff } from "../../base/backoff.ts";
import type { Timer } from "../../base/clock.ts";
import type { Source, SourceState } from "../../base/contracts.ts";
import { messageOf } from "../../base/errors.ts";
import { LogLimiter } from "../../base/log.ts";
import { resolveHost } from "../../base/resolve.ts";
import { codes } from "../../wire/coap/codes.ts";
import { type CoapMessage, type CoapOption, tokenBytesMax } from "../../wire/coap/message.ts";
import { optionNumbers, uintOf, uintOption } from "../../wire/coap/options.ts";
import { ClientExchange, type Incoming, type RequestResult } from "./clientExchange.ts";
import { ClientReadings } from "./clientReadings.ts";
import type { CoapDeps } from "./coapServerSource.ts";
import { type CoapTarget, parseCoapUrl } from "./coapUrl.ts";
import { isFresher, type Stamp } from "./freshness.ts";
import { Tally } from "./tally.ts";
import { maxAgeDefaultSeconds, maxTransmitWaitMs } from "./transmission.ts";
import { openUdp, type Udp } from "./udp.ts";

export interface CoapClientOptions {
  readonly name: string;
  /** coap://host[:port]/path?query */
  readonly url: string;
  /** True: RFC 7641. False: a GET every `everyMs`. */
  readonly observe: boolean;
  /** Between polls, without `observe`; at least 100. Default 30 s. */
  readonly everyMs?: number;
  readonly maxPayloadBytes?: number;
  /** Readings on their way to the disk. */
  readonly maxPending?: number;
  /**
   * A request without a response is given up after this. A poll is given up earlier, so that a dead sensor shows: after
   * `everyMs`, but not before 10 s.
   */
  readonly requestTimeoutMs?: number;
  /** The registration is renewed after so much silence however long the sensor's Max-Age is: a restarted sensor has forgotten us. */
  readonly maxSilenceMs?: number;
  readonly backoff?: { readonly minMs: number; readonly maxMs: number };
}

export const coapClientDefaults = {
  everyMs: 30_000,
  maxPayloadBytes: 64 * 1024,
  maxPending: 256,
  requestTimeoutMs: maxTransmitWaitMs,
  maxSilenceMs: 600_000,
  backoff: { minMs: 1000, maxMs: 60_000 },
} as const;

const everyMsMin = 100;
const pollTimeoutMsMin = 10_000;
const drainMsMax = 1000;
const deregisterMsMax = 300;

/** One socket, with its own port, message ids and token; a new one after each failure, so nothing late can be mistaken. */
interface Session {
  readonly udp: Udp;
  readonly exchange: ClientExchange;
  /** Of the registration, the same when it is renewed (RFC 7641 section 3.3.1). */
  readonly token: Buffer;
}

/** A CoAP sensor that we observe or poll. @throws TidegateError TG_CONFIG or TG_NOT_AVAILABLE for the URL */
export function createCoapClientSource(options: CoapClientOptions, deps: CoapDeps): Source {
  return new ClientSource(options, deps);
}

class ClientSource implements Source {
  readonly name: string;
  readonly #options: Required<CoapClientOptions>;
  readonly #deps: CoapDeps;
  readonly #target: CoapTarget;
  readonly #tally: Tally;
  readonly #limiter: LogLimiter;
  readonly #backoff: Backoff;
  readonly #random: () => number;
  readonly #readings: ClientReadings;
  #link: SourceState["link"] = "idle";
  #problem: string | undefined;
  #session: Session | undefined;
  /** What happens next by itself: the next poll, renewal or connection. */
  #next: Timer | undefined;
  #asking = false;
  #askedMs = 0;
  /** The sensor has us in its list of observers, as far as we know. */
  #registered = false;
  #last: Stamp | undefined;

  constructor(options: CoapClientOptions, deps: CoapDeps) {
    this.name = options.name;
    this.#options = { ...coapClientDefaults, ...options };
    this.#deps = deps;
    this.#target = parseCoapUrl(options.url);
    this.#random = deps.random ?? Math.random;
    this.#tally = new Tally(deps.meter, options.name);
    this.#limiter = new LogLimiter({ nowMs: () => deps.clock.monotonicMs() });
    this.#backoff = new Backoff({ ...this.#options.backoff, random: this.#random });
    this.#readings = new ClientReadings({
      source: options.name,
      maxPayloadBytes: this.#options.maxPayloadBytes,
      maxPending: this.#options.maxPending,
      intake: deps.intake,
      log: deps.log,
      limiter: this.#limiter,
      tally: this.#tally,
      fetch: (block2, done) => this.#fetch(block2, done),
      onTaken: () => this.#backoff.reset(),
      onLost: () => this.#askSoon(),
    });
  }

  start(): Promise<void> {
    if (this.#link !== "idle") return Promise.resolve();
    this.#link = "connecting";
    const help = "1 while the source can take readings.";
    this.#deps.meter.gauge("tidegate_source_up", help, () => (this.#link === "up" ? 1 : 0), { source: this.name });
    void this.#connect();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    if (this.#link === "stopped") return;
    this.#link = "stopped";
    this.#problem = undefined;
    this.#next?.cancel();
    this.#readings.abandon();
    this.#deps.meter.dropGauge("tidegate_source_up", { source: this.name });
    const session = this.#session;
    if (session === undefined) return;
    await this.#drained();
    if (this.#registered) await this.#deregister(session);
    await this.#closeSession();
  }

  state(): SourceState {
    const { accepted, dropped } = this.#tally;
    return { name: this.name, type: "coap", link: this.#link, problem: this.#problem, accepted, dropped };
  }

  // ---------------------------------------------------------------- the link

  async #connect(): Promise<void> {
    try {
      const { address, family } = await resolveHost(this.#target.host);
      if (this.#isStopped()) return;
      const udp = await (this.#deps.open ?? openUdp)(
        { family, connect: { address, port: this.#target.port } },
        {
          onDatagram: (datagram) => exchange.receive(datagram),
          // An ICMP error may be forged or pass: the retransmissions decide. It tells people more than "no answer".
          onError: (error) => this.#trouble(messageOf(error)),
        },
      );
      const exchange = new ClientExchange(
        {
          clock: this.#deps.clock,
          random: this.#random,
          transmit: (bytes) => udp.send(bytes),
          onNotification: (incoming) => this.#notified(incoming),
          onDropped: (reason) => this.#tally.drop(reason),
        },
        randomInt(0x10000), // neither id nor token can be guessed from outside the path (RFC 7252 section 11.4)
      );
      if (this.#isStopped()) return await udp.close();
      this.#session = { udp, exchange, token: randomBytes(tokenBytesMax) };
      this.#ask();
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  /** A method, because a comparison in place would let the compiler think that an await changes nothing. */
  #isStopped(): boolean {
    return this.#link === "stopped";
  }

  #trouble(problem: string): void {
    if (this.#link !== "up" && this.#link !== "stopped") this.#problem = problem;
  }

  /** The sensor did not answer, or answered that there is nothing: begins anew after a while, with the name looked up again. */
  #fail(why: string, notBeforeMs = 0): void {
    if (this.#link === "stopped") return;
    if (this.#limiter.due(why))
      this.#deps.log.warn({ source: this.name, url: this.#options.url, why }, "the CoAP sensor is down");
    this.#link = "down";
    this.#problem = why;
    void this.#closeSession();
    const pollMs = this.#options.observe ? 0 : this.#untilNextPollMs();
    this.#schedule(Math.max(this.#backoff.nextMs(), notBeforeMs, pollMs), () => {
      this.#link = "connecting";
      void this.#connect();
    });
  }

  #closeSession(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    this.#registered = false;
    this.#asking = false;
    this.#last = undefined;
    this.#readings.abandon();
    session?.exchange.close();
    return session?.udp.close() ?? Promise.resolve();
  }

  #schedule(ms: number, then: () => void): void {
    this.#next?.cancel();
    this.#next = this.#deps.clock.setTimer(ms, then);
  }

  // ---------------------------------------------------------------- asking

  /** GET, with `observe` a registration or its renewal. One at a time. */
  #ask(): void {
    const session = this.#session;
    if (session === undefined || this.#asking || this.#link === "stopped") return;
    const { observe, everyMs, requestTimeoutMs } = this.#options;
    if (!observe && this.#readings.assembling) {
      this.#schedule(this.#untilNextPollMs(), () => this.#ask()); // a slow block-wise reading comes to its end first
      return;
    }
    this.#asking = true;
    this.#askedMs = this.#deps.clock.monotonicMs();
    const options = observe ? [...this.#target.options, uintOf(optionNumbers.observe, 0)] : this.#target.options;
    const token = observe ? session.token : randomBytes(tokenBytesMax);
    const deadlineMs = observe ? requestTimeoutMs : Math.min(requestTimeoutMs, Math.max(everyMs, pollTimeoutMsMin));
    session.exchange.get(token, options, deadlineMs, (result) => {
      this.#asking = false;
      this.#answered(session, result);
    });
  }

  #answered(session: Session, result: RequestResult): void {
    if (result.kind !== "response")
      return this.#fail(result.kind === "timeout" ? this.#silence() : "the sensor rejects the request");
    const { incoming } = result;
    if (this.#link === "stopped") return incoming.release(); // what begins now would outlive the stop
    const { message } = incoming;
    if (message.code !== codes.content) return this.#refusal(incoming);
    const sequence = uintOption(message, optionNumbers.observe, 3);
    this.#registered = this.#options.observe && sequence !== undefined;
    session.exchange.observe(this.#registered ? session.token : undefined);
    // A restarted sensor counts from anew: its answer to a registration is fresh by definition.
    this.#last = sequence === undefined ? undefined : { sequence, arrivedMs: this.#deps.clock.monotonicMs() };
    if (this.#options.observe && !this.#registered && this.#limiter.due("observe")) {
      this.#deps.log.warn(
        { source: this.name },
        "the sensor does not offer observe; it is asked again whenever Max-Age passes",
      );
    }
    this.#fresh(incoming);
  }

  #silence(): string {
    return this.#problem === undefined ? "no answer" : `no answer (${this.#problem})`;
  }

  /** An error response, or the last notification of an observation that the sensor ends (RFC 7641 section 3.2). */
  #refusal({ accept, message }: Incoming): void {
    accept();
    const waitMs =
      message.code === codes.serviceUnavailable ? 1000 * (uintOption(message, optionNumbers.maxAge, 4) ?? 0) : 0;
    this.#fail(`the sensor answers ${message.code}`, Math.min(waitMs, this.#options.maxSilenceMs));
  }

  #notified(incoming: Incoming): void {
    if (this.#link === "stopped") return incoming.release();
    const { message } = incoming;
    if (message.code !== codes.content) return this.#refusal(incoming);
    const sequence = uintOption(message, optionNumbers.observe, 3);
    if (sequence === undefined) {
      this.#registered = false; // it was the last one; the watch on Max-Age registers again
    } else {
      const stamp: Stamp = { sequence, arrivedMs: this.#deps.clock.monotonicMs() };
      // The same number again is a copy of a value that was refused before: message ids have already sorted out the other copies.
      if (this.#last !== undefined && sequence !== this.#last.sequence && !isFresher(this.#last, stamp)) {
        this.#tally.drop("stale");
        return incoming.accept();
      }
      this.#last = stamp;
    }
    this.#fresh(incoming);
  }

  /** A value that is new: the sensor is well, whatever becomes of the value. */
  #fresh(incoming: Incoming): void {
    this.#link = "up";
    this.#problem = undefined;
    if (this.#options.observe) this.#watch(incoming.message);
    else this.#schedule(this.#untilNextPollMs(), () => this.#ask());
    this.#readings.receive(incoming);
  }

  #untilNextPollMs(): number {
    const everyMs = Math.max(everyMsMin, this.#options.everyMs);
    return everyMs - ((this.#deps.clock.monotonicMs() - this.#askedMs) % everyMs);
  }

  /**
   * Silence beyond Max-Age means that the sensor forgot us. RFC 7641 section 3.3.1 asks for 5 to 15 s of grace, so that a
   * notification on its way is not crossed; with a short Max-Age the grace is shorter too.
   */
  #watch(message: CoapMessage): void {
    const maxAgeMs = 1000 * Math.max(1, uintOption(message, optionNumbers.maxAge, 4) ?? maxAgeDefaultSeconds);
    const graceMs = Math.min(5000 + this.#random() * 10_000, Math.max(1000, maxAgeMs / 2));
    const expired = maxAgeMs + graceMs <= this.#options.maxSilenceMs;
    this.#schedule(expired ? maxAgeMs + graceMs : this.#options.maxSilenceMs, () => {
      if (expired) {
        this.#link = "connecting";
        this.#problem = `no notification for ${Math.round((maxAgeMs + graceMs) / 1000)} s`;
      }
      this.#ask();
    });
  }

  /** Asks for one more block of the reading in progress. Undefined: there is no link any more. */
  #fetch(block2: CoapOption, done: (result: RequestResult) => void): (() => void) | undefined {
    const options = [...this.#target.options, block2];
    return this.#session?.exchange.get(randomBytes(tokenBytesMax), options, this.#options.requestTimeoutMs, done);
  }

  /** The value is not ours yet, and the sensor will not send it again by itself. Polls come again anyway. */
  #askSoon(): void {
    if (this.#options.observe && this.#session !== undefined && this.#link !== "stopped") {
      this.#schedule(this.#backoff.nextMs(), () => this.#ask());
    }
  }

  // ---------------------------------------------------------------- stopping

  #drained(): Promise<void> {
    const { clock } = this.#deps;
    const untilMs = clock.monotonicMs() + drainMsMax;
    return new Promise((resolve) => {
      const look = (): void => {
        if (this.#readings.pending === 0 || clock.monotonicMs() >= untilMs) resolve();
        else clock.setTimer(20, look);
      };
      look();
    });
  }

  /** Best effort (RFC 7641 section 3.6): whoever does not hear of it learns by the Reset or the closed port. */
  #deregister({ exchange, token }: Session): Promise<void> {
    const options = [...this.#target.options, uintOf(optionNumbers.observe, 1)];
    return new Promise((resolve) => {
      exchange.get(token, options, deregisterMsMax, () => resolve());
    });
  }
}
