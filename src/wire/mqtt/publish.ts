import type { MessageProperties, Qos } from "../../base/message.ts";
import {
  binaryLength,
  Cursor,
  decodeText,
  textLength,
  varintLength,
  varintMax,
  writeBinary,
  writeText,
  writeU16,
  writeU32,
  writeVarint,
} from "./bytes.ts";
import { requireTopicName } from "./connect.ts";
import type { ProtocolVersion, PublishPacket } from "./packet.ts";
import { decodeProperties, holder } from "./properties.ts";
import { malformed, ProtocolError, violation } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

/** Where the parts of a PUBLISH lie in its buffer. One object is filled again and again. */
export interface PublishView {
  /** The topic's bytes: never empty, NOT yet known to be UTF-8 without wildcards; `decodeTopicName` finds out. */
  topicStart: number;
  topicEnd: number;
  /** 0 with QoS 0. */
  packetId: number;
  /** Where the payload begins; it ends with the packet. */
  payloadStart: number;
  qos: Qos;
  retain: boolean;
  dup: boolean;
}

export function newPublishView(): PublishView {
  return { topicStart: 0, topicEnd: 0, packetId: 0, payloadStart: 0, qos: 0, retain: false, dup: false };
}

/**
 * The fast path: fills `view` without making a string or an object, so that a topic can be looked up by its bytes. All is checked but
 * the topic's characters. False: the PUBLISH has properties or a fault, so give it to `decodePacket`, which reads or refuses it.
 */
export function scanPublish(
  buffer: Buffer,
  first: number,
  body: number,
  end: number,
  version: ProtocolVersion,
  view: PublishView,
): boolean {
  const qos = (first >> 1) & 3;
  if (qos === 3 || (qos === 0 && (first & 8) !== 0) || end - body < 2) return false;
  const topicStart = body + 2;
  const topicEnd = topicStart + ((buffer[body]! << 8) | buffer[body + 1]!); // end - body >= 2
  let at = topicEnd;
  if (topicEnd === topicStart) return false;
  if (qos === 0) view.packetId = 0;
  else {
    at += 2;
    if (at > end) return false;
    const packetId = (buffer[topicEnd]! << 8) | buffer[topicEnd + 1]!; // topicEnd + 2 <= end
    if (packetId === 0) return false;
    view.packetId = packetId;
  }
  if (version === 5) {
    if (at >= end || buffer[at] !== 0) return false; // a property length other than 0
    at += 1;
  } else if (at > end) return false;
  view.topicStart = topicStart;
  view.topicEnd = topicEnd;
  view.payloadStart = at;
  view.qos = qos as Qos;
  view.retain = (first & 1) !== 0;
  view.dup = (first & 8) !== 0;
  return true;
}

/**
 * How many PUBLISH lie in a row from `start` on that are as long as the first one and like it up to the end of the topic, with QoS 1 and 2 each with the
 * packet id after the last one's, and without properties. The first is one that `scanPublish` has read into `view`.
 * @param end of the first @param limit where the bytes end @param most so many are counted
 */
export function countPublishRun(
  buffer: Buffer,
  start: number,
  end: number,
  limit: number,
  { qos, topicEnd, packetId, payloadStart }: PublishView,
  version: ProtocolVersion,
  most: number,
): number {
  const size = end - start;
  let count = 1;
  for (let by = size; count < most && end + by <= limit; by += size) {
    // From behind: topics that differ mostly do so in their last characters.
    for (let at = topicEnd - 1; at >= start; at -= 1) if (buffer[at] !== buffer[at + by]) return count;
    if (qos > 0) {
      const next = packetId + count; // 65,536 is in no packet
      if (buffer[topicEnd + by] !== next >> 8 || buffer[topicEnd + by + 1] !== (next & 0xff)) break;
    }
    if (version === 5 && buffer[payloadStart + by - 1] !== 0) break; // the length of its properties
    count += 1;
  }
  return count;
}

