/**
 * Integers and floats of 1 to 8 bytes at a fixed offset. Each reader is made once per field and does no bounds check: the struct codec
 * compares the payload's length with the layout first. DataView and Buffer methods check every access (and a plain Uint8Array would need
 * a view per frame), which costs more than the whole rest; hence the `!` in this file.
 */
export type Endian = "little" | "big";

export interface IntegerRange {
  readonly bytes: 1 | 2 | 3 | 4;
  readonly min: number;
  readonly max: number;
}

/** Integers that a JavaScript number holds in 32-bit arithmetic. */
export const integerTypes = {
  u8: { bytes: 1, min: 0, max: 0xff },
  i8: { bytes: 1, min: -0x80, max: 0x7f },
  u16: { bytes: 2, min: 0, max: 0xffff },
  i16: { bytes: 2, min: -0x8000, max: 0x7fff },
  u24: { bytes: 3, min: 0, max: 0xff_ffff },
  i24: { bytes: 3, min: -0x80_0000, max: 0x7f_ffff },
  u32: { bytes: 4, min: 0, max: 0xffff_ffff },
  i32: { bytes: 4, min: -0x8000_0000, max: 0x7fff_ffff },
} as const satisfies Record<string, IntegerRange>;

export type IntegerType = keyof typeof integerTypes;

export const longTypes = {
  u64: { min: 0n, max: 2n ** 64n - 1n },
  i64: { min: -(2n ** 63n), max: 2n ** 63n - 1n },
} as const;

export type LongType = keyof typeof longTypes;
export type FloatType = "f32" | "f64";

export type NumberReader = (payload: Uint8Array) => number;

function unsignedReader(bytes: 1 | 2 | 3 | 4, endian: Endian, at: number): NumberReader {
  // Index of the byte of each significance, least first; beyond `bytes` unused.
  const step = endian === "little" ? 1 : -1;
  const i0 = endian === "little" ? at : at + bytes - 1;
  const i1 = i0 + step;
  const i2 = i1 + step;
  const i3 = i2 + step;
  switch (bytes) {
    case 1:
      return (p) => p[i0]!;
    case 2:
      return (p) => p[i0]! | (p[i1]! << 8);
    case 3:
      return (p) => p[i0]! | (p[i1]! << 8) | (p[i2]! << 16);
    case 4:
      return (p) => (p[i0]! | (p[i1]! << 8) | (p[i2]! << 16) | (p[i3]! << 24)) >>> 0;
    default:
      return bytes satisfies never;
  }
}

export function integerReader(type: IntegerType, endian: Endian, at: number): NumberReader {
  const { bytes, min } = integerTypes[type];
  const unsigned = unsignedReader(bytes, endian, at);
  if (min === 0) return unsigned;
  const shift = 32 - 8 * bytes;
  return (p) => (unsigned(p) << shift) >> shift;
}

/** Writes the low bytes of `value`; the caller has checked its range. */
export function writeInteger(target: Uint8Array, at: number, bytes: number, endian: Endian, value: number): void {
  for (let k = 0; k < bytes; k += 1) {
    target[endian === "little" ? at + k : at + bytes - 1 - k] = (value >>> (8 * k)) & 0xff;
  }
}

/** Whole 64-bit integers: a number up to 2^53 - 1 either way, beyond that a decimal string, so that JSON loses no digit. */
export function longReader(type: LongType, endian: Endian, at: number): (payload: Uint8Array) => number | string {
  const little = endian === "little";
  const low = integerReader("u32", endian, little ? at : at + 4);
  const high = integerReader(type === "u64" ? "u32" : "i32", endian, little ? at + 4 : at);
  return (p) => {
    const near = high(p) * 2 ** 32 + low(p);
    return Number.isSafeInteger(near) ? near : ((BigInt(high(p)) << 32n) | BigInt(low(p))).toString();
  };
}

export function writeLong(target: Buffer, at: number, endian: Endian, value: bigint): void {
  const bits = BigInt.asUintN(64, value);
  if (endian === "little") target.writeBigUInt64LE(bits, at);
  else target.writeBigUInt64BE(bits, at);
}

const scratch = new DataView(new ArrayBuffer(8));

/** The exact value, also NaN and the infinities. */
export function floatReader(type: FloatType, endian: Endian, at: number): NumberReader {
  const little = endian === "little";
  if (type === "f32") {
    const word = integerReader("u32", endian, at);
    return (p) => {
      scratch.setUint32(0, word(p));
      return scratch.getFloat32(0);
    };
  }
  const low = integerReader("u32", endian, little ? at : at + 4);
  const high = integerReader("u32", endian, little ? at + 4 : at);
  return (p) => {
    scratch.setUint32(0, high(p));
    scratch.setUint32(4, low(p));
    return scratch.getFloat64(0);
  };
}

export function writeFloat(target: Buffer, at: number, type: FloatType, endian: Endian, value: number): void {
  if (type === "f32") {
    if (endian === "little") target.writeFloatLE(value, at);
    else target.writeFloatBE(value, at);
  } else if (endian === "little") target.writeDoubleLE(value, at);
  else target.writeDoubleBE(value, at);
}

/** The decimal number a person would write for a 32-bit float: 21.53 instead of 21.530000686645508. Reads back as the same 32 bits. */
export function shortFloat32(value: number): number {
  if (Number.isInteger(value)) return value + 0; // also turns -0 into 0, as JSON would
  for (let digits = 7; digits < 9; digits += 1) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}
