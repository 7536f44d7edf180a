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
import { LaneStream } from "./laneStream.ts";
import type { MessageReader } from "./messageRecord.ts";
import type { PayloadSlab } from "./payloadSlab.ts";

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

/** Intervals written with a lane's state, the widest; those beyond it are forgotten by a crash, which then only repeats messages. */
export const intervalsMax = 256;

/** Splits that a lane may carry as done intervals; with more it is plain FIFO until they have merged. */
const splitsMax = 64;

/** What a lane has from the record at `from` on, read beside its backlog. */
export class FreshStream extends LaneStream {
  readonly lane: Lane;
  override readonly from: number;

  constructor(lane: Lane, from: number, cursor: number) {
    super();
    this.lane = lane;
    this.from = from;
    this.readAt = from;
    this.cursor = cursor;
  }

  get out(): Map<number, Entry> {
    return this.lane.early;
  }

  take(): Entry | undefined {
    const entry = this.shift();
    if (entry === undefined) return undefined;
    entry.ordinal = this.lane.numberEarly(this.cursor, entry.position);
    this.cursor = entry.position;
    return entry;
  }

  /** Where all of the lane is done or in flight early; undefined as long as it handed out nothing. */
  get taken(): Interval | undefined {
    return this.cursor < this.from ? undefined : { from: this.from, to: this.cursor };
  }
}

/** What an uplink's lanes have together. */
export interface LaneAccount {
  readonly name: string;
  nextSeq: number;
  messages: number;
  bytes: number;
  /** Since the start of the process, recovery included; both only rise. */
  taken: number;
  takenBytes: number;
}

export class Lane extends LaneStream {
  readonly id: number;
  readonly uplink: string;
  /** Its uplink's: asked for with each message. */
  readonly account: LaneAccount;
  readonly priority: number;
  waiting = 0;
  bytes = 0;
  /** Position of its newest message. */
  newest = 0;
  /** By rising position, all at or below the cursor. */
  readonly pending = new Map<number, Entry>();
  /** Handed out above the cursor and not settled, by rising position: each lies in a skip, or in what `fresh` has taken. */
  readonly early = new Map<number, Entry>();
  /** Rising, apart: everything in them is done, or in `early`. */
  skips: Interval[] = [];
  /** Positions above the cursor that an earlier run had in flight (QoS 2): to be handed out, whatever their age and however full the queue is. Rising. */
  kept = new Set<number>();
  /** While fresh readings do not wait for the backlog, which ends at `to`. */
  fresh: FreshStream | undefined;
  #passed = 0;
  #passedEarly = 0;
  /** Its state changed since it was last written. */
  dirty = false;

  constructor(id: number, account: LaneAccount, priority: number) {
    super();
    this.id = id;
    this.uplink = account.name;
    this.account = account;
    this.priority = priority;
  }

  get lane(): Lane {
    return this;
  }

  get out(): Map<number, Entry> {
    return this.pending;
  }

  /** Handed out and not settled. */
  get inFlight(): number {
    return this.pending.size + this.early.size;
  }

  /** What is in flight at a position. */
  inFlightAt(position: number): Entry | undefined {
    return this.pending.get(position) ?? this.early.get(position);
  }

  /** It is in flight no more. */
  land(position: number): void {
    if (!this.pending.delete(position)) this.early.delete(position);
  }

  hasEarlyBetween(first: number, last: number): boolean {
    for (const position of this.early.keys()) if (position >= first && position <= last) return true;
    return false;
  }

  /** All that is in flight, by rising position. */
  *flying(): Generator<Entry> {
    yield* this.pending.values();
    yield* this.early.values();
  }

  take(): Entry | undefined {
    const entry = this.shift();
    if (entry === undefined) return undefined;
    // What is done in between was not read again; it must not be forgotten with `skips`.
    if (this.#skipsBetween(this.cursor, entry.position)) this.#passed += 1;
    this.passTo(entry.position);
    entry.ordinal = this.#passed;
    return entry;
  }

  #skipsBetween(after: number, before: number): boolean {
    return this.skips.length > 0 && this.skips.some((skip) => skip.to > after && skip.from < before);
  }

  /** The ordinal of what the fresh stream hands out next. */
  numberEarly(after: number, position: number): number {
    this.#passedEarly += this.#skipsBetween(after, position) ? 2 : 1;
    return this.#passedEarly;
  }

  /** Something of the lane at `position` is behind the cursor now. */
  passTo(position: number): void {
    if (this.early.size > 0) this.#joinEarly(position);
    this.cursor = Math.max(this.cursor, position);
    this.#passed += 1;
    if (this.skips.length > 0 && this.cursor >= this.skips.at(-1)!.to) this.skips = [];
  }

