/**
 * MESSAGE: flags: qos (2 bits) | retain << 2 | has properties << 3
 *   position | acceptedAt ms | wall ms | n | n x { lane | rule | seq | ttl ms + 1, 0: none } | source | topic | properties? | payload to the end
 * The takers stand first, so that a reader of one lane passes over the others' records after a few bytes.
 *
 * properties: u8 of what follows: 1 payloadFormat given, 2 its value, 4 expiry, 8 content type, 16 response topic, 32 correlation data, 64 user properties
 */
import type { StoredMessage, Taker } from "../base/contracts.ts";
import type { Message, MessageProperties, PlainMessage, Qos } from "../base/message.ts";
import { ByteReader, type ByteWriter, dataViewOf, textBound } from "./bytes.ts";
import type { PayloadSlab } from "./payloadSlab.ts";
import { TextCache } from "./textCache.ts";

const propertiesFlag = 8;

export const messageFlags = (message: Message): number =>
  message.qos + (message.retain ? 4 : 0) + (message.properties === undefined ? 0 : propertiesFlag);

/** The same, of one without properties and with so large a payload. */
export const plainBound = (source: string, topic: string, payload: number, takers: number): number =>
  40 + takers * 40 + textBound(source) + textBound(topic) + payload;

/** Largest size of the fields after the record header. */
export function messageBound(message: Message, takers: number): number {
  let bound = plainBound(message.source, message.topic, message.payload.length, takers);
  const { properties } = message;
  if (properties !== undefined) {
    bound += 32 + textBound(properties.contentType ?? "") + textBound(properties.responseTopic ?? "");
    bound += properties.correlationData?.length ?? 0;
    for (const [name, value] of properties.userProperties ?? []) bound += textBound(name) + textBound(value);
  }
  return bound;
}

/** Of texts that are kept as they were encoded, the longest together. */
const keptTexts = 512;

/**
 * Writes the fields of one message after the other. Most have the source and topic of the one before: one client sends several in a row. Then what
 * they look like is copied.
 */
export class MessageEncoder {
  #source = "";
  #topic = "";
  readonly #texts = Buffer.allocUnsafeSlow(keptTexts);
  readonly #textView = dataViewOf(this.#texts);
  /** 0: none are kept. */
  #textBytes = 0;

  /** @param numbers each taker's */
  writeTakers(
    to: ByteWriter,
    position: number,
    acceptedAtMs: number,
    wallMs: number,
    takers: readonly Taker[],
    numbers: ReadonlyArray<{ readonly seq: number }>,
  ): void {
    to.uvarint(position);
    to.uvarint(acceptedAtMs);
    to.uvarint(wallMs);
    to.uvarint(takers.length);
    for (let at = 0; at < takers.length; at += 1) {
      const { lane, rule, ttlMs } = takers[at]!;
      to.uvarint(lane);
      to.uvarint(rule);
      to.uvarint(numbers[at]!.seq);
      to.uvarint(ttlMs === undefined ? 0 : Math.max(0, Math.ceil(ttlMs)) + 1);
    }
  }

  /** What the message says, behind its takers. */
  writeMessage(to: ByteWriter, message: Message): void {
    this.#writeTexts(to, message.source, message.topic);
    if (message.properties !== undefined) writeProperties(to, message.properties);
    to.raw(message.payload);
  }

  writePlain(to: ByteWriter, { source, topic, bytes, from, to: end }: PlainMessage): void {
    this.#writeTexts(to, source, topic);
    to.copy(bytes, from, end);
  }

