/**
 * The Block1 and Block2 option (RFC 7959 section 2.2): an unsigned integer of 0 to 3 bytes.
 *
 *   num(4, 12 or 20) | more(1) | szx(3)        block size = 2^(szx + 4), 16 to 1024 bytes
 */
import { decodeUint, encodeUint } from "./options.ts";

export interface Block {
  readonly num: number;
  /** More blocks follow. */
  readonly more: boolean;
  /** 0 to 6; 7 is reserved and must lead to 4.00. */
  readonly szx: number;
}

export const blockNumMax = 2 ** 20 - 1;
const blockBytesMax = 3;

/** Undefined when it is longer than a block option can be. */
export function decodeBlock(value: Buffer): Block | undefined {
  if (value.length > blockBytesMax) return undefined;
  const bits = decodeUint(value);
  return { num: bits >>> 4, more: (bits & 8) !== 0, szx: bits & 7 };
}

export function encodeBlock(block: Block): Buffer {
  return encodeUint(block.num * 16 + (block.more ? 8 : 0) + block.szx);
}

/** Bytes of a full block. */
export const blockSize = (szx: number): number => 2 ** (szx + 4);

/** Where in the body the block starts. */
export const blockOffset = (block: Block): number => block.num * blockSize(block.szx);
