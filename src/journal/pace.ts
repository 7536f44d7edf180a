/** Holds work back to so many bytes a second, and lets the event loop turn between its pieces. */
import type { Clock, Timer } from "../base/clock.ts";

export class Pace {
  readonly #clock: Clock;
  readonly #rate: number;
  #owedMs = 0;
  #timer: Timer | undefined;
  #wake: (() => void) | undefined;
  #hurried = false;
  #lifted = false;

  /** @param rate bytes a second */
  constructor(clock: Clock, rate: number) {
    this.#clock = clock;
    this.#rate = rate;
  }

  /** So much was read or written. Resolves when the next piece may begin. */
  spend(bytes: number): Promise<void> {
    this.#owedMs += (bytes * 1000) / this.#rate;
    const ms = Math.floor(this.#owedMs);
    if (ms < 1 || this.#hurried || this.#lifted) return new Promise((resolve) => setImmediate(resolve));
    this.#owedMs -= ms;
    return this.pause(ms);
  }

  /** Resolves after so long, or when it is hurried. */
  pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#hurried) {
        setImmediate(resolve);
        return;
      }
      this.#wake = resolve;
      this.#timer = this.#clock.setTimer(ms, resolve);
    });
  }

  /** Ends every wait, from now on. */
  hurry(): void {
    this.#hurried = true;
    this.#timer?.cancel();
    this.#wake?.();
  }

  /** Without the rate, or with it again; not of a pause. */
  lift(lifted: boolean): void {
    if (lifted === this.#lifted) return;
    this.#lifted = lifted;
    this.#owedMs = 0;
    if (!lifted) return;
    this.#timer?.cancel();
    this.#wake?.();
  }
}
