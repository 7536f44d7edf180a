/**
 * From what lies in the folder to the state: the newest checkpoint, then the journal after its mark. Damage is skipped, counted and logged; it
 * never keeps the store from opening. DESIGN.md has the table of what a crash after each step leads to.
 */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { messageOf } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { ByteReader, FieldError } from "./bytes.ts";
import { type Folder, readWhole, type SegmentFile } from "./folder.ts";
import { headerBytes, recordHeaderBytes, recordType, seedOf, segmentMagic, segmentName } from "./format.ts";
import { MessageReader } from "./messageRecord.ts";
import { applyRecord, type GroupEnd, readGroupEnd } from "./records.ts";
import { Segment } from "./segments.ts";
import { State } from "./state.ts";
import { RecordWalker } from "./walk.ts";

export interface Recovered {
  readonly state: State;
  readonly clean: boolean;
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
}

export class Recovery {
  readonly #files: Files;
  readonly #dir: string;
  readonly #log: Log;
  readonly #folder: Folder;
  readonly #state: State;
  readonly #message = new MessageReader();
  readonly #from = new ByteReader(Buffer.alloc(0));
  #records = 0;
  #corrupt = 0;
  #torn = 0;
  #group: number;
  #storeMs: number;
  #wallMs: number;
  #lostBytes = 0;

  constructor(files: Files, dir: string, log: Log, folder: Folder) {
    this.#files = files;
    this.#dir = dir;
    this.#log = log;
    this.#folder = folder;
    const { checkpoint } = folder;
    this.#state = checkpoint?.state ?? new State();
    this.#records = checkpoint?.records ?? 0;
    this.#group = checkpoint?.header.firstGroup ?? 0;
    this.#storeMs = checkpoint?.storeMs ?? 0;
    this.#wallMs = checkpoint?.wallMs ?? 0;
    this.#corrupt = folder.damaged;
  }

  async run(): Promise<Recovered> {
    const { checkpoint } = this.#folder;
    const mark = checkpoint?.header.base ?? 0;
    this.#tabulate();
    const { list } = this.#state.segments;
    let nextPosition = Math.max(1, mark);
    for (const { header, size } of this.#folder.segments) {
      nextPosition = Math.max(nextPosition, header.base + Math.max(0, size - headerBytes));
    }
    let end = mark;
    for (const [index, segment] of list.entries()) {
      this.#group = Math.max(this.#group, segment.firstGroup - 1);
      if (segment.end > mark) await this.#replay(segment, mark, index === list.length - 1);
      end = Math.max(end, Math.min(segment.end, nextPosition));
    }
    await this.#settleMarks();
    this.#reportMissing();
    this.#dropLost();
    this.#state.recountPins();
    if (this.#corrupt > 0 || this.#torn > 0) this.#leaveSeqGap();
    const clean = checkpoint?.clean === true && end === mark && this.#torn === 0;
    return {
      state: this.#state,
      clean,
      end,
      nextPosition,
      nextGroup: this.#group + 2,
      storeMs: this.#storeMs,
      wallMs: this.#wallMs,
      records: this.#records,
      corruptRecords: this.#corrupt,
      tornBytes: this.#torn,
    };
  }

  /** The segment table: what headers say, cut by later headers, with the checkpoint's counts. */
  #tabulate(): void {
    const { segments, checkpoint } = this.#folder;
    const { list } = this.#state.segments;
    let limit = Number.POSITIVE_INFINITY;
    let nextNumber = 0;
    const ends = new Map<SegmentFile, number>();
    for (const file of [...segments].reverse()) {
      const whole = file.header.base + Math.max(0, file.size - headerBytes);
      ends.set(file, Math.max(file.header.base, Math.min(whole, limit)));
      // With a number missing in between, that one may have been freed: nothing can be said.
      if (whole < limit && nextNumber === file.number + 1) this.#count(`${segmentName(file.number)} is cut short`);
      nextNumber = file.number;
      limit = Math.min(limit, file.header.prevEnd);
    }
    const lastKnown = Math.max(0, ...(checkpoint?.segments.keys() ?? []));
    for (const file of segments) {
      const { number, base, firstGroup, prevEnd, storeId } = file.header;
      const seed = seedOf(segmentMagic, storeId, number);
      const known = checkpoint?.segments.get(number);
      const sealed = known?.base === base && number < lastKnown ? known.end : Number.POSITIVE_INFINITY;
      const segment = new Segment({ number, base, firstGroup, prevEnd, seed, end: Math.min(ends.get(file)!, sealed) });
      segment.fileBytes = file.size;
      segment.cut = segment.offsetOf(segment.end) < file.size;
      if (known?.base === base) for (const part of known.parts) segment.parts.set(part.lane, part);
      list.push(segment);
    }
  }

