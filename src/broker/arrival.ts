import type { Socket } from "node:net";
import type { Clock, Timer } from "../base/clock.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import type { Admission, Place } from "./admission.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import { plainAddress } from "./peerAddress.ts";

/** What a connection has to bring before it may speak MQTT. */
export type Step = "proxy" | "tls" | "websocket";

export interface ArrivalDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Lets one line an address through now and then. */
  readonly faultLog: LogLimiter;
  readonly metrics: BrokerMetrics;
  readonly limits: Pick<BrokerLimits, "connectTimeoutMs" | "maxPacketSize">;
  readonly admission: Admission;
}

/**
 * A connection between accept and its first byte of MQTT. It has connectTimeout for all of its steps together. Whatever ends it on the way is
 * counted once: as a timeout, or under the step in which it was.
 */
export class Arrival {
  readonly raw: Socket;
  readonly listener: string;
  readonly place: Place;
  certified = false;
  certificateName: string | undefined;
  /** Undefined: it may speak MQTT. */
  step: Step | undefined;
  readonly #deps: ArrivalDeps;
  readonly #arrivedMs: number;
  readonly #timer: Timer;
  #counted = false;

  constructor(raw: Socket, listener: string, first: Step, place: Place, deps: ArrivalDeps) {
    this.raw = raw;
    this.listener = listener;
    this.step = first;
    this.place = place;
    this.#deps = deps;
    this.#arrivedMs = deps.clock.monotonicMs();
    this.#timer = deps.clock.setTimer(deps.limits.connectTimeoutMs, () => this.#late());
  }

  /** Sets the client's address and counts it. False: it has too many connections, and this one was ended. */
  comesFrom(address: string | undefined): boolean {
    if (this.place.from(address === undefined ? undefined : plainAddress(address))) return true;
    this.#counted = true; // by its place
    this.raw.destroy();
    return false;
  }

  /** IP address of the client, as far as it is known. */
  get address(): string | undefined {
    return this.place.address;
  }

  /** Its last step is done. @returns how long they took, in ms: it counts for connectTimeout */
  arrived(): number {
    this.step = undefined;
    this.#timer.cancel();
    return this.#deps.clock.monotonicMs() - this.#arrivedMs;
  }

  /** Counts that it will not be let in, and says why in the log. Whoever calls this ends it, or the time does. */
  refuse(why: string): void {
    if (this.step !== undefined) this.#count(this.step, why);
  }

  /** Ends it at once. */
  end(why: string): void {
    this.refuse(why);
    this.raw.destroy();
  }

  /** To be called when its socket has closed. */
  closed(): void {
    this.#timer.cancel();
    this.refuse("the connection ended before its first packet");
  }

  #late(): void {
    this.#count("timeout", "no packet within connectTimeout");
    this.raw.destroy();
  }

  #count(reason: Step | "timeout", why: string): void {
    if (this.#counted) return;
    this.#counted = true;
    const { metrics, faultLog, log } = this.#deps;
    metrics.refused(reason).value += 1;
    const { address, listener, step } = this;
    if (faultLog.due(address ?? listener)) log.info({ address, listener, step }, `TG_PROTOCOL: ${why}`);
  }
}
