/**
 * The clock that ages are measured with: monotonic while the gateway runs, and at start it goes on from what was journalled last (every group
 * end carries it), plus the wall clock's difference when that can be believed. A Pi has no clock chip: NTP jumping two years forward must not
 * expire a backlog.
 */
import type { Clock } from "../base/clock.ts";

/** A longer gap than this is not believed without proof: messages then only wait a little longer than they should. */
const believedGapMs = 24 * 3600 * 1000;

export const believeShortGaps = (differenceMs: number): boolean => differenceMs < believedGapMs;

export class StoreClock {
  readonly #clock: Clock;
  #baseMs = 0;
  #startedMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startedMs = clock.monotonicMs();
    this.#baseMs = Math.max(1, Math.floor(clock.wallMs()));
  }

  /** @param last what was journalled last; `storeMs` 0 when nothing was */
  resume(last: { storeMs: number; wallMs: number }, believes: (differenceMs: number) => boolean): void {
    if (last.storeMs === 0) return;
    const differenceMs = Math.floor(this.#clock.wallMs() - last.wallMs);
    this.#startedMs = this.#clock.monotonicMs();
    this.#baseMs = last.storeMs + (differenceMs > 0 && last.wallMs > 0 && believes(differenceMs) ? differenceMs : 0);
  }

  /** Whole ms. A bound function: handed about. */
  readonly nowMs = (): number => this.#baseMs + Math.floor(this.#clock.monotonicMs() - this.#startedMs);
}
