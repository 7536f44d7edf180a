/**
 * Fills the read-ahead of lanes: from the tail in RAM at once, from disk in gulps. Only what is durable is read. A gulp is walked record by record
 * with its checksums, since a rotten length would lead astray.
 */
import { FieldError } from "./bytes.ts";
import { recordHeaderBytes, recordType } from "./format.ts";
import { Entry, type Lane } from "./lane.ts";
import { MessageReader } from "./messageRecord.ts";
import type { SegmentReader } from "./segmentReader.ts";
import type { Segment } from "./segments.ts";
import type { State } from "./state.ts";
import type { Tail } from "./tail.ts";
import { RecordWalker } from "./walk.ts";

const aheadBytes = 256 * 1024;
const gulpBytes = 256 * 1024;

export interface LaneSource {
  readonly state: State;
  readonly tail: Tail;
  readonly reader: SegmentReader;
  readonly durablePosition: () => number;
  /** Messages that were to be there and are not: rot. */
  readonly onLost: (lane: Lane, messages: number) => void;
}

export class LaneReader {
  readonly #source: LaneSource;
  readonly #message = new MessageReader();

  constructor(source: LaneSource) {
    this.#source = source;
  }

  /** Whether more than what is read ahead may be had. */
  hasMore(lane: Lane): boolean {
    return (
      !lane.blocked &&
      lane.newest >= lane.readAt &&
      lane.newest > lane.cursor &&
      lane.readAt < this.#source.durablePosition()
    );
  }

  needsDisk(lane: Lane): boolean {
    return lane.readAt < this.#source.tail.start && this.hasMore(lane);
  }

  /** Reads ahead what is in RAM. False: the next bytes are on disk only. */
  fillFromTail(lane: Lane): boolean {
    const { tail, state } = this.#source;
    const durable = this.#source.durablePosition();
    if (lane.readAt < tail.start) {
      const segment = state.segments.nextWith(lane.id, lane.readAt);
      if (segment === undefined) {
        lane.readAt = tail.start;
      } else {
        const first = segment.parts.get(lane.id)!.first;
        if (Math.max(first, lane.readAt) < tail.start) return false;
        lane.readAt = Math.max(first, lane.readAt);
      }
    }
    while (lane.readAt < durable && lane.aheadBytes < aheadBytes) {
      const piece = tail.at(lane.readAt);
      if (piece === undefined) break;
      let at = piece.from;
      const start = lane.readAt;
      while (at < piece.to && start + (at - piece.from) < durable && lane.aheadBytes < aheadBytes) {
        const length = piece.buffer.readUInt32LE(at);
        this.#visit(lane, piece.buffer, at, length, piece.buffer[at + 8]!, piece.buffer[at + 9]!);
        at += length;
      }
      lane.readAt = start + (at - piece.from);
    }
    return true;
  }

  /** Reads ahead until there is enough or nothing left. One call a lane at a time. Never rejects. */
  async fill(lane: Lane): Promise<void> {
    const { generation } = lane;
    let wanted = gulpBytes;
    // Where the walk of a merged segment goes on: its positions do not say.
    let next: { segment: Segment; readAt: number; offset: number } | undefined;
    const walker = new RecordWalker();
    while (lane.generation === generation && lane.aheadBytes < aheadBytes && this.hasMore(lane)) {
      if (this.fillFromTail(lane)) return;
      const { state, reader } = this.#source;
      const segment = state.segments.nextWith(lane.id, lane.readAt)!;
      lane.readAt = Math.max(lane.readAt, segment.parts.get(lane.id)!.first);
      const to = Math.min(segment.end, this.#source.durablePosition());
      const goesOn = next?.segment === segment && next.readAt === lane.readAt;
      const from = goesOn ? next!.offset : segment.offsetOf(lane.readAt);
      const last = segment.merged === undefined ? segment.offsetOf(to) : segment.recordsTo;
      const gulp = Buffer.allocUnsafe(Math.max(0, Math.min(wanted, last - from)));
      const count = await reader.read(segment, from, gulp);
      if (lane.generation !== generation) return;
      if (count < 0) {
        lane.blocked = true;
        return;
      }
      if (count === 0) {
        this.#leave(lane, segment, to);
        continue;
      }
      walker.start(gulp, 0, count, count < gulp.length ? 0 : last - from - count, segment.seed);
      wanted = this.#walk(lane, walker);
      const at = from + walker.next;
      if (segment.merged === undefined) lane.readAt = at - segment.offsetOf(segment.base) + segment.base;
      else next = { segment, readAt: lane.readAt, offset: at };
      if (count < gulp.length || at >= last) this.#leave(lane, segment, to);
    }
  }

  /** @returns how many bytes the next read should fetch */
  #walk(lane: Lane, walker: RecordWalker): number {
    let step = walker.step();
    for (; step === "record"; step = walker.step()) {
      this.#visit(lane, walker.buffer, walker.at, walker.length, walker.type, walker.flags);
      if (lane.aheadBytes >= aheadBytes) break;
    }
    return step === "more" ? Math.max(gulpBytes, walker.wanted) : gulpBytes;
  }

  #visit(lane: Lane, buffer: Buffer, at: number, length: number, type: number, flags: number): void {
    if (type !== recordType.message) return;
    const message = this.#message;
    try {
      message.start(buffer, at + recordHeaderBytes, at + length, flags);
      const { position } = message;
      if (position < lane.readAt) return; // a merged segment is walked from a little before
      if (position <= lane.cursor || !message.findTaker(lane.id)) return;
      if (lane.skips.length > 0 && lane.isSkipped(position)) return;
      lane.pushAhead(new Entry(lane, message, length));
      lane.readAt = position + 1;
    } catch (error) {
      if (!(error instanceof FieldError)) throw error; // found missing when the segment is left
    }
  }

  /** Every byte of the lane's part of a segment was read: what waits there and was not found is lost. */
  #leave(lane: Lane, segment: Segment, to: number): void {
    lane.readAt = Math.max(lane.readAt, to);
    if (to < segment.end) return;
    const part = segment.parts.get(lane.id);
    if (part === undefined) return;
    let found = 0;
    let bytes = 0;
    const count = (entry: Entry): void => {
      if (entry.position < segment.base || entry.position >= segment.end) return;
      found += 1;
      bytes += entry.bytes;
    };
    for (const entry of lane.pending.values()) count(entry);
    for (let index = lane.aheadHead; index < lane.ahead.length; index += 1) count(lane.ahead[index]!);
    const lost = part.waiting - found;
    if (lost <= 0) return;
    this.#source.state.untake(segment, lane, lost, part.bytes - bytes);
    this.#source.onLost(lane, lost);
  }
}
