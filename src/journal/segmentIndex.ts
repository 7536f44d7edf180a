/**
 * Where each lane's messages lie in a segment: one record per lane, just before the last GROUP_END of a sealed segment.
 *
 *   SEGMENT_INDEX   segment number | lane | messages | bytes of their records | longest record | offset, then the step to each next one
 *
 * It only makes reading quicker: what is missing, rotten or of another segment (a roll moves whole groups) is made up for by a scan.
 */
import { ByteReader, ByteWriter, dataViewOf, FieldError } from "./bytes.ts";
import { recordHeaderBytes, recordType } from "./format.ts";
import type { RecordSink } from "./records.ts";
import type { SegmentReader } from "./segmentReader.ts";
import type { Segment } from "./segments.ts";
import { RecordWalker } from "./walk.ts";

/** Where an index is looked for when nothing says where it lies. */
const searchBytes = 256 * 1024;
const fieldsBound = 60;
/** A lane's buffer larger than this is not kept for the next segment. */
const keptBytes = 64 * 1024;

class LaneOffsets {
  readonly steps = new ByteWriter(Buffer.allocUnsafeSlow(256));
  count = 0;
  bytes = 0;
  longest = 0;
  last = 0;

  clear(): void {
    if (this.steps.buffer.length > keptBytes) this.#goTo(Buffer.allocUnsafeSlow(256));
    this.steps.at = 0;
    this.count = 0;
    this.bytes = 0;
    this.longest = 0;
    this.last = 0;
  }

  add(offset: number, bytes: number): void {
    const { steps } = this;
    if (steps.at + 10 > steps.buffer.length) {
      const larger = Buffer.allocUnsafeSlow(2 * steps.buffer.length);
      steps.buffer.copy(larger, 0, 0, steps.at);
      this.#goTo(larger);
    }
    steps.uvarint(offset - this.last);
    this.last = offset;
    this.count += 1;
    this.bytes += bytes;
    this.longest = Math.max(this.longest, bytes);
  }

  #goTo(buffer: Buffer): void {
    this.steps.goTo(buffer, dataViewOf(buffer), this.steps.at);
  }

  /** Takes the newest back. `longest` may stay too large, which costs nothing. */
  undo(bytes: number): void {
    const { steps } = this;
    let from = steps.at - 1;
    while (from > 0 && steps.buffer[from - 1]! > 127) from -= 1; // only the last byte of a number is below 128
    this.last -= new ByteReader(steps.buffer, from, steps.at).uvarint();
    steps.at = from;
    this.count -= 1;
    this.bytes -= bytes;
  }
}

/** Collects what the segment that is being written will end with. One to two bytes per message of that one segment. */
export class IndexCollector {
  #segment: Segment | undefined;
  #whole = false;
  readonly #lanes = new Map<number, LaneOffsets>();
  /** Which lane was added to last, and what it has. */
  #lane = -1;
  #offsets: LaneOffsets | undefined;

