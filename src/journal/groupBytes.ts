/** A closed group's checksums, and getting bytes into a file whole. */
import type { OpenFile } from "../base/files.ts";
import { dataViewOf } from "./bytes.ts";
import { checksumIn, joined } from "./checksum.ts";
import { recordHeaderBytes, sealRecord } from "./format.ts";
import type { Segment } from "./segments.ts";
import type { Tail } from "./tail.ts";

/** What one sync covers. */
export interface Group {
  readonly number: number;
  readonly start: number;
  end: number;
  records: number;
  segment: Segment;
  /** Something was appended besides the statements that a new segment begins with. */
  touched: boolean;
  /** False while it holds only what may be lost with the power (lane states, the proof of the group before). */
  needsSync: boolean;
  /** Holds a large record, and has a segment for itself. */
  apart: boolean;
}

export const newGroup = (number: number, segment: Segment, start: number): Group => ({
  ...{ number, start, end: start, records: 0, segment },
  ...{ touched: false, needsSync: false, apart: false },
});

/** Sets the checksums of a closed group, whose last record is its GROUP_END, for the segment it goes to. */
export function sealGroup(tail: Tail, group: Group): void {
  const { seed } = group.segment;
  let view: DataView = nothing;
  let last = 0;
  /** Of the group up to `last`, and up to what follows it. */
  let [before, crc] = [seed, seed];
  for (const slice of tail.slices(group.start, group.end)) {
    view = dataViewOf(slice);
    for (let at = 0; at < slice.length; at += view.getUint32(at, true)) {
      last = at;
      before = crc;
      crc = crcWith(before, view, at, seed);
    }
  }
  view.setUint32(last + recordHeaderBytes, before, true);
  sealRecord(view, last, view.byteLength - last, seed);
}

const nothing = new DataView(new ArrayBuffer(0));

/** Seals the record at `at`. @returns the checksum of what `before` is of and of it: its bytes are read once for both */
function crcWith(before: number, view: DataView, at: number, seed: number): number {
  const length = view.getUint32(at, true);
  const crc = sealRecord(view, at, length, seed);
  return joined(checksumIn(view, at, at + 8, before), crc, length - 8, seed);
}

/** Linux takes at most 1024 buffers a call (IOV_MAX). */
const buffersMax = 1024;
/** A buffer over twice this (that of a large record) is written in pieces of so much, so that no single call holds up the disk or libuv's threads. */
const pieceBytes = 256 * 1024;

/** Writes all of it, however short the single writes are. @returns the bytes */
export async function writeAll(file: OpenFile, buffers: readonly Buffer[], position: number): Promise<number> {
  let at = position;
  /** The first buffer that is not written whole, and how much of it is. */
  let index = 0;
  let done = 0;
  while (index < buffers.length) {
    const batch = nextBatch(buffers, index, done, at);
    let written = await file.write(batch, at);
    if (written === 0) throw Object.assign(new Error("the disk took nothing"), { code: "ENOSPC" });
    at += written;
    while (index < buffers.length && written >= buffers[index]!.length - done) {
      written -= buffers[index]!.length - done;
      done = 0;
      index += 1;
    }
    done += written;
  }
  return at - position;
}

/** What one call writes: a piece of a large buffer, which ends at a block's end, or all buffers up to the next large one. */
function nextBatch(buffers: readonly Buffer[], from: number, done: number, position: number): Buffer[] {
  const batch: Buffer[] = [];
  for (let index = from; index < buffers.length && batch.length < buffersMax; index += 1) {
    const buffer = index === from && done > 0 ? buffers[index]!.subarray(done) : buffers[index]!;
    if (buffer.length > 2 * pieceBytes) {
      if (batch.length === 0) batch.push(buffer.subarray(0, pieceBytes - (position % 4096)));
      break;
    }
    batch.push(buffer);
  }
  return batch;
}
