/**
 * The small records: written to the journal and, the same, to checkpoints. All are absolute statements, so that applying one twice does no harm.
 *
 *   GROUP_END   u32 group crc | group | last durable group | bytes of the group before this record | records | store clock ms | wall ms
 *   UPLINK      name | next seq | n | n x { reason | dropped }
 *   LANE        id | priority | uplink name
 *   LANE_STATE  id | mark | n | n x { from - before | to - from }      before: the mark, then the `to` before
 *   RULE        id | uplink name | definition
 *   REFERENCE   queue | ordinal | position | meta | bytes      of earlier versions
 *   RELEASE     queue | ordinal | n - 1, when more than one goes          DROP_QUEUE  queue             QUEUE  queue | next ordinal
 *   RETAIN      topic | position         UNRETAIN    topic
 *   PUT         map | key | value        DELETE      map | key
 *   REFERENCES  queue | n | n x { ordinal - before | position - before, zigzag | meta | bytes }      CHECKPOINT_MARK  number | mark
 *   SEGMENT     number | base | end | n | n x { lane | waiting | bytes | first | last - first | first accepted | last accepted | last expiry + 1, 0: never } | index offset?
 */
import { type ByteReader, type ByteWriter, textBound } from "./bytes.ts";
import { recordType } from "./format.ts";
import { type Interval, intervalsMax, type Lane } from "./lane.ts";
import type { Reference, ReferenceBatch } from "./references.ts";
import type { LanePart, Segment } from "./segments.ts";
import type { State, UplinkAccount } from "./state.ts";

/** Where records go: the tail of the journal, or a checkpoint. */
export interface RecordSink {
  begin(type: number, flags: number, bound: number): ByteWriter;
  finish(): number;
}

export function writeUplink(sink: RecordSink, account: UplinkAccount): void {
  const reasons = Object.entries(account.dropped);
  const to = sink.begin(recordType.uplink, 0, textBound(account.name) + 20 + reasons.length * 60);
  to.text(account.name);
  to.uvarint(account.nextSeq);
  to.uvarint(reasons.length);
  for (const [reason, count] of reasons) {
    to.text(reason);
    to.uvarint(count);
  }
  sink.finish();
}

export function writeLane(sink: RecordSink, lane: Lane): void {
  const to = sink.begin(recordType.lane, 0, textBound(lane.uplink) + 20);
  to.uvarint(lane.id);
  to.uvarint(lane.priority);
  to.text(lane.uplink);
  sink.finish();
}

/** @param max a checkpoint, whose counts rely on them, holds all intervals */
export function writeLaneState(sink: RecordSink, lane: Lane, max = intervalsMax): void {
  const intervals = lane.widestIntervals(max);
  const to = sink.begin(recordType.laneState, 0, 30 + intervals.length * 20);
  to.uvarint(lane.id);
  let before = lane.mark;
  to.uvarint(before);
  to.uvarint(intervals.length);
  for (const interval of intervals) {
    to.uvarint(interval.from - before);
    to.uvarint(interval.to - interval.from);
    before = interval.to;
  }
  sink.finish();
}

export function writeRule(sink: RecordSink, id: number, uplink: string, definition: string): void {
  const to = sink.begin(recordType.rule, 0, 10 + textBound(uplink) + textBound(definition));
  to.uvarint(id);
  to.text(uplink);
  to.text(definition);
  sink.finish();
}

/** @param copies how many of it, side by side */
export function writeReferences(sink: RecordSink, queue: string, batch: ReferenceBatch, copies = 1): void {
  const to = sink.begin(recordType.references, 0, textBound(queue) + 10 + batch.length * 32);
  const start = to.at;
  to.text(queue);
  to.uvarint(batch.length);
  let [ordinal, position] = [0, 0];
  for (const one of batch) {
    to.uvarint(one.ordinal - ordinal);
    const step = one.position - position;
    to.uvarint(step < 0 ? -2 * step - 1 : 2 * step);
    to.uvarint(one.meta);
    to.uvarint(one.bytes);
    ordinal = one.ordinal;
    position = one.position;
  }
  const fields = to.buffer.subarray(start, to.at);
  sink.finish();
  for (let left = copies; left > 1; left -= 1) {
    sink.begin(recordType.references, 0, fields.length).raw(fields);
    sink.finish();
  }
}

