/**
 * What the bytes on disk mean; DESIGN.md draws them. Little-endian.
 *
 *   segment     header copy at 0, the same again at 512, records from 1024 on
 *   checkpoint  the same, with another magic
 *   record      u32 length of the whole record | u32 crc of all after it | u8 type | u8 flags | fields
 *
 * A length of 0 means "preallocated space begins here", never an empty record.
 */
import { crc32 } from "node:zlib";
import { checksum, checksumIn } from "./checksum.ts";

/** Written into every header; older ones are read. 2: merged segments. 3: references and releases of a queue, many to a record. */
export const formatVersion = 3;
export const headerBytes = 1024;
export const recordHeaderBytes = 10;
const headerCopyBytes = 128;
const headerCopyAt = [0, 512];

/** Numbers are for ever: never reused, never renumbered. */
export const recordType = {
  message: 1,
  groupEnd: 2,
  lane: 3,
  laneState: 4,
  rule: 5,
  /** Read only: earlier versions wrote each for itself. */
  reference: 6,
  release: 7,
  dropQueue: 8,
  retain: 9,
  unretain: 10,
  put: 11,
  delete: 12,
  uplink: 13,
  /** Checkpoints only. */
  segment: 14,
  queue: 15,
  footer: 16,
  /** At a sealed segment's end: where one lane's messages lie in it. */
  segmentIndex: 17,
  /** Everything that a fuzzy checkpoint may have seen was written before it: the checkpoint counts once this is durable. */
  checkpointMark: 18,
  /** The last record of a merged segment: what its header says, and where its positions lie. */
  merged: 19,
  /** References of one queue, many to a record: in checkpoints, and at the end of their group. */
  references: 20,
} as const;
export const recordTypeMax = 20;
/** Highest flags byte in use (MESSAGE: qos, retain, properties). Keeps resynchronising after rot cheap. */
export const recordFlagsMax = 15;

export const segmentMagic = "TGSEGMT1";
export const checkpointMagic = "TGCHECK1";

/** Of a segment; a checkpoint uses `base` for its mark and `firstGroup` for its group. */
export interface Header {
  readonly storeId: Buffer;
  readonly epoch: number;
  /** Rises by one with every file; never reused, so that a record's seed is unique. */
  readonly number: number;
  /** Position of the byte at offset 1024. */
  readonly base: number;
  readonly firstGroup: number;
  /** Nothing at or beyond this position in segments of a lower number is ever read. */
  readonly prevEnd: number;
  readonly wallMs: number;
  /** Undefined: as it was written. */
  readonly merged?: MergedHeader | undefined;
}

/** What a segment needs besides when merging made it. Its number is the first that it replaces. */
export interface MergedHeader {
  /** One above the highest generation that it replaces; a segment as written has 0. */
  readonly generation: number;
  /** Highest number that it replaces. */
  readonly lastNumber: number;
  /** Position after the last one that it stands for. */
  readonly end: number;
  /** Offset of the MERGED record, where the others end. */
  readonly tableAt: number;
}

export const segmentName = (number: number, generation = 0): string =>
  `seg-${String(number).padStart(12, "0")}${generation === 0 ? "" : `-${generation}`}.log`;
export const checkpointName = (number: number): string => `ckpt-${String(number).padStart(12, "0")}.bin`;
/** Number, and the generation of a merged one. */
export const segmentNamePattern = /^seg-(\d{12,16})(?:-([1-9]\d{0,8}))?\.log$/;
export const checkpointNamePattern = /^ckpt-(\d{12,16})\.bin$/;
/** A checkpoint or merged segment that was being written; of no use to anybody. */
export const stagedNamePattern = /^(?:ckpt-\d{12,16}|seg-\d{12,16}-\d+)\.tmp$/;
export const stagedName = (name: string): string => name.replace(/\.\w+$/, ".tmp");

