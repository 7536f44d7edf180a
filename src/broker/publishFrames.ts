import type { Message, Qos } from "../base/message.ts";
import type { ProtocolVersion, PublishPacket } from "../wire/mqtt/packet.ts";
import { violation } from "../wire/mqtt/protocolError.ts";
import { encodePublish, packetIdOffset } from "../wire/mqtt/publish.ts";
import type { Link } from "./session.ts";

const nothing = Buffer.alloc(0);

/** The packet that a message came as: bytes start..end of `buffer`, without DUP, RETAIN and properties. */
export class CameAs {
  message: Message | undefined;
  buffer: Buffer = nothing;
  start = 0;
  end = 0;
  /** Where in the packet its packet id is. */
  idAt = 0;
  version: ProtocolVersion = 4;

  set(message: Message, buffer: Buffer, start: number, end: number, idAt: number, version: ProtocolVersion): void {
    this.message = message;
    this.buffer = buffer;
    this.start = start;
    this.end = end;
    this.idAt = idAt;
    this.version = version;
  }

  forget(): void {
    this.message = undefined;
    this.buffer = nothing;
  }
}

/** A PUBLISH of QoS 1 or 2 that waits: bytes start..end of `buffer`, which never change, with the place of its packet id. Its sessions share it. */
export class KeptPacket {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  readonly idAt: number;
  readonly qos: Qos;
  readonly topic: string;
  readonly payloadBytes: number;
  /** For limits. */
  readonly bytes: number;

  constructor(buffer: Buffer, start: number, end: number, idAt: number, qos: Qos, message: Message) {
    this.buffer = buffer;
    this.start = start;
    this.end = end;
    this.idAt = idAt;
    this.qos = qos;
    this.topic = message.topic;
    this.payloadBytes = message.payload.length;
    this.bytes = messageBytes(message);
  }
}

/**
 * Short packets that wait lie together: a buffer for each would be most of what it takes. They are few to a slab, because it lives as long as one of
 * them, and a client that takes nothing may hold one in each.
 */
const slabBytes = 2048;
const shortBytes = 512;

/**
 * One message on its way out, encoded once for all subscribers that get the same bytes: version, QoS and retain bit. With
 * subscription identifiers each list of them has its own encoding; the lists are shared through the topic's entry.
 */
export class PublishFrames {
  readonly #nowMs: () => number;
  readonly #frames: Array<Buffer | undefined> = new Array(12).fill(undefined);
  /** Some of them are there. */
  #framed = false;
  readonly #others: Array<{ slot: number; ids: readonly number[] | undefined; alias: number; frame: Buffer }> = [];
  #message: Message | undefined;
  #cameAs: CameAs | undefined;
  #owned: Message | undefined;
  #kept: KeptPacket | undefined;
  #acceptedAtMs = -1;
  /** Where kept packets are copied to. */
  #slab = nothing;
  #slabUsed = 0;

