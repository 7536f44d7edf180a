/** CRC-32 (that of zlib) of a record, and of several from what is known of each. */
import { crc32 } from "node:zlib";

/**
 * Up to so many bytes a loop is faster than making a view and calling into native code, which costs as much as 120 bytes of the loop and leaves
 * an object behind (measured: 30 bytes 23 ns against 125 ns; even at about 250).
 */
const shortBytes = 192;
/** The same where there is a DataView already, of which four bytes are one load: the loop takes 16 bytes a step, and is even at about 700. */
const shortInView = 640;

/** At 256 x n + byte: what a byte does to the checksum when n bytes follow it in the same step. */
function makeTable(): Int32Array {
  const table = new Int32Array(16 * 256);
  for (let byte = 0; byte < 256; byte += 1) {
    let value = byte;
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    table[byte] = value;
  }
  for (let at = 256; at < table.length; at += 1) table[at] = table[table[at - 256]! & 0xff]! ^ (table[at - 256]! >>> 8);
  return table;
}

/**
 * The tables lie in a function: only what is constant there is one for V8 once all is bundled into one file (whose own constants become variables), and
 * then it leaves out the check of each index, which is a third of the time.
 */
function makeChecksums() {
  const table = makeTable();

  /** Of bytes from..to, which lie in `buffer`. @param seed the checksum of what is thought to stand before them */
  function checksum(buffer: Buffer, from: number, to: number, seed: number): number {
    // A plain view: a Buffer takes twice as long to make, which counts once per record.
    if (to - from > shortBytes) return crc32(new Uint8Array(buffer.buffer, buffer.byteOffset + from, to - from), seed);
    let crc = ~seed;
    let at = from;
    for (; at + 8 <= to; at += 8) {
      const low = buffer[at]! | (buffer[at + 1]! << 8) | (buffer[at + 2]! << 16) | (buffer[at + 3]! << 24);
      const high = buffer[at + 4]! | (buffer[at + 5]! << 8) | (buffer[at + 6]! << 16) | (buffer[at + 7]! << 24);
      crc = after4(crc ^ low, 4) ^ after4(high, 0);
    }
    for (; at < to; at += 1) crc = table[(crc ^ buffer[at]!) & 0xff]! ^ (crc >>> 8);
    return ~crc >>> 0;
  }

  /** The same of bytes that a view holds. */
  function checksumIn(view: DataView, from: number, to: number, seed: number): number {
    if (to - from > shortInView) return crc32(new Uint8Array(view.buffer, view.byteOffset + from, to - from), seed);
    let crc = ~seed;
    let at = from;
    for (; at + 16 <= to; at += 16) {
      crc =
        after4(crc ^ view.getInt32(at, true), 12) ^
        after4(view.getInt32(at + 4, true), 8) ^
        after4(view.getInt32(at + 8, true), 4) ^
        after4(view.getInt32(at + 12, true), 0);
    }
    for (; at + 4 <= to; at += 4) crc = after4(crc ^ view.getInt32(at, true), 0);
    for (; at < to; at += 1) crc = table[(crc ^ view.getUint8(at)) & 0xff]! ^ (crc >>> 8);
    return ~crc >>> 0;
  }

  /** Four bytes that the checksum so far is in already. @param behind how many bytes follow them in the same step */
  function after4(bytes: number, behind: number): number {
    const at = 256 * behind;
    return (
      table[at + 768 + (bytes & 0xff)]! ^
      table[at + 512 + ((bytes >>> 8) & 0xff)]! ^
      table[at + 256 + ((bytes >>> 16) & 0xff)]! ^
      table[at + (bytes >>> 24)]!
    );
  }

  return { table, checksum, checksumIn };
}

const { table, checksum, checksumIn } = makeChecksums();

function makeJoined() {
  /**
   * What zero bytes do to a checksum, digit by digit of how many they are in hexadecimal, and by the checksum's own: at 128 x (16 x place + digit) +
   * 16 x n + nibble, what the checksum's nth four bits become. Eight places: a length has four bytes.
   */
  const shifts = new Int32Array(8 * 16 * 128);
  for (let line = 1; line < 8 * 16; line += 1) {
    const digit = line & 15;
    if (digit === 0) continue;
    for (let bit = 0; bit < 32; bit += 1)
      fill(line, bit, digit > 1 ? shifted(shifted(1 << bit, line - 1), (line & ~15) | 1) : first(1 << bit, line - 1));
  }

  /** Behind as many bytes as the lowest digit of a place says: one, or 15 + 1 of the place before. */
  function first(crc: number, place: number): number {
    return place === 0 ? table[crc & 0xff]! ^ (crc >>> 8) : shifted(shifted(crc, place - 1), place - 15);
  }

  /** Each bit of a checksum goes its way whatever the others are: it is in every nibble that has it. */
  function fill(line: number, bit: number, value: number): void {
    const [from, own] = [128 * line + 16 * (bit >>> 2), 1 << (bit & 3)];
    for (let nibble = 0; nibble < 16; nibble += 1)
      if (nibble & own) shifts[from + nibble] = shifts[from + nibble]! ^ value;
  }

  function shifted(crc: number, line: number): number {
    const at = 128 * line;
    return (
      shifts[at + (crc & 15)]! ^
      shifts[at + 16 + ((crc >>> 4) & 15)]! ^
      shifts[at + 32 + ((crc >>> 8) & 15)]! ^
      shifts[at + 48 + ((crc >>> 12) & 15)]! ^
      shifts[at + 64 + ((crc >>> 16) & 15)]! ^
      shifts[at + 80 + ((crc >>> 20) & 15)]! ^
      shifts[at + 96 + ((crc >>> 24) & 15)]! ^
      shifts[at + 112 + (crc >>> 28)]!
    );
  }

  /**
   * The checksum of what `before` is of, with `length` bytes behind it whose own checksum from `seed` is `crc`: they need not be read again. What two
   * seeds do to the checksum of the same bytes differs by what the difference of the seeds becomes behind so many bytes.
   */
  function joined(before: number, crc: number, length: number, seed: number): number {
    let difference = before ^ seed;
    for (let rest = length, line = 0; rest > 0; rest >>>= 4, line += 16) {
      if (rest & 15) difference = shifted(difference, line + (rest & 15));
    }
    return (difference ^ crc) >>> 0;
  }

  return joined;
}

export const joined = makeJoined();
export { checksum, checksumIn };
