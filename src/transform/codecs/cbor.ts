import { addExtension, Encoder, Tag } from "cbor-x";
import type { Codec } from "../../base/contracts.ts";
import { messageOf } from "../../base/errors.ts";
import { CborScan } from "./cborScan.ts";
import { decodeFault } from "./fault.ts";
import { hexOf } from "./hex.ts";
import { type PayloadLimits, payloadDefaults } from "./json.ts";

// cbor-x reads and writes values quickly, but believes its input: CborScan decides what it gets to see.
// variableMapSize: map headers as short as RFC 8949 section 4.2.1 asks for.
const cbor = new Encoder({ useRecords: false, mapsAsObjects: true, variableMapSize: true, tagUint8Array: false });

// cbor-x's own reader of tag 1 fails on integers of 8 bytes, which it reads as BigInt. This is global to the process.
addExtension<Date, number | bigint>({
  tag: 1,
  Class: Date,
  encode: (date, encode) => encode(date.getTime() / 1000),
  decode: (seconds) => new Date(Math.round(Number(seconds) * 1000)),
});

/**
 * CBOR (RFC 8949) as plain JSON values:
 * - integers beyond 2^53 - 1 become decimal strings, byte strings lower-case hex digits, times (tags 0 and 1) ISO 8601 in UTC with
 *   milliseconds; NaN, infinities and undefined become null; other permitted tags are taken off.
 * - keys that are not text become text (1, -2, 1.5, true, null); the last of equal keys wins; `__proto__` becomes `__proto_`.
 * - bytes after the item are an error.
 */
export function createCborCodec(name: string, limits: PayloadLimits = {}): Codec {
  const maxBytes = limits.maxBytes ?? payloadDefaults.maxBytes;
  const maxDepth = limits.maxDepth ?? payloadDefaults.maxDepth;
  return {
    name,
    decode(payload) {
      if (payload.length > maxBytes) throw decodeFault(`${name}: ${payload.length} bytes, more than ${maxBytes}`);
      const plain = new CborScan(payload, name, maxDepth).run();
      const value = read(payload, name);
      return plain ? value : toJson(value, name);
    },
    encode(value) {
      if (value === undefined) throw decodeFault(`${name}: wants a value`);
      try {
        return Buffer.from(cbor.encode(value)); // a copy: cbor-x's own is a view of a shared pool
      } catch (error) {
        throw decodeFault(`${name}: the value cannot be written as CBOR: ${messageOf(error)}`);
      }
    },
  };
}

function read(payload: Uint8Array, where: string): unknown {
  try {
    return cbor.decode(payload.subarray()); // cbor-x hangs a DataView on what it is given; the message stays untouched
  } catch (error) {
    throw decodeFault(`${where}: ${messageOf(error)}`);
  }
}

/** Recursion is bounded by the scan's depth limit. */
function toJson(value: unknown, where: string): unknown {
  switch (typeof value) {
    case "number":
      return Number.isFinite(value) ? value : null;
    case "bigint": {
      const near = Number(value);
      return Number.isSafeInteger(near) ? near : value.toString();
    }
    case "undefined":
      return null;
    case "object":
      return value === null ? null : objectToJson(value, where);
    default:
      return value;
  }
}

function objectToJson(value: object, where: string): unknown {
  if (Array.isArray(value)) return value.map((item) => toJson(item, where));
  if (value instanceof Uint8Array) return hexOf(value);
  if (value instanceof Tag) return toJson(value.value, where);
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) throw decodeFault(`${where}: a time (tag 0 or 1) that is none`);
    return value.toISOString();
  }
  const fields = value as Record<string, unknown>; // ours alone, just decoded: changed in place
  for (const key of Object.keys(fields)) fields[key] = toJson(fields[key], where);
  return fields;
}
