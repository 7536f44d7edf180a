import type { Message, Qos } from "../base/message.ts";
import { packetIdOffset } from "../wire/mqtt/publish.ts";
import type { Access } from "./access/access.ts";
import { ackByte } from "./ackLedger.ts";
import { Fifo } from "./fifo.ts";
import { type Given, GivenMessages } from "./givenMessages.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import { PacketIds } from "./packetIds.ts";
import { answers, KeptPacket, messageBytes, type PublishFrames, publishPacket, unexpired } from "./publishFrames.ts";
import type { Link, Outgoing, Session } from "./session.ts";
import { encodeFor } from "./topicAliases.ts";

/** A message of which the packet is not known before it is sent. */
class Late {
  readonly message: Message;
  readonly qos: Qos;
  readonly retain: boolean;
  readonly ids: readonly number[] | undefined;
  readonly acceptedAtMs: number;
  readonly bytes: number;

  constructor(frames: PublishFrames, qos: Qos, retain: boolean, ids: readonly number[] | undefined) {
    this.message = frames.owned();
    this.qos = qos;
    this.retain = retain;
    this.ids = ids;
    this.acceptedAtMs = frames.acceptedAtMs;
    this.bytes = messageBytes(this.message);
  }

  /** As it may be sent now; undefined: not any more. */
  packet(link: Link, nowMs: number): KeptPacket | undefined {
    const { qos, retain, ids } = this;
    const left = unexpired(this.message, this.acceptedAtMs, nowMs);
    if (left === undefined) return undefined;
    const frame = encodeFor(link, publishPacket(left, qos, retain, 1, ids));
    return new KeptPacket(frame, 0, frame.length, packetIdOffset(frame), qos, left);
  }
}

type Next = "puback" | "pubrec" | "pubcomp";

const firstAnswer = (qos: Qos): Next => (qos === 2 ? "pubrec" : "puback");

/** For all that were sent nothing of QoS 1 or 2 yet; nothing is ever put into it. */
const noneYet = new PacketIds<Next>();

/** What all clean sessions of a broker have waiting, in bytes: many slow subscribers together must not fill the memory either. */
export interface VolatileTotal {
  bytes: number;
}

/** A waiting message costs this much besides its own bytes. */
const entryBytes = 200;
/** All clean sessions together may have as much waiting as this many full ones... */
const fullSessionsMax = 4;
/** ...and this many messages each beyond that, so that one that is merely busy is not starved by those that never read. */
const messagesMin = 32;

/**
 * Delivery of a clean session: it ends with its connection, so what was sent is never sent again, and only what waits for the
 * window is kept, in memory, within the limits of a session.
 */
export class VolatileOutgoing implements Outgoing {
  readonly #session: Session;
  readonly #limits: BrokerLimits["session"];
  readonly #metrics: BrokerMetrics;
  readonly #nowMs: () => number;
  readonly #total: VolatileTotal;
  readonly #access: Pick<Access, "mayRead">;
  /** What comes next from the client. */
  #inflight = noneYet;
  /** Those among them that shared groups gave and may get back: QoS 1, and QoS 2 not sent yet. */
  readonly #given = new GivenMessages();
  readonly #waiting = new Fifo<KeptPacket | Late>();
  #waitingBytes = 0;
  #lastId = 0;

  constructor(
    session: Session,
    limits: BrokerLimits["session"],
    metrics: BrokerMetrics,
    nowMs: () => number,
    total: VolatileTotal,
    access: Pick<Access, "mayRead">,
  ) {
    this.#session = session;
    this.#total = total;
    this.#access = access;
    this.#limits = limits;
    this.#metrics = metrics;
    this.#nowMs = nowMs;
  }

