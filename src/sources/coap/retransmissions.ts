import type { Clock, Timer } from "../../base/clock.ts";
import { ackRandomFactor, ackTimeoutMs, maxRetransmit } from "./transmission.ts";

interface Waiting {
  readonly transmit: () => void;
  readonly onGiveUp: () => void;
  timeoutMs: number;
  attempts: number;
  timer: Timer;
}

/** Confirmable messages that wait for their acknowledgement, sent again with doubling waits (RFC 7252 section 4.2). Bounded. */
export class Retransmissions {
  readonly #waiting = new Map<string, Waiting>();
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #max: number;

  constructor(options: { clock: Clock; random: () => number; max: number }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#max = options.max;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /**
   * Transmits now and again until `settle(key)`, at most 1 + MAX_RETRANSMIT times; then `onGiveUp`. False: too many wait already, nothing
   * was sent.
   */
  start(key: string, transmit: () => void, onGiveUp: () => void): boolean {
    if (this.#waiting.size >= this.#max || this.#waiting.has(key)) return false;
    const timeoutMs = ackTimeoutMs * (1 + this.#random() * (ackRandomFactor - 1));
    const timer = this.#clock.setTimer(timeoutMs, () => this.#timedOut(key));
    this.#waiting.set(key, { transmit, onGiveUp, timeoutMs, attempts: 0, timer });
    transmit();
    return true;
  }

  /** Its acknowledgement or Reset came, or it lost its meaning. False when nothing waited under that key. */
  settle(key: string): boolean {
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return false;
    waiting.timer.cancel();
    this.#waiting.delete(key);
    return true;
  }

  clear(): void {
    for (const { timer } of this.#waiting.values()) timer.cancel();
    this.#waiting.clear();
  }

  #timedOut(key: string): void {
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    if (waiting.attempts >= maxRetransmit) {
      this.#waiting.delete(key);
      waiting.onGiveUp();
      return;
    }
    waiting.attempts += 1;
    waiting.timeoutMs *= 2;
    waiting.timer = this.#clock.setTimer(waiting.timeoutMs, () => this.#timedOut(key));
    waiting.transmit();
  }
}
