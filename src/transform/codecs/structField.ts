/** One field of a struct, compiled: closures that know type, byte order and offset, so that decoding looks nothing up. */
import { configFault, decodeFault } from "./fault.ts";
import { bytesOfHex, hexOf } from "./hex.ts";
import {
  type Endian,
  type FloatType,
  floatReader,
  type IntegerType,
  integerReader,
  integerTypes,
  type LongType,
  longReader,
  longTypes,
  type NumberReader,
  shortFloat32,
  writeFloat,
  writeInteger,
  writeLong,
} from "./numbers.ts";
import { createScaling, type Scaling } from "./scale.ts";
import { compileBits } from "./structBits.ts";
import { isFloat, isInteger, isLong, type StructField, widthOf } from "./structDefinition.ts";
import { utf8Bytes, utf8Text } from "./utf8.ts";

export interface FieldOp {
  readonly name: string;
  /** Offset of its first byte. */
  readonly at: number;
  /** 0: takes the rest. */
  readonly width: number;
  /** False for const: encoding does not ask for it. */
  readonly given: boolean;
  /** @throws TidegateError TG_DECODE. The payload is at least `at + width` long. */
  read(payload: Uint8Array): unknown;
  /** The field's bytes go to `target` at `at`. @throws TidegateError TG_DECODE */
  write(target: Buffer, value: unknown): void;
  /** `length: rest` only: the bytes to append. @throws TidegateError TG_DECODE */
  tail?(value: unknown): Buffer;
}

type Access = Pick<FieldOp, "read" | "write" | "tail">;

/** @throws TidegateError TG_CONFIG */
export function compileField(codec: string, field: StructField, structEndian: Endian, at: number): FieldOp {
  const where = `${codec}: field ${field.name} at offset ${at}`;
  const endian = field.endian ?? structEndian;
  if (endian !== "little" && endian !== "big") throw configFault(`${where}: endian wants little or big`);
  checkOptions(field, where);
  const scaling = scalingOf(field, where);
  const base = { name: field.name, at, width: widthOf(field, where), given: field.const === undefined };
  const access = compileAccess(field, endian, at, scaling, where);
  return field.const === undefined ? { ...base, ...access } : { ...base, ...constant(field, access, base, where) };
}

function compileAccess(
  field: StructField,
  endian: Endian,
  at: number,
  scaling: Scaling | undefined,
  where: string,
): Access {
  const { type } = field;
  if (type === "string") return stringAccess(field, at, where);
  if (type === "bytes") return bytesAccess(field, at, where);
  if (isFloat(type)) return floatAccess(type, endian, at, scaling, where);
  if (isLong(type)) return longAccess(type, endian, at, scaling, where);
  if (field.enum !== undefined) return enumAccess(field.enum, type, endian, at, where);
  if (field.bits !== undefined) {
    const bits = compileBits(field.bits, integerTypes[type].bytes * 8, integerReader(type, endian, at), where);
    const { bytes } = integerTypes[type];
    return { read: bits.read, write: (target, value) => writeInteger(target, at, bytes, endian, bits.rawOf(value)) };
  }
  return integerAccess(type, endian, at, scaling, where);
}

function checkOptions(field: StructField, where: string): void {
  const scaled = field.scale !== undefined || field.offset !== undefined;
  if (scaled && (field.type === "string" || field.type === "bytes"))
    throw configFault(`${where}: ${field.type} takes no scale`);
  if (field.enum !== undefined && !isInteger(field.type))
    throw configFault(`${where}: enum wants an integer of up to 32 bits`);
  if (field.bits !== undefined && !(isInteger(field.type) && field.type.startsWith("u"))) {
    throw configFault(`${where}: bits want an unsigned integer of up to 32 bits`);
  }
  if (Number(scaled) + Number(field.enum !== undefined) + Number(field.bits !== undefined) > 1) {
    throw configFault(`${where}: scale or offset, enum and bits exclude each other`);
  }
  if (field.const !== undefined && (scaled || field.bits !== undefined)) {
    throw configFault(`${where}: const is the raw value, without scale, offset and bits`);
  }
}

const scaleMax = 1e100;

