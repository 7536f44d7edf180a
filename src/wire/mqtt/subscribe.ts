import type { Qos } from "../../base/message.ts";
import { Cursor } from "./bytes.ts";
import { isShared, requireFilter } from "./filter.ts";
import type { ProtocolVersion, SubackPacket, SubscribePacket, Subscription } from "./packet.ts";
import { decodeProperties, holder } from "./properties.ts";
import { malformed, violation } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

/** MQTT 5 table 3-8. */
const subackReasons = new Set<number>([
  reason.success,
  reason.grantedQos1,
  reason.grantedQos2,
  reason.unspecifiedError,
  reason.implementationSpecificError,
  reason.notAuthorized,
  reason.topicFilterInvalid,
  reason.packetIdentifierInUse,
  reason.quotaExceeded,
  reason.sharedSubscriptionsNotSupported,
  reason.subscriptionIdentifiersNotSupported,
  reason.wildcardSubscriptionsNotSupported,
]);

/**
 * SUBSCRIBE (section 3.8 of both versions).
 * @throws ProtocolError 0x81, 0x82, 0x8f for a filter that no server could take
 */
export function decodeSubscribe(buffer: Buffer, body: number, end: number, version: ProtocolVersion): SubscribePacket {
  const cursor = new Cursor(buffer, body, end);
  const packetId = cursor.packetId();
  const values = version === 5 ? decodeProperties(cursor, holder.subscribe) : undefined;
  const subscriptions: Subscription[] = [];
  while (cursor.remaining > 0) {
    const filter = requireFilter(cursor.text());
    subscriptions.push(readOptions(filter, cursor.u8(), version));
  }
  if (subscriptions.length === 0) violation("SUBSCRIBE without a filter"); // [MQTT-3.8.3-2]
  const packet: SubscribePacket = { kind: "subscribe", packetId, subscriptions };
  const identifier = values?.subscriptionIdentifiers?.[0];
  if (identifier !== undefined) packet.subscriptionIdentifier = identifier;
  if (values?.userProperties !== undefined) packet.userProperties = values.userProperties;
  return packet;
}

/** Bits that must be 0; MQTT 3.1 only says that they are not used. */
const reservedOptions: Readonly<Record<ProtocolVersion, number>> = { 3: 0, 4: 0xfc, 5: 0xc0 };

function readOptions(filter: string, options: number, version: ProtocolVersion): Subscription {
  if ((options & reservedOptions[version]) !== 0) malformed("reserved subscription options are set"); // [MQTT-3.8.3-5], [MQTT-3-8.3-4] of 3.1.1
  const qos = options & 3;
  if (qos === 3) violation("subscription QoS 3"); // [MQTT-3-8.3-4] of 3.1.1
  if (version !== 5) return { filter, qos: qos as Qos, noLocal: false, retainAsPublished: false, retainHandling: 0 };
  const noLocal = (options & 0x04) !== 0;
  if (noLocal && isShared(filter)) violation("No Local on a shared subscription"); // [MQTT-3.8.3-4]
  const retainHandling = (options >> 4) & 3;
  if (retainHandling === 3) violation("Retain Handling 3"); // MQTT 5 section 3.8.3.1
  return {
    filter,
    qos: qos as Qos,
    noLocal,
    retainAsPublished: (options & 0x08) !== 0,
    retainHandling: retainHandling as 0 | 1 | 2,
  };
}

/** SUBACK (section 3.9 of both versions). @throws ProtocolError 0x81, 0x82 */
export function decodeSuback(buffer: Buffer, body: number, end: number, version: ProtocolVersion): SubackPacket {
  const cursor = new Cursor(buffer, body, end);
  const packetId = cursor.packetId();
  const properties = version === 5 ? decodeProperties(cursor, holder.suback) : undefined;
  const reasonCodes: number[] = [];
  while (cursor.remaining > 0) {
    const code = cursor.u8();
    const known = version === 5 ? subackReasons.has(code) : code <= 2 || code === reason.unspecifiedError;
    if (!known) malformed(`unknown SUBACK code ${code}`); // [MQTT-3.9.3-2]
    reasonCodes.push(code);
  }
  if (reasonCodes.length === 0) malformed("SUBACK without a code"); // [MQTT-3.9.3-1]
  const packet: SubackPacket = { kind: "suback", packetId, reasonCodes };
  if (properties !== undefined) packet.properties = properties;
  return packet;
}
