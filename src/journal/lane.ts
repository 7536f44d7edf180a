/**
 * One lane: an uplink's messages of one priority, in order of position. What was handed out and not settled is `pending`; everything else up
 * to the cursor is done. So mark and done intervals need no memory of their own while the lane runs:
 *
 *   positions   ....x....x....P....x....P....x....x | ....a....a....o....o
 *                             ^ mark = first pending - 1   ^ cursor   ^ read ahead, then on disk
 *
 * After a rewind or a restart the cursor stands at the mark and `skips` holds the intervals above it that are done.
 */
import type { QueuedMessage } from "../base/contracts.ts";
import type { Message } from "../base/message.ts";
import type { MessageReader } from "./messageRecord.ts";
import type { PayloadSlab } from "./payloadSlab.ts";
import type { LaneIndex } from "./segmentIndex.ts";
import type { Segment } from "./segments.ts";

export interface Interval {
  readonly from: number;
  readonly to: number;
}

/** A message that was read for a lane. */
export class Entry implements QueuedMessage {
  readonly position: number;
  readonly lane: number;
  readonly priority: number;
  readonly seq: number;
  readonly rule: number;
  readonly acceptedAtMs: number;
  readonly wallMs: number;
  readonly message: Message;
  readonly expiresAtMs: number;
  /** Of its record. */
  readonly bytes: number;
  /** Its number among all that passed the cursor since the last rewind: a gap between two pending ones shows that something is done between. */
  ordinal = 0;

  /** @param read stands at the lane's taker */
  constructor(lane: Lane, read: MessageReader, bytes: number, slab: PayloadSlab) {
    this.position = read.position;
    this.lane = lane.id;
    this.priority = lane.priority;
    this.seq = read.taker.seq;
    this.rule = read.taker.rule;
    this.acceptedAtMs = read.acceptedAtMs;
    this.wallMs = read.wallMs;
    this.expiresAtMs = read.taker.expiresAtMs;
    this.bytes = bytes;
    this.message = read.message(slab);
  }
}

/** Where a lane reads in a segment on disk. */
export interface ReadingPlace {
  readonly segment: Segment;
  /** Of the file: everything of the lane before it was read. */
  offset: number;
  /** Undefined: what lies in between is read too. */
  index: LaneIndex | undefined;
}

/** Intervals written with a lane's state; those beyond it are forgotten by a crash, which then only repeats messages. */
export const intervalsMax = 256;

export class Lane {
  readonly id: number;
  readonly uplink: string;
  readonly priority: number;
  waiting = 0;
  bytes = 0;
  /** Everything at or below it is done or pending. */
  cursor = 0;
  /** Position from which on reading goes on: of a record, or before the first one that matters. */
  readAt = 0;
  /** The same on disk, while it is in the middle of a segment there. */
  place: ReadingPlace | undefined;
  /** Position of its newest message. */
  newest = 0;
  /** Read, not handed out; the head is at `aheadHead`. */
  ahead: Entry[] = [];
  aheadHead = 0;
  aheadBytes = 0;
  /** By rising position. */
  readonly pending = new Map<number, Entry>();
  skips: Interval[] = [];
  /** Positions above the cursor that an earlier run had in flight (QoS 2): to be handed out, whatever their age and however full the queue is. Rising. */
  kept = new Set<number>();
  /** Rises with every rewind; a read that began before is thrown away. */
  generation = 0;
  filling = false;
  /** Resolves when the present reading ahead has ended. */
  filled: Promise<void> = Promise.resolve();
  /** Its segment could not be read for want of descriptors or memory; tried again a second later. */
  blocked = false;
  #passed = 0;
  /** Its state changed since it was last written. */
  dirty = false;

  constructor(id: number, uplink: string, priority: number) {
    this.id = id;
    this.uplink = uplink;
    this.priority = priority;
  }

  peek(): Entry | undefined {
    return this.ahead[this.aheadHead];
  }

  get aheadCount(): number {
    return this.ahead.length - this.aheadHead;
  }

  pushAhead(entry: Entry): void {
    this.ahead.push(entry);
    this.aheadBytes += entry.bytes;
  }