/**
 * A topic name from its bytes, strictly: UTF-8, no U+0000, no wildcard. An empty one is let through, as MQTT 5 has it with an alias.
 * @throws ProtocolError 0x81, 0x90
 */
export function decodeTopicName(buffer: Buffer, start: number, end: number): string {
  for (let at = start; at < end; at += 1) {
    const byte = buffer[at]!; // the caller has checked the range
    // In UTF-8 these two bytes are never part of another character.
    if (byte === 0x2b || byte === 0x23)
      throw new ProtocolError(reason.topicNameInvalid, "a topic name must not contain + or #"); // [MQTT-3.3.2-2]
  }
  return decodeText(buffer, start, end);
}

const scratch = newPublishView(); // decoding is synchronous and not re-entrant

/**
 * PUBLISH (section 3.3 of both versions). Payload and correlation data are views of `buffer`.
 * @throws ProtocolError 0x81, 0x82, 0x90 (topic), 0x94 (alias 0)
 */
export function decodePublish(
  buffer: Buffer,
  first: number,
  body: number,
  end: number,
  version: ProtocolVersion,
  from: "client" | "server",
): PublishPacket {
  if (!scanPublish(buffer, first, body, end, version, scratch)) {
    return decodeCarefully(buffer, first, body, end, version, from);
  }
  return {
    kind: "publish",
    dup: scratch.dup,
    qos: scratch.qos,
    retain: scratch.retain,
    topic: decodeTopicName(buffer, scratch.topicStart, scratch.topicEnd),
    packetId: scratch.packetId,
    payload: buffer.subarray(scratch.payloadStart, end),
  };
}

function decodeCarefully(
  buffer: Buffer,
  first: number,
  body: number,
  end: number,
  version: ProtocolVersion,
  from: "client" | "server",
): PublishPacket {
  const qos = (first >> 1) & 3;
  const dup = (first & 8) !== 0;
  if (qos === 3) malformed("QoS 3"); // [MQTT-3.3.1-4]
  if (dup && qos === 0 && version !== 3) malformed("DUP with QoS 0"); // [MQTT-3.3.1-2]; 3.1 only says that it means nothing
  const cursor = new Cursor(buffer, body, end);
  const length = cursor.u16();
  if (length > cursor.remaining) malformed("the topic reaches past the packet");
  const topic = decodeTopicName(buffer, cursor.at, cursor.at + length);
  cursor.at += length;
  const packetId = qos === 0 ? 0 : cursor.packetId();
  const values = version === 5 ? decodeProperties(cursor, holder.publish) : undefined;
  if (topic === "" && values?.topicAlias === undefined) violation("an empty topic without an alias"); // [MQTT-4.7.3-1], MQTT 5 section 3.3.2.1
  const payload = buffer.subarray(cursor.at, end);
  const packet: PublishPacket = {
    kind: "publish",
    dup,
    qos: qos as Qos,
    retain: (first & 1) !== 0,
    topic,
    packetId,
    payload,
  };
  if (values !== undefined) {
    const { topicAlias, subscriptionIdentifiers, ...properties } = values;
    if (topicAlias !== undefined) packet.topicAlias = topicAlias;
    if (subscriptionIdentifiers !== undefined) {
      if (from === "client") violation("a subscription identifier from a client"); // [MQTT-3.3.4-6]
      packet.subscriptionIdentifiers = subscriptionIdentifiers;
    }
    if (properties.responseTopic !== undefined) requireTopicName(properties.responseTopic); // [MQTT-3.3.2-14]
    if (Object.keys(properties).length > 0) packet.properties = properties;
  }
  return packet;
}

/**
 * One allocation, and nothing else made when there are no properties. Properties go out in the order of their identifiers.
 * @throws RangeError when a string is above 65,535 bytes or the packet above 256 MiB
 */
