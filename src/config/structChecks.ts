/** Rules between the keys of a struct's fields. */
import { integerTypes } from "./codecs.ts";
import type { ConfigNode, Reporter } from "./document.ts";
import { pathText } from "./problems.ts";

const fieldsMax = 1000;
const bytesMax = 65_535;
const nameHint = "letters, digits, _ and -, a letter or _ first";
const isFieldName = (name: string): boolean => /^[\p{L}_][\p{L}\p{N}_-]*$/u.test(name) && name !== "__proto__";

/** Bytes of the fixed types. */
const widths: Readonly<Record<string, number>> = { u8: 1, u16: 2, u24: 3, u32: 4, u64: 8, f32: 4, f64: 8 };
const widthOf = (type: string): number | undefined => widths[type.replace(/^i/, "u")];
const isInteger = (type: string): boolean => (integerTypes as readonly string[]).includes(type);
const isLong = (type: string): boolean => type === "u64" || type === "i64";
const isBytes = (type: string): boolean => type === "string" || type === "bytes";

export function checkStruct(codec: ConfigNode, report: Reporter): void {
  const fields = codec.list("fields");
  const names = new Set<string>();
  let bytes = 0;
  fields.forEach((field, index) => {
    checkName(field, names, report);
    const type = field.text("type");
    if (type === undefined || (widthOf(type) === undefined && !isBytes(type))) return; // the schema says so
    checkLength(field, type, index === fields.length - 1, report);
    checkMeaning(field, type, report);
    const length = field.get("length")?.scalar;
    bytes += widthOf(type) ?? (typeof length === "number" ? length : 0);
  });
  const list = codec.get("fields");
  if (list !== undefined && fields.length > fieldsMax)
    report.node(list, `${fields.length} fields (at most ${fieldsMax})`);
  if (list !== undefined && bytes > bytesMax) report.node(list, `${bytes} bytes together (at most ${bytesMax})`);
}

function checkName(field: ConfigNode, names: Set<string>, report: Reporter): void {
  const name = field.text("name");
  const node = field.get("name");
  if (name === undefined || node === undefined || name === "") return;
  if (!isFieldName(name)) report.node(node, `not a field's name (${nameHint})`);
  if (names.has(name)) report.node(node, "another field has this name already (each name once)");
  names.add(name);
}

function checkLength(field: ConfigNode, type: string, last: boolean, report: Reporter): void {
  const length = field.get("length");
  if (!isBytes(type)) {
    if (length !== undefined) report.node(length, `not possible with ${type} (string and bytes have a length)`);
  } else if (length === undefined) {
    report.missing(
      field,
      "length",
      `is missing (${type} needs its number of bytes; rest: all that are left, for the last field)`,
    );
  } else if (length.scalar === "rest" && !last) {
    report.node(length, "only the last field may take the rest (a number of bytes)");
  }
}

/** scale, offset, enum, bits, const: what fits which type. */
function checkMeaning(field: ConfigNode, type: string, report: Reporter): void {
  const scale = field.get("scale");
  const bits = field.get("bits");
  const names = field.get("enum");
  const fixed = field.get("const");
  for (const node of [scale, field.get("offset")]) {
    if (node !== undefined && isBytes(type)) report.node(node, `not possible with ${type} (number types only)`);
  }
  if (scale?.scalar === 0) report.node(scale, "0 loses the value (any other number)");
  if (names !== undefined) checkEnum(names, type, report);
  if (bits !== undefined) checkBits(bits, type, report);
  const meanings = [scale ?? field.get("offset"), names, bits].filter((node) => node !== undefined);
  if (meanings.length > 1) report.node(field, "more than one of scale or offset, enum and bits (one of them a field)");
  if (fixed !== undefined) {
    if (scale !== undefined || field.get("offset") !== undefined || bits !== undefined) {
      report.node(fixed, "not possible with scale, offset or bits (const is the raw value)");
    }
    checkConst(fixed, type, names, report);
    checkConstLength(fixed, type, field.get("length")?.scalar, report);
  }
}

function checkEnum(names: ConfigNode, type: string, report: Reporter): void {
  if (!isInteger(type) || isLong(type))
    return report.node(names, `not possible with ${type} (integer types of at most 32 bits)`);
  const seen = new Set<string>();
  const raws = new Set<number>();
  for (const [raw, node] of names.entries ?? []) {
    if (!/^-?\d{1,10}$/.test(raw) || !fits(Number(raw), type)) {
      report.at(node.keyAt, pathText(node.path), `not a value of ${type} (a whole number that fits)`);
    } else if (raws.has(Number(raw))) {
      report.at(node.keyAt, pathText(node.path), "this value has a name already (each value once)"); // 1 and "01"
    }
    raws.add(Number(raw));
    if (typeof node.scalar !== "string") continue; // the schema says so
    if (seen.has(node.scalar)) report.node(node, "another value has this name already (each name once)");
    seen.add(node.scalar);
  }
}

