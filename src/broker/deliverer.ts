import type { Message, Qos } from "../base/message.ts";
import type { ProtocolVersion } from "../wire/mqtt/packet.ts";
import type { PublishView } from "../wire/mqtt/publish.ts";
import type { BrokerMetrics } from "./metrics.ts";
import { CameAs, lowerQos, PublishFrames } from "./publishFrames.ts";
import type { Link, Session } from "./session.ts";
import type { Delivery, TopicEntry } from "./topicEntry.ts";

/** Packets with ids of their own that are made in one go, for all subscribers together: in between it is seen how long it takes. */
const copiesMax = 1024;

/** Hands a message to everybody inside this process who wants it. */
export class Deliverer {
  readonly #metrics: BrokerMetrics;
  readonly #nowMs: () => number;
  /** The packet that is handled now; for whom it may be passed on as it is. */
  readonly came = new CameAs();
  /** Messages times those they were for, a run passed on in one piece counted as one: what the work grows with. */
  copies = 0;
  /** Taken while in use: a handler may publish, so deliveries nest. */
  #spare: PublishFrames | undefined;

  /** @param nowMs the store's clock */
  constructor(metrics: BrokerMetrics, nowMs: () => number) {
    this.#metrics = metrics;
    this.#nowMs = nowMs;
  }

  /**
   * @param ordinals by index in targets, of durable references in `group`; undefined: none were made
   * @returns `group`, or a later one in which a handler keeps the message
   */
  deliver(
    message: Message,
    entry: TopicEntry,
    targets: readonly Delivery[],
    publisher: Session | undefined,
    ordinals: readonly number[] | undefined,
    group: number,
  ): number {
    const frames = this.#framesOf(message);
    this.copies += targets.length;
    for (let at = 0; at < targets.length; at += 1) {
      const target = targets[at];
      if (target === undefined) continue;
      const delivery = target.own !== undefined && target.session === publisher ? target.own : target;
      if (delivery !== null) this.#deliverTo(delivery, frames, ordinals?.[at] ?? 0, group);
    }
    let last = group;
    for (const handler of entry.handlers) last = Math.max(last, handler(message)?.group ?? 0);
    for (const forward of entry.live) forward.send(message);
    this.#giveBack(frames);
    return last;
  }

  /** To one member of each shared group. @param ordinals by index in entry.shares, as ShareGroup.arrived wants them; undefined: all 0 */
  share(message: Message, entry: TopicEntry, ordinals: readonly number[] | undefined, position: number): void {
    const frames = this.#framesOf(message);
    for (let at = 0; at < entry.shares.length; at += 1)
      entry.shares[at]?.arrived(frames, ordinals?.[at] ?? 0, position);
    this.#giveBack(frames);
  }

  /**
   * How many of `count` such PUBLISH of `size` bytes that lie side by side may be given to `pass` together: as many as each subscriber can be passed as they
   * came. One may always be given.
   */
  passable(
    { deliveries }: TopicEntry,
    size: number,
    qos: Qos,
    version: ProtocolVersion,
    publisher: Session,
    count: number,
  ): number {
    let most = qos === 0 ? count : Math.min(count, Math.floor(copiesMax / deliveries.length));
    for (let at = 0; at < deliveries.length && most > 1; at += 1) {
      let delivery = deliveries[at];
      if (delivery?.own !== undefined && delivery.session === publisher) delivery = delivery.own ?? undefined;
      if (delivery === undefined) continue;
      const { link, outgoing } = delivery.session;
      if (link === undefined || size > link.packetSizeMax || !goesAsItIs(delivery, link, qos, version)) return 1;
      most = Math.min(most, Math.floor(link.outbox.room / size), qos === 0 ? most : (outgoing.room ?? 0));
    }
    return Math.max(most, 1);
  }