export function encodePublish(packet: PublishPacket, version: ProtocolVersion): Buffer {
  const { qos, topic, payload } = packet;
  const topicLength = textLength(topic);
  let length = 2 + topicLength + (qos === 0 ? 0 : 2) + payload.length;
  let propertyLength = 0;
  if (version === 5) {
    propertyLength = propertiesLength(packet);
    length += varintLength(propertyLength) + propertyLength;
  }
  const buffer = Buffer.allocUnsafe(1 + varintLength(length) + length);
  buffer[0] = 0x30 | (packet.dup ? 8 : 0) | (qos << 1) | (packet.retain ? 1 : 0);
  let at = writeVarint(buffer, 1, length);
  at = writeText(buffer, at, topic, topicLength);
  if (qos !== 0) at = writeU16(buffer, at, packet.packetId);
  if (version === 5) {
    at = writeVarint(buffer, at, propertyLength);
    if (propertyLength > 0) at = writeProperties(buffer, at, packet);
  }
  buffer.set(payload, at);
  return buffer;
}

/** Where the packet id lies in an encoded PUBLISH of QoS 1 or 2, so that one encoding can serve many subscribers. */
export function packetIdOffset(encoded: Buffer): number {
  let at = 1;
  while (encoded[at]! >= 0x80) at += 1; // an encoded packet is whole
  return at + 3 + encoded.readUInt16BE(at + 1);
}

function propertiesLength(packet: PublishPacket): number {
  let length = packet.topicAlias === undefined ? 0 : 3;
  const { properties, subscriptionIdentifiers } = packet;
  if (subscriptionIdentifiers !== undefined) {
    for (const identifier of subscriptionIdentifiers) length += 1 + varintLength(identifier);
  }
  if (properties !== undefined) length += messagePropertiesLength(properties);
  if (length > varintMax) throw new RangeError("properties of more than 256 MiB");
  return length;
}

function messagePropertiesLength(properties: MessageProperties): number {
  let length = 0;
  if (properties.payloadFormat !== undefined) length += 2;
  if (properties.messageExpirySeconds !== undefined) length += 5;
  if (properties.contentType !== undefined) length += 3 + textLength(properties.contentType);
  if (properties.responseTopic !== undefined) length += 3 + textLength(properties.responseTopic);
  if (properties.correlationData !== undefined) length += 3 + binaryLength(properties.correlationData);
  if (properties.userProperties !== undefined) {
    for (const [name, value] of properties.userProperties) length += 5 + textLength(name) + textLength(value);
  }
  return length;
}

function writeProperties(buffer: Buffer, start: number, packet: PublishPacket): number {
  const properties = packet.properties ?? {};
  let at = start;
  if (properties.payloadFormat !== undefined) {
    buffer[at] = 0x01;
    buffer[at + 1] = properties.payloadFormat;
    at += 2;
  }
  if (properties.messageExpirySeconds !== undefined) {
    buffer[at] = 0x02;
    at = writeU32(buffer, at + 1, properties.messageExpirySeconds);
  }
  if (properties.contentType !== undefined) at = textProperty(buffer, at, 0x03, properties.contentType);
  if (properties.responseTopic !== undefined) at = textProperty(buffer, at, 0x08, properties.responseTopic);
  if (properties.correlationData !== undefined) {
    buffer[at] = 0x09;
    at = writeBinary(buffer, at + 1, properties.correlationData);
  }
  for (const identifier of packet.subscriptionIdentifiers ?? []) {
    buffer[at] = 0x0b;
    at = writeVarint(buffer, at + 1, identifier);
  }
  if (packet.topicAlias !== undefined) {
    buffer[at] = 0x23;
    at = writeU16(buffer, at + 1, packet.topicAlias);
  }
  for (const [name, value] of properties.userProperties ?? []) {
    at = textProperty(buffer, at, 0x26, name);
    at = writeText(buffer, at, value, Buffer.byteLength(value));
  }
  return at;
}

function textProperty(buffer: Buffer, at: number, id: number, text: string): number {
  buffer[at] = id;
  return writeText(buffer, at + 1, text, Buffer.byteLength(text));
}
