/** What `openStore` can be told. */
import type { Clock } from "../base/clock.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import type { Meter } from "../base/meter.ts";
import { type FolderLock, lockFolder } from "./folderLock.ts";
import { believeShortGaps } from "./storeClock.ts";

export interface StoreOptions {
  /** Absolute path; made when it is not there. */
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
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
  /** A segment is followed by another once it holds this much. Default 8 MiB. */
  readonly segmentBytes?: number;
  /** Whether the wall clock's advance since the last run may age what is stored. Default: when it is under a day. */
  readonly trustWallClock?: (differenceMs: number) => boolean;
  /** Default: an abstract unix socket (Linux). */
  readonly lock?: FolderLock;
}

export const storeDefaults = {
  commitWindowMs: 0,
  segmentBytes: 8 * 1024 * 1024,
  trustWallClock: believeShortGaps,
  lock: lockFolder,
} as const;

export type ResolvedOptions = Required<StoreOptions>;
