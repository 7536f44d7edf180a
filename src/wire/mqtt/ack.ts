import { Cursor } from "./bytes.ts";
import type { AckPacket, ProtocolVersion } from "./packet.ts";
import { decodeProperties, holder } from "./properties.ts";
import { malformed } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

/** MQTT 5 tables 3-4 and 3-5: PUBACK and PUBREC. */
const receiptReasons = new Set<number>([
  reason.success,
  reason.noMatchingSubscribers,
  reason.unspecifiedError,
  reason.implementationSpecificError,
  reason.notAuthorized,
  reason.topicNameInvalid,
  reason.packetIdentifierInUse,
  reason.quotaExceeded,
  reason.payloadFormatInvalid,
]);

/** MQTT 5 tables 3-6 and 3-7: PUBREL and PUBCOMP. */
const releaseReasons = new Set<number>([reason.success, reason.packetIdentifierNotFound]);

/** First byte of the fixed header: PUBREL's flags are 2 [MQTT-3.6.1-1]. */
const firstByte = { puback: 0x40, pubrec: 0x50, pubrel: 0x62, pubcomp: 0x70 } as const;

/**
 * PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7 of both versions). MQTT 5 may leave out a reason code of 0 and empty properties.
 * @param from a server may refuse with any code from 0x80 on, a client only with those of its packet's table
 * @throws ProtocolError 0x81, 0x82
 */
export function decodeAck(
  kind: AckPacket["kind"],
  buffer: Buffer,
  body: number,
  end: number,
  version: ProtocolVersion,
  from: "client" | "server",
): AckPacket {
  const cursor = new Cursor(buffer, body, end);
  const packet: AckPacket = { kind, packetId: cursor.packetId(), reasonCode: 0 };
  if (version === 5 && cursor.remaining > 0) {
    packet.reasonCode = cursor.u8();
    const isReceipt = kind === "puback" || kind === "pubrec";
    const known = isReceipt ? receiptReasons : releaseReasons;
    // Some servers refuse a message with a code of another packet (0x95). To close for that would bring the same message and the same answer again.
    const refusal = isReceipt && from === "server" && packet.reasonCode >= 0x80;
    if (!known.has(packet.reasonCode) && !refusal) malformed(`unknown ${kind} reason code ${packet.reasonCode}`); // [MQTT-3.4.2-1]
    if (cursor.remaining > 0) {
      const properties = decodeProperties(cursor, holder[kind]);
      if (properties !== undefined) packet.properties = properties;
    }
  }
  cursor.finish();
  return packet;
}

/**
 * The fast path for the four bytes that nearly every acknowledgement is.
 * @returns its packet id; 0: another packet, or one to look at with `decodePacket`, which reads or refuses it
 */
export function scanAck(buffer: Buffer, first: number, body: number, end: number): number {
  if (end - body !== 2) return 0;
  const isAck = first === firstByte.puback || first === firstByte.pubrec || first === firstByte.pubrel;
  if (!isAck && first !== firstByte.pubcomp) return 0;
  return (buffer[body]! << 8) | buffer[body + 1]!; // end - body is 2
}

/**
 * How many acknowledgements of four bytes lie in a row from `start` on that differ in their packet ids only, each with the one after the last one's. The
 * first is one that `scanAck` has taken.
 * @param limit where the bytes end @param most so many are counted
 */
export function countAckRun(buffer: Buffer, start: number, limit: number, most: number): number {
  const first = buffer[start]!; // `scanAck` has seen four bytes
  const id = (buffer[start + 2]! << 8) | buffer[start + 3]!;
  let count = 1;
  for (let at = start + 4; count < most && at + 4 <= limit; at += 4) {
    const next = id + count; // 65,536 is in no packet
    if (buffer[at] !== first || buffer[at + 1] !== 2) break;
    if (buffer[at + 2] !== next >> 8 || buffer[at + 3] !== (next & 0xff)) break;
    count += 1;
  }
  return count;
}

/** 4 bytes on success and before MQTT 5 (no reason codes), else 5. */
export function encodeAck(
  kind: AckPacket["kind"],
  packetId: number,
  reasonCode: number,
  version: ProtocolVersion,
): Buffer {
  if (reasonCode === 0 || version !== 5) {
    const buffer = Buffer.allocUnsafe(4);
    writeAck(buffer, 0, kind, packetId);
    return buffer;
  }
  // MQTT 5 section 3.4.2.2.1: with a remaining length below 4 there is no property length.
  return Buffer.from([firstByte[kind], 3, packetId >>> 8, packetId & 0xff, reasonCode]);
}

/** Writes the 4 bytes of a successful acknowledgement; returns where the next one goes. */
export function writeAck(target: Buffer, at: number, kind: AckPacket["kind"], packetId: number): number {
  target[at] = firstByte[kind];
  target[at + 1] = 2;
  target[at + 2] = packetId >>> 8;
  target[at + 3] = packetId & 0xff;
  return at + 4;
}
