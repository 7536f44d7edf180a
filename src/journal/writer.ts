/**
 * Group commit. Records are encoded at once into the open group; one group at a time is written and synced. While that goes on the open one
 * fills: natural batching, at most two syncs of latency.
 *
 * A write or sync that failed is never tried again on its descriptor (the kernel may have dropped the pages and call the next sync a success):
 * everything since the last sync is written from RAM to a new segment, whose header cuts the old one off. When that fails too, the journal has
 * failed; a full disk is the exception: it is tried again until there is space.
 */
import { join } from "node:path";
import type { Clock, Timer } from "../base/clock.ts";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { encodeHeader, headerBytes, seedOf, segmentMagic, segmentName } from "./format.ts";
import { type Group, isNoSpace, sealGroup, writeAll } from "./groupBytes.ts";
import { type RecordSink, writeGroupEnd } from "./records.ts";
import { Segment, type SegmentTable } from "./segments.ts";
import { Tail } from "./tail.ts";

export interface WriterOptions {
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly log: Log;
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly segmentBytes: number;
  readonly commitWindowMs: number;
  readonly segments: SegmentTable;
  /** Where the new segment starts: beyond everything that was ever written. */
  readonly from: { position: number; prevEnd: number; group: number; segment: number };
  readonly storeMs: () => number;
  readonly onDurable: (group: number, records: number, syncMs: number) => void;
  readonly onFailed: (error: TidegateError) => void;
  /** Called with every new segment, to write what it must begin with. */
  readonly preamble: (sink: RecordSink) => void;
  /** Called when the open group is empty and everything before it is closed: where a checkpoint may be taken. */
  readonly onBoundary: () => void;
  /** What a full segment ends with, before its last GROUP_END. */
  readonly index: { readonly bytes: number; seal(sink: RecordSink, position: number, segment: Segment): void };
  /** The bytes from `position` on moved from one segment to another. */
  readonly onMoved: (from: Segment[], to: Segment, position: number) => void;
}

/** What was synced last stays in RAM up to this many bytes. */
const recentBytes = 4 * 1024 * 1024;
const fullRetryMs = 1000;

export class GroupWriter implements RecordSink {
  readonly #options: WriterOptions;
  readonly tail: Tail;
  #open: Group;
  #closed: Group[] = [];
  #nextSegment: number;
  #handle: { segment: Segment; file: OpenFile } | undefined;
  #busy = false;
  #scheduled = false;
  #closing = false;
  #ended = false;
  #wake: (() => void) | undefined;
  #timer: Timer | undefined;
  durableGroup: number;
  /** Everything below it is on the disk. */
  durablePosition: number;
  writtenBytes = 0;
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
    this.tail = new Tail(from.position, recentBytes);
    this.durableGroup = from.group - 1;
    this.durablePosition = from.position;
    this.#nextSegment = from.segment;
    const segment = this.#newSegment(from.position, from.prevEnd, from.group);
    options.segments.add(segment);
    this.#open = this.#newGroup(from.group, segment);
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

  get closedGroup(): number {
    return this.#open.number - 1;
  }

  /** Bytes that are not on the disk yet. */
  get pendingBytes(): number {
    return this.failed === undefined ? this.tail.end - this.durablePosition : 0;
  }

  begin(type: number, flags: number, bound: number) {
    return this.tail.begin(type, flags, bound);
  }

  finish(): number {
    const length = this.tail.finish();
    this.#open.records += 1;
    this.#open.touched = true;
    this.#open.segment.end = this.tail.end;
    return length;
  }

