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
  /** Live bytes of a run of segments that are merged into one, at most. */
  readonly mergeBytes: number;
  /** Bytes a second that merging may read and write. */
  readonly mergeRate: number;
  /** Prepared or recycled segments that are kept, at most. */
  readonly spares: number;
  /** The load is light when the last segment took at least this long to fill. Ms. */
  readonly lightMs: number;
  /** A larger record gets a segment of its own. Bytes. */
  readonly largeRecordBytes: number;
  /** What was just written stays in RAM for readers up to here, in chunks of so many bytes. */
  readonly tailBytes: number;
  readonly tailChunkBytes: number;
}

export const tuningDefaults: Tuning = {
  checkpointBytes: 8 * 1024 * 1024,
  checkpointEveryMs: 10_000,
  sliceMs: 2,
  mergeBytes: 6 * 1024 * 1024,
  mergeRate: 4 * 1024 * 1024,
  spares: 2,
  lightMs: 10_000,
  largeRecordBytes: 1024 * 1024,
  tailBytes: 4 * 1024 * 1024,
  tailChunkBytes: 256 * 1024,
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
