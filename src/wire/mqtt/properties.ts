import type { MessageProperties } from "../../base/message.ts";
import type { Cursor } from "./bytes.ts";
import type { ConnackProperties, ConnectProperties } from "./packet.ts";
import { malformed, ProtocolError, violation } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

/** Who may hold a property: control packet types as bits, and the Will of a CONNECT as the unused type 0. */
export const holder = {
  will: 1 << 0,
  connect: 1 << 1,
  connack: 1 << 2,
  publish: 1 << 3,
  puback: 1 << 4,
  pubrec: 1 << 5,
  pubrel: 1 << 6,
  pubcomp: 1 << 7,
  subscribe: 1 << 8,
  suback: 1 << 9,
  unsubscribe: 1 << 10,
  unsuback: 1 << 11,
  disconnect: 1 << 14,
  auth: 1 << 15,
} as const;

/** Every property of MQTT 5 under its name here; a decoded packet has only those that it may hold. */
export type PropertyValues = ConnectProperties &
  ConnackProperties &
  MessageProperties & {
    willDelaySeconds?: number;
    topicAlias?: number;
    subscriptionIdentifiers?: readonly number[];
  };

/** `bit`: the number 0 or 1. `flag`: the same as a boolean. `pair`: two strings. */
type PropertyType = "bit" | "flag" | "u16" | "u32" | "varint" | "text" | "binary" | "pair";

interface Property {
  readonly name: keyof PropertyValues;
  readonly type: PropertyType;
  readonly holders: number;
  /** Holders in which it may come several times; it then becomes an array. */
  readonly repeats?: number;
  /** Reason code with which the value 0 is refused. */
  readonly zero?: number;
}

const { will, connect, connack, publish, subscribe, disconnect, auth } = holder;
const message = publish | will;
const explained =
  connack |
  holder.puback |
  holder.pubrec |
  holder.pubrel |
  holder.pubcomp |
  holder.suback |
  holder.unsuback |
  disconnect |
  auth;
const all = explained | connect | message | subscribe | holder.unsubscribe;
const zero = reason.protocolError;

/** MQTT 5 table 2-4. The index is the property identifier; all are below 0x80, so its variable byte integer is one byte. */
const properties: ReadonlyArray<Property | undefined> = Array.from({ length: 0x80 }, (_, id) => table(id));

function table(id: number): Property | undefined {
  return (
    {
      1: { name: "payloadFormat", type: "bit", holders: message },
      2: { name: "messageExpirySeconds", type: "u32", holders: message },
      3: { name: "contentType", type: "text", holders: message },
      8: { name: "responseTopic", type: "text", holders: message },
      9: { name: "correlationData", type: "binary", holders: message },
      11: {
        name: "subscriptionIdentifiers",
        type: "varint",
        holders: publish | subscribe,
        repeats: publish, // [MQTT-3.3.4-4]; once in a SUBSCRIBE
        zero,
      },
      17: { name: "sessionExpirySeconds", type: "u32", holders: connect | connack | disconnect },
      18: { name: "assignedClientId", type: "text", holders: connack },
      19: { name: "serverKeepAliveSeconds", type: "u16", holders: connack },
      21: { name: "authenticationMethod", type: "text", holders: connect | connack | auth },
      22: { name: "authenticationData", type: "binary", holders: connect | connack | auth },
      23: { name: "requestProblemInformation", type: "flag", holders: connect },
      24: { name: "willDelaySeconds", type: "u32", holders: will },
      25: { name: "requestResponseInformation", type: "flag", holders: connect },
      26: { name: "responseInformation", type: "text", holders: connack },
      28: { name: "serverReference", type: "text", holders: connack | disconnect },
      31: { name: "reasonString", type: "text", holders: explained },
      33: { name: "receiveMaximum", type: "u16", holders: connect | connack, zero },
      34: { name: "topicAliasMaximum", type: "u16", holders: connect | connack },
      35: { name: "topicAlias", type: "u16", holders: publish, zero: reason.topicAliasInvalid }, // [MQTT-3.3.2-8]
      36: { name: "maximumQos", type: "bit", holders: connack },
      37: { name: "retainAvailable", type: "flag", holders: connack },
      38: { name: "userProperties", type: "pair", holders: all, repeats: all },
      39: { name: "maximumPacketSize", type: "u32", holders: connect | connack, zero },
      40: { name: "wildcardSubscriptionAvailable", type: "flag", holders: connack },
      41: { name: "subscriptionIdentifiersAvailable", type: "flag", holders: connack },
      42: { name: "sharedSubscriptionAvailable", type: "flag", holders: connack },
    } as const satisfies Record<number, Property>
  )[id as 0x01];
}

/**
 * Reads the property length and the properties; undefined when there are none. Afterwards the cursor is right behind them.
 * `subscriptionIdentifiers` and `userProperties` are arrays in the order received.
 * @param into one bit of `holder`: the packet that they belong to
 * @throws ProtocolError 0x81, 0x82, 0x94
 */
export function decodeProperties(cursor: Cursor, into: number): PropertyValues | undefined {
  const length = cursor.varint();
  if (length === 0) return undefined;
  if (length > cursor.remaining) malformed("the property length reaches past the packet");
  const packetEnd = cursor.end;
  cursor.end = cursor.at + length; // no property may reach past the property length
  const values: Record<string, unknown> = {};
  while (cursor.remaining > 0) {
    const id = cursor.u8();
    const property = properties[id];
    // MQTT 5 section 2.2.2.2: an identifier that is unknown, or not valid for this packet type, makes the packet malformed.
    if (property === undefined) return malformed(`unknown property 0x${id.toString(16)}`);
    const { name, holders, repeats = 0 } = property;
    if ((holders & into) === 0) malformed(`${name} does not belong into this packet`);
    const value = readValue(cursor, property);
    const earlier = values[name];
    if (property.type === "varint" || property.type === "pair") {
      if (earlier === undefined) values[name] = [value];
      else if ((repeats & into) === 0) violation(`${name} comes twice`);
      else (earlier as unknown[]).push(value);
    } else {
      if (earlier !== undefined) violation(`${name} comes twice`);
      values[name] = value;
    }
  }
  cursor.end = packetEnd;
  if (values["authenticationData"] !== undefined && values["authenticationMethod"] === undefined) {
    violation("authentication data without a method"); // MQTT 5 section 3.1.2.11.10
  }
  return values as PropertyValues; // the table gives each name the type that PropertyValues has
}

function readValue(cursor: Cursor, property: Property): unknown {
  switch (property.type) {
    case "bit":
      return readBit(cursor, property);
    case "flag":
      return readBit(cursor, property) === 1;
    case "u16":
      return refuseZero(cursor.u16(), property);
    case "u32":
      return refuseZero(cursor.u32(), property);
    case "varint":
      return refuseZero(cursor.varint(), property);
    case "text":
      return cursor.text();
    case "binary":
      return cursor.binary();
    case "pair":
      return [cursor.text(), cursor.text()];
    default:
      return property.type satisfies never;
  }
}

function readBit(cursor: Cursor, property: Property): number {
  const value = cursor.u8();
  if (value > 1) violation(`${property.name} is ${value}: only 0 and 1 are allowed`);
  return value;
}

function refuseZero(value: number, property: Property): number {
  if (value === 0 && property.zero !== undefined)
    throw new ProtocolError(property.zero, `${property.name} must not be 0`);
  return value;
}
