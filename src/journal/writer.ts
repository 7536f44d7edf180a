/**
 * Group commit. Records are encoded at once into the open group; one group at a time is written and synced. While that goes on the open one
 * fills: natural batching, at most two syncs of latency.
 *
 * A write or sync that failed is never tried again on its descriptor (the kernel may have dropped the pages and call the next sync a success):
 * everything since the last sync is written from RAM to a new segment, whose header cuts the old one off. When that fails too, the journal has
 * failed; a full disk is the exception: prepared segments go first, then it is tried again until there is space.
 */
import { join } from "node:path";
import type { Timer } from "../base/clock.ts";
import { messageOf, type TidegateError } from "../base/errors.ts";
import { isNoSpace, storeFailure } from "./diskErrors.ts";
import { encodeHeader, recordType, seedOf, segmentMagic, segmentName } from "./format.ts";
import { type Group, newGroup, sealGroup } from "./groupBytes.ts";
import { type RecordSink, writeGroupEnd } from "./records.ts";
import { SegmentOutput } from "./segmentOutput.ts";
import { Segment } from "./segments.ts";
import { Tail } from "./tail.ts";
import type { Savepoint, WriterOptions } from "./writerOptions.ts";

const fullRetryMs = 1000;

export class GroupWriter implements RecordSink {
  readonly #options: WriterOptions;
  readonly tail: Tail;
  #open: Group;
  /** Closed and not durable. */
  #closed: Group[] = [];
  /** Those of them that were closed out of turn and are not written yet. */
  #waiting: Group[] = [];
  #nextSegment: number;
  readonly output: SegmentOutput;
  readonly #savepoint: Savepoint = { end: -1, records: 0, touched: false, later: false };
  #busy = false;
  #scheduled = false;
  #closing = false;
  #ended = false;
  #wake: (() => void) | undefined;
  #timer: Timer | undefined;
  durableGroup: number;
  /** Everything below it is on the disk. */
  durablePosition: number;
  /** The disk said it has no space; cleared by the first write that succeeds. */
  full = false;
  failed: TidegateError | undefined;
  /** The last synced group is not yet followed by another, which would prove it. */
  unproven = false;
  /** Monotonic ms since when something is written and not synced; undefined when nothing is. */
  unsyncedSinceMs: number | undefined;
  #idle: Array<() => void> = [];
  #onFull: (() => void) | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
    const { from } = options;
    this.tail = new Tail(from.position, options.tailBytes, options.tailChunkBytes);
    this.output = new SegmentOutput(options);
    this.durableGroup = from.group - 1;
    this.durablePosition = from.position;
    this.#nextSegment = from.segment;
    const segment = this.#newSegment(from.position, from.prevEnd, from.group);
    options.segments.add(segment);
    this.#open = newGroup(from.group, segment, this.tail.end);
    this.#preamble();
  }

  /** Number of the group that the next record goes into. */
  get openGroup(): number {
    return this.#open.number;
  }

  get openSegment(): Segment {
    return this.#open.segment;
  }

  /** Where the open group starts. */
  get openStart(): number {
    return this.#open.start;
  }

  get nextSegment(): number {
    return this.#nextSegment;
  }

  /** Whether nothing waits in the open group. */
  get isEmpty(): boolean {
    return !this.#open.touched;
  }

  /** Something is being written or synced. */
  get isWriting(): boolean {
    return this.#busy;
  }

  /** Bytes that are not on the disk yet. */
  get pendingBytes(): number {
    return this.failed === undefined ? this.tail.end - this.durablePosition : 0;
  }

  begin(type: number, flags: number, bound: number) {
    if (type === recordType.message && bound > this.#options.largeRecordBytes && this.wroteNothing(this.#savepoint))
      this.#setApart(); // only the first of a commit: one that comes later shares its group, which lies in one segment
    return this.tail.begin(type, flags, bound);
  }

  finish(): number {
    const length = this.tail.finish();
    this.#open.records += 1;
    this.#open.touched = true;
    this.#open.segment.end = this.tail.end;
    return length;
  }

  /** What `cut` needs to undo everything appended from now on: valid until the next one. */
  savepoint(): Savepoint {
    const to = this.#savepoint;
    to.end = this.tail.end;
    to.records = this.#open.records;
    to.touched = this.#open.touched;
    to.later = false;
    return to;
  }

  /** The commit changed something that is written when its group ends. */
  noteLater(): void {
    this.#savepoint.later = true;
    this.#open.touched = true;
  }

  wroteNothing({ end, later }: Savepoint): boolean {
    return end === this.tail.end && !later;
  }

  cut(to: Savepoint): void {
    const open = this.#open;
    if (open.apart) open.segment.large = false;
    open.apart = false;
    const begun = to.end < open.start; // its segment was begun within the commit
    this.tail.cut(Math.max(to.end, open.start));
    open.segment.end = this.tail.end; // what a segment begins with may be nothing
    open.records = begun ? 0 : to.records;
    open.touched = to.touched;
    if (begun) this.#preamble();
  }

  /** The open group shall be written soon, with a sync if `sync`. */
  schedule(sync: boolean): void {
    if (this.failed !== undefined || this.#ended) {
      this.#options.ending(this);
      this.tail.evict(this.tail.end); // it will never be written; keep what fits into RAM readable
      return;
    }
    this.#open.touched = true;
    if (sync) this.#open.needsSync = true;
    if (this.#open.apart) this.#waiting.push(this.#close()); // what follows a large record goes to another segment
    this.#arm();
  }

  #arm(): void {
    if (this.#busy || this.#scheduled) return;
    this.#scheduled = true;
    const { commitWindowMs, clock } = this.#options;
    const run = (): void => {
      this.#scheduled = false;
      this.#timer = undefined;
      if (!this.#busy) void this.#run();
    };
    if (commitWindowMs > 0 && !this.#closing) this.#timer = clock.setTimer(commitWindowMs, run);
    else setImmediate(run);
  }

  /** Resolves when the disk says it has no space. */
  whenFull(): Promise<void> {
    return new Promise((resolve) => {
      this.#onFull = resolve;
    });
  }

  /** Writes and syncs what is there; resolves once that is durable, or failed. */
  async flush(): Promise<void> {
    if (!this.isEmpty) this.schedule(true);
    while (this.failed === undefined && !this.#ended) {
      const idle = !this.#busy && !this.#scheduled && !this.#hasMore;
      if (idle && this.unsyncedSinceMs === undefined) return;
      if (idle) this.schedule(true); // only now: a group without a sync of its own may have been under way
      await new Promise<void>((resolve) => this.#idle.push(resolve));
    }
  }

  /** Ends every wait: what cannot be written at once never will be. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#timer !== undefined) {
      this.#timer.cancel();
      this.#timer = undefined;
      this.#scheduled = false;
    }
    this.#wake?.();
    await this.flush();
    this.#ended = true;
    await this.output.leave();
  }

  get #hasMore(): boolean {
    return this.#open.touched || this.#waiting.length > 0;
  }

  async #run(): Promise<void> {
    this.#busy = true;
    while (this.#hasMore && this.failed === undefined) {
      const group = this.#waiting.shift() ?? this.#closeAtBoundary();
      const startedMs = this.#options.clock.monotonicMs();
      if (!(await this.#store(group))) break;
      if (group.needsSync) {
        this.durableGroup = group.number;
        this.durablePosition = group.end;
        this.#closed = this.#closed.filter((closed) => closed.number > group.number);
        this.unsyncedSinceMs = undefined;
        this.tail.evict(group.end);
        this.#options.onDurable(group.number, group.records, this.#options.clock.monotonicMs() - startedMs);
      } else this.unsyncedSinceMs ??= startedMs;
      this.unproven = group.needsSync && group.records > 1;
      // Without a sync of its own, or with a commit window, the next group waits for its own turn.
      if (this.#hasMore && this.#options.commitWindowMs > 0 && !this.#closing) break;
    }
    this.#busy = false;
    if (this.#hasMore && this.failed === undefined) this.#arm();
    const idle = this.#idle;
    this.#idle = [];
    for (const resolve of idle) resolve();
  }

  #closeAtBoundary(): Group {
    const group = this.#close();
    this.#options.onBoundary();
    return group;
  }

  /** Ends the open group, and opens the next one: in a new segment if this one is full, or a prepared one is the better place. */
  #close(apart = false): Group {
    const group = this.#open;
    const { storeMs, clock, segmentBytes, index } = this.#options;
    const { number, segment } = group;
    this.#options.ending(this);
    // What the index will add must still fit; decided before the group ends, since the index goes before its end.
    const full = segment.offsetOf(this.tail.end) + index.bytes >= segmentBytes;
    const leave = apart || group.apart || full || (this.output.isOn(segment) && this.output.shouldGoOver);
    if (leave) index.seal(this, this.tail.end, segment);
    const what = { durable: this.durableGroup, bytes: this.tail.end - group.start, records: group.records };
    writeGroupEnd(this, { ...what, group: number, clockMs: storeMs(), wallMs: Math.floor(clock.wallMs()) });
    group.end = this.tail.end;
    sealGroup(this.tail, group);
    this.#closed.push(group);
    if (leave) this.#beginSegment(group.number + 1);
    else this.#open = newGroup(number + 1, segment, this.tail.end);
    return group;
  }

  #beginSegment(group: number): void {
    const { end } = this.tail;
    const segment = this.#newSegment(end, end, group);
    this.#options.segments.add(segment);
    this.#open = newGroup(group, segment, end);
    this.#preamble();
  }

  /** A large record begins: the open group will hold it and what else its commit says, in a segment of its own. */
  #setApart(): void {
    const { touched, segment, start } = this.#open;
    // Also what a segment began with, if a roll moved that: where `head` was, a record begins for ever.
    if (touched || segment.base !== start) this.#waiting.push(this.#close(true));
    if (!touched && !this.#ended) this.#arm();
    this.#open.apart = this.#open.segment.large = true;
  }

  #newSegment(base: number, prevEnd: number, firstGroup: number): Segment {
    const number = this.#nextSegment++;
    const seed = seedOf(segmentMagic, this.#options.storeId, number);
    return new Segment({ number, base, prevEnd, firstGroup, seed });
  }

  #preamble(): void {
    this.#options.preamble(this);
    this.#open.touched = false;
  }

  /** Gets a closed group onto the disk, by another segment if need be. False: the journal has failed. */
  async #store(group: Group): Promise<boolean> {
    const { log, spares } = this.#options;
    let failures = 0;
    for (;;) {
      try {
        await this.#write(group);
        this.full = false;
        return true;
      } catch (error) {
        await this.output.leave();
        const noSpace = isNoSpace(error);
        const gaveWay = noSpace && (await spares.surrender());
        if (!noSpace) failures += 1;
        if (failures >= 2 || (this.#closing && noSpace && !gaveWay)) {
          this.#fail(error);
          return false;
        }
        log.error({ segment: group.segment.number, error: messageOf(error) }, "journal: write failed, new segment");
        await this.#roll();
        if (!noSpace || gaveWay) continue;
        this.full = true;
        this.#onFull?.();
        await this.#pause();
      }
    }
  }

  #pause(): Promise<void> {
    if (this.#closing) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = this.#options.clock.setTimer(fullRetryMs, resolve);
      this.#wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }

  /** Everything that is not durable moves to a new segment that begins where the durable bytes end. */
  async #roll(): Promise<void> {
    const { segments, onMoved, dir, files } = this.#options;
    const position = this.durablePosition;
    const firstGroup = this.#closed[0]!.number;
    const first = this.#closed[0]!.segment;
    const old = segments.list.slice(segments.list.indexOf(first));
    const segment = this.#newSegment(position, position, firstGroup);
    segment.end = this.tail.end;
    segment.large = this.#closed.some(({ apart }) => apart);
    for (const from of old) {
      from.end = Math.max(position, from.base);
      from.cut = true;
      if (from.fileBytes === 0) segments.remove(from); // never made
    }
    segments.add(segment);
    for (const group of [...this.#closed, this.#open]) group.segment = segment;
    for (const group of this.#closed) sealGroup(this.tail, group);
    onMoved(old, segment, position);
    for (const from of old) {
      // Nothing in it is durable. If it cannot be removed now it stays in the table, empty, until it can.
      if (from.fileBytes === 0 || from.base < position) continue;
      await files.unlink(join(dir, segmentName(from.number))).then(
        () => segments.remove(from),
        () => undefined,
      );
    }
  }

  async #write(group: Group): Promise<void> {
    const { segment } = group;
    const fresh = !this.output.isOn(segment);
    const buffers = this.tail.slices(fresh ? segment.base : group.start, group.end);
    let offset = segment.offsetOf(group.start);
    if (fresh) {
      await this.#begin(segment, group.number);
      buffers.unshift(this.#header(segment));
      offset = 0;
    }
    await this.output.write(buffers, offset);
    segment.fileBytes = Math.max(segment.fileBytes, segment.offsetOf(group.end));
    if (group.needsSync || fresh) {
      await this.output.sync(fresh);
      group.needsSync = true;
    }
  }

  #header(segment: Segment): Buffer {
    const { storeId, epoch, clock } = this.#options;
    const { number, base, firstGroup, prevEnd } = segment;
    const wallMs = clock.wallMs();
    return encodeHeader(segmentMagic, { storeId, epoch, number, base, firstGroup, prevEnd, wallMs });
  }

  /** Leaves the segment before, synced: one that follows is its proof. */
  async #begin(segment: Segment, group: number): Promise<void> {
    if (this.output.isOpen && this.unsyncedSinceMs !== undefined) {
      await this.output.sync(false);
      this.durableGroup = group - 1;
      this.durablePosition = segment.base;
      this.#closed = this.#closed.filter((closed) => closed.number >= group);
    }
    await this.output.begin(segment);
  }

  #fail(cause: unknown): void {
    this.failed = storeFailure(this.#options.dir, cause);
    this.#options.onFailed(this.failed);
  }
}
