import { Cursor } from "./bytes.ts";
import { requireFilter } from "./filter.ts";
import type { ProtocolVersion, SubackPacket, UnsubscribePacket } from "./packet.ts";
import { decodeProperties, holder } from "./properties.ts";
import { malformed, violation } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

/** MQTT 5 table 3-9. */
const unsubackReasons = new Set<number>([
  reason.success,
  reason.noSubscriptionExisted,
  reason.unspecifiedError,
  reason.implementationSpecificError,
  reason.notAuthorized,
  reason.topicFilterInvalid,
  reason.packetIdentifierInUse,
]);

/** UNSUBSCRIBE (section 3.10 of both versions). @throws ProtocolError 0x81, 0x82, 0x8f for a filter that no server could take */
export function decodeUnsubscribe(
  buffer: Buffer,
  body: number,
  end: number,
  version: ProtocolVersion,
): UnsubscribePacket {
  const cursor = new Cursor(buffer, body, end);
  const packetId = cursor.packetId();
  const values = version === 5 ? decodeProperties(cursor, holder.unsubscribe) : undefined;
  const filters: string[] = [];
  while (cursor.remaining > 0) filters.push(requireFilter(cursor.text()));
  if (filters.length === 0) violation("UNSUBSCRIBE without a filter"); // [MQTT-3.10.3-2]
  const packet: UnsubscribePacket = { kind: "unsubscribe", packetId, filters };
  if (values?.userProperties !== undefined) packet.userProperties = values.userProperties;
  return packet;
}

/** UNSUBACK (section 3.11 of both versions); 3.1.1 has no codes in it. @throws ProtocolError 0x81, 0x82 */
export function decodeUnsuback(buffer: Buffer, body: number, end: number, version: ProtocolVersion): SubackPacket {
  const cursor = new Cursor(buffer, body, end);
  const packetId = cursor.packetId();
  const reasonCodes: number[] = [];
  const packet: SubackPacket = { kind: "unsuback", packetId, reasonCodes };
  if (version === 5) {
    const properties = decodeProperties(cursor, holder.unsuback);
    if (properties !== undefined) packet.properties = properties;
    while (cursor.remaining > 0) {
      const code = cursor.u8();
      if (!unsubackReasons.has(code)) malformed(`unknown UNSUBACK code ${code}`); // [MQTT-3.11.3-2]
      reasonCodes.push(code);
    }
    if (reasonCodes.length === 0) malformed("UNSUBACK without a code"); // [MQTT-3.11.3-1]
  }
  cursor.finish();
  return packet;
}
