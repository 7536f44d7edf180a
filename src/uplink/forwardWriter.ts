import type { QueuedMessage } from "../base/contracts.ts";
import type { Qos } from "../base/message.ts";
import { topicNameFault } from "../base/topic.ts";
import { varintLength, varintMax, writeU16, writeVarint } from "../wire/mqtt/bytes.ts";
import { fillTopic, type RuleDefinition } from "./forwarding.ts";
import type { MetaName } from "./options.ts";
import { type CloudLimits, encodeForward, type Style, type Unsendable } from "./outgoing.ts";
import { aliasBytes, type TopicAliases } from "./topicAliases.ts";

/** How one PUBLISH goes: 0 for the packet id with QoS 0. */
export interface Wire {
  readonly qos: Qos;
  readonly packetId: number;
  readonly dup: boolean;
}

/** A topic at the cloud. */
interface CloudTopic {
  readonly bytes: Buffer;
  /** Whose alias is known; each connection has other ones. */
  aliases: TopicAliases | undefined;
  alias: number;
}

const topicsMax = 4096;
/** Longer ones are made anew each time: whoever may publish could fill the RAM with 4096 of 64 KiB. */
const topicCharsMax = 512;
const scratchBytes = 4096;
const nothing = Buffer.alloc(0);
/** MQTT 5 table 2-4. */
const aliasProperty = 0x23;
/** Year 10000: from there on RFC 3339 has another length. */
const wallMsEnd = 253_402_300_800_000;

/**
 * Forwarded messages as bytes, with nothing made on the way: a backlog of millions goes through here, and what is made for each message is what
 * the memory grows by. For the usual message only, without properties of its own and without an envelope; `encodeForward` does the others, and says
 * what the bytes of these have to be.
 */
export class ForwardWriter {
  readonly #style: Style;
  readonly #epoch: number;
  /** Where the last message lies, from 0 on; valid until the next one. */
  buffer: Buffer;
  #scratch = Buffer.allocUnsafeSlow(scratchBytes);
  readonly #properties: Buffer;
  /** User properties in the order of the configuration: those that never change as bytes. */
  readonly #parts: ReadonlyArray<Buffer | "seq" | "pri" | "ts" | "late">;
  readonly #late = pair("late", "1");
  readonly #heads = { seq: head("seq"), pri: head("pri"), ts: head("ts") };
  /** By rule, then by topic: the topic at the cloud, undefined where there can be none. A cache, bounded. */
  readonly #topics = new Map<RuleDefinition, Map<string, CloudTopic | undefined>>();
  #topicCount = 0;
  #second = Number.NaN;
  #secondText = Buffer.alloc(0);

  constructor(style: Style, epoch: number) {
    this.#style = style;
    this.#epoch = epoch;
    this.buffer = this.#scratch;
    const usual = style.version === 5 ? style.meta : [];
    this.#parts = usual.map((name) => this.#partOf(name));
    let bytes = 200;
    for (const part of this.#parts) bytes += part instanceof Buffer ? part.length : 40;
    this.#properties = Buffer.allocUnsafeSlow(bytes);
  }

  /** @returns the length of the PUBLISH in `buffer`, or why there is none. @param ageMs since the gateway took it */
  write(
    queued: QueuedMessage,
    rule: RuleDefinition,
    late: boolean,
    wire: Wire,
    ageMs: number,
    limits: CloudLimits,
  ): number | Unsendable {
    const { message, wallMs } = queued;
    const usual = this.#style.envelope === "none" && message.properties === undefined;
    if (!usual || !(wallMs >= 0 && wallMs < wallMsEnd))
      return this.#writeSlowly(queued, rule, late, wire, ageMs, limits);
    const topic = this.#topicOf(rule, message.topic);
    if (topic === undefined) return this.#writeSlowly(queued, rule, late, wire, ageMs, limits);
    const five = this.#style.version === 5;
    const propertyLength = five ? this.#writeProperties(queued, late) : 0;
    const aliases = wire.dup ? undefined : limits.aliases; // a retransmission names its topic
    let alias = aliases === undefined ? 0 : this.#aliasOf(topic, aliases);
    const name = alias > 0 ? nothing : topic.bytes;
    const rest = 2 + name.length + (wire.qos === 0 ? 0 : 2) + message.payload.length;
    let properties = five ? propertyLength + (alias > 0 ? aliasBytes : 0) : -1;
    let length = rest + propertyBytes(properties);
    if (packetBytes(length) > limits.maximumPacketSize || length > varintMax) return "too-large"; // [MQTT-3.2.2-15]
    if (alias > 0) aliases?.used(topic.bytes.length);
    // The length fields before it may grow by a byte each.
    else if (aliases !== undefined && packetBytes(length) + aliasBytes + 2 <= limits.maximumPacketSize) {
      alias = defineAlias(topic, aliases);
      if (alias > 0) properties += aliasBytes;
      length = rest + propertyBytes(properties);
    }
    const retain = message.retain && limits.retainAvailable; // [MQTT-3.2.2-14]
    const first = 0x30 | (wire.dup && wire.qos > 0 ? 8 : 0) | (wire.qos << 1) | (retain ? 1 : 0);
    let at = this.#writeHead(first, length, name);
    const { buffer } = this;
    if (wire.qos > 0) at = writeU16(buffer, at, wire.packetId);
    if (five) {
      at = writeVarint(buffer, at, properties);
      if (alias > 0) {
        buffer[at] = aliasProperty;
        at = writeU16(buffer, at + 1, alias);
      }
      this.#properties.copy(buffer, at, 0, propertyLength);
      at += propertyLength;
    }
    buffer.set(message.payload, at);
    return packetBytes(length);
  }

  /** Takes the room for the packet; fixed header and topic. @returns where it goes on */
  #writeHead(first: number, length: number, name: Buffer): number {
    const buffer = this.#room(packetBytes(length));
    buffer[0] = first;
    let at = writeVarint(buffer, 1, length);
    at = writeU16(buffer, at, name.length);
    buffer.set(name, at);
    return at + name.length;
  }

