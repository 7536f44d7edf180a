/** What the group writer is told, and what it tells its callers. */
import type { Clock } from "../base/clock.ts";
import type { TidegateError } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import type { RecordSink } from "./records.ts";
import type { PreparedSegments } from "./segmentOutput.ts";
import type { Segment, SegmentTable } from "./segments.ts";

export interface WriterOptions {
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly log: Log;
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly segmentBytes: number;
  readonly commitWindowMs: number;
  readonly lightMs: number;
  readonly largeRecordBytes: number;
  readonly tailBytes: number;
  readonly tailChunkBytes: number;
  readonly spares: PreparedSegments;
  readonly segments: SegmentTable;
  /** Where the new segment starts: beyond everything that was ever written. */
  readonly from: { position: number; prevEnd: number; group: number; segment: number };
  readonly storeMs: () => number;
  readonly onDurable: (group: number, records: number, syncMs: number) => void;
  readonly onFailed: (error: TidegateError) => void;
  /** Called with every new segment, to write what it must begin with. */
  readonly preamble: (sink: RecordSink) => void;
  /** Called before a group ends, to write what it shall hold besides. */
  readonly ending: (sink: RecordSink) => void;
  /** Called when the open group is empty and everything before it is closed: where a checkpoint may be taken. */
  readonly onBoundary: () => void;
  /** What a full segment ends with, before its last GROUP_END. */
  readonly index: { readonly bytes: number; seal(sink: RecordSink, position: number, segment: Segment): void };
  /** The bytes from `position` on moved from one segment to another. */
  readonly onMoved: (from: Segment[], to: Segment, position: number) => void;
}

/** Where a commit began. One object serves them all. */
export interface Savepoint {
  end: number;
  records: number;
  touched: boolean;
  /** The commit left something that is written when its group ends. */
  later: boolean;
}
