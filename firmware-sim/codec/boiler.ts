/**
 * The boiler's frames, little-endian:
 *
 *   reading   kind u8 (1 status, 2 alarm) | seq u16 | temperature i16, 0.01 Cel | pressure u32, 0.1 Pa | flags u8
 *   ack       kind u8 = 6                 | seq u16
 *   command   kind u8 = 16                | setpoint i16, 0.01 Cel
 *
 *   wire      0x00 | COBS( payload | crc16 u16 ) | 0x00      the leading 0x00 lets a reader that joins in the middle find the start
 */
import { cobsDecode, cobsEncode } from "./cobs.ts";
import { crc16 } from "./crc16.ts";

export interface BoilerReading {
  readonly kind: 1 | 2;
  /** 0 to 65535. */
  readonly seq: number;
  /** In 0.01 Cel, -32768 to 32767. */
  readonly temperature: number;
  /** In 0.1 Pa, 0 to 2^32 - 1. */
  readonly pressure: number;
  /** bit 0 door, bit 1 fan, bits 2 and 3 mode. */
  readonly flags: number;
}

export type BoilerDownlink = { kind: "ack"; seq: number } | { kind: "command"; setpoint: number };

const ackKind = 6;
const commandKind = 16;

export function encodeReading(reading: BoilerReading): Buffer {
  const bytes = Buffer.alloc(10);
  bytes.writeUInt8(reading.kind, 0);
  bytes.writeUInt16LE(reading.seq, 1);
  bytes.writeInt16LE(reading.temperature, 3);
  bytes.writeUInt32LE(reading.pressure, 5);
  bytes.writeUInt8(reading.flags, 9);
  return bytes;
}

/** The other direction, for the device's own tests and for peers that stand in for the gateway. */
export function decodeReading(payload: Buffer): BoilerReading | undefined {
  const kind = payload[0];
  if (payload.length !== 10 || (kind !== 1 && kind !== 2)) return undefined;
  return {
    kind,
    seq: payload.readUInt16LE(1),
    temperature: payload.readInt16LE(3),
    pressure: payload.readUInt32LE(5),
    flags: payload.readUInt8(9),
  };
}

/** @param setpoint in 0.01 Cel */
export function encodeDownlink(message: BoilerDownlink): Buffer {
  const bytes = Buffer.alloc(3);
  if (message.kind === "ack") {
    bytes.writeUInt8(ackKind, 0);
    bytes.writeUInt16LE(message.seq, 1);
  } else {
    bytes.writeUInt8(commandKind, 0);
    bytes.writeInt16LE(message.setpoint, 1);
  }
  return bytes;
}

export function decodeDownlink(payload: Buffer): BoilerDownlink | undefined {
  if (payload.length !== 3) return undefined;
  if (payload[0] === ackKind) return { kind: "ack", seq: payload.readUInt16LE(1) };
  if (payload[0] === commandKind) return { kind: "command", setpoint: payload.readInt16LE(1) };
  return undefined;
}

/** A payload as it goes over the wire. */
export function frameOf(payload: Uint8Array): Buffer {
  const sum = Buffer.alloc(2);
  sum.writeUInt16LE(crc16(payload));
  const delimiter = Buffer.from([0]);
  return Buffer.concat([delimiter, cobsEncode(Buffer.concat([payload, sum])), delimiter]);
}

/** What lies between two delimiters back to a payload; undefined when it is cut or its CRC is wrong. */
export function payloadOf(between: Uint8Array): Buffer | undefined {
  const bytes = cobsDecode(between);
  if (bytes === undefined || bytes.length < 3) return undefined;
  const payload = bytes.subarray(0, bytes.length - 2);
  return bytes.readUInt16LE(bytes.length - 2) === crc16(payload) ? payload : undefined;
}

/** Cuts a byte stream at 0x00. Keeps `bytesMax` at most: what is longer is no frame, and is counted as bad. */
export class FrameReader {
  #held = Buffer.alloc(0);
  #overlong = false;
  readonly #bytesMax: number;
  bad = 0;

  constructor(bytesMax = 512) {
    this.#bytesMax = bytesMax;
  }

  /** @param onPayload gets every payload whose CRC is right, in order */
  push(chunk: Uint8Array, onPayload: (payload: Buffer) => void): void {
    let from = 0;
    for (let at = chunk.indexOf(0); at >= 0; at = chunk.indexOf(0, from)) {
      this.#keep(chunk.subarray(from, at));
      from = at + 1;
      this.#finish(onPayload);
    }
    this.#keep(chunk.subarray(from));
  }

  #keep(part: Uint8Array): void {
    if (this.#held.length + part.length > this.#bytesMax) this.#overlong = true;
    else if (part.length > 0) this.#held = Buffer.concat([this.#held, part]);
  }

  #finish(onPayload: (payload: Buffer) => void): void {
    const between = this.#held;
    const overlong = this.#overlong;
    this.#held = Buffer.alloc(0);
    this.#overlong = false;
    if (between.length === 0 && !overlong) return; // two delimiters in a row: the end of one frame, the start of the next
    const payload = overlong ? undefined : payloadOf(between);
    if (payload === undefined) this.bad += 1;
    else onPayload(payload);
  }
}
