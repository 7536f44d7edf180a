/** What `openStore` can be told. */
import type { Clock } from "../base/clock.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import type { Meter } from "../base/meter.ts";
import { Seconds } from "../base/seconds.ts";
import { type FolderLock, lockFolder } from "./folderLock.ts";
import { believeShortGaps } from "./storeClock.ts";

/** Sizes and times that only tests change: a small disk in memory reaches in milliseconds what a day of readings would. */
export interface Tuning {
  /** A checkpoint is due after so much journal at least (and 4 x the last checkpoint, 64 MiB at most). Bytes. */
  readonly checkpointBytes: number;
  /** ...or so long after the last one, when two segments wait for nothing else. Ms. */
  readonly checkpointEveryMs: number;
  /** One slice of a checkpoint's encoding takes at most this long. Ms. */
  readonly sliceMs: number;
  /** ...and the clock is asked once for so many items. */
  readonly sliceItems: number;
  /** A checkpoint is written in pieces of about so much. Bytes. */
  readonly checkpointPieceBytes: number;
  /** Live bytes of a run of segments that are merged into one, at most. */
  readonly mergeBytes: number;
  /** Bytes a second that merging may read and write. */
  readonly mergeRate: number;
  /** Positions that a merge looks at, to count what is pinned, before the event loop turns. */
  readonly pinsPerTurn: number;
  /** A merge reads, and writes, about so much at once. Bytes. */
  readonly mergePieceBytes: number;
  /** A queue of references gives its holes back once it has so many entries. */
  readonly compactedMin: number;
  /** Prepared or recycled segments that are kept, at most. */
  readonly spares: number;
  /** They are zeroed in pieces of so much. Bytes. */
  readonly sparePieceBytes: number;
  /** The load is light when the last segment took at least this long to fill. Ms. */
  readonly lightMs: number;
  /** A larger record gets a segment of its own. Bytes. */
  readonly largeRecordBytes: number;
  /** What was just written stays in RAM for readers up to here, in chunks of so many bytes. */
  readonly tailBytes: number;
  readonly tailChunkBytes: number;
  /**
   * Read ahead for a lane, at most. Little, so that a message is dropped by its drain before the young generation has been collected twice: with
   * 256 KiB nearly all of them reached the old generation, which cost a third of the drain's time and 20 MB.
   */
  readonly aheadBytes: number;
  /** A walk through a segment for a lane reads so much at once, or one record. */
  readonly walkBytes: number;
}

export const tuningDefaults: Tuning = {
  checkpointBytes: 8 * 1024 * 1024,
  checkpointEveryMs: 10_000,
  sliceMs: 2,
  sliceItems: 64,
  checkpointPieceBytes: 256 * 1024,
  mergeBytes: 6 * 1024 * 1024,
  mergeRate: 4 * 1024 * 1024,
  pinsPerTurn: 10_000,
  mergePieceBytes: 64 * 1024,
  compactedMin: 64,
  spares: 2,
  sparePieceBytes: 256 * 1024,
  lightMs: 10_000,
  largeRecordBytes: 1024 * 1024,
  tailBytes: 4 * 1024 * 1024,
  tailChunkBytes: 256 * 1024,
  aheadBytes: 64 * 1024,
  walkBytes: 64 * 1024,
};

export interface StoreOptions {
  /** Absolute path; made when it is not there. */
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
  /** Of the same clock, shared with others. Default: its own. */
  readonly seconds?: Seconds;
  readonly log: Log;
  readonly meter: Meter;
  /** All files together; `admit` says "full" a reserve before it. */
  readonly maxBytes: number;
  /** Of the disk, left to others. */
  readonly minFreeBytes: number;
  /** Largest payload. */
  readonly maxMessageBytes: number;
  /** Waits so long to put more into one sync: less flash wear, more latency. Default 0. */
  readonly commitWindowMs?: number;
  /** A segment is followed by another once it holds this much. Default 8 MiB, in a small store a 32nd of it: room comes back by whole segments. */
  readonly segmentBytes?: number;
  /** Whether the wall clock's advance since the last run may age what is stored. Default: when it is under a day. */
  readonly trustWallClock?: (differenceMs: number) => boolean;
  /** Default: an abstract unix socket (Linux). */
  readonly lock?: FolderLock;
  readonly tuning?: Partial<Tuning>;
}

const segmentBytesMax = 8 * 1024 * 1024;
const segmentBytesMin = 64 * 1024;

const storeDefaults = {
  commitWindowMs: 0,
  trustWallClock: believeShortGaps,
  lock: lockFolder,
} as const;

export type ResolvedOptions = Required<Omit<StoreOptions, "tuning">> & { readonly tuning: Tuning };

export const resolveOptions = (given: StoreOptions): ResolvedOptions => ({
  ...storeDefaults,
  seconds: new Seconds(given.clock),
  segmentBytes: Math.max(segmentBytesMin, Math.min(segmentBytesMax, Math.floor(given.maxBytes / 32))),
  ...given,
  tuning: { ...tuningDefaults, ...given.tuning },
});