  get inflight(): number {
    return this.#inflight.size;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  deliver(frames: PublishFrames, qos: Qos, retain: boolean, ids: readonly number[] | undefined): void {
    const link = this.#session.link;
    if (link === undefined) return;
    if (this.#waiting.size > 0 || this.#inflight.size >= link.window || link.outbox.full) {
      this.#enqueue(link, frames, qos, retain, ids);
      return;
    }
    const frame = frames.frameFor(link, qos, retain, ids);
    if (frame.length > link.packetSizeMax) {
      this.#metrics.dropped("too-large").value += 1; // [MQTT-3.1.2-25]
      return;
    }
    link.outbox.appendWithId(frame, 0, frame.length, packetIdOffset(frame), this.#nextId(qos));
    this.#metrics.countSent(qos, frames.message.payload.length);
  }

  pass(buffer: Buffer, start: number, end: number, count: number, idAt: number, qos: Qos): boolean {
    const link = this.#session.link;
    if (link === undefined || this.room < count) return false;
    const size = end - start;
    const last = start + count * size;
    for (let at = start; at < last; ) {
      const first = this.#nextIds(qos, (last - at) / size);
      const given = this.#lastId - first + 1;
      link.outbox.appendWithId(buffer, at, at + given * size, idAt, first, given);
      at += given * size;
    }
    return true;
  }

  get room(): number {
    const link = this.#session.link;
    return link === undefined || this.#waiting.size > 0 ? 0 : link.window - this.#inflight.size;
  }

  get hasRoom(): boolean {
    return this.room > 0 && this.#session.link?.outbox.full === false;
  }

  share(frame: Buffer, qos: Qos, given: Given): void {
    const packetId = this.#nextId(qos);
    if (qos === 1) this.#given.add(packetId, given);
    this.#session.link?.outbox.appendWithId(frame, 0, frame.length, packetIdOffset(frame), packetId);
  }

  /** Takes a place in the window for a group's QoS 2 message, which is sent when its mark is durable, if the connection lasts. */
  reserve(given: Given): number {
    const packetId = this.#nextId(2);
    this.#given.add(packetId, given);
    return packetId;
  }

  /** Whether it may still be sent what it has reserved a place for; else the group has it back: rules may have changed meanwhile. */
  keeps(packetId: number, { topic }: Message): boolean {
    if (this.#access.mayRead(this.#session, topic)) return true;
    this.#inflight.delete(packetId);
    this.#given.handBack(packetId);
    return false;
  }

  shareReserved(frame: Buffer, packetId: number): void {
    this.#session.link?.outbox.append(frame, 0, frame.length);
    this.#given.done(packetId);
  }

  puback(packetId: number): void {
    if (!answers(this.#inflight.get(packetId), "puback")) return;
    this.#inflight.delete(packetId);
    this.#given.done(packetId);
    this.pump();
  }

  pubrec(packetId: number, reasonCode: number): void {
    const state = this.#inflight.get(packetId);
    answers(state === "pubcomp" ? "pubrec" : state, "pubrec");
    if (state !== undefined && reasonCode >= 0x80) {
      this.#inflight.delete(packetId); // it will not take it: done [MQTT-4.3.3-4]
      this.#metrics.dropped("client-refused").value += 1;
      this.pump();
      return;
    }
    if (reasonCode >= 0x80) return;
    if (state !== undefined) this.#inflight.set(packetId, "pubcomp");
    this.#session.link?.writeAck(ackByte.pubrel, packetId, state === undefined ? 0x92 : 0);
  }

  pubcomp(packetId: number): void {
    if (!answers(this.#inflight.get(packetId), "pubcomp")) return;
    this.#inflight.delete(packetId);
    this.pump();
  }

  pump(): void {
    const link = this.#session.link;
    if (link === undefined) return;
    while (this.#inflight.size < link.window && this.#waiting.size > 0 && !link.outbox.full) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#left(next.bytes + entryBytes);
      const packet = next instanceof Late ? next.packet(link, this.#nowMs()) : next;
      if (packet === undefined) this.#metrics.dropped("expired").value += 1;
      else this.#send(link, packet);
    }
    if (this.#session.shares.length > 0 && this.hasRoom) this.#session.pull();
  }

  #send(link: Link, { buffer, start, end, idAt, qos, topic, payloadBytes }: KeptPacket): void {
    // Rules may have changed while it waited.
    if (!this.#access.mayRead(this.#session, topic)) {
      this.#metrics.dropped("denied").value += 1;
    } else if (end - start > link.packetSizeMax) {
      this.#metrics.dropped("too-large").value += 1;
    } else {
      link.outbox.appendWithId(buffer, start, end, idAt, this.#nextId(qos));
      this.#metrics.countSent(qos, payloadBytes);
    }
  }

  attached(): void {}

  detached(): void {
    const lost = this.#waiting.size;
    if (lost > 0) this.#metrics.dropped("session-ended").value += lost;
    this.#waiting.clear();
    this.#left(this.#waitingBytes);
    this.#inflight.clear();
    this.#given.back(false);
  }

  #enqueue(link: Link, frames: PublishFrames, qos: Qos, retain: boolean, ids: readonly number[] | undefined): void {
    const newestGoes = this.#limits.whenFull === "drop-newest";
    if (newestGoes && this.#isFull(entryBytes)) {
      this.#metrics.dropped("queue-full").value += 1; // before anything is encoded for it
      return;
    }
    const next = frames.keep(link, qos, retain, ids) ?? new Late(frames, qos, retain, ids);
    const bytes = next.bytes + entryBytes;
    while (this.#isFull(bytes)) {
      this.#metrics.dropped("queue-full").value += 1;
      if (newestGoes) return;
      const oldest = this.#waiting.shift();
      if (oldest === undefined) return; // larger than the whole queue
      this.#left(oldest.bytes + entryBytes);
    }
    this.#waiting.push(next);
    this.#waitingBytes += bytes;
    this.#total.bytes += bytes;
  }

  #isFull(bytes: number): boolean {
    const { maxMessages, maxBytes } = this.#limits;
    if (this.#waiting.size >= maxMessages || this.#waitingBytes + bytes > maxBytes) return true;
    return this.#waiting.size >= messagesMin && this.#total.bytes + bytes > fullSessionsMax * maxBytes;
  }

  #left(bytes: number): void {
    this.#waitingBytes -= bytes;
    this.#total.bytes -= bytes;
  }

  /** As many ids as follow on each other and are free, up to `count`. @returns the first of them; the last is `#lastId` */
  #nextIds(qos: Qos, count: number): number {
    const first = this.#nextId(qos);
    const last = Math.min(first + count - 1, 65_535);
    while (this.#lastId < last && this.#inflight.add(this.#lastId + 1, firstAnswer(qos))) this.#lastId += 1;
    return first;
  }

  /** The window is far smaller than 65535, so a free one is always near. */
  #nextId(qos: Qos): number {
    if (this.#inflight === noneYet) this.#inflight = new PacketIds();
    do this.#lastId = this.#lastId >= 65_535 ? 1 : this.#lastId + 1;
    while (!this.#inflight.add(this.#lastId, firstAnswer(qos)));
    return this.#lastId;
  }
}
