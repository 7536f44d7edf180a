/** Room for what is to be stored: `storage.maxBytes`, and what the disk must keep free for others. */
import type { Files } from "../base/files.ts";

export interface SpaceLimits {
  readonly maxBytes: number;
  readonly minFreeBytes: number;
}

/** Names the setting, or the disk itself. */
export type Limit = "maxBytes" | "minFreeBytes" | "disk";

/** In bytes of all our files. */
export interface Room {
  /** What they may hold in all. */
  readonly capacity: number;
  /** Beyond it nothing more is admitted: acknowledgements and checkpoints must still fit. */
  readonly limit: number;
  /** What makes it so. */
  readonly by: Limit;
}

const checkEveryMs = 1000;
/** While we take no more of the disk and it has plenty to give: asking is a call on another thread, and wakes two. */
const calmCheckEveryMs = 10_000;
/** What others could write until then, and more. */
const plentyBytes = 1024 * 1024 * 1024;
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
  /** The disk's free bytes and ours together: what we could hold if nobody else wrote. */
  #diskBytes = Number.POSITIVE_INFINITY;
  /** What we held when others took the disk below minFreeBytes: we grow no further, but what we free of it is ours to use again. */
  #heldBytes: number | undefined;
  #checkedMs = Number.NEGATIVE_INFINITY;
  /** What we held then. */
  #checkedBytes = 0;
  #checking = false;
  /** The last answer: asked for with each message, and it changes once a second at most. */
  #room: Room | undefined;
  #roomFor = -1;

  constructor(files: Files, dir: string, limits: SpaceLimits) {
    this.#files = files;
    this.#dir = dir;
    this.#limits = limits;
  }

  /** To be called each second. Asks the disk when its answer may matter; it counts from the next call on. Never rejects. */
  async check(nowMs: number, usedBytes: number): Promise<void> {
    const everyMs = this.#isCalm(usedBytes) ? calmCheckEveryMs : checkEveryMs;
    if (this.#checking || nowMs - this.#checkedMs < everyMs) return;
    this.#checking = true;
    this.#checkedMs = nowMs;
    this.#checkedBytes = usedBytes;
    try {
      this.#diskBytes = (await this.#files.freeBytes(this.#dir)) + usedBytes;
    } catch {
      this.#diskBytes = Number.POSITIVE_INFINITY; // not every file system tells; a write will
    } finally {
      this.#checking = false;
    }
    const isTight = this.#diskBytes - this.#limits.minFreeBytes < usedBytes;
    this.#heldBytes = isTight ? (this.#heldBytes ?? usedBytes) : undefined;
    this.#room = undefined;
  }

  #isCalm(usedBytes: number): boolean {
    return usedBytes === this.#checkedBytes && this.#diskBytes - usedBytes - this.#limits.minFreeBytes >= plentyBytes;
  }

  /** @param checkpointBytes of the last checkpoint: the next two must fit */
  room(checkpointBytes: number): Room {
    if (this.#room === undefined || this.#roomFor !== checkpointBytes) {
      this.#room = this.#work(checkpointBytes);
      this.#roomFor = checkpointBytes;
    }
    return this.#room;
  }

  #work(checkpointBytes: number): Room {
    const { maxBytes, minFreeBytes } = this.#limits;
    const wanted = Math.min(reserveMaxBytes, Math.max(reserveMinBytes, maxBytes / 16));
    const reserve = Math.min(maxBytes / 4, wanted + 2 * checkpointBytes);
    // With minFreeBytes at 0 too: what the cloud has taken can only be given back by writing that it has.
    const lastBytes = Math.min(reserve, reserveFreeBytes + 2 * checkpointBytes);
    const ours = Math.max(0, this.#diskBytes - lastBytes);
    const disk = Math.min(ours, this.#heldBytes ?? this.#diskBytes - minFreeBytes);
    const limit = Math.min(maxBytes - reserve, disk);
    return {
      capacity: Math.min(maxBytes, disk),
      limit,
      by: limit < disk ? "maxBytes" : disk < ours ? "minFreeBytes" : "disk",
    };
  }

  /** Bytes that may be taken for a while: of what is kept back only acknowledgements and the next two checkpoints go before it. */
  spare(usedBytes: number, checkpointBytes: number): number {
    const { maxBytes } = this.#limits;
    const kept = usedBytes + 2 * checkpointBytes;
    const ours = maxBytes - kept - Math.min(reserveMinBytes, maxBytes / 16);
    return Math.min(ours, this.#diskBytes - kept - reserveFreeBytes);
  }
}