  #writeTexts(to: ByteWriter, source: string, topic: string): void {
    if (topic === this.#topic && source === this.#source && this.#textBytes > 0) {
      to.copy(this.#textView, 0, this.#textBytes);
      return;
    }
    const from = to.at;
    to.text(source);
    to.text(topic);
    const bytes = to.at - from;
    this.#textBytes = bytes <= keptTexts ? bytes : 0;
    this.#source = source;
    this.#topic = topic;
    for (let index = 0; index < this.#textBytes; index += 1) this.#texts[index] = to.buffer[from + index]!;
  }
}

function writeProperties(to: ByteWriter, properties: MessageProperties): void {
  let present = 0;
  if (properties.payloadFormat !== undefined) present += 1 + 2 * properties.payloadFormat;
  if (properties.messageExpirySeconds !== undefined) present += 4;
  if (properties.contentType !== undefined) present += 8;
  if (properties.responseTopic !== undefined) present += 16;
  if (properties.correlationData !== undefined) present += 32;
  if (properties.userProperties !== undefined) present += 64;
  to.u8(present);
  if (properties.messageExpirySeconds !== undefined) to.uvarint(properties.messageExpirySeconds);
  if (properties.contentType !== undefined) to.text(properties.contentType);
  if (properties.responseTopic !== undefined) to.text(properties.responseTopic);
  if (properties.correlationData !== undefined) to.bytes(properties.correlationData);
  if (properties.userProperties !== undefined) {
    to.uvarint(properties.userProperties.length);
    for (const [name, value] of properties.userProperties) {
      to.text(name);
      to.text(value);
    }
  }
}

function readProperties(from: ByteReader): MessageProperties {
  const present = from.u8();
  const properties: MessageProperties = {};
  if (present & 1) properties.payloadFormat = present & 2 ? 1 : 0;
  if (present & 4) properties.messageExpirySeconds = from.uvarint();
  if (present & 8) properties.contentType = from.text();
  if (present & 16) properties.responseTopic = from.text();
  if (present & 32) properties.correlationData = from.bytes();
  if (present & 64) {
    const pairs: Array<readonly [string, string]> = [];
    for (let left = from.uvarint(); left > 0; left -= 1) pairs.push([from.text(), from.text()]);
    properties.userProperties = pairs;
  }
  return properties;
}

export interface TakerView {
  lane: number;
  rule: number;
  seq: number;
  /** Store clock; Infinity without a ttl. */
  expiresAtMs: number;
}

/** Reads MESSAGE records one after the other; the same object for all of them. `at` and `end` are the fields after the record header. */
export class MessageReader {
  readonly #from = new ByteReader(Buffer.alloc(0));
  readonly taker: TakerView = { lane: 0, rule: 0, seq: 0, expiresAtMs: 0 };
  position = 0;
  acceptedAtMs = 0;
  wallMs = 0;
  readonly #texts = new TextCache();
  #takersLeft = 0;
  #flags = 0;

  /** @throws FieldError, as all the methods here */
  start(buffer: Buffer, at: number, end: number, flags: number): void {
    this.#from.reset(buffer, at, end);
    this.position = this.#from.uvarint();
    this.acceptedAtMs = this.#from.uvarint();
    this.wallMs = this.#from.uvarint();
    this.#takersLeft = this.#from.uvarint();
    this.#flags = flags;
  }

  /** Steps to the next taker, which is then in `taker`. */
  nextTaker(): boolean {
    if (this.#takersLeft === 0) return false;
    this.#takersLeft -= 1;
    this.taker.lane = this.#from.uvarint();
    this.taker.rule = this.#from.uvarint();
    this.taker.seq = this.#from.uvarint();
    const ttl = this.#from.uvarint();
    this.taker.expiresAtMs = ttl === 0 ? Number.POSITIVE_INFINITY : this.acceptedAtMs + ttl - 1;
    return true;
  }

  /** Steps to the taker of this lane. False: not for this lane. */
  findTaker(lane: number): boolean {
    while (this.nextTaker()) if (this.taker.lane === lane) return true;
    return false;
  }

  /** The message itself, copied out of the buffer. Passes over the takers that are left. @param slab where small payloads go together */
  message(slab?: PayloadSlab): Message {
    const from = this.#from;
    for (; this.#takersLeft > 0; this.#takersLeft -= 1) for (let field = 0; field < 4; field += 1) from.uvarint();
    const source = from.cachedText(this.#texts);
    const topic = from.cachedText(this.#texts);
    const properties = this.#flags & propertiesFlag ? readProperties(from) : undefined;
    const qos = (this.#flags & 3) as Qos;
    const retain = (this.#flags & 4) !== 0;
    const payload = slab === undefined ? from.rest() : slab.keep(from.buffer, from.at, from.end);
    return properties === undefined
      ? { topic, payload, qos, retain, source }
      : { topic, payload, qos, retain, source, properties };
  }

  stored(): StoredMessage {
    const { position, acceptedAtMs, wallMs } = this;
    return { position, acceptedAtMs, wallMs, message: this.message() };
  }
}