  /**
   * The fast lane: a PUBLISH whose topic needs nothing else goes to its subscribers as the bytes it came in, with QoS 1 and 2 but for the packet id; only
   * for those with another version or QoS, or with subscription identifiers, it is encoded anew. Without DUP and RETAIN, which are not passed on.
   * @param end of the first of `count` such packets, side by side; see `passable`
   */
  pass(
    entry: TopicEntry,
    buffer: Buffer,
    start: number,
    end: number,
    count: number,
    { qos, topicEnd, payloadStart }: PublishView,
    version: ProtocolVersion,
    publisher: Session,
  ): void {
    let frames: PublishFrames | undefined;
    let sent = 0;
    const { deliveries } = entry;
    const idAt = topicEnd - start;
    this.copies += qos === 0 ? deliveries.length : deliveries.length * count;
    for (let at = 0; at < deliveries.length; at += 1) {
      let delivery = deliveries[at];
      if (delivery?.own !== undefined && delivery.session === publisher) delivery = delivery.own ?? undefined;
      if (delivery === undefined) continue;
      const link = delivery.session.link;
      const asItIs = link !== undefined && goesAsItIs(delivery, link, qos, version);
      if (asItIs && end - start > link.packetSizeMax) {
        this.#metrics.dropped("too-large").value += 1;
      } else if (asItIs && qos === 0) {
        link.outbox.append(buffer, start, start + count * (end - start));
        sent += count;
      } else if (asItIs && delivery.session.outgoing.pass?.(buffer, start, end, count, idAt, qos) === true) {
        sent += count;
      } else {
        if (frames === undefined) {
          const payload = buffer.subarray(payloadStart, end);
          const message = { topic: entry.topic, payload, qos, retain: false, source: publisher.source };
          this.came.set(message, buffer, start, end, idAt, version);
          frames = this.#framesOf(message);
        }
        this.#send(delivery, frames, false, 0, 0);
      }
    }
    this.#metrics.sent[qos].value += sent;
    this.#metrics.payloadSent.value += sent * (end - payloadStart);
    if (frames === undefined) return;
    this.came.forget();
    this.#giveBack(frames);
  }

  /** A retained message for a new subscription. */
  single(message: Message, delivery: Delivery, retain: boolean, ordinal: number, group: number): void {
    const frames = this.#framesOf(message);
    this.#send(delivery, frames, retain, ordinal, group);
    this.#giveBack(frames);
  }

  #framesOf(message: Message): PublishFrames {
    const frames = this.#spare ?? new PublishFrames(this.#nowMs);
    this.#spare = undefined;
    frames.set(message, this.came.message === message ? this.came : undefined);
    return frames;
  }

  #giveBack(frames: PublishFrames): void {
    frames.clear();
    this.#spare = frames;
  }

  #deliverTo(delivery: Delivery, frames: PublishFrames, ordinal: number, group: number): void {
    this.#send(delivery, frames, delivery.retainAsPublished && frames.message.retain, ordinal, group); // [MQTT-3.3.1-12, -13]
  }

  #send(delivery: Delivery, frames: PublishFrames, retain: boolean, ordinal: number, group: number): void {
    const { session, ids } = delivery;
    const qos = lowerQos(frames.message.qos, delivery.qos); // [MQTT-3.8.4-8]
    if (qos > 0) {
      session.outgoing.deliver(frames, qos, retain, ids, ordinal, group);
      return;
    }
    const link = session.link;
    if (link === undefined) {
      if (ordinal === 0) this.#metrics.dropped("offline").value += 1;
    } else if (link.outbox.full) {
      this.#metrics.dropped("outbox-full").value += 1;
    } else {
      const frame = frames.frameFor(link, 0, retain, ids);
      if (frame.length > link.packetSizeMax) this.#metrics.dropped("too-large").value += 1;
      else {
        link.outbox.append(frame, 0, frame.length);
        this.#metrics.countSent(0, frames.message.payload.length);
      }
    }
  }
}

/** The bytes that a PUBLISH came in are what this subscriber gets, but for the packet id, and there is room for them. */
const goesAsItIs = (
  { ids, qos: granted }: Delivery,
  { version, outbox }: Link,
  qos: Qos,
  came: ProtocolVersion,
): boolean => version === came && ids === undefined && granted >= qos && outbox.plain;
