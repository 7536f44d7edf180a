/**
 * CoAP messages as values (RFC 7252 section 3), over the codec `coap-packet`. One datagram is one message:
 *
 *   ver(2) type(2) tkl(4) | code(8) | message id(16) | token[tkl] | options... | 0xff payload
 *
 * The codec accepts four things that a receiver must refuse (token length 9 and up, a cut option, a marker without payload, reserved code
 * classes), so `structureFault` reads the datagram first. Nothing here throws on a datagram.
 */
import { generate, parse } from "coap-packet";
import { numberOfOptionName } from "./options.ts";

export type MessageType = "con" | "non" | "ack" | "rst";

export interface CoapOption {
  readonly number: number;
  readonly value: Buffer;
}

export interface CoapMessage {
  readonly type: MessageType;
  /** `class.detail`, e.g. `0.02` (POST), `2.04`; `0.00` is the Empty message. */
  readonly code: string;
  readonly messageId: number;
  readonly token: Buffer;
  /** In rising order of number; equal numbers in the order sent. */
  readonly options: readonly CoapOption[];
  /** A view of the datagram. */
  readonly payload: Buffer;
}

export type Parsed =
  | { readonly kind: "message"; readonly message: CoapMessage }
  /** Too short to hold a message id, or another version: silence (section 3). */
  | { readonly kind: "alien" }
  /** A message format error: Confirmable ones are rejected with a Reset, the others are ignored (sections 4.2 and 4.3). */
  | { readonly kind: "malformed"; readonly type: MessageType; readonly messageId: number; readonly why: string };

export const headerBytes = 4;
export const tokenBytesMax = 8;
/** What one UDP datagram over IPv4 can carry. */
const datagramBytesMax = 65_507;
const payloadMarker = 0xff;
const optionNumberMax = 65_535;

const types: readonly MessageType[] = ["con", "non", "ack", "rst"];

/** Reads one datagram. The message's buffers are views of it. */
export function parseMessage(datagram: Buffer): Parsed {
  if (datagram.length < headerBytes || datagram.readUInt8(0) >> 6 !== 1) return { kind: "alien" };
  const type = types[(datagram.readUInt8(0) >> 4) & 3] ?? "con";
  const messageId = datagram.readUInt16BE(2);
  const why = structureFault(datagram);
  if (why !== undefined) return { kind: "malformed", type, messageId, why };
  try {
    const { code, token, options, payload } = parse(datagram);
    const read = options.map(({ name, value }) => ({ number: numberOfOptionName(String(name)), value }));
    return { kind: "message", message: { type, code, messageId, token, options: read, payload } };
  } catch (error) {
    return { kind: "malformed", type, messageId, why: error instanceof Error ? error.message : "not CoAP" };
  }
}

/** What makes these bytes no message, or undefined. The version is already checked; at least the header is there. */
function structureFault(datagram: Buffer): string | undefined {
  const tokenBytes = datagram.readUInt8(0) & 15;
  const code = datagram.readUInt8(1);
  if (tokenBytes > tokenBytesMax) return "token length above 8"; // RFC 7252 section 3
  if (code === 0)
    return datagram.length === headerBytes && tokenBytes === 0 ? undefined : "an Empty message with content"; // section 4.1
  const codeClass = code >> 5;
  // Classes 1, 6 and 7 are reserved (section 4.2); 3 has no meaning either (section 12.1).
  if (codeClass === 1 || codeClass === 3 || codeClass > 5) return `reserved code class ${codeClass}`;
  if (headerBytes + tokenBytes > datagram.length) return "the token is cut off";
  return optionsFault(datagram, headerBytes + tokenBytes);
}

function optionsFault(datagram: Buffer, start: number): string | undefined {
  let at = start;
  let number = 0;
  while (at < datagram.length) {
    const head = datagram.readUInt8(at++);
    if (head === payloadMarker) return at < datagram.length ? undefined : "a payload marker without payload"; // section 3
    const deltaNibble = head >> 4;
    const lengthNibble = head & 15;
    if (deltaNibble === 15 || lengthNibble === 15) return "a reserved option nibble"; // section 3.1
    const deltaBytes = extendedBytes(deltaNibble);
    const lengthBytes = extendedBytes(lengthNibble);
    if (at + deltaBytes + lengthBytes > datagram.length) return "an option header is cut off";
    number += extended(datagram, at, deltaNibble);
    const length = extended(datagram, at + deltaBytes, lengthNibble);
    at += deltaBytes + lengthBytes + length;
    if (at > datagram.length) return "an option is cut off";
    if (number > optionNumberMax) return "an option number above 65535";
  }
  return undefined;
}

const extendedBytes = (nibble: number): number => (nibble < 13 ? 0 : nibble - 12);

function extended(datagram: Buffer, at: number, nibble: number): number {
  if (nibble < 13) return nibble;
  return nibble === 13 ? datagram.readUInt8(at) + 13 : datagram.readUInt16BE(at) + 269;
}

/** The bytes of a message. Options may come in any order. @throws Error only for what does not fit into one datagram. */
export function encodeMessage(message: CoapMessage): Buffer {
  const { type, code, messageId, token, payload } = message;
  const options = message.options.map(({ number, value }) => ({ name: number, value }));
  return generate(
    {
      code,
      messageId,
      token,
      options,
      payload,
      confirmable: type === "con",
      ack: type === "ack",
      reset: type === "rst",
    },
    datagramBytesMax,
  );
}

/** An Empty message: the acknowledgement that comes before a separate response, a Reset, or a ping (section 4.1). */
export function encodeEmpty(type: MessageType, messageId: number): Buffer {
  return Buffer.from([0x40 | (types.indexOf(type) << 4), 0, messageId >> 8, messageId & 0xff]);
}

export const isRequest = (message: CoapMessage): boolean => message.code.startsWith("0.") && message.code !== "0.00";
export const isEmpty = (message: CoapMessage): boolean => message.code === "0.00";
