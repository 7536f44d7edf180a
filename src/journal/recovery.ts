/**
 * From what lies in the folder to the state: the newest checkpoint, then the journal after its mark. Damage is skipped, counted and logged; it
 * never keeps the store from opening. DESIGN.md has the table of what a crash after each step leads to.
 *
 * Files are read in gulps, and between two the event loop has its turn: a start with a long tail must not look dead to a watchdog.
 */
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { ByteReader, FieldError } from "./bytes.ts";
import { FileWalk, throwUnlessDamage } from "./fileWalk.ts";
import type { Folder, SegmentFile } from "./folder.ts";
import { headerBytes, recordHeaderBytes, recordType, seedOf, segmentMagic, segmentName } from "./format.ts";
import { acceptedEnd, endBytesMax, groupEndAt } from "./lastGroup.ts";
import { openMerged } from "./mergedFile.ts";
import { MessageReader } from "./messageRecord.ts";
import { applyRecord, type GroupEnd, readGroupEnd } from "./records.ts";
import { Segment } from "./segments.ts";
import { type Counted, countedBy, settleMarks } from "./settle.ts";
import { State } from "./state.ts";
import type { RecordWalker } from "./walk.ts";

/** A stretch of a file, in offsets. */
export interface Stretch {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export interface Recovered {
  readonly state: State;
  readonly clean: boolean;
  /** What counts though nothing shows that it ever was on the disk. */
  readonly unproven: Stretch | undefined;
  /** End of what counts in the last segment. */
  readonly end: number;
  /** Beyond everything that was ever written, counted or not. */
  readonly nextPosition: number;
  readonly nextGroup: number;
  readonly storeMs: number;
  readonly wallMs: number;
  readonly records: number;
  readonly corruptRecords: number;
  readonly tornBytes: number;
  readonly losses: readonly string[];
}

/** What a lost checkpoint leaves to be taken from segments before its mark: statements that hold whenever they are said. */
const lastingTypes: ReadonlySet<number> = new Set([
  recordType.message,
  recordType.uplink,
  recordType.lane,
  recordType.laneState,
  recordType.rule,
]);

export class Recovery {
  readonly #files: Files;
  readonly #dir: string;
  readonly #log: Log;
  readonly #folder: Folder;
  readonly #state: State;
  readonly #mark: number;
  /** What the lanes' states were when the checkpoint counted what waits. */
  readonly #counted: Counted;
  readonly #message = new MessageReader();
  readonly #from = new ByteReader(Buffer.alloc(0));
  readonly #walk = new FileWalk();
  #records = 0;
  readonly #losses: string[] = [];
  #corrupt = 0;
  #torn = 0;
  #group: number;
  #storeMs: number;
  #wallMs: number;
  #lostBytes = 0;
  #unproven: Stretch | undefined;

  constructor(files: Files, dir: string, log: Log, folder: Folder) {
    this.#files = files;
    this.#dir = dir;
    this.#log = log;
    this.#folder = folder;
    const { checkpoint } = folder;
    this.#state = checkpoint?.state ?? new State();
    this.#state.counting = false;
    this.#mark = checkpoint?.header.base ?? 0;
    this.#counted = countedBy(checkpoint?.whole === true ? this.#state : new State());
    this.#records = checkpoint?.records ?? 0;
    this.#group = checkpoint?.provenGroup ?? 0;
    this.#storeMs = checkpoint?.storeMs ?? 0;
    this.#wallMs = checkpoint?.wallMs ?? 0;
    this.#corrupt = folder.damaged;
  }