  /** What `seal` will add at most. */
  get bytes(): number {
    let bytes = 0;
    if (this.#whole) {
      for (const lane of this.#lanes.values())
        if (lane.count > 0) bytes += lane.steps.at + fieldsBound + recordHeaderBytes;
    }
    return bytes;
  }

  add(segment: Segment, lane: number, position: number, bytes: number): void {
    if (segment !== this.#segment) this.#begin(segment, true);
    if (!this.#whole) return;
    let offsets = lane === this.#lane ? this.#offsets : this.#lanes.get(lane);
    if (offsets === undefined) {
      offsets = new LaneOffsets();
      this.#lanes.set(lane, offsets);
    }
    if (lane !== this.#lane) {
      this.#lane = lane;
      this.#offsets = offsets;
    }
    offsets.add(segment.offsetOf(position), bytes);
  }

  /** The newest message of the lane, of so many bytes, is cut off again. */
  undo(segment: Segment, lane: number, bytes: number): void {
    if (segment !== this.#segment || !this.#whole) return;
    this.#lanes.get(lane)?.undo(bytes);
  }

  /** Bytes that were not collected lie in the segment now: it gets no index. */
  abandon(segment: Segment): void {
    this.#begin(segment, false);
  }

  /** Writes the index of a segment that gets nothing but the end of its last group after it. */
  seal(sink: RecordSink, position: number, segment: Segment): void {
    if (segment !== this.#segment || !this.#whole) return;
    segment.indexAt = segment.offsetOf(position);
    for (const [lane, { steps, count, bytes, longest }] of this.#lanes) {
      if (count === 0) continue;
      const to = sink.begin(recordType.segmentIndex, 0, fieldsBound + steps.at);
      for (const value of [segment.number, lane, count, bytes, longest]) to.uvarint(value);
      to.raw(steps.buffer.subarray(0, steps.at));
      sink.finish();
    }
    this.#begin(undefined, false);
  }

  #begin(segment: Segment | undefined, whole: boolean): void {
    this.#segment = segment;
    this.#whole = whole;
    for (const lane of this.#lanes.values()) lane.clear();
  }
}

/** One lane's offsets in one segment, read step by step. */
export class LaneIndex {
  readonly count: number;
  /** Bytes of the lane's longest record. */
  readonly longest: number;
  readonly #steps: ByteReader;
  /** The offset that it stands at; 0 when there is none left. */
  offset = 0;

  constructor(count: number, longest: number, steps: Buffer) {
    this.count = count;
    this.longest = longest;
    this.#steps = new ByteReader(steps);
    this.next();
  }

  get at(): number {
    return this.#steps.at;
  }

  /** Back to where `at` and `offset` were. */
  reset(at: number, offset: number): void {
    this.#steps.at = at;
    this.offset = offset;
  }

  /** Steps on. @throws FieldError when what was written makes no sense */
  next(): void {
    this.offset = this.#steps.at >= this.#steps.end ? 0 : this.offset + this.#steps.uvarint();
  }
}

/** Finds the lane's index in a sealed, durable segment. Undefined: none, or not readable now. Never rejects. */
export async function loadIndex(
  reader: SegmentReader,
  segment: Segment,
  lane: number,
  gulp: Buffer,
): Promise<LaneIndex | undefined> {
  const end = segment.offsetOf(segment.end);
  const known = segment.indexAt > 0;
  let from = known ? segment.indexAt : Math.max(segment.offsetOf(segment.base), end - searchBytes);
  if (segment.indexAt < 0) return undefined;
  const walker = new RecordWalker();
  let buffer = gulp;
  while (from < end) {
    const piece = buffer.subarray(0, Math.min(buffer.length, end - from));
    const count = await reader.readFrom(segment, from, piece);
    if (count <= 0) return undefined;
    walker.start(piece, 0, count, count < piece.length ? 0 : end - from - count, segment.seed);
    let step = walker.step();
    for (; step === "record"; step = walker.step()) {
      if (walker.type !== recordType.segmentIndex) continue;
      const index = decode(segment, lane, walker);
      if (index === "other") continue;
      if (segment.indexAt === 0) segment.indexAt = from + walker.at;
      if (index !== undefined) return index;
    }
    if (step === "end") break;
    from += walker.next;
    if (walker.wanted > buffer.length) buffer = Buffer.allocUnsafeSlow(walker.wanted);
  }
  if (segment.indexAt === 0) segment.indexAt = -1;
  return undefined;
}

/** "other": not of this segment. Undefined: of another lane. */
function decode(segment: Segment, lane: number, walker: RecordWalker): LaneIndex | "other" | undefined {
  const from = new ByteReader(walker.buffer, walker.at + recordHeaderBytes, walker.next);
  try {
    if (from.uvarint() !== segment.number) return "other";
    if (from.uvarint() !== lane) return undefined;
    const [count, , longest] = [from.uvarint(), from.uvarint(), from.uvarint()];
    return new LaneIndex(count, longest, from.rest());
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    return "other";
  }
}
