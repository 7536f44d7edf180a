import { generate, type Packet as WriterPacket, writeToStream } from "mqtt-packet";
import { encodeAck } from "./ack.ts";
import { varintLength, writeVarint } from "./bytes.ts";
import { encodeOldConnack } from "./connack.ts";
import type { ConnectPacket, Packet, ProtocolVersion, Will } from "./packet.ts";
import type { PropertyValues } from "./properties.ts";
import { encodePublish } from "./publish.ts";
import { reason } from "./reasonCodes.ts";

// Its cache is a Buffer for each of 65,536 numbers, more than 6 MB, to save what no hot path of ours does.
writeToStream.cacheNumbers = false;

/**
 * Any packet as bytes: PUBLISH, acknowledgements and pings by our own writers, the others by mqtt-packet. `properties` are left out before
 * MQTT 5. The packet is taken as it is: that it keeps MQTT's rules is the caller's part.
 * @throws Error (never a ProtocolError) when it cannot be written: a string above 65,535 bytes, a SUBACK without codes, AUTH in 3.1.1
 */
export function encodePacket(packet: Packet, version: ProtocolVersion): Buffer {
  switch (packet.kind) {
    case "publish":
      return encodePublish(packet, version);
    case "puback":
    case "pubrec":
    case "pubrel":
    case "pubcomp":
      if (version !== 5 || packet.properties === undefined) {
        return encodeAck(packet.kind, packet.packetId, packet.reasonCode, version);
      }
      return write(
        { cmd: packet.kind, messageId: packet.packetId, reasonCode: packet.reasonCode },
        packet.properties,
        5,
      );
    case "pingreq":
      return Buffer.from([0xc0, 0]);
    case "pingresp":
      return Buffer.from([0xd0, 0]);
    case "connect":
      return encodeConnect(packet);
    case "connack": {
      const { sessionPresent, reasonCode } = packet;
      if (version !== 5) return encodeOldConnack(sessionPresent, reasonCode);
      return write({ cmd: "connack", sessionPresent, reasonCode }, packet.properties, 5);
    }
    default:
      return encodeRest(packet, version);
  }
}

type RestPacket = Extract<
  Packet,
  { kind: "subscribe" | "suback" | "unsubscribe" | "unsuback" | "disconnect" | "auth" }
>;

function encodeRest(packet: RestPacket, version: ProtocolVersion): Buffer {
  switch (packet.kind) {
    case "subscribe": {
      const { packetId: messageId, subscriptionIdentifier, userProperties } = packet;
      const subscriptions = packet.subscriptions.map(({ filter, qos, noLocal, retainAsPublished, retainHandling }) => {
        return { topic: filter, qos, nl: noLocal, rap: retainAsPublished, rh: retainHandling };
      });
      const properties: PropertyValues = {};
      if (subscriptionIdentifier !== undefined) properties.subscriptionIdentifiers = [subscriptionIdentifier];
      if (userProperties !== undefined) properties.userProperties = userProperties;
      return write({ cmd: "subscribe", messageId, subscriptions }, properties, version);
    }
    case "suback":
    case "unsuback": {
      // 3.1.1 has one code for all failures [MQTT-3.9.3-2].
      const granted = packet.reasonCodes.map((code) => (version !== 5 && code > 2 ? reason.unspecifiedError : code));
      return write({ cmd: packet.kind, messageId: packet.packetId, granted }, packet.properties, version);
    }
    case "unsubscribe": {
      const { packetId: messageId, userProperties } = packet;
      const properties = userProperties === undefined ? undefined : { userProperties };
      return write({ cmd: "unsubscribe", messageId, unsubscriptions: [...packet.filters] }, properties, version);
    }
    case "disconnect":
      if (version !== 5 || (packet.reasonCode === 0 && packet.properties === undefined)) return Buffer.from([0xe0, 0]);
      return write({ cmd: "disconnect", reasonCode: packet.reasonCode }, packet.properties, version);
    case "auth":
      if (version !== 5) throw new RangeError("MQTT 3.1.1 has no AUTH");
      return write({ cmd: "auth", reasonCode: packet.reasonCode }, packet.properties, version);
    default:
      return packet satisfies never;
  }
}

/** @param fields the packet under mqtt-packet's names, without properties */
function write(fields: object, properties: PropertyValues | undefined, version: ProtocolVersion): Buffer {
  const writerPacket = { ...fields, ...(version === 5 ? { properties: writerProperties(properties) } : {}) };
  // mqtt-packet's types know neither a list of user properties nor a Buffer as client id; both work.
  const bytes = generate(writerPacket as unknown as WriterPacket, { protocolVersion: version });
  if (bytes.length < 2) throw new RangeError("mqtt-packet could not write the packet");
  return bytes;
}

