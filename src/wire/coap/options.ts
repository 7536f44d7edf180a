/** Options of CoAP messages (RFC 7252 section 5.10, RFC 7641, RFC 7959, RFC 7967, RFC 9175): numbers, formats, and what must be refused. */
import type { CoapMessage, CoapOption } from "./message.ts";

export const optionNumbers = {
  uriHost: 3,
  etag: 4,
  observe: 6,
  uriPort: 7,
  uriPath: 11,
  contentFormat: 12,
  maxAge: 14,
  uriQuery: 15,
  accept: 17,
  block2: 23,
  block1: 27,
  proxyUri: 35,
  proxyScheme: 39,
  size1: 60,
  noResponse: 258,
  requestTag: 292,
} as const;

/** The names that `coap-packet` 1.1.1 gives to numbers when it parses; every other number comes as its digits. */
const codecNames: Readonly<Record<string, number>> = {
  "If-Match": 1,
  "Uri-Host": 3,
  ETag: 4,
  "If-None-Match": 5,
  Observe: 6,
  "Uri-Port": 7,
  "Location-Path": 8,
  OSCORE: 9,
  "Uri-Path": 11,
  "Content-Format": 12,
  "Max-Age": 14,
  "Uri-Query": 15,
  "Hop-Limit": 16,
  Accept: 17,
  "Q-Block1": 19,
  "Location-Query": 20,
  Block2: 23,
  Block1: 27,
  Size2: 28,
  "Q-Block2": 31,
  "Proxy-Uri": 35,
  "Proxy-Scheme": 39,
  Size1: 60,
  "No-Response": 258,
  "OCF-Accept-Content-Format-Version": 2049,
  "OCF-Content-Format-Version": 2053,
};

/** @throws RangeError for a name that the pinned codec does not have; it would otherwise pass as an option that nobody checks. */
export function numberOfOptionName(name: string): number {
  const number = codecNames[name] ?? Number(name);
  if (!Number.isInteger(number)) throw new RangeError(`unknown option name ${name}`);
  return number;
}

/** How an option that a receiver recognises may look (RFC 7252 table 4): lengths in bytes. */
export interface OptionRule {
  readonly lengthMin: number;
  readonly lengthMax: number;
  readonly repeatable: boolean;
}

/** Odd numbers are critical (RFC 7252 section 5.4.6). */
const isCritical = (number: number): boolean => (number & 1) === 1;

/**
 * The first critical option that must be refused, or undefined: one without a rule (section 5.4.1), with a length out of range
 * (section 5.4.3) or given twice where it may not be (section 5.4.5). Elective ones with such faults count as absent, see `uintOption`.
 */
export function refusedOption(
  options: readonly CoapOption[],
  rules: ReadonlyMap<number, OptionRule>,
): number | undefined {
  let previous = -1;
  for (const { number, value } of options) {
    const repeated = number === previous;
    previous = number;
    if (!isCritical(number)) continue;
    const rule = rules.get(number);
    if (rule === undefined || value.length < rule.lengthMin || value.length > rule.lengthMax) return number;
    if (repeated && !rule.repeatable) return number;
  }
  return undefined;
}

export function firstOption(message: CoapMessage, number: number): Buffer | undefined {
  return message.options.find((option) => option.number === number)?.value;
}

export const hasOption = (message: CoapMessage, number: number): boolean => firstOption(message, number) !== undefined;

/** The option's number, or undefined when it is absent or longer than `bytesMax` bytes (at most 4). */
export function uintOption(message: CoapMessage, number: number, bytesMax: number): number | undefined {
  const value = firstOption(message, number);
  return value === undefined || value.length > bytesMax ? undefined : decodeUint(value);
}

/** RFC 7252 section 3.2: big-endian, leading zeros allowed, empty is 0. At most 4 bytes. */
export const decodeUint = (value: Buffer): number => (value.length === 0 ? 0 : value.readUIntBE(0, value.length));

/** The shortest form, as section 3.2 asks of senders. @param value 0 to 4294967295 */
export function encodeUint(value: number): Buffer {
  let length = 0;
  while (length < 4 && value >= 2 ** (8 * length)) length += 1;
  const bytes = Buffer.alloc(length);
  if (length > 0) bytes.writeUIntBE(value, 0, length);
  return bytes;
}

export const uintOf = (number: number, value: number): CoapOption => ({ number, value: encodeUint(value) });

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** All values of a repeatable text option, or undefined when one is not UTF-8. */
export function textOptions(message: CoapMessage, number: number): string[] | undefined {
  const texts: string[] = [];
  try {
    for (const option of message.options) if (option.number === number) texts.push(utf8.decode(option.value));
  } catch {
    return undefined;
  }
  return texts;
}
