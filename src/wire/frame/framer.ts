import { TidegateError } from "../../base/errors.ts";
import { cobs } from "./cobs.ts";
import { type Crc, type CrcName, crcOf } from "./crc.ts";
import { type Delimiter, malformed } from "./delimiter.ts";
import { lines } from "./lines.ts";
import { slip } from "./slip.ts";

export interface FramingOptions {
  readonly type: "lines" | "cobs" | "slip";
  /** Appended to the payload before framing, and checked and cut off on receipt. Not with `lines`. */
  readonly crc?: CrcName | undefined;
  /** Default little. */
  readonly crcEndian?: "little" | "big" | undefined;
  /** Longest payload in bytes, without checksum and framing; 1 to 1048576, default 4096. */
  readonly maxFrameBytes?: number | undefined;
  /** Sends a delimiter before each frame as well. Default: true for slip, as RFC 1055 advises, else false. */
  readonly leading?: boolean | undefined;
}

/**
 * Why something between two delimiters was not handed out.
 * - badCrc: the checksum is wrong · malformed: the framing's rules are broken · tooShort: nothing beside the checksum
 * - tooLong: more than maxFrameBytes; a run of noise without a delimiter counts once, however long it is
 */
export type FrameFault = "badCrc" | "malformed" | "tooLong" | "tooShort";

export interface Framer {
  /**
   * Takes the next bytes of the stream, cut anywhere. `frame` is called for each good payload, before `push` returns; the payload is a
   * copy that belongs to the receiver. Never throws for what came in. Nothing between two delimiters is no frame and no fault.
   */
  push(chunk: Uint8Array, frame: (payload: Uint8Array) => void): void;
  /** The bytes to send for one payload. @throws RangeError when it is longer than maxFrameBytes or cannot be framed. */
  encode(payload: Uint8Array): Uint8Array;
  /** Forgets the frame begun; the counters stay. For a new connection. */
  reset(): void;
  readonly counters: Readonly<Record<FrameFault, number>>;
}

export const framingDefaults = { crcEndian: "little", maxFrameBytes: 4096 } as const;

const frameBytesLimit = 1024 * 1024;
const delimiters: Readonly<Record<FramingOptions["type"], Delimiter>> = { lines, cobs, slip };

/** @throws TidegateError TG_CONFIG for options that cannot work. */
export function createFramer(options: FramingOptions): Framer {
  const { type, crc, crcEndian = framingDefaults.crcEndian, maxFrameBytes = framingDefaults.maxFrameBytes } = options;
  if (!Number.isInteger(maxFrameBytes) || maxFrameBytes < 1 || maxFrameBytes > frameBytesLimit) {
    throw new TidegateError("TG_CONFIG", `maxFrameBytes must be a whole number from 1 to ${frameBytesLimit}`);
  }
  if (type === "lines" && crc !== undefined) {
    // The bytes of a checksum may be a line feed.
    throw new TidegateError("TG_CONFIG", `framing lines cannot carry a ${crc}; use cobs or slip`);
  }
  return new DelimitedFramer(delimiters[type], {
    crc: crc === undefined ? undefined : crcOf(crc),
    bigEndian: crcEndian === "big",
    maxFrameBytes,
    leading: options.leading ?? type === "slip",
  });
}

interface Settings {
  readonly crc: Crc | undefined;
  readonly bigEndian: boolean;
  readonly maxFrameBytes: number;
  readonly leading: boolean;
}

/**
 * Frames that lie whole in a chunk are decoded from there; only what a chunk's end cut off is kept, in a buffer made once.
 *
 *   chunk   ...tail of held frame 00 frame 00 frame 00 head of next...
 *   #held   [ head of the frame begun | free up to #wireBytesMax ]      longer than that: #skipping until the next delimiter
 */
class DelimitedFramer implements Framer {
  readonly counters: Record<FrameFault, number> = { badCrc: 0, malformed: 0, tooLong: 0, tooShort: 0 };
  readonly #delimiter: Delimiter;
  readonly #settings: Settings;
  readonly #bodyBytesMax: number;
  readonly #wireBytesMax: number;
  readonly #held: Uint8Array;
  readonly #decoded: Uint8Array;
  #heldBytes = 0;
  #skipping = false;