function scalingOf(field: StructField, where: string): Scaling | undefined {
  const { scale = 1, offset = 0 } = field;
  // The bound keeps every scaled integer finite.
  if (!(Math.abs(scale) <= scaleMax) || scale === 0) throw configFault(`${where}: scale wants a number other than 0`);
  if (!(Math.abs(offset) <= scaleMax)) throw configFault(`${where}: offset wants a number`);
  return scale === 1 && offset === 0 ? undefined : createScaling(scale, offset);
}

function finiteNumber(value: unknown, where: string): number {
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw decodeFault(`${where}: ${value === undefined ? "missing" : "wants a number"}`);
}

function rangedInteger(raw: number, type: IntegerType, where: string): number {
  const { min, max } = integerTypes[type];
  if (!Number.isInteger(raw)) throw decodeFault(`${where}: wants a whole number`);
  if (raw < min || raw > max) throw decodeFault(`${where}: outside of ${type}, ${min} to ${max}`);
  return raw;
}

function integerAccess(
  type: IntegerType,
  endian: Endian,
  at: number,
  scaling: Scaling | undefined,
  where: string,
): Access {
  const raw = integerReader(type, endian, at);
  const { bytes } = integerTypes[type];
  const write = (target: Buffer, value: number): void =>
    writeInteger(target, at, bytes, endian, rangedInteger(value, type, where));
  if (scaling === undefined) return { read: raw, write: (target, value) => write(target, finiteNumber(value, where)) };
  return {
    read: (payload) => scaling.fromWhole(raw(payload)),
    // The nearest raw value: nobody's setpoint comes in exact steps of the device.
    write: (target, value) => write(target, Math.round(scaling.toRaw(finiteNumber(value, where)))),
  };
}

function longAccess(type: LongType, endian: Endian, at: number, scaling: Scaling | undefined, where: string): Access {
  const raw = longReader(type, endian, at);
  const { min, max } = longTypes[type];
  const write = (target: Buffer, value: bigint): void => {
    if (value < min || value > max) throw decodeFault(`${where}: outside of ${type}`);
    writeLong(target, at, endian, value);
  };
  if (scaling === undefined) return { read: raw, write: (target, value) => write(target, wholeBigInt(value, where)) };
  return {
    // Beyond 2^53 a scaled value is as exact as a double.
    read: (payload) => scaling.fromWhole(Number(raw(payload))),
    write(target, value) {
      const scaled = Math.round(scaling.toRaw(finiteNumber(value, where)));
      if (!Number.isFinite(scaled)) throw decodeFault(`${where}: outside of ${type}`);
      write(target, BigInt(scaled));
    },
  };
}

/** A whole number, or a decimal string for what a number cannot hold. */
function wholeBigInt(value: unknown, where: string): bigint {
  if (typeof value === "number" && Number.isSafeInteger(value)) return BigInt(value);
  if (typeof value === "string" && /^-?\d{1,20}$/.test(value)) return BigInt(value);
  throw decodeFault(
    `${where}: ${value === undefined ? "missing" : "wants a whole number, as a decimal string beyond 2^53"}`,
  );
}

const float32Max = 3.4028234663852886e38;

/** NaN and the infinities, which JSON cannot say, are null; null is encoded as NaN. */
function floatAccess(type: FloatType, endian: Endian, at: number, scaling: Scaling | undefined, where: string): Access {
  const raw: NumberReader = floatReader(type, endian, at);
  const digits = type === "f32" ? 7 : 15;
  const present = (value: number): number => {
    if (scaling !== undefined) return scaling.fromFloat(value, digits);
    return type === "f32" ? shortFloat32(value) : value + 0;
  };
  return {
    read(payload) {
      const value = raw(payload);
      if (!Number.isFinite(value)) return null;
      const shown = present(value);
      return Number.isFinite(shown) ? shown : null;
    },
    write(target, value) {
      if (value === null) return writeFloat(target, at, type, endian, Number.NaN);
      const given = finiteNumber(value, where);
      const number = scaling === undefined ? given : scaling.toRaw(given);
      // A hair above the largest float still rounds to it; what rounds to infinity is out of range.
      const stored = type === "f32" ? Math.fround(number) : number;
      if (!Number.isFinite(stored))
        throw decodeFault(`${where}: outside of ${type}, up to ${type === "f32" ? float32Max : Number.MAX_VALUE}`);
      writeFloat(target, at, type, endian, stored);
    },
  };
}

