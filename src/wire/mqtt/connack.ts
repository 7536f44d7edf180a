import { Cursor } from "./bytes.ts";
import type { ConnackPacket, ProtocolVersion } from "./packet.ts";
import { decodeProperties, holder } from "./properties.ts";
import { malformed, ProtocolError, violation } from "./protocolError.ts";
import { connectReturn, reason } from "./reasonCodes.ts";

/** MQTT 5 table 3-1. */
const connectReasons = new Set<number>([
  reason.success,
  reason.unspecifiedError,
  reason.malformedPacket,
  reason.protocolError,
  reason.implementationSpecificError,
  reason.unsupportedProtocolVersion,
  reason.clientIdentifierNotValid,
  reason.badUserNameOrPassword,
  reason.notAuthorized,
  reason.serverUnavailable,
  reason.serverBusy,
  reason.banned,
  reason.badAuthenticationMethod,
  reason.topicNameInvalid,
  reason.packetTooLarge,
  reason.quotaExceeded,
  reason.payloadFormatInvalid,
  reason.retainNotSupported,
  reason.qosNotSupported,
  reason.useAnotherServer,
  reason.serverMoved,
  reason.connectionRateExceeded,
]);

/**
 * CONNACK (section 3.2 of both versions).
 * @throws ProtocolError 0x84 when an MQTT 5 client is answered in the form of 3.1.1 with "unacceptable protocol version"; else 0x81, 0x82
 */
export function decodeConnack(buffer: Buffer, body: number, end: number, version: ProtocolVersion): ConnackPacket {
  const cursor = new Cursor(buffer, body, end);
  const flags = cursor.u8();
  if (flags > 1) malformed("reserved acknowledge flags are set"); // [MQTT-3.2.2-1]
  const reasonCode = cursor.u8();
  if (version === 5 && cursor.remaining === 0 && reasonCode === connectReturn.unacceptableProtocolVersion) {
    throw new ProtocolError(reason.unsupportedProtocolVersion, "the server speaks MQTT 3.1.1 only"); // 3.1.1 section 3.1.2.2
  }
  const known = version === 5 ? connectReasons.has(reasonCode) : reasonCode <= connectReturn.notAuthorized;
  if (!known) malformed(`unknown CONNACK code ${reasonCode}`); // [MQTT-3.2.2-8]
  if (flags === 1 && reasonCode !== 0) violation("a refusal with a session present"); // [MQTT-3.2.2-6]
  const packet: ConnackPacket = { kind: "connack", sessionPresent: flags === 1, reasonCode };
  if (version === 5) {
    const properties = decodeProperties(cursor, holder.connack);
    if (properties !== undefined) packet.properties = properties;
  }
  cursor.finish();
  return packet;
}

const accepted = oldConnack(0, 0);
const resumed = oldConnack(1, 0);

/**
 * CONNACK of 3.1.1 and 3.1, which has no properties. When it accepts, the bytes are the same ones each time, so that clients who all come at once cost
 * no memory: not to be changed.
 * @param code Return Code; 0: accepted
 */
export function encodeOldConnack(sessionPresent: boolean, code: number): Buffer {
  if (code === 0) return sessionPresent ? resumed : accepted;
  return oldConnack(sessionPresent ? 1 : 0, code);
}

function oldConnack(flags: number, code: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(4); // from no pool, or it would be copied when it is written
  bytes.set([0x20, 2, flags, code]);
  return bytes;
}
