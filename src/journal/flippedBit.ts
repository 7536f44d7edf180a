/** Which single bit explains a wrong CRC-32. The checksum is linear: each bit changes it by a pattern that depends only on how far from the end it is. */

const table = new Uint32Array(256);
/** By the highest byte of a table entry, which no two share: its index. */
const indexOf = new Uint8Array(256);
for (let index = 0; index < 256; index += 1) {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  table[index] = value;
  indexOf[table[index]! >>> 24] = index;
}

const bitOf = new Map(Array.from({ length: 8 }, (_, bit) => [table[1 << bit]!, bit]));

/**
 * @param difference of the checksum as it is and as it should be, exclusive or
 * @param bytes that the checksum covers
 * @returns byte and bit, or undefined when no single bit does
 */
export function flippedBit(difference: number, bytes: number): { byte: number; bit: number } | undefined {
  let state = difference >>> 0;
  for (let byte = bytes - 1; byte >= 0; byte -= 1) {
    const bit = bitOf.get(state);
    if (bit !== undefined) return { byte, bit };
    const index = indexOf[state >>> 24]!; // undoes one byte of the checksum
    state = (((state ^ table[index]!) << 8) | index) >>> 0;
  }
  return undefined;
}