function enumAccess(
  names: Readonly<Record<string, string>>,
  type: IntegerType,
  endian: Endian,
  at: number,
  where: string,
): Access {
  const nameOf = new Map<number, string>();
  const rawOf = new Map<string, number>();
  const { bytes, min, max } = integerTypes[type];
  for (const [key, name] of Object.entries(names)) {
    const raw = Number(key);
    if (key.trim() === "" || !Number.isInteger(raw) || raw < min || raw > max) {
      throw configFault(`${where}: enum value "${key}" is not a ${type}`);
    }
    if (typeof name !== "string" || rawOf.has(name) || nameOf.has(raw)) {
      throw configFault(`${where}: enum value ${key}: wants a name of its own`);
    }
    nameOf.set(raw, name);
    rawOf.set(name, raw);
  }
  const read = integerReader(type, endian, at);
  return {
    read(payload) {
      const raw = read(payload);
      return nameOf.get(raw) ?? raw;
    },
    write(target, value) {
      const named = typeof value === "string" ? rawOf.get(value) : finiteNumber(value, where);
      if (named === undefined) throw decodeFault(`${where}: wants one of ${[...rawOf.keys()].join(", ")}, or a number`);
      writeInteger(target, at, bytes, endian, rangedInteger(named, type, where));
    },
  };
}

/** UTF-8 up to the first NUL, as C reads a char array; encoding pads with NUL. */
function stringAccess(field: StructField, at: number, where: string): Access {
  const width = widthOf(field, where);
  const bytesOf = (value: unknown): Buffer => {
    if (typeof value !== "string") throw decodeFault(`${where}: ${value === undefined ? "missing" : "wants a string"}`);
    if (value.includes("\u0000")) throw decodeFault(`${where}: a string must not contain U+0000`);
    return utf8Bytes(value, where);
  };
  return {
    read(payload) {
      const whole = payload.subarray(at, width === 0 ? payload.length : at + width);
      const end = whole.indexOf(0);
      return utf8Text(end < 0 ? whole : whole.subarray(0, end), where);
    },
    write(target, value) {
      const bytes = bytesOf(value);
      if (bytes.length > width) throw decodeFault(`${where}: ${bytes.length} bytes of text, more than ${width}`);
      bytes.copy(target, at);
    },
    tail: bytesOf,
  };
}

/** Hex digits in JSON. */
function bytesAccess(field: StructField, at: number, where: string): Access {
  const width = widthOf(field, where);
  const bytesOf = (value: unknown): Buffer => {
    if (value === undefined) throw decodeFault(`${where}: missing`);
    return bytesOfHex(value, where);
  };
  return {
    read: (payload) => hexOf(payload.subarray(at, width === 0 ? payload.length : at + width)),
    write(target, value) {
      const bytes = bytesOf(value);
      if (bytes.length !== width) throw decodeFault(`${where}: ${bytes.length} bytes, wants ${width}`);
      bytes.copy(target, at);
    },
    tail: bytesOf,
  };
}

/** Wraps a field's access. What const means is found by encoding it once and reading it back, so both directions agree. */
function constant(field: StructField, access: Access, base: { at: number; width: number }, where: string): Access {
  let expected: unknown;
  let bytes: Buffer;
  try {
    bytes = base.width === 0 ? access.tail!(field.const) : Buffer.alloc(base.width);
    const whole = Buffer.alloc(base.at + bytes.length);
    if (base.width === 0) bytes.copy(whole, base.at);
    else access.write(whole, field.const);
    bytes = whole.subarray(base.at);
    expected = access.read(whole);
  } catch (cause) {
    throw configFault(`${where}: const ${field.const} does not fit ${field.type}`, cause);
  }
  return {
    read(payload) {
      const value = access.read(payload);
      // The device's value stays out of the message when it is text: messages are logged.
      if (value !== expected) {
        throw decodeFault(`${where}: ${typeof value === "number" ? `is ${value}, ` : ""}wants ${String(expected)}`);
      }
      return value;
    },
    write: (target) => void bytes.copy(target, base.at),
    tail: () => bytes,
  };
}
