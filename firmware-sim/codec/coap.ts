/** coap-packet with the checks that it lacks (RFC 7252 section 3), and the few options that the devices use. */
import { generate, type Packet, type ParsedPacket, parse } from "coap-packet";

export type { ParsedPacket } from "coap-packet";

export const contentFormats = { linkFormat: 40, cbor: 60 } as const;

/** Options that a server of plain resources may ignore or knows. Any other odd number is critical and unknown (section 5.4.1). */
const understood = new Set<string | number>([
  "Uri-Host",
  "Uri-Port",
  "Uri-Path",
  "Uri-Query",
  "Accept",
  "Observe",
  "Block2",
]);

/** @returns undefined for what is no CoAP message. */
export function parseDatagram(datagram: Buffer): ParsedPacket | undefined {
  try {
    return wellFormed(datagram) ? parse(datagram) : undefined;
  } catch {
    return undefined; // whatever arrives at a UDP port
  }
}

/** Token of 8 bytes at most, options that end where they say, something after a payload marker. */
function wellFormed(datagram: Buffer): boolean {
  if (datagram.length < 4) return false;
  const tokenLength = datagram.readUInt8(0) & 0x0f;
  let at = 4 + tokenLength;
  if (tokenLength > 8 || at > datagram.length) return false;
  while (at < datagram.length) {
    const head = datagram.readUInt8(at++);
    if (head === 0xff) return at < datagram.length;
    const extension = (nibble: number): number => (nibble === 13 ? 1 : nibble === 14 ? 2 : 0);
    const lengthAt = at + extension(head >> 4);
    const lengthNibble = head & 0x0f;
    let length = lengthNibble;
    if (lengthNibble === 13) length = 13 + datagram.readUInt8(lengthAt);
    if (lengthNibble === 14) length = 269 + datagram.readUInt16BE(lengthAt);
    at = lengthAt + extension(lengthNibble) + length;
  }
  return at === datagram.length;
}

export function encodeDatagram(packet: Packet): Buffer {
  return generate(packet);
}

/** A number as an option's value: as few bytes as it takes, none for 0 (section 3.2). */
export function uintOption(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
  return Buffer.from(bytes);
}

/** The option as a number; undefined when absent. */
export function readUintOption(packet: ParsedPacket, name: string): number | undefined {
  const found = packet.options.find((option) => option.name === name);
  return found === undefined ? undefined : found.value.reduce((sum, byte) => sum * 256 + byte, 0);
}

/** `/a/b` of the Uri-Path options. */
export function pathOf(packet: ParsedPacket): string {
  const parts = packet.options.filter((option) => option.name === "Uri-Path").map((option) => option.value.toString());
  return `/${parts.join("/")}`;
}

/** True when a critical option is not known here; odd numbers are critical. coap-packet gives unknown ones as numbers. */
export function hasUnknownCritical(packet: ParsedPacket): boolean {
  return packet.options.some(({ name }) => {
    if (understood.has(name)) return false;
    const number = typeof name === "number" ? name : Number(name);
    return Number.isInteger(number) ? number % 2 === 1 : criticalNames.has(name);
  });
}

const criticalNames = new Set<string | number>([
  "If-Match",
  "If-None-Match",
  "OSCORE",
  "Proxy-Uri",
  "Proxy-Scheme",
  "Block1",
  "Q-Block1",
  "Q-Block2",
]);
