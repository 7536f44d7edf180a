/**
 * Fills the read-ahead of lanes: from the tail in RAM at once; from disk in gulps where the lane has much of a segment, else record by record as the
 * segment's index says. Only what is durable is read. Every record's checksum is checked, and where one is not as it was written the walk goes on
 * byte by byte, since a rotten length would lead astray.
 */
import { FieldError } from "./bytes.ts";
import { plausibleLength, recordHeaderBytes, recordIsValid, recordType } from "./format.ts";
import { Entry, type Lane } from "./lane.ts";
import type { LaneStream, ReadingPlace } from "./laneStream.ts";
import { MessageReader } from "./messageRecord.ts";
import type { Tuning } from "./options.ts";
import { PayloadSlab } from "./payloadSlab.ts";
import { pickMaxBytes, planPicks, type Span } from "./picks.ts";
import { type LaneIndex, loadIndex } from "./segmentIndex.ts";
import type { SegmentReader } from "./segmentReader.ts";
import type { Segment } from "./segments.ts";
import type { State } from "./state.ts";
import type { Tail } from "./tail.ts";
import { RecordWalker } from "./walk.ts";

const gulpBytes = 256 * 1024;
const spareGulpsMax = 4;
/** A lane that waits with more than this share of a segment's bytes reads all of it. */
const denseShare = 0.1;

export interface LaneSource {
  readonly state: State;
  readonly tail: Tail;
  readonly reader: SegmentReader;
  readonly durablePosition: () => number;
  readonly tuning: Pick<Tuning, "aheadBytes" | "walkBytes">;
  /** Messages that were to be there and are not: rot. */
  readonly onLost: (lane: Lane, messages: number) => void;
}

export class LaneReader {
  readonly #source: LaneSource;
  readonly #aheadBytes: number;
  readonly #walkBytes: number;
  readonly #message = new MessageReader();
  readonly #slab = new PayloadSlab();
  readonly #walker = new RecordWalker();
  /** Position after the last message that a walk came by: where the record behind it began when it was written, and still does in the tail. */
  #passed = 0;
  /** Buffers of gulps that nobody reads into now. */
  readonly #spare: Buffer[] = [];

  constructor(source: LaneSource) {
    this.#source = source;
    this.#aheadBytes = source.tuning.aheadBytes;
    this.#walkBytes = source.tuning.walkBytes;
  }

  /** Whether more than what is read ahead may be had. */
  hasMore(stream: LaneStream): boolean {
    return (
      !stream.blocked &&
      stream.lane.newest >= stream.readAt &&
      stream.lane.newest > stream.cursor &&
      stream.readAt < this.#limitOf(stream)
    );
  }

  /** What is not durable is not read, nor what another stream of the lane reads. */
  #limitOf(stream: LaneStream): number {
    return Math.min(this.#source.durablePosition(), stream.to);
  }

  /** Whether all of a lane's backlog was read. */
  isAtEnd(stream: LaneStream): boolean {
    const { newest } = stream.lane;
    return stream.readAt >= stream.to || (!stream.blocked && (newest < stream.readAt || newest <= stream.cursor));
  }

  needsDisk(stream: LaneStream): boolean {
    return stream.readAt < this.#source.tail.start && this.hasMore(stream);
  }

  /** Whether to read on before it runs dry, so that a drain from disk does not wait for each gulp. */
  runsLow(stream: LaneStream): boolean {
    return 2 * stream.aheadBytes < this.#aheadBytes && this.needsDisk(stream);
  }

  /** The segment that the lane reads next, which it skips to: nothing of it waits before. */
  nextSegment(stream: LaneStream): Segment | undefined {
    const { state, durablePosition } = this.#source;
    const segment = state.segments.nextWith(stream.lane.id, stream.readAt);
    // Not beyond what is durable: a commit that throws takes its messages back, and others come at their positions.
    if (segment !== undefined)
      stream.readAt = Math.max(stream.readAt, Math.min(segment.parts.get(stream.lane.id)!.first, durablePosition()));
    return segment;
  }

  /** Reads ahead what is in RAM. False: the next bytes are on disk only. */
  fillFromTail(stream: LaneStream): boolean {
    const { tail } = this.#source;
    const limit = this.#limitOf(stream);
    if (stream.readAt < tail.start) {
      if (this.nextSegment(stream) === undefined) stream.readAt = tail.start;
      if (stream.readAt < tail.start) return false;
    }
    while (stream.readAt < limit && stream.aheadBytes < this.#aheadBytes) {
      const piece = tail.at(stream.readAt);
      if (piece === undefined) break;
      let at = piece.from;
      const start = stream.readAt; // in the tail, positions are as they were written: one after the other
      while (at < piece.to && start + (at - piece.from) < limit && stream.aheadBytes < this.#aheadBytes) {
        const length = piece.buffer.readUInt32LE(at);
        this.#visit(stream, piece.buffer, at, length, piece.buffer[at + 8]!, piece.buffer[at + 9]!);
        at += length;
      }
      stream.readAt = start + (at - piece.from);
    }
    this.#settleUp(stream);
    return true;
  }