  /** What was handed out early and lies behind the cursor from now on. */
  #joinEarly(position: number): void {
    let before = Number.NEGATIVE_INFINITY;
    for (const entry of this.early.values()) {
      if (entry.position > position) break;
      this.early.delete(entry.position);
      this.#passed += entry.ordinal === before + 1 ? 1 : 2;
      before = entry.ordinal;
      entry.ordinal = this.#passed;
      this.pending.set(entry.position, entry);
    }
    if (before > 0) this.#passed += 1; // what is done may lie behind the last of them, too
  }

  /** All of the lane from `from` to `to`, above the cursor and with nothing pending in between, is done or in flight early. */
  skip(from: number, to: number): void {
    this.skips = withInterval(this.skips, { from, to });
  }

  /** Whether the message at `position`, which is above the cursor, is done or in flight early. */
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
    this.#doneAbove(intervals);
    return intervals;
  }

  /** The same, `max` of them: where there are more, the widest, for what one of those forgets is the most to repeat. */
  widestIntervals(max: number): Interval[] {
    const intervals = this.intervals();
    if (intervals.length <= max) return intervals;
    const widest = intervals.sort((a, b) => b.to - b.from - (a.to - a.from)).slice(0, max);
    return widest.sort((a, b) => a.from - b.from);
  }

  /** What is done above the cursor: of what was skipped or taken early, all but what is in flight. */
  #doneAbove(intervals: Interval[]): void {
    const taken = this.fresh?.taken;
    const all = taken === undefined ? this.skips : withInterval(this.skips, taken);
    const early = this.early.values();
    let one = early.next();
    for (const { from, to } of all) {
      if (to <= this.cursor) continue;
      let start = Math.max(from, this.cursor + 1); // what is dropped unread may end within one
      let before = Number.NEGATIVE_INFINITY;
      for (; !one.done && one.value.position <= to; one = early.next()) {
        const { position, ordinal } = one.value;
        if (ordinal !== before + 1 && position > start) intervals.push({ from: start, to: position - 1 });
        start = position + 1;
        before = ordinal;
      }
      if (start <= to) intervals.push({ from: start, to });
    }
  }

  /** Back to the mark: what was handed out and not settled will be read again. */
  rewind(): void {
    this.fold();
    const { mark } = this;
    this.skips = this.intervals();
    for (const entry of [firstOf(this.pending), firstOf(this.early), this.peek()])
      if (entry !== undefined) this.readAt = Math.min(this.readAt, entry.position);
    this.cursor = mark;
    this.pending.clear();
    this.early.clear();
    this.forgetAhead();
  }

  /**
   * From the record at `head` on a stream of its own: what the lane has waiting before it is the backlog. Nothing happens when there is none, or
   * when too much is done here and there already. @param cursor what lies up to here is taken already
   */
  split(head: number, cursor = head - 1): void {
    if (this.fresh !== undefined) this.fold();
    if (this.waiting <= this.inFlight) return;
    this.skips = this.skips.filter(({ to }) => to > this.cursor);
    if (this.skips.length >= splitsMax) return;
    this.#passedEarly += 1; // nothing is known of what lies between this stream and the one before
    this.fresh = new FreshStream(this, head, cursor);
    this.to = head;
  }

  /** Back to one stream, in the middle of the backlog: what was taken of the other is passed over when its turn comes. */
  fold(): void {
    const { fresh } = this;
    if (fresh === undefined) return;
    if (fresh.taken !== undefined) this.skip(fresh.from, fresh.cursor);
    // A walk on disk goes a little too far, and what it came by there it left to the other stream.
    if (this.readAt > fresh.from) {
      this.readAt = fresh.from;
      this.place = undefined;
      this.generation += 1; // a read that is under way would move it on again
    }
    fresh.forgetAhead();
    this.#unsplit();
  }

  /** The backlog was read and handed out to its end: the fresh stream goes on as the lane itself. */
  merge(): void {
    const { fresh } = this;
    if (fresh === undefined) return;
    this.passTo(fresh.cursor);
    this.continueFrom(fresh);
    this.#unsplit();
  }

  #unsplit(): void {
    this.fresh = undefined;
    this.to = Number.POSITIVE_INFINITY;
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
}

const firstOf = (entries: ReadonlyMap<number, Entry>): Entry | undefined => entries.values().next().value;

/** Intervals that lie apart and rise, and one more. */
function withInterval(intervals: readonly Interval[], { from, to }: Interval): Interval[] {
  const apart = intervals.filter((one) => one.to < from - 1 || one.from > to + 1);
  const joined = intervals.filter((one) => !apart.includes(one));
  const whole = {
    from: Math.min(from, ...joined.map((one) => one.from)),
    to: Math.max(to, ...joined.map((one) => one.to)),
  };
  return [...apart, whole].sort((a, b) => a.from - b.from);
}
