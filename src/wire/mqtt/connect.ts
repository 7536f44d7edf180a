import { topicNameFault } from "../../base/topic.ts";
import { Cursor } from "./bytes.ts";
import type { ConnectPacket, ProtocolVersion, Will } from "./packet.ts";
import { decodeProperties, holder } from "./properties.ts";
import { malformed, ProtocolError, violation } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

/** The first byte of the fixed header. */
export const connectByte = 0x10;
const flag = { reserved: 0x01, clean: 0x02, will: 0x04, willRetain: 0x20, password: 0x40, username: 0x80 } as const;

/**
 * CONNECT (section 3.1 of both versions). An empty client id with Clean Session 0 in 3.1.1 is decoded: it is answered with return code 2,
 * which the broker does. Binary fields are copies, because a session outlives its chunk.
 * @throws ProtocolError 0x84 for another protocol level, else 0x81, 0x82, 0x90
 */
export function decodeConnect(buffer: Buffer, body: number, end: number): ConnectPacket {
  const cursor = new Cursor(buffer, body, end, true);
  return readConnect(cursor, readVersion(cursor));
}

/** What follows the protocol level. */
function readConnect(cursor: Cursor, version: ProtocolVersion): ConnectPacket {
  const flags = cursor.u8();
  requireFlags(flags, version);
  const keepAliveSeconds = cursor.u16();
  const properties = version === 5 ? decodeProperties(cursor, holder.connect) : undefined;
  const clientId = cursor.text();
  const packet: ConnectPacket = {
    kind: "connect",
    version,
    clientId,
    clean: (flags & flag.clean) !== 0,
    keepAliveSeconds,
  };
  if (properties !== undefined) packet.properties = properties;
  if ((flags & flag.will) !== 0) packet.will = readWill(cursor, flags, version);
  // In MQTT 3.1 the remaining length takes precedence over these two flags (its section 3.1).
  if ((flags & flag.username) !== 0 && (version !== 3 || cursor.remaining > 0)) packet.username = cursor.text();
  if ((flags & flag.password) !== 0 && (version !== 3 || cursor.remaining > 0)) packet.password = cursor.binary();
  cursor.finish();
  return packet;
}

function readVersion(cursor: Cursor): ProtocolVersion {
  const name = cursor.text();
  if (name !== "MQTT" && name !== "MQIsdp") malformed("the protocol name is not MQTT"); // [MQTT-3.1.2-1]
  const level = cursor.u8();
  if (name === "MQTT" && (level === 4 || level === 5)) return level;
  if (name === "MQIsdp" && level === 3) return level;
  throw new ProtocolError(reason.unsupportedProtocolVersion, `protocol ${name} level ${level} is not served`); // [MQTT-3.1.2-2]
}

/**
 * The protocol version of a CONNECT that may be wrong in everything else: what is answered to it depends on it. Undefined: not to be seen.
 */
export function versionOfConnect(buffer: Buffer, body: number, end: number): ProtocolVersion | undefined {
  try {
    return readVersion(new Cursor(buffer, body, end));
  } catch {
    return undefined;
  }
}

/**
 * Whether a CONNECT of a protocol level that is not served is written as version 5 writes it: its answer is then 0x84, which a client of 3.1.1
 * could not read [MQTT-3.1.2-2]. The property length keeps the two forms apart.
 */
export function isWrittenAsVersion5(buffer: Buffer, body: number, end: number): boolean {
  try {
    const cursor = new Cursor(buffer, body, end);
    if (cursor.text() !== "MQTT") return false;
    cursor.u8(); // the level
    readConnect(cursor, 5);
    return true;
  } catch {
    return false;
  }
}

function requireFlags(flags: number, version: ProtocolVersion): void {
  const willQos = (flags >> 3) & 3;
  if (version === 3) {
    if ((flags & flag.will) !== 0 && willQos === 3) malformed("will QoS 3");
    return; // it ignores flags that say nothing
  }
  if ((flags & flag.reserved) !== 0) malformed("the reserved connect flag is set"); // [MQTT-3.1.2-3]
  if ((flags & flag.will) === 0) {
    if (willQos !== 0 || (flags & flag.willRetain) !== 0) malformed("will flags without a will"); // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
  } else if (willQos === 3) malformed("will QoS 3"); // [MQTT-3.1.2-12]
  if (version === 4 && (flags & flag.password) !== 0 && (flags & flag.username) === 0) {
    violation("a password without a user name"); // [MQTT-3.1.2-22] of 3.1.1; MQTT 5 allows it
  }
}

function readWill(cursor: Cursor, flags: number, version: ProtocolVersion): Will {
  const values = version === 5 ? decodeProperties(cursor, holder.will) : undefined;
  const topic = cursor.text();
  requireTopicName(topic);
  const payload = cursor.binary();
  const will: Will = { topic, payload, qos: ((flags >> 3) & 3) as 0 | 1 | 2, retain: (flags & flag.willRetain) !== 0 };
  if (values !== undefined) {
    const { willDelaySeconds, ...properties } = values;
    if (willDelaySeconds !== undefined) will.willDelaySeconds = willDelaySeconds;
    if (Object.keys(properties).length > 0) will.properties = properties;
    if (properties.responseTopic !== undefined) requireTopicName(properties.responseTopic); // [MQTT-3.3.2-14]
  }
  return will;
}

/** The very first byte says whether it can be a CONNECT [MQTT-3.1.0-1]: whoever speaks another protocol need not be listened to. @throws ProtocolError */
export function mustBeginConnect(first: number): void {
  if (first === connectByte) return;
  if (first >> 4 === connectByte >> 4) malformed("wrong flags in the fixed header of CONNECT"); // [MQTT-2.1.3-1]
  violation("the first packet is not CONNECT");
}

/** @throws ProtocolError 0x90 for an empty name or one with wildcards; how many levels are allowed is the broker's to say */
export function requireTopicName(topic: string): void {
  const fault = topicNameFault(topic, Number.POSITIVE_INFINITY);
  if (fault !== null) throw new ProtocolError(reason.topicNameInvalid, fault);
}
