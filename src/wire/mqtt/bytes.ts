/** The data representations of MQTT (MQTT 5 section 1.5): a reading cursor, and writers that return the next offset. */
import { isUtf8 } from "node:buffer";
import { malformed, violation } from "./protocolError.ts";

/** Largest value of a variable byte integer, and so the largest remaining length. */
export const varintMax = 268_435_455;

/** Reads one packet's bytes front to back; everything past `end` is out of reach. @throws ProtocolError 0x81 when bytes are missing */
export class Cursor {
  readonly buffer: Buffer;
  at: number;
  end: number;
  readonly #copies: boolean;

  /** @param copies binary fields are copied, because they outlive the read buffer; else they are views of it */
  constructor(buffer: Buffer, at: number, end: number, copies = false) {
    this.buffer = buffer;
    this.at = at;
    this.end = end;
    this.#copies = copies;
  }

  get remaining(): number {
    return this.end - this.at;
  }

  u8(): number {
    return this.buffer[this.#take(1)]!; // within the buffer: #take checked it
  }

  u16(): number {
    return this.buffer.readUInt16BE(this.#take(2));
  }

  u32(): number {
    return this.buffer.readUInt32BE(this.#take(4));
  }

  /** Four bytes at most, in the shortest form [MQTT-1.5.5-1]. */
  varint(): number {
    let value = 0;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.u8();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (byte === 0 && shift > 0) malformed("a variable byte integer is longer than needed"); // [MQTT-1.5.5-1]
        return value;
      }
    }
    return malformed("a variable byte integer has more than 4 bytes");
  }

  /** Strict UTF-8 without U+0000. */
  text(): string {
    const length = this.u16();
    const start = this.#take(length);
    return decodeText(this.buffer, start, start + length);
  }

  binary(): Buffer {
    const length = this.u16();
    const start = this.#take(length);
    const view = this.buffer.subarray(start, start + length);
    return this.#copies ? Buffer.from(view) : view;
  }

  /** Packet Identifier, never 0 [MQTT-2.2.1-3]. */
  packetId(): number {
    const id = this.u16();
    if (id === 0) violation("packet identifier 0");
    return id;
  }

  /** Everything must have been read. */
  finish(): void {
    if (this.at !== this.end) malformed(`${this.end - this.at} bytes too many`);
  }

  #take(count: number): number {
    const start = this.at;
    if (count > this.end - start) malformed("the packet ends too early");
    this.at = start + count;
    return start;
  }
}

/**
 * UTF-8 as MQTT wants it: no invalid or overlong sequence, no surrogate [MQTT-1.5.4-1], no U+0000 [MQTT-1.5.4-2]; a byte order mark
 * is kept [MQTT-1.5.4-3]. Other control characters and non-characters are let through: the standard only advises against them.
 */
export function decodeText(buffer: Buffer, start: number, end: number): string {
  let high = 0;
  for (let at = start; at < end; at += 1) {
    const byte = buffer[at]!; // the caller has checked the range
    if (byte === 0) malformed("a string holds U+0000");
    high |= byte;
  }
  if (high < 0x80) return buffer.toString("latin1", start, end); // nearly all strings are ASCII, and this is the cheapest way to make one
  if (!isUtf8(buffer.subarray(start, end))) malformed("a string is not valid UTF-8");
  return buffer.toString("utf8", start, end); // never strips a byte order mark
}

/** Bytes that `value` takes as a variable byte integer. @throws RangeError above 268,435,455 */
export function varintLength(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x20_0000) return 3;
  if (value <= varintMax) return 4;
  throw new RangeError(`${value} is more than a variable byte integer can hold`);
}

export function writeVarint(target: Buffer, at: number, value: number): number {
  let rest = value;
  while (rest >= 0x80) {
    target[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  target[at] = rest;
  return at + 1;
}

export function writeU16(target: Buffer, at: number, value: number): number {
  target[at] = value >>> 8;
  target[at + 1] = value & 0xff;
  return at + 2;
}

export function writeU32(target: Buffer, at: number, value: number): number {
  return target.writeUInt32BE(value, at);
}

/** UTF-8 length of `text`, without its two length bytes. @throws RangeError above 65,535 */
export function textLength(text: string): number {
  const length = Buffer.byteLength(text);
  if (length > 0xffff) throw new RangeError(`a string of ${length} bytes does not fit: 65535 is the most`);
  return length;
}

/** @param length what `textLength(text)` gave */
export function writeText(target: Buffer, at: number, text: string, length: number): number {
  const start = writeU16(target, at, length);
  target.write(text, start, length, length === text.length ? "latin1" : "utf8"); // same length: all ASCII
  return start + length;
}

/** @throws RangeError above 65,535 bytes */
export function binaryLength(bytes: Uint8Array): number {
  if (bytes.length > 0xffff)
    throw new RangeError(`binary data of ${bytes.length} bytes does not fit: 65535 is the most`);
  return bytes.length;
}

export function writeBinary(target: Buffer, at: number, bytes: Uint8Array): number {
  const start = writeU16(target, at, bytes.length);
  target.set(bytes, start);
  return start + bytes.length;
}