  /** What `cut` needs to undo everything appended from now on. */
  savepoint(): { end: number; records: number; touched: boolean } {
    return { end: this.tail.end, records: this.#open.records, touched: this.#open.touched };
  }

  cut(to: { end: number; records: number; touched: boolean }): void {
    this.tail.cut(to.end);
    this.#open.records = to.records;
    this.#open.touched = to.touched;
    this.#open.segment.end = to.end;
  }

  /** The open group shall be written soon, with a sync if `sync`. */
  schedule(sync: boolean): void {
    if (this.failed !== undefined || this.#ended) {
      this.tail.evict(this.tail.end); // it will never be written; keep what fits into RAM readable
      return;
    }
    this.#open.touched = true;
    if (sync) this.#open.needsSync = true;
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
    if (!this.isEmpty || this.unsyncedSinceMs !== undefined) this.schedule(true);
    while (this.failed === undefined && (this.#busy || this.#scheduled || !this.isEmpty)) {
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
    await this.#dropHandle();
  }

  async #run(): Promise<void> {
    this.#busy = true;
    while (this.#open.touched && this.failed === undefined) {
      const group = this.#close();
      this.#options.onBoundary();
      const startedMs = this.#options.clock.monotonicMs();
      if (!(await this.#store(group))) break;
      if (group.needsSync) {
        this.durableGroup = group.number;
        this.durablePosition = group.end;
        this.#closed = [];
        this.unsyncedSinceMs = undefined;
        this.tail.evict(group.end);
        this.#options.onDurable(group.number, group.records, this.#options.clock.monotonicMs() - startedMs);
      } else this.unsyncedSinceMs ??= startedMs;
      this.unproven = group.needsSync && group.records > 1;
      // Without a sync of its own, or with a commit window, the next group waits for its own turn.
      if (this.#open.touched && this.#options.commitWindowMs > 0 && !this.#closing) break;
    }
    this.#busy = false;
    if (this.#open.touched && this.failed === undefined) this.schedule(this.#open.needsSync);
    const idle = this.#idle;
    this.#idle = [];
    for (const resolve of idle) resolve();
  }

  /** Ends the open group, and opens the next one, in a new segment if this one is full. */
  #close(): Group {
    const group = this.#open;
    const { storeMs, clock, segments, segmentBytes } = this.#options;
    // What the index will add must still fit; decided before the group ends, since the index goes before its end.
    const roll = group.segment.offsetOf(this.tail.end) + this.#options.index.bytes >= segmentBytes;
    if (roll) this.#options.index.seal(this, this.tail.end, group.segment);
    const bytes = this.tail.end - group.start;
    writeGroupEnd(this, {
      group: group.number,
      durable: this.durableGroup,
      bytes,
      records: group.records,
      clockMs: storeMs(),
      wallMs: Math.floor(clock.wallMs()),
    });
    group.end = this.tail.end;
    sealGroup(this.tail, group);
    this.#closed.push(group);
    let { segment } = group;
    if (roll) {
      segment = this.#newSegment(group.end, group.end, group.number + 1);
      segments.add(segment);
    }
    this.#open = this.#newGroup(group.number + 1, segment);
    if (roll) this.#preamble();
    return group;
  }

  #newSegment(base: number, prevEnd: number, firstGroup: number): Segment {
    const number = this.#nextSegment++;
    const seed = seedOf(segmentMagic, this.#options.storeId, number);
    return new Segment({ number, base, prevEnd, firstGroup, seed });
  }

  #newGroup(number: number, segment: Segment): Group {
    const start = this.tail.end;
    return { number, start, end: start, records: 0, segment, touched: false, needsSync: false };
  }

  #preamble(): void {
    this.#options.preamble(this);
    this.#open.touched = false;
  }

  /** Gets a closed group onto the disk, by another segment if need be. False: the journal has failed. */
  async #store(group: Group): Promise<boolean> {
    let failures = 0;
    for (;;) {
      try {
        await this.#write(group);
        this.full = false;
        return true;
      } catch (error) {
        await this.#dropHandle();
        if (!isNoSpace(error)) failures += 1;
        const { log } = this.#options;
        if (failures >= 2 || (this.#closing && isNoSpace(error))) {
          this.#fail(error);
          return false;
        }
        log.error({ segment: group.segment.number, error: messageOf(error) }, "journal: write failed, new segment");
        await this.#roll();
        if (isNoSpace(error)) {
          this.full = true;
          this.#onFull?.();
          await this.#pause();
        }
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
    let handle = this.#handle;
    const fresh = handle?.segment !== segment;
    const buffers = this.tail.slices(fresh ? segment.base : group.start, group.end);
    let offset = segment.offsetOf(group.start);
    if (fresh) {
      handle = await this.#create(segment, group.number);
      buffers.unshift(this.#header(segment));
      offset = 0;
    }
    const { file } = handle!;
    this.writtenBytes += await writeAll(file, buffers, offset);
    segment.fileBytes = Math.max(segment.fileBytes, segment.offsetOf(group.end));
    if (group.needsSync || fresh) {
      await file.datasync();
      if (fresh) await this.#options.files.syncDir(this.#options.dir); // or a power cut may undo the creation
      group.needsSync = true;
    }
  }

  #header(segment: Segment): Buffer {
    const { storeId, epoch, clock } = this.#options;
    const { number, base, firstGroup, prevEnd } = segment;
    const wallMs = clock.wallMs();
    return encodeHeader(segmentMagic, { storeId, epoch, number, base, firstGroup, prevEnd, wallMs });
  }

  async #create(segment: Segment, group: number): Promise<{ segment: Segment; file: OpenFile }> {
    const { files, dir } = this.#options;
    const before = this.#handle;
    if (before !== undefined && this.unsyncedSinceMs !== undefined) {
      await before.file.datasync();
      this.durableGroup = group - 1;
      this.durablePosition = segment.base;
      this.#closed = this.#closed.filter((closed) => closed.number >= group);
    }
    await this.#dropHandle();
    const file = await files.open(join(dir, segmentName(segment.number)), "create");
    segment.fileBytes = headerBytes;
    this.#handle = { segment, file };
    return this.#handle;
  }

  async #dropHandle(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.file.close().catch(() => undefined);
  }

  #fail(cause: unknown): void {
    this.failed = new TidegateError(
      "TG_STORE_FAILED",
      `the disk refused twice to write to ${this.#options.dir} (${messageOf(cause)}): durable publishes are refused. Make it writable (a card at its end turns read-only: see dmesg), then restart`,
      { cause },
    );
    this.#options.onFailed(this.failed);
  }
}