  async run(): Promise<Recovered> {
    const { checkpoint } = this.#folder;
    const mark = this.#mark;
    await this.#tabulate();
    const { list } = this.#state.segments;
    let nextPosition = Math.max(1, mark);
    for (const file of this.#folder.segments) nextPosition = Math.max(nextPosition, wholeEnd(file));
    let end = mark;
    if (checkpoint?.whole === false) await this.#readBeforeMark();
    for (const [index, segment] of list.entries()) {
      this.#group = Math.max(this.#group, segment.firstGroup - 1);
      if (segment.end > mark) await this.#replay(segment, index === list.length - 1);
      end = Math.max(end, Math.min(segment.end, nextPosition));
    }
    await settleMarks(this.#state, this.#counted, (segment, visit) => this.#visit(segment, headerBytes, visit));
    this.#reportMissing();
    for (const queue of this.#state.queues.values()) queue.settleLate();
    this.#state.patching = false;
    this.#state.recountPins((name, position, ordinal) =>
      this.#count(`${name}: message ${ordinal} @${position} is lost`),
    );
    if (this.#corrupt > 0 || this.#torn > 0) this.#leaveSeqGap();
    const clean = checkpoint?.clean === true && end === mark && this.#torn === 0;
    return {
      ...{ state: this.#state, clean, unproven: this.#unproven, end, nextPosition, nextGroup: this.#group + 2 },
      ...{ storeMs: this.#storeMs, wallMs: this.#wallMs },
      ...{ records: this.#records, corruptRecords: this.#corrupt, tornBytes: this.#torn, losses: this.#losses },
    };
  }

  /** The segment table: what headers say, cut by later headers, with the checkpoint's counts. */
  async #tabulate(): Promise<void> {
    const { segments, checkpoint } = this.#folder;
    let limit = Number.POSITIVE_INFINITY;
    let nextNumber = 0;
    const ends = new Map<SegmentFile, number>();
    for (const file of [...segments].reverse()) {
      const whole = wholeEnd(file);
      ends.set(file, Math.max(file.header.base, Math.min(whole, limit)));
      // With a number missing in between, that one may have been freed: nothing can be said.
      if (whole < limit && nextNumber === file.number + 1 && file.header.merged === undefined)
        this.#count(`${file.name} is cut short`);
      nextNumber = file.number;
      limit = Math.min(limit, file.header.prevEnd);
    }
    for (const file of segments) {
      if (file.header.merged !== undefined) {
        const { segment, damage } = await openMerged(this.#files, this.#dir, file, checkpoint);
        if (damage !== undefined) this.#count(`${file.name}: ${damage}`);
        this.#state.segments.add(segment);
        continue;
      }
      const { number, base, firstGroup, prevEnd, storeId } = file.header;
      const seed = seedOf(segmentMagic, storeId, number);
      const known = checkpoint?.segments.get(number);
      const sealed = known?.base === base && known.sealed ? known.end : Number.POSITIVE_INFINITY;
      const segment = new Segment({ number, base, firstGroup, prevEnd, seed, end: Math.min(ends.get(file)!, sealed) });
      segment.fileBytes = file.size;
      segment.cut = segment.offsetOf(segment.end) < file.size;
      // The counts of a damaged checkpoint go with states of lanes that may be the lost ones.
      if (known?.base === base && checkpoint?.whole) for (const part of known.parts) segment.parts.set(part.lane, part);
      if (known?.base === base && known.end === segment.end) segment.indexAt = known.indexAt;
      this.#state.segments.add(segment);
    }
  }

  async #readBeforeMark(): Promise<void> {
    for (const segment of this.#state.segments.list) {
      if (segment.merged !== undefined && segment.end > this.#mark) continue; // replayed as a whole
      await this.#visit(
        segment,
        headerBytes,
        (walker) => {
          if (lastingTypes.has(walker.type)) this.#apply(segment, walker);
        },
        this.#mark,
      );
    }
  }

  async #replay(segment: Segment, last: boolean): Promise<void> {
    const from = segment.merged ? headerBytes : segment.offsetOf(Math.max(segment.base, this.#mark));
    if (last && segment.merged === undefined) {
      const to = segment.offsetOf(segment.end);
      const end = await this.#acceptedEnd(segment, from, to);
      this.#torn += Math.max(0, Math.min(to, this.#walk.writtenEnd) - end);
      segment.end -= to - end;
      if (to > end) segment.cut = true;
    }
    const walker = await this.#visit(segment, from, (at) => this.#apply(segment, at));
    if (walker === undefined || walker.gaps === 0) return;
    this.#lostBytes += walker.gapBytes;
    for (let gap = 0; gap < walker.gaps; gap += 1) this.#count(`${segment.name} has a damaged record`);
  }

  /**
   * Where the last segment ends: after its last group that is proven, or what `lastGroup.ts` makes of those behind it. A group was begun only when the one before was durable, so
   * everything before such a group counts, save records that rotted; so does what the checkpoint says was durable.
   */
  async #acceptedEnd(segment: Segment, from: number, to: number): Promise<number> {
    let proven = this.#group;
    const { provenEnd = 0 } = this.#folder.checkpoint ?? {};
    let accepted = Math.max(Math.min(from, to), Math.min(to, segment.offsetOf(provenEnd)));
    let ends: Array<{ next: number; end: GroupEnd }> = [];
    await this.#visit(segment, from, (walker) => {
      if (walker.type !== recordType.groupEnd) return;
      const end = groupEndAt(walker.buffer, walker.at, walker.next);
      if (end === undefined) return;
      ends.push({ next: this.#walk.bufferAt + walker.next, end });
      proven = Math.max(proven, end.durable);
      const known = ends.findLast((one) => one.end.group <= proven);
      if (known === undefined) return;
      accepted = Math.max(accepted, known.next);
      ends = ends.filter(({ next }) => next > known.next);
    });
    const until = Math.min(to, this.#walk.writtenEnd + endBytesMax);
    const { name, seed } = segment;
    // Its header was synced with its first group.
    const unproven = { name, from: accepted > headerBytes ? accepted : 0 };
    this.#unproven = { ...unproven, to: accepted };
    if (accepted >= this.#walk.writtenEnd) return accepted;
    const buffer = Buffer.alloc(until - accepted);
    let filled = 0;
    await this.#open(segment, (file) =>
      this.#walk.pieces(file, accepted, until, (piece) => {
        filled += piece.copy(buffer, filled);
      }),
    );
    const end = acceptedEnd({ buffer: buffer.subarray(0, filled), at: accepted, seed, proven });
    this.#unproven = { ...unproven, to: end };
    return end;
  }

  #apply(segment: Segment, walker: RecordWalker): void {
    const from = this.#from;
    from.reset(walker.buffer, walker.at + recordHeaderBytes, walker.next);
    this.#records += 1;
    try {
      if (walker.type === recordType.message) this.#take(segment, walker);
      else if (walker.type === recordType.groupEnd) {
        const end = readGroupEnd(from);
        this.#group = Math.max(this.#group, end.group);
        this.#clockWas(end.clockMs, end.wallMs);
      } else applyRecord(this.#state, walker.type, from);
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.#count(`${segment.name}: ${error.message}`);
    }
  }

  /** The two clocks belong together: with one of them from an older record, the time between would count twice. */
  #clockWas(storeMs: number, wallMs: number): void {
    if (storeMs < this.#storeMs) return;
    this.#storeMs = storeMs;
    this.#wallMs = wallMs;
  }

  #take(segment: Segment, walker: RecordWalker): void {
    const message = this.#message;
    message.start(walker.buffer, walker.at + recordHeaderBytes, walker.next, walker.flags);
    this.#clockWas(message.acceptedAtMs, message.wallMs);
    while (message.nextTaker()) {
      const { lane: id, seq, expiresAtMs } = message.taker;
      const lane = this.#state.lanes.get(id);
      if (lane === undefined) {
        this.#count(`message for lane ${id}, whose definition is lost`);
        continue;
      }
      const account = this.#state.uplink(lane.uplink);
      account.nextSeq = Math.max(account.nextSeq, seq + 1);
      segment.add(id, message.position, walker.length, message.acceptedAtMs, expiresAtMs);
    }
  }

  /** Segments that the checkpoint knew, that are gone, and in which something should still wait. */
  #reportMissing(): void {
    const { list } = this.#state.segments;
    for (const [number, known] of this.#folder.checkpoint?.segments ?? []) {
      if (list.some((segment) => number >= segment.number && number <= segment.lastNumber)) continue;
      // Of what lies between messages that are done no lane says that it is done; so both ends have to do. After a roll `last` is a bound only, behind
      // which no record can begin: then the first alone.
      const waits = known.parts.some(({ lane: id, first, last }) => {
        const lane = this.#state.lanes.get(id);
        return !lane?.isDone(first) || (last < known.end - 1 && !lane.isDone(last));
      });
      if (waits) this.#count(`${segmentName(number)} is missing`);
    }
  }

  /** Lost records may have held higher numbers than what is left: an uplink's numbers must never be used twice. */
  #leaveSeqGap(): void {
    // A torn group was never sent, but one that rotted looks the same.
    const gap = this.#corrupt + Math.ceil((this.#lostBytes + this.#torn) / recordHeaderBytes);
    for (const account of this.#state.uplinks.values()) account.nextSeq += gap;
  }

  /** Calls for each valid record of a segment from an offset up to its end, and below `before`. Undefined: it cannot be read. */
  async #visit(
    segment: Segment,
    from: number,
    visit: (walker: RecordWalker) => void,
    before = Number.POSITIVE_INFINITY,
  ): Promise<RecordWalker | undefined> {
    const to = segment.merged?.tableAt ?? segment.offsetOf(Math.min(segment.end, before));
    return await this.#open(segment, (file) => this.#walk.run(file, Math.min(from, to), to, segment.seed, visit));
  }

  async #open<T>(segment: Segment, use: (file: OpenFile) => Promise<T>): Promise<T | undefined> {
    const path = join(this.#dir, segment.name);
    try {
      const file = await this.#files.open(path, "read");
      return await use(file).finally(() => file.close());
    } catch (error) {
      throwUnlessDamage(error);
      this.#count(`${path}: ${messageOf(error)}`);
      return undefined;
    }
  }

  #count(what: string): void {
    this.#corrupt += 1;
    if (this.#losses.length < 20) this.#losses.push(what);
    if (this.#corrupt <= 100) this.#log.error({ what }, "journal: damage found, going on without it");
  }
}

/** Position after all that the file holds, counted or not. */
const wholeEnd = ({ header, size }: SegmentFile): number =>
  header.merged?.end ?? header.base + Math.max(0, size - headerBytes);
