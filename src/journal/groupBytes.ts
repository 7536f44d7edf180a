/** A closed group's checksums, and getting bytes into a file whole. */
import { crc32 } from "node:zlib";
import { errnoOf } from "../base/errors.ts";
import type { OpenFile } from "../base/files.ts";
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
}

/** Sets the checksums of a closed group, whose last record is its GROUP_END, for the segment it goes to. */
export function sealGroup(tail: Tail, group: Group): void {
  const { seed } = group.segment;
  const slices = tail.slices(group.start, group.end);
  let endAt = 0;
  for (const slice of slices) {
    for (let at = 0; at < slice.length; ) {
      const length = slice.readUInt32LE(at);
      sealRecord(slice, at, length, seed);
      endAt = at;
      at += length;
    }
  }
  const last = slices.at(-1)!;
  let crc = seed;
  for (const slice of slices.slice(0, -1)) crc = crc32(slice, crc);
  crc = crc32(last.subarray(0, endAt), crc);
  last.writeUInt32LE(crc, endAt + recordHeaderBytes);
  sealRecord(last, endAt, last.length - endAt, seed);
}

/** The disk, or our share of it, is full. */
export const isNoSpace = (error: unknown): boolean => ["ENOSPC", "EDQUOT", "EFBIG"].includes(errnoOf(error));

/** Writes all of it, however short the single writes are. @returns the bytes */
export async function writeAll(file: OpenFile, buffers: Buffer[], position: number): Promise<number> {
  let left = buffers;
  let at = position;
  while (left.length > 0) {
    // Linux takes at most 1024 buffers a call (IOV_MAX).
    let written = await file.write(left.slice(0, 1024), at);
    if (written === 0) throw Object.assign(new Error("the disk took nothing"), { code: "ENOSPC" });
    at += written;
    let whole = 0;
    while (whole < left.length && written >= left[whole]!.length) written -= left[whole++]!.length;
    left = left.slice(whole);
    if (written > 0) left[0] = left[0]!.subarray(written);
  }
  return at - position;
}
