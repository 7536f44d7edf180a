import type { Codec } from "../../base/contracts.ts";
import { decodeFault } from "./fault.ts";
import { utf8Bytes, utf8Text } from "./utf8.ts";

/** What one payload may cost, for codecs whose input decides how much they build. */
export interface PayloadLimits {
  /** Default 1 MiB, that of `mqtt.limits.maxPacketSize`. */
  readonly maxBytes?: number | undefined;
  /** Arrays and objects within each other, default 64. JSON.stringify of some thousand levels overflows the stack. */
  readonly maxDepth?: number | undefined;
}

export const payloadDefaults = { maxBytes: 1_048_576, maxDepth: 64 } as const;

/**
 * JSON (RFC 8259) in strict UTF-8; a byte order mark is skipped. `__proto__` becomes an ordinary own property. Numbers are doubles, so
 * integers beyond 2^53 lose digits, as with any JavaScript reader.
 */
export function createJsonCodec(name: string, limits: PayloadLimits = {}): Codec {
  const maxBytes = limits.maxBytes ?? payloadDefaults.maxBytes;
  const maxDepth = limits.maxDepth ?? payloadDefaults.maxDepth;
  return {
    name,
    decode(payload) {
      if (payload.length > maxBytes) throw decodeFault(`${name}: ${payload.length} bytes, more than ${maxBytes}`);
      // n levels take 2n brackets, so short payloads need no look.
      if (payload.length > 2 * maxDepth && jsonDepth(payload) > maxDepth) {
        throw decodeFault(`${name}: nested deeper than ${maxDepth} levels`);
      }
      return parseJson(utf8Text(payload, name), name);
    },
    encode(value) {
      return utf8Bytes(stringifyJson(value, name), name);
    },
  };
}

/** @throws TidegateError TG_DECODE, without the text that V8 quotes in its messages: payloads do not belong in logs. */
function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
  } catch (error) {
    const position = error instanceof Error ? / at position (\d+)/.exec(error.message)?.[1] : undefined;
    throw decodeFault(`${where}: not valid JSON${position === undefined ? "" : ` at position ${position}`}`);
  }
}

/** @throws TidegateError TG_DECODE for what JSON cannot hold (undefined, BigInt, cycles). */
function stringifyJson(value: unknown, where: string): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    text = undefined;
  }
  if (text === undefined) throw decodeFault(`${where}: the value cannot be written as JSON`);
  return text;
}

/** Deepest nesting of brackets outside strings; right for valid JSON, an upper bound of what the parser would build otherwise. */
function jsonDepth(payload: Uint8Array): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let at = 0; at < payload.length; at += 1) {
    const byte = payload[at];
    if (inString) {
      if (byte === 0x5c) at += 1;
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) inString = true;
    else if (byte === 0x5b || byte === 0x7b) {
      depth += 1;
      if (depth > deepest) deepest = depth;
    } else if (byte === 0x5d || byte === 0x7d) depth -= 1;
  }
  return deepest;
}
