/**
 * A checkpoint: all the small state, so that a start needs only the journal after its mark. Taken at a group boundary, written to one side,
 * synced, renamed, the folder synced; the last two are kept, so that one may rot.
 *
 *   header (base: mark, first group: the group it ends with) | records | FOOTER records | store ms | wall ms | clean | next segment
 */
import { join } from "node:path";
import type { Files } from "../base/files.ts";
import { ByteReader, FieldError } from "./bytes.ts";
import {
  checkpointMagic,
  checkpointName,
  decodeHeader,
  encodeHeader,
  type Header,
  headerBytes,
  recordHeaderBytes,
  recordType,
  sealRecord,
  seedOf,
  stagedName,
} from "./format.ts";
import { writeAll } from "./groupBytes.ts";
import type { RecordSink } from "./records.ts";
import {
  applyRecord,
  readSegment,
  type SegmentRecord,
  writeLane,
  writeLaneState,
  writeNamed,
  writePut,
  writeReference,
  writeRule,
  writeSegment,
  writeUplink,
} from "./records.ts";
import { State } from "./state.ts";
import { Tail } from "./tail.ts";
import { RecordWalker } from "./walk.ts";

export interface CheckpointPlace {
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly number: number;
  readonly mark: number;
  readonly group: number;
  readonly storeMs: number;
  readonly wallMs: number;
  readonly clean: boolean;
  readonly nextSegment: number;
}

/** What a kept checkpoint is known by. */
export interface KeptCheckpoint {
  readonly number: number;
  readonly mark: number;
  readonly bytes: number;
}

/** Uplinks, lanes, their state and the rules: also what every segment begins with, so that segments can be understood without a checkpoint. */
export function writeDefinitions(sink: RecordSink, state: State): number {
  for (const account of state.uplinks.values()) writeUplink(sink, account);
  for (const lane of state.lanes.values()) writeLane(sink, lane);
  for (const lane of state.lanes.values()) writeLaneState(sink, lane);
  for (const [id, rule] of state.rules) writeRule(sink, id, rule.uplink, rule.definition);
  return state.uplinks.size + 2 * state.lanes.size + state.rules.size;
}

/** The whole file. Synchronous: the state must not move meanwhile. */
export function encodeCheckpoint(state: State, place: CheckpointPlace): Buffer[] {
  const sink = new Tail(0, Number.POSITIVE_INFINITY);
  let records = writeDefinitions(sink, state);
  for (const segment of state.segments.list) {
    writeSegment(sink, segment);
    records += 1;
  }
  for (const queue of state.queues.values()) {
    for (let ordinal = queue.nextAfter(0); ordinal > 0; ordinal = queue.nextAfter(ordinal)) {
      const [position, meta, bytes] = [queue.positionOf(ordinal), queue.metaOf(ordinal), queue.bytesOf(ordinal)];
      writeReference(sink, queue.name, { ordinal, position, meta, bytes });
      records += 1;
    }
    writeNamed(sink, recordType.queue, queue.name, queue.nextOrdinal);
    records += 1;
  }
  for (const [topic, position] of state.retained) writeNamed(sink, recordType.retain, topic, position);
  for (const [map, entries] of state.maps) {
    for (const [key, value] of entries) writePut(sink, map, key, value);
    records += entries.size;
  }
  records += state.retained.size;
  const to = sink.begin(recordType.footer, 0, 60);
  for (const value of [records, place.storeMs, place.wallMs, place.clean ? 1 : 0, place.nextSegment]) to.uvarint(value);
  sink.finish();
  const seed = seedOf(checkpointMagic, place.storeId, place.number);
  const slices = sink.slices(0, sink.end);
  for (const slice of slices) {
    for (let at = 0; at < slice.length; at += slice.readUInt32LE(at))
      sealRecord(slice, at, slice.readUInt32LE(at), seed);
  }
  const { storeId, epoch, number, mark, group, wallMs } = place;
  const header = encodeHeader(checkpointMagic, {
    storeId,
    epoch,
    number,
    base: mark,
    firstGroup: group,
    prevEnd: 0,
    wallMs,
  });
  return [header, ...slices];
}

/** @throws errno errors; then nothing of it counts */
export async function writeCheckpoint(files: Files, dir: string, number: number, buffers: Buffer[]): Promise<number> {
  const path = join(dir, checkpointName(number));
  const staged = stagedName(path);
  await files.unlink(staged).catch(() => undefined);
  const file = await files.open(staged, "create");
  let bytes: number;
  try {
    bytes = await writeAll(file, buffers, 0);
    await file.datasync();
  } finally {
    await file.close();
  }
  await files.rename(staged, path);
  await files.syncDir(dir); // or a power cut may undo the rename
  return bytes;
}

export interface LoadedCheckpoint {
  readonly state: State;
  readonly segments: Map<number, SegmentRecord>;
  readonly header: Header;
  readonly records: number;
  readonly storeMs: number;
  readonly wallMs: number;
  readonly clean: boolean;
  readonly nextSegment: number;
  readonly bytes: number;
}

/** Undefined when a byte of it is wrong: the one before is used then. */
export function loadCheckpoint(buffer: Buffer): LoadedCheckpoint | "newer" | undefined {
  const header = decodeHeader(checkpointMagic, buffer);
  if (header === undefined || header === "newer") return header;
  const state = new State();
  const segments = new Map<number, SegmentRecord>();
  const walker = new RecordWalker();
  walker.start(buffer, headerBytes, buffer.length, 0, seedOf(checkpointMagic, header.storeId, header.number));
  const from = new ByteReader(buffer);
  let records = 0;
  try {
    for (let expected = headerBytes; walker.step() === "record"; records += 1) {
      if (walker.at !== expected) return undefined;
      expected = walker.next;
      from.reset(buffer, walker.at + recordHeaderBytes, walker.next);
      if (walker.type === recordType.segment) {
        const segment = readSegment(from);
        segments.set(segment.number, segment);
      } else if (walker.type === recordType.footer) {
        if (from.uvarint() !== records) return undefined;
        const [storeMs, wallMs, clean, nextSegment] = [from.uvarint(), from.uvarint(), from.uvarint(), from.uvarint()];
        return {
          state,
          segments,
          header,
          records,
          storeMs,
          wallMs,
          clean: clean === 1,
          nextSegment,
          bytes: buffer.length,
        };
      } else applyRecord(state, walker.type, from);
    }
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
  }
  return undefined;
}
