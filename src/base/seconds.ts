import type { Clock, Timer } from "./clock.ts";

/**
 * Work that is due each second, of several parts together: one wake-up of the process does it all, where a timer of each part would wake it for each.
 * On an idle machine the waking costs more than the work.
 */
export class Seconds {
  readonly #clock: Clock;
  readonly #works = new Set<() => void>();
  #timer: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls back each second until cancelled, for the first time within one; in the order in which they asked. */
  each(work: () => void): Timer {
    const own = (): void => work(); // whoever asks twice is called twice
    this.#works.add(own);
    if (this.#timer === undefined) this.#arm();
    return {
      cancel: () => {
        this.#works.delete(own);
        if (this.#works.size > 0) return;
        this.#timer?.cancel();
        this.#timer = undefined;
      },
    };
  }

  #arm(): void {
    this.#timer = this.#clock.setTimer(1000, () => {
      this.#arm();
      for (const work of this.#works) work();
    });
  }
}
