import type { Clock } from "../base/clock.ts";

/**
 * Of one turn of the event loop, how long packets may be handled; ms. libuv hands over all that has come on all sockets, up to 2 MB of each, before
 * anything else gets its turn: timers, syncs of the journal, what was collected to be written. What is written for these packets takes about as
 * long again, and garbage collection comes on top.
 */
const shareMs = 4;

/** Somebody with packets to handle. */
export interface Waiting {
  /** False: it has ended, and needs no turn any more. */
  readonly open: boolean;
  nextTurn(): void;
}

/**
 * The time that all connections together may take in one turn of the event loop; who comes too late waits in line for the next one. By the clock on the
 * wall, because reading it is cheap: who is short of processor time goes round more often.
 */
export class TurnShare {
  readonly #clock: Clock;
  #begun = false;
  #endMs = 0;
  #line: Waiting[] = [];
  readonly #next = (): void => this.#nextTurn();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Nothing has come in this turn yet. */
  get fresh(): boolean {
    return !this.#begun;
  }

  /** This turn has had its time. The first call in a turn begins it. */
  spent(): boolean {
    if (this.#begun) return this.#clock.monotonicMs() >= this.#endMs;
    this.#begin();
    return false;
  }

  /** Calls `waiting.nextTurn()` in the next turn, after those who were here before. */
  wait(waiting: Waiting): void {
    if (!this.#begun) this.#begin();
    this.#line.push(waiting);
  }

  #begin(): void {
    this.#begun = true;
    this.#endMs = this.#clock.monotonicMs() + shareMs;
    setImmediate(this.#next);
  }

  /**
   * Those who wait come before what the sockets bring. Who had time and wants more goes to the end of the line; for whom none was left keeps the place
   * and is not even asked: in a long line asking each would take more than the work.
   */
  #nextTurn(): void {
    this.#begun = false;
    if (this.#line.length === 0) return;
    const line = this.#line;
    this.#line = [];
    this.#begin();
    let at = 0;
    do line[at++]!.nextTurn();
    while (at < line.length && !this.spent());
    if (at === line.length) return;
    // Who has ended holds what it had read, and counts for no limit any more.
    this.#line = [...line.slice(at).filter(({ open }) => open), ...this.#line];
  }
}
