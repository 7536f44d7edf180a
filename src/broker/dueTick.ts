import type { Clock, Timer } from "../base/clock.ts";
import type { Seconds } from "../base/seconds.ts";

/** Fine enough for a Keep Alive or a will delay of a second; and however much comes due one after the other, nothing is looked at more often. */
const againMsMin = 250;

/**
 * Has the broker look for what is due: each second, and between when something comes due by then. What is not there yet at one look does not come due
 * before the next: the protocol's times are whole seconds.
 */
export class DueTick {
  readonly #clock: Clock;
  readonly #look: (nowMs: number) => number;
  readonly #second: Timer;
  #between: Timer | undefined;

  /** @param look does what is due @returns how long until the next of it that is known, ms; less than nothing is soon */
  constructor(clock: Clock, seconds: Seconds, look: (nowMs: number) => number) {
    this.#clock = clock;
    this.#look = look;
    this.#second = seconds.each(() => this.#onTime());
    this.#after(againMsMin);
  }

  cancel(): void {
    this.#second.cancel();
    this.#between?.cancel();
  }

  #onTime(): void {
    this.#between?.cancel();
    this.#between = undefined;
    const dueMs = Math.max(againMsMin, this.#look(this.#clock.monotonicMs()));
    if (dueMs < 1000) this.#after(dueMs);
  }

  #after(ms: number): void {
    this.#between = this.#clock.setTimer(ms, () => this.#onTime());
  }
}
