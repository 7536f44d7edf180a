/** How long publishers are held back for room that does not come. */

/** With a disk that has nothing to do, and yet nothing happens. */
const idleMsMax = 10_000;
/** Whatever the disk is doing. */
const msMax = 60_000;

/**
 * It runs while nothing happens: a sync that takes long is no reason to refuse anybody, nor are a group that became durable, a checkpoint or a
 * merge that goes on. But when no file goes for a minute, all of that is of no help.
 */
export class Patience {
  /** Since when no file went; undefined: there is room. */
  #sinceMs: number | undefined;
  #lifeMs = 0;
  #progress = Number.NaN;
  #leastBytes = 0;
  #isOut = false;

  /** There is room. */
  end(): void {
    this.#sinceMs = undefined;
  }

  /** There is none. @param usedBytes less than ever before: files went */
  wait(nowMs: number, usedBytes: number): void {
    if (this.#sinceMs !== undefined && usedBytes >= this.#leastBytes) return;
    this.#isOut = false;
    this.#sinceMs = nowMs;
    this.#lifeMs = nowMs;
    this.#leastBytes = usedBytes;
  }

  /** To be asked each second at least. @param progress any number that changes with what happens on the disk. @param busy something is being synced */
  hasRunOut(nowMs: number, progress: number, busy: boolean): boolean {
    if (this.#sinceMs === undefined) return false;
    if (busy || progress !== this.#progress) this.#lifeMs = nowMs;
    this.#progress = progress;
    // For good: what publishers bring from then on is written too, which is no sign of room.
    this.#isOut ||= nowMs - this.#lifeMs >= idleMsMax || nowMs - this.#sinceMs >= msMax;
    return this.#isOut;
  }
}