/** What every record checksum of one file starts from, so that bytes of another file, of what a merge replaced, or of another store never validate. */
export function seedOf(magic: string, storeId: Uint8Array, number: number, generation = 0): number {
  const seed = Buffer.alloc(32);
  seed.write(magic, 0, "latin1");
  seed.set(storeId.subarray(0, 8), 8);
  seed.writeBigUInt64LE(BigInt(number), 16);
  seed.writeBigUInt64LE(BigInt(generation), 24);
  return crc32(generation === 0 ? seed.subarray(0, 24) : seed);
}

/**
 *   0 magic 8 | 8 u16 version | 10 u16 zero | 12 u32 crc (of the 128 bytes, this field zero) | 16 store id 8 | 24 u64 epoch
 *   32 u64 number | 40 u64 base | 48 u64 first group | 56 u64 prevEnd | 64 u64 wall ms
 *   72 u64 generation, 0 and nothing after it unless merged | 80 u64 last number | 88 u64 end | 96 u64 offset of the MERGED record | zeros to 128
 */
export function encodeHeader(magic: string, header: Header): Buffer {
  const buffer = Buffer.alloc(headerBytes);
  const numbers = [header.epoch, header.number, header.base, header.firstGroup, header.prevEnd, header.wallMs];
  const { merged } = header;
  if (merged !== undefined) numbers.push(merged.generation, merged.lastNumber, merged.end, merged.tableAt);
  for (const at of headerCopyAt) {
    buffer.write(magic, at, "latin1");
    buffer.writeUInt16LE(formatVersion, at + 8);
    buffer.set(header.storeId.subarray(0, 8), at + 16);
    numbers.forEach((value, index) => {
      buffer.writeBigUInt64LE(BigInt(Math.max(0, Math.floor(value))), at + 24 + 8 * index);
    });
    buffer.writeUInt32LE(crc32(buffer.subarray(at, at + headerCopyBytes)), at + 12);
  }
  return buffer;
}

/** `newer`: intact, but of a format this version does not know. Undefined: neither copy is intact, or not ours at all. */
export function decodeHeader(magic: string, buffer: Buffer): Header | "newer" | undefined {
  for (const at of headerCopyAt) {
    if (buffer.length < at + headerCopyBytes) break;
    const copy = Buffer.from(buffer.subarray(at, at + headerCopyBytes));
    if (copy.toString("latin1", 0, 8) !== magic) continue;
    const crc = copy.readUInt32LE(12);
    copy.writeUInt32LE(0, 12);
    if (crc32(copy) !== crc) continue;
    if (copy.readUInt16LE(8) > formatVersion) return "newer";
    const number = (index: number): number => Number(copy.readBigUInt64LE(24 + 8 * index));
    const merged =
      number(6) === 0
        ? undefined
        : { generation: number(6), lastNumber: number(7), end: number(8), tableAt: number(9) };
    return {
      storeId: copy.subarray(16, 24),
      epoch: number(0),
      number: number(1),
      base: number(2),
      firstGroup: number(3),
      prevEnd: number(4),
      wallMs: number(5),
      merged,
    };
  }
  return undefined;
}

/** Whether the record at `at`, of `length` bytes, is what was written. */
export function recordIsValid(buffer: Buffer, at: number, length: number, seed: number): boolean {
  return checksum(buffer, at + 8, at + length, seed) === buffer.readUInt32LE(at + 4);
}

/** Length of what may be a record at `at`: 0 when it cannot be one. It may reach beyond the buffer. */
export function plausibleLength(buffer: Buffer, at: number, lengthMax: number): number {
  const length = buffer.readUInt32LE(at);
  if (length < recordHeaderBytes || length > lengthMax) return 0;
  const type = buffer[at + 8]!;
  if (type < 1 || type > recordTypeMax || buffer[at + 9]! > recordFlagsMax) return 0;
  return length;
}

/** Sets the checksum of a finished record. @returns it */
export function sealRecord(view: DataView, at: number, length: number, seed: number): number {
  const crc = checksumIn(view, at + 8, at + length, seed);
  view.setUint32(at + 4, crc, true);
  return crc;
}