/** @throws FieldError */
export function readReferences(from: ByteReader): { queue: string; batch: ReferenceBatch } {
  const queue = from.text();
  const batch: Reference[] = [];
  let [ordinal, position] = [0, 0];
  for (let left = from.uvarint(); left > 0; left -= 1) {
    ordinal += from.uvarint();
    const step = from.uvarint();
    position += step % 2 === 1 ? -(step + 1) / 2 : step / 2;
    batch.push({ ordinal, position, meta: from.uvarint(), bytes: from.uvarint() });
  }
  return { queue, batch };
}

export function writeCheckpointMark(sink: RecordSink, number: number, mark: number): void {
  const to = sink.begin(recordType.checkpointMark, 0, 20);
  to.uvarint(number);
  to.uvarint(mark);
  sink.finish();
}

/** The references of `count` ordinals on end. */
export function writeRelease(sink: RecordSink, queue: string, ordinal: number, count: number): void {
  const to = sink.begin(recordType.release, 0, textBound(queue) + 20);
  to.text(queue);
  to.uvarint(ordinal);
  if (count > 1) to.uvarint(count - 1);
  sink.finish();
}

/** QUEUE, RETAIN: a name and a number. */
export function writeNamed(sink: RecordSink, type: number, name: string, value: number): void {
  const to = sink.begin(type, 0, textBound(name) + 10);
  to.text(name);
  to.uvarint(value);
  sink.finish();
}

/** DROP_QUEUE, UNRETAIN (one name), DELETE (two). */
export function writeNames(sink: RecordSink, type: number, names: readonly string[]): void {
  const to = sink.begin(
    type,
    0,
    names.reduce((sum, name) => sum + textBound(name), 0),
  );
  for (const name of names) to.text(name);
  sink.finish();
}

export function writePut(sink: RecordSink, map: string, key: string, value: Uint8Array): void {
  const to = sink.begin(recordType.put, 0, textBound(map) + textBound(key) + value.length + 8);
  to.text(map);
  to.text(key);
  to.bytes(value);
  sink.finish();
}

export function writeSegment(sink: RecordSink, segment: Segment): void {
  const parts = [...segment.parts.values()];
  const to = sink.begin(recordType.segment, 0, 50 + parts.length * 72);
  to.uvarint(segment.number);
  to.uvarint(segment.base);
  to.uvarint(segment.end);
  to.uvarint(parts.length);
  for (const part of parts) {
    to.uvarint(part.lane);
    to.uvarint(part.waiting);
    to.uvarint(part.bytes);
    to.uvarint(part.first);
    to.uvarint(part.last - part.first);
    to.uvarint(part.firstAcceptedAtMs);
    to.uvarint(part.lastAcceptedAtMs);
    to.uvarint(Number.isFinite(part.lastExpiresAtMs) ? part.lastExpiresAtMs + 1 : 0);
  }
  if (segment.indexAt > 0) to.uvarint(segment.indexAt);
  sink.finish();
}

export interface SegmentRecord {
  readonly number: number;
  readonly base: number;
  readonly end: number;
  readonly parts: LanePart[];
  /** Offset of its index; 0: not said. */
  readonly indexAt: number;
}

/** @throws FieldError */
export function readSegment(from: ByteReader): SegmentRecord {
  const [number, base, end] = [from.uvarint(), from.uvarint(), from.uvarint()];
  const parts: LanePart[] = [];
  for (let left = from.uvarint(); left > 0; left -= 1) {
    const [lane, waiting, bytes, first] = [from.uvarint(), from.uvarint(), from.uvarint(), from.uvarint()];
    const last = first + from.uvarint();
    const [firstAcceptedAtMs, lastAcceptedAtMs, expiry] = [from.uvarint(), from.uvarint(), from.uvarint()];
    const lastExpiresAtMs = expiry === 0 ? Number.POSITIVE_INFINITY : expiry - 1;
    parts.push({ lane, waiting, bytes, first, last, firstAcceptedAtMs, lastAcceptedAtMs, lastExpiresAtMs });
  }
  return { number, base, end, parts, indexAt: from.at < from.end ? from.uvarint() : 0 };
}

