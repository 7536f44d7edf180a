import type { Message, MessageProperties, Qos } from "../base/message.ts";
import { topicNameFault } from "../base/topic.ts";
import type { ProtocolVersion, PublishPacket } from "../wire/mqtt/packet.ts";
import { encodePublish } from "../wire/mqtt/publish.ts";
import { fillTopic, type RuleDefinition } from "./forwarding.ts";
import type { MetaName } from "./options.ts";
import { aliasBytes, type TopicAliases } from "./topicAliases.ts";

/** What identifies and dates a message for the cloud's consumers. */
export interface Meta {
  readonly gw: string;
  readonly epoch: number;
  /** Undefined for a message that was never stored (QoS 0 rules): it has no number, and is sent once at most. */
  readonly seq: number | undefined;
  readonly pri: number;
  /** Wall clock at acceptance, ms since 1970. */
  readonly wallMs: number;
  /** Accepted before the link's present connection. */
  readonly late: boolean;
}

/** What the cloud takes, as it said in its CONNACK, or the config where it does not say. */
export interface CloudLimits {
  readonly receiveMaximum: number;
  readonly maximumPacketSize: number;
  readonly maximumQos: Qos;
  readonly retainAvailable: boolean;
  /** Of this connection; undefined: it takes none. */
  readonly aliases?: TopicAliases | undefined;
}

/** How the cloud wants what is sent. */
export interface Style {
  readonly version: ProtocolVersion;
  readonly gatewayId: string;
  readonly envelope: "none" | "json";
  readonly meta: readonly MetaName[];
}

/** Why a message can never be sent. refused: its topic cannot be made, or is none. */
export type Unsendable = "expired" | "too-large" | "refused";

/**
 * The whole PUBLISH of a forwarded message, or why there is none. Never throws: whatever a publisher put into a message, the next one
 * must still go out.
 * @param ageMs since the gateway took it
 */
export function encodeForward(
  message: Message,
  rule: RuleDefinition,
  meta: Meta,
  ageMs: number,
  wire: { readonly qos: Qos; readonly packetId: number; readonly dup: boolean },
  limits: CloudLimits,
  style: Style,
): Buffer | Unsendable {
  const topic = fillTopic(rule.to, rule.filter, message.topic, style.gatewayId);
  // A cloud drops whoever sends it an impossible topic, and would again after each reconnect.
  if (topic === undefined || topicNameFault(topic, Number.POSITIVE_INFINITY) !== null) return "refused";
  const dressed = dress(message, meta, ageMs, style);
  if (dressed === null) return "expired";
  const { qos, packetId, dup } = wire;
  const retain = message.retain && limits.retainAvailable; // [MQTT-3.2.2-14]
  try {
    const packet = { kind: "publish" as const, dup: dup && qos > 0, qos, retain, topic, packetId, ...dressed };
    const known = dup ? 0 : (limits.aliases?.known(topic) ?? 0);
    const wire = known > 0 ? { ...packet, topic: "", topicAlias: known } : packet;
    const bytes = encodePublish(wire, style.version);
    if (bytes.length > limits.maximumPacketSize) return "too-large"; // [MQTT-3.2.2-15]
    return known > 0 || dup ? counted(bytes, known, topic, limits) : defining(packet, bytes, style.version, limits);
  } catch {
    return "too-large"; // a length that MQTT cannot write
  }
}

function counted(bytes: Buffer, alias: number, topic: string, { aliases }: CloudLimits): Buffer {
  if (alias > 0) aliases?.used(Buffer.byteLength(topic));
  return bytes;
}

/** The same PUBLISH with an alias for its topic, where one is left and there is room for it. */
function defining(packet: PublishPacket, bytes: Buffer, version: ProtocolVersion, limits: CloudLimits): Buffer {
  const { topic } = packet;
  const topicAlias = limits.aliases?.next(Buffer.byteLength(topic)) ?? 0;
  // The length fields before it may grow by a byte each.
  if (topicAlias === 0 || bytes.length + aliasBytes + 2 > limits.maximumPacketSize) return bytes;
  limits.aliases?.define(topic);
  return encodePublish({ ...packet, topicAlias }, version);
}

/** The payload and properties of a forwarded PUBLISH, or null when the message has expired on the way. */
export function dress(
  message: Message,
  meta: Meta,
  ageMs: number,
  style: Omit<Style, "gatewayId">,
): { payload: Uint8Array; properties: MessageProperties | undefined } | null {
  const expiry = message.properties?.messageExpirySeconds;
  const leftSeconds = expiry === undefined ? undefined : Math.ceil(expiry - ageMs / 1000);
  if (leftSeconds !== undefined && leftSeconds <= 0) return null; // [MQTT-3.3.2-5]
  const payload = style.envelope === "json" ? envelope(message, meta) : message.payload;
  if (style.version === 4) return { payload, properties: undefined };
  const properties: MessageProperties = { ...message.properties };
  if (leftSeconds !== undefined) properties.messageExpirySeconds = leftSeconds; // [MQTT-3.3.2-6]
  if (style.envelope === "json") {
    properties.payloadFormat = 1;
    properties.contentType = "application/json";
  }
  const pairs = metaPairs(meta, style.meta);
  if (pairs.length > 0) properties.userProperties = [...(properties.userProperties ?? []), ...pairs];
  return { payload, properties };
}

function metaPairs(meta: Meta, names: readonly MetaName[]): Array<readonly [string, string]> {
  const pairs: Array<readonly [string, string]> = [];
  for (const name of names) {
    if (name === "gw") pairs.push(["gw", meta.gw]);
    else if (name === "epoch") pairs.push(["epoch", String(meta.epoch)]);
    else if (name === "seq") {
      if (meta.seq !== undefined) pairs.push(["seq", String(meta.seq)]);
    } else if (name === "pri") pairs.push(["pri", String(meta.pri)]);
    else if (name === "ts") pairs.push(["ts", timestamp(meta.wallMs)]);
    else if (meta.late) pairs.push(["late", "1"]);
  }
  return pairs;
}

/** RFC 3339. Date takes +-8.64e15 ms and throws beyond. */
function timestamp(wallMs: number): string {
  const date = new Date(wallMs);
  return Number.isNaN(date.getTime()) ? new Date(0).toISOString() : date.toISOString();
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** `{ gw, epoch, seq, pri, ts, late?, topic, data }`: what MQTT 5 says in user properties, for clouds that speak 3.1.1. */
function envelope(message: Message, meta: Meta): Uint8Array {
  const head = JSON.stringify({
    gw: meta.gw,
    epoch: meta.epoch,
    seq: meta.seq, // left out when undefined
    pri: meta.pri,
    ts: timestamp(meta.wallMs),
    ...(meta.late ? { late: 1 } : {}),
    topic: message.topic,
  });
  return Buffer.from(`${head.slice(0, -1)},"data":${dataText(message.payload)}}`);
}

/** JSON as it came (numbers keep their digits), else a string, else `{"base64": ...}` for bytes that are no text. */
function dataText(payload: Uint8Array): string {
  let text: string;
  try {
    text = utf8.decode(payload);
  } catch {
    return JSON.stringify({ base64: Buffer.from(payload).toString("base64") });
  }
  try {
    JSON.parse(text);
    return text;
  } catch {
    return JSON.stringify(text);
  }
}
