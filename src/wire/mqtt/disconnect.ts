import { Cursor } from "./bytes.ts";
import type { DisconnectPacket, ProtocolVersion } from "./packet.ts";
import { decodeProperties, holder } from "./properties.ts";
import { malformed, violation } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

/**
 * MQTT 5 table 3-10, and 0x8C, which table 2-6 gives to DISCONNECT as well. Who of the two sides may send which is not held against a
 * peer that is leaving anyway.
 */
const disconnectReasons = new Set<number>([
  reason.success,
  reason.disconnectWithWill,
  reason.unspecifiedError,
  reason.malformedPacket,
  reason.protocolError,
  reason.implementationSpecificError,
  reason.notAuthorized,
  reason.serverBusy,
  reason.serverShuttingDown,
  reason.badAuthenticationMethod,
  reason.keepAliveTimeout,
  reason.sessionTakenOver,
  reason.topicFilterInvalid,
  reason.topicNameInvalid,
  reason.receiveMaximumExceeded,
  reason.topicAliasInvalid,
  reason.packetTooLarge,
  reason.messageRateTooHigh,
  reason.quotaExceeded,
  reason.administrativeAction,
  reason.payloadFormatInvalid,
  reason.retainNotSupported,
  reason.qosNotSupported,
  reason.useAnotherServer,
  reason.serverMoved,
  reason.sharedSubscriptionsNotSupported,
  reason.connectionRateExceeded,
  reason.maximumConnectTime,
  reason.subscriptionIdentifiersNotSupported,
  reason.wildcardSubscriptionsNotSupported,
]);

/** DISCONNECT (section 3.14 of both versions). MQTT 5 may leave out a reason code of 0 and empty properties. @throws ProtocolError 0x81, 0x82 */
export function decodeDisconnect(
  buffer: Buffer,
  body: number,
  end: number,
  version: ProtocolVersion,
  from: "client" | "server",
): DisconnectPacket {
  const cursor = new Cursor(buffer, body, end);
  const packet: DisconnectPacket = { kind: "disconnect", reasonCode: 0 };
  if (version === 5 && cursor.remaining > 0) {
    packet.reasonCode = cursor.u8();
    if (!disconnectReasons.has(packet.reasonCode)) malformed(`unknown DISCONNECT code ${packet.reasonCode}`); // [MQTT-3.14.2-1]
    // MQTT 5 section 3.14.2.2.1: with a remaining length below 2 there is no property length.
    const properties = cursor.remaining > 0 ? decodeProperties(cursor, holder.disconnect) : undefined;
    if (properties !== undefined) {
      if (from === "server" && properties.sessionExpirySeconds !== undefined) {
        violation("a session expiry in a server's DISCONNECT"); // [MQTT-3.14.2-2]
      }
      packet.properties = properties;
    }
  }
  cursor.finish();
  return packet;
}