function checkBits(bits: ConfigNode, type: string, report: Reporter): void {
  const width = (widthOf(type) ?? 0) * 8;
  if (!type.startsWith("u") || width > 32) return report.node(bits, `not possible with ${type} (u8, u16, u24, u32)`);
  if (bits.entries?.size === 0) report.node(bits, "is empty (NAME: BIT or NAME: [FIRST, LAST])");
  let taken = 0n;
  for (const [name, node] of bits.entries ?? []) {
    if (!isFieldName(name)) report.at(node.keyAt, pathText(node.path), `not a name for bits (${nameHint})`);
    const range = node.items?.map((item) => item.scalar) ?? [node.scalar, node.scalar];
    const [first, last] = range;
    if (range.length !== 2 || typeof first !== "number" || typeof last !== "number") continue; // the schema says so
    if (!Number.isInteger(first) || !Number.isInteger(last) || first < 0 || last < first || last >= width) {
      report.node(node, `outside of ${type} (a bit or [FIRST, LAST] within 0 to ${width - 1})`);
      continue;
    }
    const mask = ((1n << BigInt(last - first + 1)) - 1n) << BigInt(first);
    if ((taken & mask) !== 0n) report.node(node, "these bits belong to another name already (each bit once)");
    taken |= mask;
  }
}

function checkConst(fixed: ConfigNode, type: string, names: ConfigNode | undefined, report: Reporter): void {
  const value = fixed.scalar;
  if (value === undefined || value === null) return;
  if (type === "bytes") {
    if (typeof value !== "string" || !/^([0-9a-f]{2}[ :]?)+$/i.test(value))
      report.node(fixed, 'not bytes (hex in quotes: "aa55")');
  } else if (type === "string") {
    if (typeof value !== "string") report.node(fixed, "not a text (put it into quotes)");
    else if (value.includes("\u0000")) report.node(fixed, "U+0000 ends a text (bytes hold it)");
  } else if (isLong(type)) {
    if (!fitsLong(value, type))
      report.node(fixed, `not a value of ${type} (a whole number that fits, in quotes beyond 9007199254740991)`);
  } else if (typeof value === "string") {
    const known = [...(names?.entries?.values() ?? [])].map((node) => node.scalar);
    if (!known.includes(value)) report.node(fixed, `not a value of ${type} (a number, or a name of its enum)`);
  } else if (typeof value !== "number" || (isInteger(type) ? !fits(value, type) : !fitsFloat(value, type))) {
    report.node(fixed, `not a value of ${type} (a number that fits)`);
  }
}

function checkConstLength(fixed: ConfigNode, type: string, length: unknown, report: Reporter): void {
  if (typeof fixed.scalar !== "string" || typeof length !== "number") return;
  const bytes = type === "bytes" ? fixed.scalar.replace(/[ :]/g, "").length / 2 : Buffer.byteLength(fixed.scalar);
  if (type === "bytes" && bytes !== length) report.node(fixed, `${bytes} bytes (length says ${length})`);
  if (type === "string" && bytes > length) report.node(fixed, `${bytes} bytes (length says ${length} at most)`);
}

const fitsFloat = (value: number, type: string): boolean =>
  Number.isFinite(type === "f32" ? Math.fround(value) : value);

/** YAML's numbers are doubles: what they cannot hold exactly is written as text. */
function fitsLong(value: unknown, type: string): boolean {
  if (typeof value === "number") return Number.isSafeInteger(value) && (value >= 0 || type === "i64");
  if (typeof value !== "string" || !/^-?\d{1,20}$/.test(value)) return false;
  const whole = BigInt(value);
  return whole === (type === "u64" ? BigInt.asUintN(64, whole) : BigInt.asIntN(64, whole));
}

function fits(value: number, type: string): boolean {
  const bits = (widthOf(type) ?? 0) * 8;
  const max = type.startsWith("u") ? 2 ** bits - 1 : 2 ** (bits - 1) - 1;
  const min = type.startsWith("u") ? 0 : -(2 ** (bits - 1));
  return Number.isInteger(value) && value >= min && value <= max;
}
