import type { Clock } from "../base/clock.ts";
import { turnBegins, workBegins } from "../base/frugal.ts";

/**
 * Of one turn of the event loop, how long packets may be handled; ms. libuv hands over all that has come on all sockets, up to 2 MB of each, before
 * anything else gets its turn: timers, syncs of the journal, what was collected to be written. What is written for these packets takes about as
 * long again, and garbage collection comes on top.
 */
const shareMs = 4;
/**
 * So many of those who wait with nothing read may read in a turn: about as many chunks of 64 KiB as it has time for. When they take longer, no more
 * than these lie there.
 */
const readersMax = 16;

/** Who had so much in one go has more, mostly, and waits for leave to read it while others wait. */
export const greedyBytes = 16 * 1024;

/** Somebody with packets to handle, or who has had its time and may have more in its socket. */
export interface Waiting {
  /** False: it has ended, and needs no turn any more. */
  readonly open: boolean;
  /** What it has read and not handled; bytes. As long as it waits it changes only by as much as the line is told. None: its turn is the leave to read. */
  readonly unreadBytes: number;
  nextTurn(): void;
}

/**
 * The time that all connections together may take in one turn of the event loop; who comes too late waits in line for the next one. By the clock on the
 * wall, because reading it is cheap: who is short of processor time goes round more often. While there is a line, who has had time waits there without
 * having read anything, or all that wait would hold a chunk each.
 */
export class TurnShare {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #onFull: () => void;
  #full = false;
  /** When the clock was asked last: within a turn a millisecond or so ago. */
  nowMs = 0;
  #begun = false;
  /** Whose turn it is has its time, whatever the clock says. */
  #granted = false;
  #endMs = 0;
  #line: Waiting[] = [];
  /** Those who were let read and found no time. */
  #first: Waiting[] = [];
  /** Of the line that is handled now. */
  #behind = 0;
  #held = 0;
  readonly #next = (): void => this.#nextTurn();

  /**
   * @param max bytes that those who wait may hold unread. Beyond it what has come is handled at once, so that more must not come in this turn
   * @param onFull called then, once in a turn: who has not been read yet is to `wait`
   */
  constructor(clock: Clock, max: number, onFull: () => void) {
    this.#clock = clock;
    this.#max = max;
    this.#onFull = onFull;
  }

  /** Nothing has come in this turn yet. */
  get fresh(): boolean {
    return !this.#begun;
  }

  /** Somebody waits. */
  get crowded(): boolean {
    return this.#behind + this.#line.length + this.#first.length > 0;
  }

  /** Unread, of all who wait. */
  get heldBytes(): number {
    return this.#held;
  }

  /** This turn has had its time. The first call in a turn begins it. */
  spent(): boolean {
    if (!this.#begun) {
      this.#begin();
      return false;
    }
    if (this.#granted) {
      this.#granted = false;
      return false;
    }
    this.nowMs = this.#clock.monotonicMs();
    if (this.nowMs < this.#endMs) return false;
    workBegins();
    return true;
  }

  /** Whether so much more may wait unread. */
  holds(bytes: number): boolean {
    if (this.#held + bytes <= this.#max) return true;
    if (this.#full) return false;
    this.#full = true;
    this.#onFull();
    return false;
  }

  /** Who waits has read so much more; bytes. */
  grown(bytes: number): void {
    this.#held += bytes;
    this.holds(0);
  }

  /**
   * Calls `waiting.nextTurn()` in the next turn, after those who were here before.
   * @param first before them: it was let read, and found no time @returns the time
   */
  wait(waiting: Waiting, first = false): number {
    if (!this.#begun) this.#begin();
    this.#held += waiting.unreadBytes;
    if (first) this.#first.push(waiting);
    else this.#line.push(waiting);
    return this.nowMs;
  }

  #begin(): void {
    this.#begun = true;
    turnBegins();
    this.nowMs = this.#clock.monotonicMs();
    this.#endMs = this.nowMs + shareMs;
    setImmediate(this.#next);
  }

  /**
   * Those who wait come before what the sockets bring. Who had time and wants more goes to the end of the line; for whom none was left keeps the place
   * and is not even asked: in a long line asking each would take more than the work.
   */
  #nextTurn(): void {
    this.#begun = this.#full = false;
    if (this.#line.length + this.#first.length === 0) return;
    const line = this.#first.length === 0 ? this.#line : [...this.#first, ...this.#line];
    this.#line = [];
    this.#first = [];
    this.#begin();
    let readers = 0;
    let at = 0;
    do {
      const waiting = line[at]!;
      if (waiting.unreadBytes === 0 && ++readers > readersMax) break;
      at += 1;
      this.#held -= waiting.unreadBytes;
      this.#behind = line.length - at;
      this.#granted = true;
      waiting.nextTurn();
      this.#granted = false;
    } while (at < line.length && !this.spent());
    this.#behind = 0;
    if (at === line.length) return;
    this.#line = [...line.slice(at).filter((waiting) => this.#stays(waiting)), ...this.#line];
  }

  /** False: it has ended, and holds nothing once it is out of the line. */
  #stays({ open, unreadBytes }: Waiting): boolean {
    if (!open) this.#held -= unreadBytes;
    return open;
  }
}