  async #replay(segment: Segment, mark: number, last: boolean): Promise<void> {
    const buffer = await this.#read(segment);
    const from = segment.offsetOf(Math.max(segment.base, mark));
    let to = Math.min(buffer.length, segment.offsetOf(segment.end));
    if (last) {
      const end = this.#acceptedEnd(buffer, from, to, segment);
      let written = to;
      while (written > end && buffer[written - 1] === 0) written -= 1; // space that was never written
      this.#torn += written - end;
      segment.end -= to - end;
      if (to > end) segment.cut = true;
      to = end;
    }
    const walker = new RecordWalker();
    walker.start(buffer, Math.min(from, to), to, 0, segment.seed);
    while (walker.step() === "record") this.#apply(segment, buffer, walker);
    if (walker.gaps === 0) return;
    this.#lostBytes += walker.gapBytes;
    for (let gap = 0; gap < walker.gaps; gap += 1) this.#count(`${segmentName(segment.number)} has a damaged record`);
  }

  /**
   * Where the last segment ends: after its last group that is proven, or whole. A group was begun only when the one before was durable, so
   * everything before such a group counts, save records that rotted.
   */
  #acceptedEnd(buffer: Buffer, from: number, to: number, segment: Segment): number {
    const walker = new RecordWalker();
    walker.start(buffer, Math.min(from, to), to, 0, segment.seed);
    const ends: Array<{ at: number; next: number; end: GroupEnd }> = [];
    let proven = this.#group;
    while (walker.step() === "record") {
      if (walker.type !== recordType.groupEnd) continue;
      const end = this.#groupEnd(buffer, walker);
      if (end === undefined) continue;
      proven = Math.max(proven, end.durable);
      ends.push({ at: walker.at, next: walker.next, end });
    }
    for (const { at, next, end } of ends.reverse()) {
      const whole = (): boolean => crc32(buffer.subarray(at - end.bytes, at), segment.seed) === end.crc;
      if (end.group <= proven || (at - end.bytes >= from && whole())) return next;
    }
    return Math.min(from, to);
  }

  #groupEnd(buffer: Buffer, walker: RecordWalker): GroupEnd | undefined {
    try {
      this.#from.reset(buffer, walker.at + recordHeaderBytes, walker.next);
      return readGroupEnd(this.#from);
    } catch {
      return undefined; // counted when it is applied
    }
  }

  #apply(segment: Segment, buffer: Buffer, walker: RecordWalker): void {
    const from = this.#from;
    from.reset(buffer, walker.at + recordHeaderBytes, walker.next);
    this.#records += 1;
    try {
      if (walker.type === recordType.message) this.#take(segment, buffer, walker);
      else if (walker.type === recordType.groupEnd) {
        const end = readGroupEnd(from);
        this.#group = Math.max(this.#group, end.group);
        this.#storeMs = Math.max(this.#storeMs, end.clockMs);
        this.#wallMs = end.wallMs;
      } else applyRecord(this.#state, walker.type, from);
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.#count(`${segmentName(segment.number)}: ${error.message}`);
    }
  }

  #take(segment: Segment, buffer: Buffer, walker: RecordWalker): void {
    const message = this.#message;
    message.start(buffer, walker.at + recordHeaderBytes, walker.next, walker.flags);
    this.#storeMs = Math.max(this.#storeMs, message.acceptedAtMs);
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

  /** Takes out of the parts what the lanes' final states say is done; where a state ends inside a part, that segment is counted anew. */
  async #settleMarks(): Promise<void> {
    const { lanes, segments } = this.#state;
    for (const segment of segments.list) {
      const recount = new Set<number>();
      for (const part of [...segment.parts.values()]) {
        const lane = lanes.get(part.lane);
        if (lane === undefined || part.last <= lane.cursor) segment.parts.delete(part.lane);
        else if (part.first <= lane.cursor) recount.add(part.lane);
        else if (lane.skips.some((skip) => skip.from <= part.last && skip.to >= part.first)) recount.add(part.lane);
      }
      if (recount.size > 0) await this.#recount(segment, recount);
      segment.waiting = 0;
      for (const part of segment.parts.values()) {
        segment.waiting += part.waiting;
        const lane = lanes.get(part.lane)!;
        const account = this.#state.uplink(lane.uplink);
        lane.waiting += part.waiting;
        lane.bytes += part.bytes;
        lane.newest = Math.max(lane.newest, part.last);
        account.messages += part.waiting;
        account.bytes += part.bytes;
      }
    }
  }

  /** Segments that the checkpoint knew, that are gone, and in which something should still wait. */
  #reportMissing(): void {
    const found = new Set(this.#folder.segments.map(({ number }) => number));
    for (const [number, known] of this.#folder.checkpoint?.segments ?? []) {
      if (found.has(number)) continue;
      const waits = known.parts.some(
        ({ lane, first, last }) => !this.#state.lanes.get(lane)?.isDoneWithin(first, Math.min(last, known.end - 1)), // a roll moved what came after
      );
      if (waits) this.#count(`${segmentName(number)} is missing`);
    }
  }

  async #recount(segment: Segment, lanes: Set<number>): Promise<void> {
    for (const lane of lanes) segment.parts.delete(lane);
    const buffer = await this.#read(segment);
    const to = Math.min(buffer.length, segment.offsetOf(segment.end));
    const walker = new RecordWalker();
    walker.start(buffer, Math.min(headerBytes, to), to, 0, segment.seed);
    const message = this.#message;
    while (walker.step() === "record") {
      if (walker.type !== recordType.message) continue;
      try {
        message.start(buffer, walker.at + recordHeaderBytes, walker.next, walker.flags);
        while (message.nextTaker()) {
          const { lane: id, expiresAtMs } = message.taker;
          if (!lanes.has(id) || this.#state.lanes.get(id)!.isDone(message.position)) continue;
          segment.add(id, message.position, walker.length, message.acceptedAtMs, expiresAtMs);
        }
      } catch (error) {
        if (!(error instanceof FieldError)) throw error;
      }
    }
  }

  /** References and retained values whose segment is gone. */
  #dropLost(): void {
    const { queues, retained, segments } = this.#state;
    for (const queue of queues.values()) {
      for (let ordinal = queue.nextAfter(0); ordinal > 0; ordinal = queue.nextAfter(ordinal)) {
        if (segments.find(queue.positionOf(ordinal)) !== undefined) continue;
        this.#count(`queue ${queue.name}: message ${ordinal} @${queue.positionOf(ordinal)} is lost`);
        queue.release(ordinal);
      }
      queue.compact();
    }
    for (const [topic, position] of retained) {
      if (segments.find(position) !== undefined) continue;
      retained.delete(topic);
      this.#count(`retained value of ${topic} is lost`);
    }
    this.#state.referenceCount = 0;
    for (const queue of queues.values()) this.#state.referenceCount += queue.size;
  }

  /** Lost records may have held higher numbers than what is left: an uplink's numbers must never be used twice. */
  #leaveSeqGap(): void {
    // A torn group was never sent, but one that rotted looks the same.
    const gap = this.#corrupt + Math.ceil((this.#lostBytes + this.#torn) / recordHeaderBytes);
    for (const account of this.#state.uplinks.values()) account.nextSeq += gap;
  }

  async #read(segment: Segment): Promise<Buffer> {
    const path = join(this.#dir, segmentName(segment.number));
    return await readWhole(this.#files, path).catch((error: unknown) => {
      this.#count(`${path}: ${messageOf(error)}`);
      return Buffer.alloc(0);
    });
  }

  #count(what: string): void {
    this.#corrupt += 1;
    if (this.#corrupt <= 100) this.#log.error({ what }, "journal: damage found, going on without it");
  }
}