  /** The head of the read-ahead passes the cursor. */
  take(): Entry | undefined {
    const entry = this.ahead[this.aheadHead];
    if (entry === undefined) return undefined;
    this.aheadHead += 1;
    if (this.aheadHead === this.ahead.length) {
      this.ahead = [];
      this.aheadHead = 0;
    }
    this.aheadBytes -= entry.bytes;
    // What is done in between was not read again; it must not be forgotten with `skips`.
    const { cursor } = this;
    if (this.skips.length > 0 && this.skips.some((skip) => skip.to > cursor && skip.from < entry.position))
      this.#passed += 1;
    this.passTo(entry.position);
    entry.ordinal = this.#passed;
    return entry;
  }

  /** Something of the lane at `position` is behind the cursor now. */
  passTo(position: number): void {
    this.cursor = Math.max(this.cursor, position);
    this.#passed += 1;
    if (this.skips.length > 0 && this.cursor >= this.skips.at(-1)!.to) this.skips = [];
  }

  /** All of the lane from `from` to `to`, above the cursor and with nothing pending in between, is done. */
  skip(from: number, to: number): void {
    const apart = this.skips.filter((skip) => skip.to < from - 1 || skip.from > to + 1);
    const joined = this.skips.filter((skip) => !apart.includes(skip));
    const whole = {
      from: Math.min(from, ...joined.map((skip) => skip.from)),
      to: Math.max(to, ...joined.map((skip) => skip.to)),
    };
    this.skips = [...apart, whole].sort((a, b) => a.from - b.from);
  }

  /** Whether the message at `position`, which is above the cursor, is done. */
  isSkipped(position: number): boolean {
    for (const skip of this.skips) if (position >= skip.from && position <= skip.to) return true;
    return false;
  }

  get mark(): number {
    const oldest = this.pending.keys().next();
    return oldest.done ? this.cursor : oldest.value - 1;
  }

  /** What is done above the mark, rising, apart. */
  intervals(): Interval[] {
    const intervals: Interval[] = [];
    let before: Entry | undefined;
    for (const entry of this.pending.values()) {
      if (before !== undefined && entry.ordinal > before.ordinal + 1) {
        intervals.push({ from: before.position + 1, to: entry.position - 1 });
      }
      before = entry;
    }
    if (before !== undefined && this.cursor > before.position) {
      intervals.push({ from: before.position + 1, to: this.cursor });
    }
    for (const skip of this.skips) {
      // What is dropped unread may end within one.
      if (skip.to > this.cursor) intervals.push({ from: Math.max(skip.from, this.cursor + 1), to: skip.to });
    }
    return intervals;
  }

  /** Back to the mark: what was handed out and not settled will be read again. */
  rewind(): void {
    const { mark } = this;
    const oldest = this.pending.keys().next();
    this.skips = this.intervals();
    const again = oldest.done ? this.peek()?.position : oldest.value;
    if (again !== undefined) this.readAt = again;
    this.cursor = mark;
    this.pending.clear();
    this.forgetAhead();
  }

  /** Takes over a state that was read from disk. Counters are the caller's. */
  restore(mark: number, intervals: Interval[]): void {
    this.cursor = mark;
    this.skips = intervals;
    this.readAt = 0;
    this.place = undefined;
  }

  /** Whether the message is known to be done; only for positions that are not pending. */
  isDone(position: number): boolean {
    return position <= this.cursor || this.isSkipped(position);
  }

  /** Whether something kept lies from `first` to `last`. */
  keepsWithin(first: number, last: number): boolean {
    for (const position of this.kept) {
      if (position > last) return false;
      if (position >= first) return true;
    }
    return false;
  }

  /** Whether all of the lane from `first` to `last` is known to be done. */
  isDoneWithin(first: number, last: number): boolean {
    let from = Math.max(first, this.cursor + 1);
    for (const skip of this.skips) if (skip.from <= from) from = Math.max(from, skip.to + 1);
    return from > last;
  }

  /** What was read and not handed out; a read that is under way is thrown away. `readAt` is the caller's. */
  forgetAhead(): void {
    this.ahead = [];
    this.aheadHead = 0;
    this.aheadBytes = 0;
    this.place = undefined;
    this.generation += 1;
  }
}