  constructor(delimiter: Delimiter, settings: Settings) {
    this.#delimiter = delimiter;
    this.#settings = settings;
    this.#bodyBytesMax = settings.maxFrameBytes + (settings.crc?.bytes ?? 0);
    this.#wireBytesMax = delimiter.wireBytesMax(this.#bodyBytesMax);
    this.#held = new Uint8Array(this.#wireBytesMax);
    this.#decoded = new Uint8Array(this.#wireBytesMax);
  }

  push(chunk: Uint8Array, frame: (payload: Uint8Array) => void): void {
    let at = 0;
    while (at < chunk.length) {
      const stop = chunk.indexOf(this.#delimiter.byte, at);
      if (stop < 0) {
        this.#hold(chunk, at, chunk.length);
        return;
      }
      if (this.#heldBytes === 0 && !this.#skipping) this.#finish(chunk, at, stop, frame);
      else this.#finishHeld(chunk, at, stop, frame);
      at = stop + 1;
    }
  }

  encode(payload: Uint8Array): Uint8Array {
    const { crc, bigEndian, maxFrameBytes, leading } = this.#settings;
    if (payload.length > maxFrameBytes) {
      throw new RangeError(`${payload.length} bytes are more than maxFrameBytes, ${maxFrameBytes}`);
    }
    if (crc === undefined) return this.#delimiter.encode(payload, { leading });
    const body = new Uint8Array(payload.length + crc.bytes);
    body.set(payload);
    const sum = crc.of(payload, 0, payload.length);
    for (let byte = 0; byte < crc.bytes; byte += 1) {
      body[payload.length + byte] = sum >>> (8 * (bigEndian ? crc.bytes - 1 - byte : byte));
    }
    return this.#delimiter.encode(body, { leading });
  }

  reset(): void {
    this.#heldBytes = 0;
    this.#skipping = false;
  }

  #hold(chunk: Uint8Array, from: number, to: number): void {
    if (this.#skipping) return;
    if (this.#heldBytes + to - from > this.#wireBytesMax) {
      this.counters.tooLong += 1;
      this.#heldBytes = 0;
      this.#skipping = true;
      return;
    }
    // For the few bytes that a slow port brings at a time a loop is cheaper than a view and a native copy.
    if (to - from > 32) this.#held.set(chunk.subarray(from, to), this.#heldBytes);
    else for (let at = from; at < to; at += 1) this.#held[this.#heldBytes + at - from] = chunk[at]!;
    this.#heldBytes += to - from;
  }

  #finishHeld(chunk: Uint8Array, from: number, to: number, frame: (payload: Uint8Array) => void): void {
    this.#hold(chunk, from, to);
    const bytes = this.#heldBytes;
    this.reset(); // before the callback: whatever it does, the next frame starts clean
    if (bytes > 0) this.#finish(this.#held, 0, bytes, frame);
  }

  #finish(raw: Uint8Array, from: number, to: number, frame: (payload: Uint8Array) => void): void {
    if (from === to) return;
    if (to - from > this.#wireBytesMax) {
      this.counters.tooLong += 1;
      return;
    }
    const decoded = this.#decoded;
    const length = this.#delimiter.decode(raw, from, to, decoded);
    const { crc } = this.#settings;
    const payloadBytes = length - (crc?.bytes ?? 0);
    if (length === malformed) this.counters.malformed += 1;
    else if (length > this.#bodyBytesMax) this.counters.tooLong += 1;
    // A checksum of nothing is no reading, and for crc32 it is four zeros, which a damaged frame easily contains.
    else if (crc !== undefined && payloadBytes <= 0) this.counters.tooShort += 1;
    else if (crc !== undefined && crc.of(decoded, 0, payloadBytes) !== this.#sumAt(payloadBytes, crc.bytes)) {
      this.counters.badCrc += 1;
    } else if (length > 0 || this.#delimiter === cobs) {
      // COBS alone can say "an empty packet" (01 00); a blank line or two ENDs in a row are no frame.
      frame(decoded.slice(0, payloadBytes));
    }
  }

  #sumAt(at: number, bytes: number): number {
    let sum = 0;
    for (let byte = 0; byte < bytes; byte += 1) {
      sum = (sum << 8) | this.#decoded[at + (this.#settings.bigEndian ? byte : bytes - 1 - byte)]!;
    }
    return sum >>> 0;
  }
}