  /** Reads ahead until there is enough or nothing left. One call a lane at a time. Never rejects. */
  async fill(stream: LaneStream): Promise<void> {
    const { generation } = stream;
    const gulp = this.#spare.pop() ?? Buffer.allocUnsafeSlow(gulpBytes);
    try {
      while (stream.aheadBytes < this.#aheadBytes && this.hasMore(stream)) {
        if (this.fillFromTail(stream)) return;
        if (!this.hasMore(stream)) return; // what comes next is not durable
        const place = await this.#placeOf(stream, this.nextSegment(stream)!, gulp);
        if (stream.generation !== generation) return;
        stream.place = place;
        const { index } = place;
        const readOn =
          index === undefined
            ? await this.#walkGulp(stream, place, gulp)
            : await this.#pick(stream, place, index, gulp);
        if (!readOn) return;
        this.#settleUp(stream);
      }
    } finally {
      if (this.#spare.length < spareGulpsMax) this.#spare.push(gulp);
    }
  }

  async #placeOf(stream: LaneStream, segment: Segment, gulp: Buffer): Promise<ReadingPlace> {
    const { state, reader, tail } = this.#source;
    const offset = segment.offsetOf(stream.readAt);
    if (stream.place?.segment === segment) {
      // Where reading went on in RAM and has come back to the disk, the place was left behind: from there on all would be read twice.
      if (stream.place.offset < offset && segment.merged === undefined) return { segment, offset, index: undefined };
      return stream.place;
    }
    const part = segment.parts.get(stream.lane.id)!;
    const sealed =
      segment !== state.segments.last && segment.end <= Math.min(this.#source.durablePosition(), tail.start);
    const dense = part.bytes > denseShare * (segment.end - segment.base);
    const index = sealed && !dense ? await loadIndex(reader, segment, stream.lane.id, gulp) : undefined;
    // An index that does not even count what waits is not to be trusted.
    const waiting = segment.parts.get(stream.lane.id)?.waiting ?? 0;
    const usable = index !== undefined && index.count >= waiting && index.longest <= pickMaxBytes;
    return { segment, offset, index: usable ? index : undefined };
  }

  /** Walks the next stretch of the segment record by record. False: reading has to end here. */
  async #walkGulp(stream: LaneStream, place: ReadingPlace, own: Buffer): Promise<boolean> {
    const { segment } = place;
    const { generation } = stream;
    const { reader, tail } = this.#source;
    // Up to the tail only, which begins with a record whatever rotted before it.
    const to =
      segment.merged?.tableAt ?? segment.offsetOf(Math.min(segment.end, this.#source.durablePosition(), tail.start));
    let gulp = own;
    for (let wanted = this.#walkBytes; ; ) {
      if (wanted > gulp.length) gulp = Buffer.allocUnsafeSlow(wanted);
      const piece = gulp.subarray(0, Math.min(wanted, to - place.offset));
      const count = await reader.readFrom(segment, place.offset, piece);
      if (stream.generation !== generation) return false;
      if (count < 0) stream.blocked = true;
      if (count < 0) return false;
      const cutShort = count < piece.length;
      if (cutShort && !this.#isCurrent(stream, segment)) return true;
      wanted = this.#walk(stream, place, piece, count, cutShort ? 0 : to - place.offset - count);
      if (wanted === 0) this.#advance(stream, place, to);
      if (wanted <= this.#walkBytes) return true;
    }
  }

  /** @returns bytes that the next read should have (more than `walkBytes`: for one record, or a length that rotted); 0: all was walked */
  #walk(stream: LaneStream, place: ReadingPlace, piece: Buffer, count: number, beyond: number): number {
    const walker = this.#walker;
    walker.restart();
    this.#passed = 0;
    walker.start(piece, 0, count, beyond, place.segment.seed);
    let step = walker.step();
    for (; step === "record" && stream.aheadBytes < this.#aheadBytes; step = walker.step())
      this.#visit(stream, piece, walker.at, walker.length, walker.type, walker.flags);
    if (step === "end") return 0;
    this.#advance(stream, place, place.offset + (step === "record" ? walker.at : walker.next));
    return step === "more" ? walker.wanted : this.#walkBytes;
  }

  /** Reads the lane's next records where the index says they are. False: reading has to end here. */
  async #pick(stream: LaneStream, place: ReadingPlace, index: LaneIndex, gulp: Buffer): Promise<boolean> {
    const { segment } = place;
    const { generation } = stream;
    const spans = planPicks(index, place.offset, segment.offsetOf(segment.end), gulp);
    if (spans === undefined || spans.length === 0) {
      place.index = undefined; // it makes no sense, or more waits than it knows: the rest is walked
      return true;
    }
    const { reader } = this.#source;
    const read = async (span: Span): Promise<void> => {
      span.count = await reader.readFrom(segment, span.from, span.target);
    };
    await Promise.all(spans.map(read));
    if (stream.generation !== generation) return false;
    if (spans.some((span) => span.count < 0)) {
      stream.blocked = true;
      return false;
    }
    for (const span of spans) {
      for (; index.offset > 0 && index.offset < span.to; index.next()) {
        if (stream.aheadBytes >= this.#aheadBytes) return true;
        const end = this.#visitAt(stream, span, index.offset, segment.seed);
        if (end === 0) {
          place.index = undefined; // rot: from the last good one on everything is walked
          return true;
        }
        this.#advance(stream, place, end);
      }
    }
    return true;
  }

  /** @returns the offset after the record at `offset`; 0 when there is no such record */
  #visitAt(stream: LaneStream, span: Span, offset: number, seed: number): number {
    const { target, count } = span;
    const at = offset - span.from;
    if (at + recordHeaderBytes > count) return 0;
    const length = plausibleLength(target, at, count - at);
    if (length === 0 || !recordIsValid(target, at, length, seed)) return 0;
    this.#visit(stream, target, at, length, target[at + 8]!, target[at + 9]!);
    return offset + length;
  }

  #visit(stream: LaneStream, buffer: Buffer, at: number, length: number, type: number, flags: number): void {
    if (type !== recordType.message) return;
    const message = this.#message;
    const { lane } = stream;
    try {
      message.start(buffer, at + recordHeaderBytes, at + length, flags);
      const { position } = message;
      this.#passed = position + length;
      if (position < stream.readAt) return; // a merged segment is walked from a little before
      if (position <= stream.cursor || position >= stream.to || !message.findTaker(lane.id)) return;
      if (lane.skips.length > 0 && lane.isSkipped(position)) return;
      stream.pushAhead(new Entry(lane, message, length, this.#slab));
    } catch (error) {
      if (!(error instanceof FieldError)) throw error; // found missing when the segment is left
    }
  }

  /** False: the table has another segment for this now, and reading begins again there. */
  #isCurrent(stream: LaneStream, segment: Segment): boolean {
    if (segment.isCurrent) return true;
    stream.place = undefined;
    return false;
  }

  /** Once all of the lane's part of a segment was read: what waits there and was not found is lost. */
  #settleUp(stream: LaneStream): void {
    const segment = stream.place?.segment;
    if (segment === undefined) return;
    if (!segment.isCurrent) stream.place = undefined; // what it counted, another counts now
    if (!segment.isCurrent) return;
    const { lane } = stream;
    const part = segment.parts.get(lane.id);
    // The walk of a backlog goes a little beyond its end.
    const readTo = Math.min(stream.readAt, stream.to);
    if (part !== undefined && (readTo <= part.last || part.last >= this.#source.durablePosition())) return;
    stream.place = undefined;
    if (part === undefined || part.first < stream.from) return; // what lies before, the backlog's reading finds or misses
    let found = 0;
    let bytes = 0;
    const count = (entry: Entry): void => {
      if (entry.position < segment.base || entry.position >= segment.end) return;
      found += 1;
      bytes += entry.bytes;
    };
    for (const entry of lane.flying()) count(entry);
    for (const some of [lane, lane.fresh])
      if (some !== undefined)
        for (let index = some.aheadHead; index < some.ahead.length; index += 1) count(some.ahead[index]!);
    const lost = part.waiting - found;
    if (lost <= 0) return;
    this.#source.state.untake(segment, lane, lost, part.bytes - bytes);
    this.#source.onLost(lane, lost);
  }

  /** A lane's backlog is at its end, and its fresh stream goes on for both. The segment in which they met is settled up when all of it was read. */
  merge(lane: Lane): void {
    const { to } = lane;
    lane.merge();
    const segment = this.#source.state.segments.find(to);
    if (segment === undefined || segment.base >= to || lane.place?.segment === segment) return;
    const { place } = lane;
    lane.place = { segment, offset: segment.offsetOf(lane.readAt), index: undefined };
    this.#settleUp(lane);
    lane.place ??= place;
  }

  /** Where reading goes on: nowhere else is an offset turned into a position. */
  #advance(stream: LaneStream, place: ReadingPlace, offset: number): void {
    const { segment } = place;
    place.offset = offset;
    if (segment.merged === undefined) stream.readAt = segment.positionOf(offset);
    else stream.readAt = offset >= segment.recordsTo ? segment.end : Math.max(stream.readAt, this.#passed);
  }
}