  /** @param nowMs the store's clock */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get message(): Message {
    if (this.#message === undefined) throw new Error("no message set");
    return this.#message;
  }

  /** Store clock. Asked for only by those that keep the message. */
  get acceptedAtMs(): number {
    if (this.#acceptedAtMs < 0) this.#acceptedAtMs = this.#nowMs();
    return this.#acceptedAtMs;
  }

  /** @param cameAs what may be passed on as it is, but for the packet id */
  set(message: Message, cameAs?: CameAs): void {
    this.#message = message;
    this.#cameAs = cameAs;
    this.#owned = this.#kept = undefined;
    this.#acceptedAtMs = -1;
    this.#forgetFrames();
  }

  /** Lets go of the message. */
  clear(): void {
    this.#message = this.#owned = this.#kept = this.#cameAs = undefined;
    this.#forgetFrames();
  }

  /** A loop, and only when there are any: `fill` is a call into native code, twice for each message. */
  #forgetFrames(): void {
    if (this.#framed) for (let slot = 0; slot < this.#frames.length; slot += 1) this.#frames[slot] = undefined;
    this.#framed = false;
    if (this.#others.length > 0) this.#others.length = 0;
  }

  /** The message with a payload of its own, for those that keep it: what came in is a view of a read buffer. */
  owned(): Message {
    this.#owned ??= ownedMessage(this.message);
    return this.#owned;
  }

  /** The packet with packet id 1 (QoS 1 and 2), to be patched; see `packetIdOffset`. */
  frame(version: ProtocolVersion, qos: Qos, retain: boolean, ids: readonly number[] | undefined): Buffer {
    const slot = (version === 5 ? 6 : 0) + qos * 2 + (retain ? 1 : 0);
    if (ids !== undefined && version === 5) return this.#other(slot, qos, retain, ids, 0);
    let frame = this.#frames[slot];
    if (frame === undefined) {
      frame = encodePublish(publishPacket(this.message, qos, retain, 1, undefined), version);
      this.#frames[slot] = frame;
      this.#framed = true;
    }
    return frame;
  }

  /** The packet that it came as, if this client may be sent just that with another packet id. */
  cameAs({ version, outbox, packetSizeMax }: Link, qos: Qos, retain: boolean, plain: boolean): CameAs | undefined {
    const came = this.#cameAs;
    if (came === undefined || !plain || retain || this.message.qos !== qos || came.version !== version)
      return undefined;
    return outbox.aliases === undefined && came.end - came.start <= packetSizeMax ? came : undefined;
  }

  /**
   * The packet for those that keep it, if nothing about it may change until it is sent: no alias of that client's, and no expiry, of which less is left
   * then.
   */
  keep(link: Link, qos: Qos, retain: boolean, ids: readonly number[] | undefined): KeptPacket | undefined {
    if (link.outbox.aliases !== undefined || this.message.properties?.messageExpirySeconds !== undefined)
      return undefined;
    const came = this.cameAs(link, qos, retain, ids === undefined);
    if (came === undefined) {
      const frame = this.frame(link.version, qos, retain, ids);
      return new KeptPacket(frame, 0, frame.length, packetIdOffset(frame), qos, this.message);
    }
    this.#kept ??= this.#copy(came);
    return this.#kept;
  }

  #copy({ buffer, start, end, idAt }: CameAs): KeptPacket {
    const size = end - start;
    const short = size <= shortBytes;
    if (short && this.#slabUsed + size > this.#slab.length) {
      this.#slab = Buffer.allocUnsafeSlow(slabBytes);
      this.#slabUsed = 0;
    }
    const target = short ? this.#slab : Buffer.allocUnsafeSlow(size);
    const at = short ? this.#slabUsed : 0;
    buffer.copy(target, at, start, end);
    if (short) this.#slabUsed += size;
    return new KeptPacket(target, at, at + size, idAt, this.message.qos, this.message);
  }

  /** The same for one client, with an alias for the topic where it takes them. To be given to its outbox at once, or not at all. */
  frameFor(link: Link, qos: Qos, retain: boolean, ids: readonly number[] | undefined): Buffer {
    const { aliases } = link.outbox;
    if (aliases === undefined) return this.frame(link.version, qos, retain, ids);
    const { topic } = this.message;
    const alias = aliases.of(topic);
    if (alias === 0) return this.frame(link.version, qos, retain, ids);
    const frame = this.#other(6 + qos * 2 + (retain ? 1 : 0), qos, retain, ids, alias);
    if (alias > 0) return frame;
    if (frame.length > link.packetSizeMax) return this.frame(link.version, qos, retain, ids); // 3 bytes may be too many
    aliases.offer(topic, frame);
    return frame;
  }

  /** MQTT 5 with identifiers or an alias. @param alias below 0: the packet tells it, with the topic */
  #other(slot: number, qos: Qos, retain: boolean, ids: readonly number[] | undefined, alias: number): Buffer {
    for (const known of this.#others) {
      if (known.slot === slot && known.ids === ids && known.alias === alias) return known.frame;
    }
    const packet = publishPacket(this.message, qos, retain, 1, ids);
    if (alias !== 0) packet.topicAlias = Math.abs(alias);
    if (alias > 0) packet.topic = "";
    const frame = encodePublish(packet, 5);
    if (this.#others.length < 32) this.#others.push({ slot, ids, alias, frame });
    return frame;
  }
}

/** The message with a copied payload and copied correlation data. */
export function ownedMessage(message: Message): Message {
  const correlationData = message.properties?.correlationData;
  const owned = { ...message, payload: Buffer.from(message.payload) };
  if (correlationData === undefined) return owned;
  return { ...owned, properties: { ...message.properties, correlationData: Buffer.from(correlationData) } };
}

export function publishPacket(
  message: Message,
  qos: Qos,
  retain: boolean,
  packetId: number,
  ids: readonly number[] | undefined,
): PublishPacket {
  return {
    kind: "publish",
    dup: false,
    qos,
    retain,
    topic: message.topic,
    packetId: qos === 0 ? 0 : packetId,
    payload: message.payload,
    properties: message.properties,
    subscriptionIdentifiers: ids,
  };
}

/**
 * The message as it may still be sent: with what is left of its expiry [MQTT-3.3.2-6], or undefined when it has expired [MQTT-3.3.2-5].
 * @param begun it was sent before, so it is sent again whatever has passed
 */
export function unexpired(message: Message, acceptedAtMs: number, nowMs: number, begun = false): Message | undefined {
  const seconds = message.properties?.messageExpirySeconds;
  if (seconds === undefined || nowMs <= acceptedAtMs) return message;
  const leftMs = seconds * 1000 - (nowMs - acceptedAtMs);
  if (leftMs <= 0 && !begun) return undefined;
  const messageExpirySeconds = Math.max(0, Math.ceil(leftMs / 1000));
  return { ...message, properties: { ...message.properties, messageExpirySeconds } };
}

/**
 * Whether what a client sent is the answer that its in-flight message waits for. False: no such message; its session may know more than ours.
 * @throws ProtocolError 0x82 for the answer of another QoS or step (MQTT 5 section 4.3, [MQTT-4.8.0-1] of 3.1.1)
 */
export function answers(expected: string | undefined, came: "puback" | "pubrec" | "pubcomp"): boolean {
  if (expected !== undefined && expected !== came) violation(`${came} for a message that waits for a ${expected}`);
  return expected !== undefined;
}

/** What a message counts for against limits in bytes. */
export function messageBytes(message: Message): number {
  return (
    message.payload.length + message.topic.length + (message.properties === undefined ? 0 : propertyBytes(message))
  );
}

function propertyBytes(message: Message): number {
  const { contentType, responseTopic, correlationData, userProperties } = message.properties ?? {};
  let bytes = 16 + (contentType?.length ?? 0) + (responseTopic?.length ?? 0) + (correlationData?.length ?? 0);
  for (const [name, value] of userProperties ?? []) bytes += name.length + value.length + 5;
  return bytes;
}

/** What a message goes out with: its own QoS, or the subscription's when that is lower [MQTT-3.8.4-8]. */
export function lowerQos(published: Qos, granted: Qos): Qos {
  if (published < granted) return published;
  return granted;
}