function encodeConnect(packet: ConnectPacket): Buffer {
  const { version, clean, keepAliveSeconds: keepalive, username, password, will } = packet;
  const nameless = username === undefined && password !== undefined;
  const fields = {
    cmd: "connect",
    protocolId: version === 3 ? "MQIsdp" : "MQTT",
    protocolVersion: version,
    clean,
    keepalive,
    // As a Buffer, because mqtt-packet refuses an empty string with Clean Start 0, which MQTT 5 allows.
    clientId: Buffer.from(packet.clientId),
    ...(will === undefined ? {} : { will: writerWill(will, version) }),
    ...(username !== undefined || nameless ? { username: username ?? "" } : {}),
    ...(password === undefined ? {} : { password: asBuffer(password) }),
  };
  const bytes = write(fields, packet.properties, version);
  return nameless ? withoutUsername(bytes, password.length) : bytes;
}

function writerWill(will: Will, version: ProtocolVersion): object {
  const values: PropertyValues = { ...will.properties };
  if (will.willDelaySeconds !== undefined) values.willDelaySeconds = will.willDelaySeconds;
  const { topic, qos, retain } = will;
  const fields = { topic, payload: asBuffer(will.payload), qos, retain };
  return version === 5 ? { ...fields, properties: writerProperties(values) } : fields;
}

/** Takes the empty user name out again: mqtt-packet writes no password without one, MQTT 5 allows it (section 3.1.2.9). */
function withoutUsername(bytes: Buffer, passwordLength: number): Buffer {
  let body = 2;
  while (bytes.readUInt8(body - 1) >= 0x80) body += 1;
  const username = bytes.length - passwordLength - 4; // two bytes of its length, then two of the password's
  const length = bytes.length - body - 2;
  const result = Buffer.allocUnsafe(1 + varintLength(length) + length);
  result[0] = 0x10;
  const at = writeVarint(result, 1, length);
  const copied = bytes.copy(result, at, body, username);
  bytes.copy(result, at + copied, username + 2);
  const flags = at + 7; // behind protocol name and level
  result.writeUInt8(result.readUInt8(flags) & 0x7f, flags);
  return result;
}

/** mqtt-packet's names, in the order in which they are written: that of the identifiers. */
const writerNames = {
  payloadFormat: "payloadFormatIndicator",
  messageExpirySeconds: "messageExpiryInterval",
  contentType: "contentType",
  responseTopic: "responseTopic",
  correlationData: "correlationData",
  subscriptionIdentifiers: "subscriptionIdentifier",
  sessionExpirySeconds: "sessionExpiryInterval",
  assignedClientId: "assignedClientIdentifier",
  serverKeepAliveSeconds: "serverKeepAlive",
  authenticationMethod: "authenticationMethod",
  authenticationData: "authenticationData",
  requestProblemInformation: "requestProblemInformation",
  willDelaySeconds: "willDelayInterval",
  requestResponseInformation: "requestResponseInformation",
  responseInformation: "responseInformation",
  serverReference: "serverReference",
  reasonString: "reasonString",
  receiveMaximum: "receiveMaximum",
  topicAliasMaximum: "topicAliasMaximum",
  topicAlias: "topicAlias",
  maximumQos: "maximumQoS",
  retainAvailable: "retainAvailable",
  userProperties: "userProperties",
  maximumPacketSize: "maximumPacketSize",
  wildcardSubscriptionAvailable: "wildcardSubscriptionAvailable",
  subscriptionIdentifiersAvailable: "subscriptionIdentifiersAvailable",
  sharedSubscriptionAvailable: "sharedSubscriptionAvailable",
} as const satisfies Readonly<Record<keyof PropertyValues, string>>;

const propertyNames = Object.keys(writerNames) as Array<keyof PropertyValues>;

function writerProperties(values: PropertyValues | undefined): Record<string, unknown> | undefined {
  if (values === undefined) return undefined;
  const result: Record<string, unknown> = {};
  for (const name of propertyNames) {
    const value = values[name];
    if (value === undefined || (Array.isArray(value) && value.length === 0)) continue;
    result[writerNames[name]] = writerValue(name, value);
  }
  return result;
}

function writerValue(name: keyof PropertyValues, value: NonNullable<PropertyValues[keyof PropertyValues]>): unknown {
  if (name === "payloadFormat") return value === 1; // mqtt-packet takes it as a boolean
  // One object per pair: an object of all pairs would lose the order between names [MQTT-3.3.2-18].
  if (name === "userProperties") {
    return (value as ReadonlyArray<readonly [string, string]>).map(([key, text]) => ({ [key]: text }));
  }
  return value instanceof Uint8Array ? asBuffer(value) : value;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