export interface GroupEnd {
  readonly crc: number;
  readonly group: number;
  readonly durable: number;
  readonly bytes: number;
  readonly records: number;
  readonly clockMs: number;
  readonly wallMs: number;
}

export function writeGroupEnd(sink: RecordSink, end: Omit<GroupEnd, "crc">): void {
  const to = sink.begin(recordType.groupEnd, 0, 60);
  to.u32(0); // set when the group is sealed
  to.uvarint(end.group);
  to.uvarint(end.durable);
  to.uvarint(end.bytes);
  to.uvarint(end.records);
  to.uvarint(end.clockMs);
  to.uvarint(end.wallMs);
  sink.finish();
}

/** @throws FieldError */
export function readGroupEnd(from: ByteReader): GroupEnd {
  const crc = from.u32();
  const [group, durable, bytes, records] = [from.uvarint(), from.uvarint(), from.uvarint(), from.uvarint()];
  return { crc, group, durable, bytes, records, clockMs: from.uvarint(), wallMs: from.uvarint() };
}

/** Applies a small record to the state. False: not a small record. @throws FieldError */
export function applyRecord(state: State, type: number, from: ByteReader): boolean {
  switch (type) {
    case recordType.uplink:
      applyUplink(state, from);
      return true;
    case recordType.lane: {
      const [id, priority] = [from.uvarint(), from.uvarint()];
      state.defineLane(id, from.text(), priority);
      return true;
    }
    case recordType.laneState:
      applyLaneState(state, from);
      return true;
    case recordType.rule:
      state.defineRule(from.uvarint(), from.text(), from.text());
      return true;
    case recordType.reference:
      applyReference(state, from);
      return true;
    case recordType.references:
      applyReferences(state, from);
      return true;
    case recordType.release:
      state.release(from.text(), from.uvarint(), 1 + (from.at < from.end ? from.uvarint() : 0));
      return true;
    case recordType.dropQueue:
      state.dropQueue(from.text());
      return true;
    case recordType.queue:
      applyQueue(state, from);
      return true;
    case recordType.retain:
      state.retain(from.text(), from.uvarint());
      return true;
    case recordType.unretain:
      state.unretain(from.text());
      return true;
    case recordType.put:
      state.put(from.text(), from.text(), from.bytes());
      return true;
    case recordType.delete:
      state.delete(from.text(), from.text());
      return true;
    default:
      return false;
  }
}

function applyUplink(state: State, from: ByteReader): void {
  const account = state.uplink(from.text());
  account.nextSeq = Math.max(account.nextSeq, from.uvarint());
  for (let left = from.uvarint(); left > 0; left -= 1) {
    const reason = from.text();
    account.dropped[reason] = Math.max(account.dropped[reason] ?? 0, from.uvarint()); // a stale statement must not take back
  }
}

function applyLaneState(state: State, from: ByteReader): void {
  const id = from.uvarint();
  const mark = from.uvarint();
  const intervals: Interval[] = [];
  let before = mark;
  for (let left = from.uvarint(); left > 0; left -= 1) {
    const start = before + from.uvarint();
    before = start + from.uvarint();
    intervals.push({ from: start, to: before });
  }
  state.laneState(id, mark, intervals);
}

function applyReference(state: State, from: ByteReader): void {
  const name = from.text();
  const ordinal = from.uvarint();
  const position = from.uvarint();
  const meta = from.uvarint();
  state.restoreReference(state.queue(name), ordinal, position, meta, from.uvarint());
}

function applyReferences(state: State, from: ByteReader): void {
  const { queue: name, batch } = readReferences(from);
  const queue = state.queue(name);
  for (const { ordinal, position, meta, bytes } of batch) state.restoreReference(queue, ordinal, position, meta, bytes);
}

function applyQueue(state: State, from: ByteReader): void {
  const queue = state.queue(from.text());
  queue.skipTo(from.uvarint());
}
