import { configFault, decodeFault } from "./fault.ts";
import type { NumberReader } from "./numbers.ts";
import type { StructField } from "./structDefinition.ts";
import { checkName } from "./structDefinition.ts";

interface Bit {
  readonly name: string;
  readonly first: number;
  /** Of the shifted value. */
  readonly mask: number;
  readonly flag: boolean;
}

/** Names for single bits (booleans) and ranges of bits (numbers) of one integer. @throws TidegateError TG_CONFIG */
export function compileBits(
  bits: NonNullable<StructField["bits"]>,
  width: number,
  raw: NumberReader,
  where: string,
): { read(payload: Uint8Array): unknown; rawOf(value: unknown): number } {
  const table: Bit[] = [];
  let taken = 0;
  for (const [name, place] of Object.entries(bits)) {
    checkName(name, where);
    const [first, last] = typeof place === "number" ? [place, place] : place;
    if (!Number.isInteger(first) || !Number.isInteger(last) || first < 0 || last < first || last >= width) {
      throw configFault(`${where}: bits of ${name}: want a bit or [first, last] within 0 to ${width - 1}`);
    }
    const mask = 2 ** (last - first + 1) - 1;
    const held = (mask << first) >>> 0;
    if ((taken & held) !== 0) throw configFault(`${where}: bits of ${name} belong to another name already`);
    taken = (taken | held) >>> 0;
    table.push({ name, first, mask, flag: typeof place === "number" });
  }
  if (table.length === 0) throw configFault(`${where}: bits want at least one name`);
  const blank: Record<string, unknown> = Object.fromEntries(table.map(({ name }) => [name, null]));
  return {
    read(payload) {
      const word = raw(payload);
      const value = { ...blank }; // a clone has its final shape at once
      for (const bit of table) {
        const part = ((word >>> bit.first) & bit.mask) >>> 0;
        value[bit.name] = bit.flag ? part === 1 : part;
      }
      return value;
    },
    rawOf(value) {
      if (typeof value !== "object" || value === null) {
        throw decodeFault(`${where}: ${value === undefined ? "missing" : "wants an object"}`);
      }
      let word = 0;
      for (const bit of table) word = (word | (partOf(value, bit, where) << bit.first)) >>> 0;
      return word;
    },
  };
}

function partOf(value: object, bit: Bit, where: string): number {
  const given: unknown = Object.hasOwn(value, bit.name) ? (value as Record<string, unknown>)[bit.name] : undefined;
  if (given === undefined) throw decodeFault(`${where}: bits of ${bit.name} missing`);
  if (bit.flag && typeof given === "boolean") return given ? 1 : 0;
  if (typeof given !== "number" || !Number.isInteger(given) || given < 0 || given > bit.mask) {
    throw decodeFault(`${where}: bits of ${bit.name} want ${bit.flag ? "true or false" : `0 to ${bit.mask}`}`);
  }
  return given;
}
