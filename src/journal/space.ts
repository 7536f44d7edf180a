/** Room for what is to be stored: `storage.maxBytes`, and what the disk must keep free for others. */
import type { Files } from "../base/files.ts";

export interface SpaceLimits {
  readonly maxBytes: number;
  readonly minFreeBytes: number;
}

const checkEveryMs = 1000;
/** Never less than this is kept back for acknowledgements and checkpoints, or a full store could not even be emptied... */
const reserveMinBytes = 64 * 1024;
/** ...and never more than this. */
const reserveMaxBytes = 16 * 1024 * 1024;

/** Of the disk, whatever minFreeBytes says. */
const reserveFreeBytes = 1024 * 1024;

export class Space {
  readonly #files: Files;
  readonly #dir: string;
  readonly #limits: SpaceLimits;
  #freeBytes = Number.POSITIVE_INFINITY;
  /** Bytes stored when the free space was asked for. */
  #atBytes = 0;
  #checkedMs = Number.NEGATIVE_INFINITY;
  #checking = false;

  constructor(files: Files, dir: string, limits: SpaceLimits) {
    this.#files = files;
    this.#dir = dir;
    this.#limits = limits;
  }

  /** Asks the disk, at most once a second; the answer counts from the next call on. Never rejects. */
  async check(nowMs: number, usedBytes: number): Promise<void> {
    if (this.#checking || nowMs - this.#checkedMs < checkEveryMs) return;
    this.#checking = true;
    this.#checkedMs = nowMs;
    try {
      this.#freeBytes = await this.#files.freeBytes(this.#dir);
      this.#atBytes = usedBytes;
    } catch {
      this.#freeBytes = Number.POSITIVE_INFINITY; // not every file system tells; a write will
    } finally {
      this.#checking = false;
    }
  }

  /** Whether `bytes` more would leave no room. @param checkpointBytes of the last checkpoint: the next two must fit */
  wouldFill(usedBytes: number, bytes: number, checkpointBytes: number): boolean {
    const { maxBytes, minFreeBytes } = this.#limits;
    const wanted = Math.min(reserveMaxBytes, Math.max(reserveMinBytes, maxBytes / 16));
    const reserve = Math.min(maxBytes / 4, wanted + 2 * checkpointBytes);
    if (usedBytes + bytes > maxBytes - reserve) return true;
    const grown = Math.max(0, usedBytes - this.#atBytes);
    // With minFreeBytes at 0 too: what the cloud has taken can only be given back by writing that it has.
    const lastBytes = Math.min(reserve, reserveFreeBytes + 2 * checkpointBytes);
    return this.#freeBytes - grown - bytes < Math.max(minFreeBytes, lastBytes);
  }

  /** Bytes that may be taken for a while: of what is kept back only acknowledgements and the next two checkpoints go before it. */
  room(usedBytes: number, checkpointBytes: number): number {
    const { maxBytes } = this.#limits;
    const grown = Math.max(0, usedBytes - this.#atBytes);
    const kept = 2 * checkpointBytes;
    return Math.min(
      maxBytes - usedBytes - kept - Math.min(reserveMinBytes, maxBytes / 16),
      this.#freeBytes - grown - kept - reserveFreeBytes,
    );
  }
}
