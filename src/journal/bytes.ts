/** Varints and texts. A uvarint is LEB128 of a whole number up to 2^53 - 1: doubles, because 32-bit shifts would wrap a position. */
import type { TextCache } from "./textCache.ts";

/**
 * The same bytes as numbers of four each, which V8 reads and writes at once: Node's own methods are shared with all of the process, so that it cannot fit
 * them to their use here.
 */
export const dataViewOf = ({ buffer, byteOffset, length }: Uint8Array): DataView<ArrayBufferLike> =>
  new DataView(buffer, byteOffset, length);

/** More bytes than this are copied by native code, for which a view of them has to be made. */
const shortCopy = 256;

/** Writes into a buffer that the caller made large enough. */
export class ByteWriter {
  buffer: Buffer;
  #view: DataView;
  at = 0;

  constructor(buffer: Buffer) {
    this.buffer = buffer;
    this.#view = dataViewOf(buffer);
  }

  /** Goes on in another buffer. @param view of it */
  goTo(buffer: Buffer, view: DataView, at: number): void {
    this.buffer = buffer;
    this.#view = view;
    this.at = at;
  }

  u8(value: number): void {
    this.buffer[this.at++] = value;
  }

  u32(value: number): void {
    this.#view.setUint32(this.at, value, true);
    this.at += 4;
  }

  uvarint(value: number): void {
    if (value <= 0x7f) this.buffer[this.at++] = value;
    else this.#longUvarint(value);
  }

  #longUvarint(value: number): void {
    const { buffer } = this;
    let at = this.at;
    let rest = value;
    if (rest > 0x7fff_ffff) {
      // Times and positions: the lowest four groups of seven bits come off with one division.
      rest = Math.floor(value / 0x1000_0000);
      const low = value - rest * 0x1000_0000;
      const spread = (low & 0x7f) | ((low << 1) & 0x7f00) | ((low << 2) & 0x7f_0000) | ((low << 3) & 0x7f00_0000);
      this.#view.setInt32(at, spread | 0x8080_8080, true);
      at += 4;
    }
    while (rest > 0x7f) {
      buffer[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    buffer[at] = rest;
    this.at = at + 1;
  }

  /** Length in bytes, then UTF-8. */
  text(value: string): void {
    const { length } = value;
    const { buffer } = this;
    const from = this.at + 1;
    if (length < 128) {
      let index = 0;
      // Short ASCII, nearly every topic: a loop beats the call into native code.
      for (; index < length; index += 1) {
        const code = value.charCodeAt(index);
        if (code > 0x7f) break;
        buffer[from + index] = code;
      }
      if (index === length) {
        buffer[this.at] = length;
        this.at = from + length;
        return;
      }
    }
    this.uvarint(Buffer.byteLength(value));
    this.at += buffer.write(value, this.at, "utf8");
  }

  bytes(value: Uint8Array): void {
    this.uvarint(value.length);
    this.raw(value);
  }

  raw(value: Uint8Array): void {
    this.buffer.set(value, this.at);
    this.at += value.length;
  }

  /** Bytes from..to of `source`. */
  copy(source: DataView, from: number, to: number): void {
    if (to - from > shortCopy) {
      this.raw(new Uint8Array(source.buffer, source.byteOffset + from, to - from));
      return;
    }
    const view = this.#view;
    let { at } = this;
    let next = from;
    for (; next + 16 <= to; next += 16, at += 16) {
      view.setInt32(at, source.getInt32(next, true), true);
      view.setInt32(at + 4, source.getInt32(next + 4, true), true);
      view.setInt32(at + 8, source.getInt32(next + 8, true), true);
      view.setInt32(at + 12, source.getInt32(next + 12, true), true);
    }
    for (; next + 4 <= to; next += 4, at += 4) view.setInt32(at, source.getInt32(next, true), true);
    for (; next < to; next += 1, at += 1) view.setUint8(at, source.getUint8(next));
    this.at = at;
  }
}

/** Largest size of `text` once written. */
export const textBound = (value: string): number => value.length * 3 + 5;

/** A record whose checksum is right but whose fields do not fit: written by a faulty version. Caught where records are applied. */
export class FieldError extends Error {}

export class ByteReader {
  buffer: Buffer;
  at: number;
  end: number;

  constructor(buffer: Buffer, at = 0, end = buffer.length) {
    this.buffer = buffer;
    this.at = at;
    this.end = end;
  }

  reset(buffer: Buffer, at: number, end: number): void {
    this.buffer = buffer;
    this.at = at;
    this.end = end;
  }

  u8(): number {
    if (this.at >= this.end) throw new FieldError("record too short");
    return this.buffer[this.at++]!;
  }

  u32(): number {
    if (this.at + 4 > this.end) throw new FieldError("record too short");
    this.at += 4;
    return this.buffer.readUInt32LE(this.at - 4);
  }

  uvarint(): number {
    let byte = this.u8();
    if (byte < 128) return byte;
    let value = byte & 0x7f;
    let scale = 128;
    do {
      byte = this.u8();
      value += (byte & 0x7f) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  }

  text(): string {
    const from = this.#skip(this.uvarint());
    return this.buffer.toString("utf8", from, this.at);
  }

  /** The same, by way of a cache. */
  cachedText(cache: TextCache): string {
    const from = this.#skip(this.uvarint());
    return cache.text(this.buffer, from, this.at);
  }

  /** A copy. */
  bytes(): Buffer {
    const from = this.#skip(this.uvarint());
    return Buffer.from(this.buffer.subarray(from, this.at));
  }

  skipBytes(): void {
    this.#skip(this.uvarint());
  }

  /** A copy of all that is left. */
  rest(): Buffer {
    const from = this.at;
    this.at = this.end;
    return Buffer.from(this.buffer.subarray(from, this.end));
  }

  #skip(length: number): number {
    const from = this.at;
    if (length > this.end - from) throw new FieldError("record too short");
    this.at = from + length;
    return from;
  }
}

const zeros = Buffer.alloc(4096);

/** Whether every byte is zero. */
export function isZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += zeros.length) {
    const piece = bytes.subarray(at, at + zeros.length);
    if (zeros.compare(piece, 0, piece.length, 0, piece.length) !== 0) return false;
  }
  return true;
}
