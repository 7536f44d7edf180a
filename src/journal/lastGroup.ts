/**
 * Where the last segment ends: what of the newest group counts. A group was begun only when the one before was durable, so everything before a proven
 * group counts, save records that rotted. The last, unproven one is whole or nothing, unless its damage can be told from a torn write:
 *
 *   - Space that was never written is zeros. When the group's end is there and every sector of the group holds something other than zeros, no sector
 *     is missing: a bit rotted, and all other records of the group count.
 *   - One that nobody waited for may lie before it, synced with it: with a sector of that missing, neither counts.
 *   - When one flipped bit explains the group's checksum, and all its records are valid without it, only that bit rotted (a payload of zeros looks like
 *     a sector that is missing).
 *   - When one flipped bit in the group's end explains everything (its checksum and the whole group's are right again), it is read as it was.
 *
 * The same bytes always lead to the same decision.
 */
import { crc32 } from "node:zlib";
import { ByteReader, isZero } from "./bytes.ts";
import { flippedBit } from "./flippedBit.ts";
import { recordHeaderBytes, recordIsValid, recordType } from "./format.ts";
import { type GroupEnd, readGroupEnd } from "./records.ts";
import { RecordWalker } from "./walk.ts";

/** What of the last segment is not proven yet: from a group's start to the last byte that was written, or beyond it. */
export interface Unproven {
  readonly buffer: Buffer;
  /** Offset in the file of its first byte: sectors are counted from there. */
  readonly at: number;
  readonly seed: number;
  /** Highest group that something shows to be durable. */
  readonly proven: number;
}

interface Ending {
  readonly at: number;
  readonly next: number;
  readonly end: GroupEnd;
}

const sectorBytes = 512;
/** Of a GROUP_END: at most what its fields take. */
export const endBytesMax = recordHeaderBytes + 4 + 6 * 8;
const endBytesMin = recordHeaderBytes + 4 + 6;
/** Damaged stretches that are looked at for a group's end: each costs some 500 checksums. */
const triesMax = 16;

/** @returns offset in the file behind the last group that counts; `at` when none does */
export function acceptedEnd(last: Unproven): number {
  const { at: offset, seed, buffer } = last;
  const { endings, gaps } = survey(last);
  for (const gap of gaps.slice(-triesMax)) {
    const mended = mendedEnding(last, gap);
    if (mended !== undefined) endings.push(mended);
  }
  endings.sort((a, b) => a.at - b.at);
  const proven = endings.reduce((highest, { end }) => Math.max(highest, end.durable), last.proven);
  let accepted = 0;
  for (const { at, next, end } of endings) {
    const start = at - end.bytes;
    if (end.group > proven) {
      if (start < accepted) continue;
      const difference = crc32(buffer.subarray(start, at), seed) ^ end.crc;
      if (difference !== 0 && !isOneBit(last, start, at, difference) && !isWritten(last, start, next)) break;
      // One before it that nobody waited for was synced with it, or neither was.
      if (start > accepted && !isWritten(last, accepted, start)) break;
    }
    accepted = next;
  }
  return offset + accepted;
}

/** All group ends, and where damage begins. */
function survey({ buffer, seed }: Unproven): { endings: Ending[]; gaps: number[] } {
  const walker = new RecordWalker();
  walker.start(buffer, 0, buffer.length, 0, seed);
  const endings: Ending[] = [];
  const gaps: number[] = [];
  let expected = walker.next;
  while (walker.step() === "record") {
    if (walker.at !== expected) gaps.push(expected);
    expected = walker.next;
    if (walker.type !== recordType.groupEnd) continue;
    const end = groupEndAt(buffer, walker.at, walker.next);
    if (end !== undefined) endings.push({ at: walker.at, next: walker.next, end });
  }
  if (expected < buffer.length) gaps.push(expected);
  return { endings, gaps };
}

/** The fields of a GROUP_END record. Undefined: they do not fit. */
export function groupEndAt(buffer: Buffer, at: number, next: number): GroupEnd | undefined {
  try {
    return readGroupEnd(new ByteReader(buffer, at + recordHeaderBytes, next));
  } catch {
    return undefined; // counted when it is applied
  }
}

/** The group's end that begins at `at`, if one bit of it was flipped and nothing else of its group. */
function mendedEnding({ buffer, seed }: Unproven, at: number): Ending | undefined {
  if (buffer.length - at < endBytesMin) return undefined;
  const copy = Buffer.from(buffer.subarray(at, at + endBytesMax));
  for (let bit = 0; bit < copy.length * 8; bit += 1) {
    const byte = bit >>> 3;
    const mask = 1 << (bit & 7);
    copy[byte] = copy[byte]! ^ mask;
    const length = copy.readUInt32LE(0);
    if (length >= endBytesMin && length <= copy.length && copy[8] === recordType.groupEnd && copy[9] === 0) {
      const end = recordIsValid(copy, 0, length, seed) ? groupEndAt(copy, 0, length) : undefined;
      const start = at - (end?.bytes ?? Number.POSITIVE_INFINITY);
      if (end !== undefined && start >= 0 && crc32(buffer.subarray(start, at), seed) === end.crc) {
        return { at, next: at + length, end };
      }
    }
    copy[byte] = copy[byte]! ^ mask;
  }
  return undefined;
}

/** Whether one flipped bit is all that is wrong with the records from `start` to `end`: with it as it was, each is valid. */
function isOneBit({ buffer, seed }: Unproven, start: number, end: number, difference: number): boolean {
  const flipped = flippedBit(difference, end - start);
  if (flipped === undefined) return false;
  const at = start + flipped.byte;
  const mask = 1 << flipped.bit;
  buffer[at] = buffer[at]! ^ mask;
  const walker = new RecordWalker();
  walker.start(buffer, start, end, 0, seed);
  while (walker.step() === "record");
  const whole = walker.gaps === 0 && walker.next === end;
  buffer[at] = buffer[at]! ^ mask;
  return whole;
}

/**
 * Whether each sector's part of the group was written: it holds something other than zeros, or lies within a record whose checksum is right (a
 * payload may well be zeros).
 */
function isWritten({ buffer, at, seed }: Unproven, start: number, next: number): boolean {
  const walker = new RecordWalker();
  walker.start(buffer, start, next, 0, seed);
  let within = walker.step() === "record";
  for (let from = start; from < next; ) {
    const to = Math.min(next, (Math.floor((at + from) / sectorBytes) + 1) * sectorBytes - at);
    if (isZero(buffer.subarray(from, to))) {
      while (within && walker.next < to) within = walker.step() === "record";
      // Records lie side by side: one that begins in this sector may be joined by the next, but zeros alone are never a record's beginning.
      if (!within || walker.at > from) return false;
    }
    from = to;
  }
  return true;
}
