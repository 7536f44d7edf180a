import { configFault } from "./fault.ts";
import { type Endian, type FloatType, type IntegerType, integerTypes, type LongType, longTypes } from "./numbers.ts";

export interface StructDefinition {
  readonly type: "struct";
  readonly endian: Endian;
  readonly fields: readonly StructField[];
  /** Bytes after the last field: an error (default), or ignored. */
  readonly trailing?: "error" | "ignore" | undefined;
}

export interface StructField {
  /** Letters, digits, `_` and `-`, so that it can be used in topic templates; unique. */
  readonly name: string;
  readonly type: IntegerType | LongType | FloatType | "string" | "bytes";
  /** string and bytes only: how many bytes, or all that are left (last field only). */
  readonly length?: number | "rest" | undefined;
  /** Default: the struct's. */
  readonly endian?: Endian | undefined;
  /** value = raw * scale + offset; defaults 1 and 0. */
  readonly scale?: number | undefined;
  readonly offset?: number | undefined;
  /** For people; see `describeStruct`. */
  readonly unit?: string | undefined;
  /** Raw integer to name. A raw value without a name stays a number. */
  readonly enum?: Readonly<Record<string, string>> | undefined;
  /** Unsigned integers only: bit number (0 is the lowest) for a boolean, [first, last] for a number. The value is an object. */
  readonly bits?: Readonly<Record<string, number | readonly [first: number, last: number]>> | undefined;
  /** Decoding anything else is an error; encoding writes it whatever is given. Raw value, or an enum's name; hex digits for bytes. */
  readonly const?: number | string | undefined;
}

/** Bytes of the fixed part, at most: what a length of two bytes can announce. */
const structBytesMax = 65_535;
const fieldsMax = 1000;
const namePattern = /^[\p{L}_][\p{L}\p{N}_-]*$/u;

/** @throws TidegateError TG_CONFIG */
export function checkName(name: string, where: string): void {
  if (!namePattern.test(name) || name === "__proto__") {
    throw configFault(`${where}: name "${name}" wants letters, digits, _ and -, and to start with a letter or _`);
  }
}

export const isInteger = (type: StructField["type"]): type is IntegerType => Object.hasOwn(integerTypes, type);
export const isLong = (type: StructField["type"]): type is LongType => Object.hasOwn(longTypes, type);
export const isFloat = (type: StructField["type"]): type is FloatType => type === "f32" || type === "f64";

/** Bytes of a field on the wire; 0 for `length: rest`. @throws TidegateError TG_CONFIG */
export function widthOf(field: StructField, where: string): number {
  if (field.type === "string" || field.type === "bytes") {
    if (field.length === "rest") return 0;
    if (field.length !== undefined && Number.isInteger(field.length) && field.length > 0) return field.length;
    throw configFault(`${where}: ${field.type} wants length: a positive whole number of bytes, or rest`);
  }
  if (field.length !== undefined) throw configFault(`${where}: ${field.type} takes no length`);
  if (isInteger(field.type)) return integerTypes[field.type].bytes;
  if (isLong(field.type) || field.type === "f64") return 8;
  if (field.type === "f32") return 4;
  throw configFault(`${where}: unknown type "${String(field.type)}"`);
}

/** What no single field can see. @throws TidegateError TG_CONFIG */
export function checkLayout(codec: string, definition: StructDefinition): void {
  if (definition.endian !== "little" && definition.endian !== "big")
    throw configFault(`${codec}: endian wants little or big`);
  const { fields } = definition;
  if (fields.length === 0 || fields.length > fieldsMax) throw configFault(`${codec}: wants 1 to ${fieldsMax} fields`);
  const names = new Set<string>();
  let bytes = 0;
  fields.forEach((field, index) => {
    const where = `${codec}: field ${field.name}`;
    checkName(field.name, where);
    if (names.has(field.name)) throw configFault(`${where}: the name is taken already`);
    names.add(field.name);
    if (field.length === "rest" && index !== fields.length - 1)
      throw configFault(`${where}: only the last field may take the rest`);
    bytes += widthOf(field, where);
  });
  if (bytes > structBytesMax) throw configFault(`${codec}: ${bytes} bytes, more than ${structBytesMax}`);
}

/** The layout as people read it, one line a field: `5  u32 little  pressure  raw * 0.1  Pa`. */
export function describeStruct(definition: StructDefinition): string[] {
  let at = 0;
  return definition.fields.map((field) => {
    const width = widthOf(field, field.name);
    const parts = [
      String(at),
      width === 1 ? field.type : `${field.type} ${sizeText(field, definition.endian)}`,
      field.name,
    ];
    if (field.scale !== undefined || field.offset !== undefined) {
      const offset = field.offset ?? 0;
      parts.push(`raw * ${field.scale ?? 1}${offset === 0 ? "" : ` ${offset < 0 ? "-" : "+"} ${Math.abs(offset)}`}`);
    }
    if (field.unit !== undefined) parts.push(field.unit);
    if (field.const !== undefined) parts.push(`always ${field.const}`);
    for (const [raw, name] of Object.entries(field.enum ?? {})) parts.push(`${raw}=${name}`);
    for (const [name, bit] of Object.entries(field.bits ?? {})) {
      parts.push(`${name}=${typeof bit === "number" ? `bit ${bit}` : `bits ${bit[0]}-${bit[1]}`}`);
    }
    at += width;
    return parts.join("  ");
  });
}

function sizeText(field: StructField, endian: Endian): string {
  if (field.type === "string" || field.type === "bytes") return `[${field.length}]`;
  return field.endian ?? endian;
}