  /** One large message must not keep its room for ever. */
  #room(bytes: number): Buffer {
    const { length } = this.#scratch;
    if (length < bytes || (length > scratchBytes && bytes <= scratchBytes))
      this.#scratch = Buffer.allocUnsafeSlow(Math.max(bytes, scratchBytes));
    this.buffer = this.#scratch;
    return this.buffer;
  }

  #writeSlowly(
    { message, seq, priority, wallMs }: QueuedMessage,
    rule: RuleDefinition,
    late: boolean,
    wire: Wire,
    ageMs: number,
    limits: CloudLimits,
  ): number | Unsendable {
    const meta = { gw: this.#style.gatewayId, epoch: this.#epoch, seq, pri: priority, wallMs, late };
    const bytes = encodeForward(message, rule, meta, ageMs, wire, limits, this.#style);
    if (typeof bytes === "string") return bytes;
    this.buffer = bytes;
    return bytes.length;
  }

  #writeProperties(queued: QueuedMessage, late: boolean): number {
    const to = this.#properties;
    let at = 0;
    for (const part of this.#parts) {
      if (part === "seq" || part === "pri")
        at = writeDigits(to, at, this.#heads[part], queued[part === "seq" ? "seq" : "priority"]);
      else if (part === "ts") at = this.#writeTime(to, at, queued.wallMs);
      else if (part !== "late" || late) {
        const bytes = part === "late" ? this.#late : part;
        to.set(bytes, at);
        at += bytes.length;
      }
    }
    return at;
  }

  /** RFC 3339, 24 characters; all but the milliseconds are those of the message before, nearly always. */
  #writeTime(to: Buffer, start: number, wallMs: number): number {
    const whole = Math.floor(wallMs);
    const second = Math.floor(whole / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondText = Buffer.from(new Date(second * 1000).toISOString().slice(0, 20));
    }
    to.set(this.#heads.ts, start);
    let at = writeU16(to, start + this.#heads.ts.length, 24);
    to.set(this.#secondText, at);
    at += this.#secondText.length;
    const ms = whole - second * 1000;
    to[at] = 48 + Math.floor(ms / 100);
    to[at + 1] = 48 + (Math.floor(ms / 10) % 10);
    to[at + 2] = 48 + (ms % 10);
    to[at + 3] = 0x5a; // Z
    return at + 4;
  }

  /** 0: the cloud knows none yet. */
  #aliasOf(topic: CloudTopic, aliases: TopicAliases): number {
    if (topic.aliases !== aliases) {
      topic.aliases = aliases;
      topic.alias = aliases.known(topic.bytes.toString());
    } else if (topic.alias === 0 && aliases.next(topic.bytes.length) > 0) {
      topic.alias = aliases.known(topic.bytes.toString()); // another rule may have named it meanwhile
    }
    return topic.alias;
  }

  #topicOf(rule: RuleDefinition, topic: string): CloudTopic | undefined {
    let known = this.#topics.get(rule);
    if (known === undefined) {
      known = new Map();
      this.#topics.set(rule, known);
    }
    const found = known.get(topic);
    if (found !== undefined || known.has(topic)) return found;
    const filled = fillTopic(rule.to, rule.filter, topic, this.#style.gatewayId);
    // A cloud drops whoever sends it an impossible topic, and would again after each reconnect.
    const fits = filled !== undefined && topicNameFault(filled, Number.POSITIVE_INFINITY) === null;
    const bytes = fits ? Buffer.from(filled) : nothing;
    const made = bytes.length > 0 && bytes.length <= 65_535 ? { bytes, aliases: undefined, alias: 0 } : undefined;
    if (topic.length > topicCharsMax) return made;
    this.#topicCount += 1;
    if (this.#topicCount > topicsMax) {
      this.#topics.clear();
      this.#topicCount = 0;
    } else known.set(topic, made);
    return made;
  }

  #partOf(name: MetaName): Buffer | "seq" | "pri" | "ts" | "late" {
    if (name === "gw") return pair("gw", this.#style.gatewayId);
    if (name === "epoch") return pair("epoch", String(this.#epoch));
    return name;
  }
}

/** Of a property field with its length; -1: MQTT 3.1.1 has none. */
const propertyBytes = (length: number): number => (length < 0 ? 0 : varintLength(length) + length);

/** Of a whole packet with this remaining length. */
const packetBytes = (length: number): number => 1 + varintLength(length) + length;

function defineAlias(topic: CloudTopic, aliases: TopicAliases): number {
  const alias = aliases.next(topic.bytes.length);
  if (alias === 0) return 0;
  aliases.define(topic.bytes.toString());
  topic.alias = alias;
  return alias;
}

/** A user property's identifier and name (MQTT 5 section 2.2.2.2). */
function head(name: string): Buffer {
  const bytes = Buffer.from(name);
  return Buffer.concat([Buffer.from([0x26, bytes.length >> 8, bytes.length & 255]), bytes]);
}

function pair(name: string, value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([head(name), Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]);
}

/** A user property whose value is a whole number. */
function writeDigits(to: Buffer, start: number, name: Buffer, value: number): number {
  to.set(name, start);
  let count = 1;
  for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) count += 1;
  let at = writeU16(to, start + name.length, count) + count;
  const end = at;
  let rest = value;
  for (let left = count; left > 0; left -= 1) {
    at -= 1;
    to[at] = 48 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
  return end;
}
