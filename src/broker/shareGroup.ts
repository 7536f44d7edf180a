import type { Store, Txn } from "../base/contracts.ts";
import type { Message, Qos } from "../base/message.ts";
import type { Access } from "./access/access.ts";
import type { AckLedger } from "./ackLedger.ts";
import { DurableOutgoing } from "./durableOutgoing.ts";
import { Fifo } from "./fifo.ts";
import { Given } from "./givenMessages.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import { lowerQos, messageBytes, PublishFrames, publishPacket, unexpired } from "./publishFrames.ts";
import { type References, sentKey, shareQueueName, shareTag } from "./references.ts";
import type { Link, Session } from "./session.ts";
import { type Backlog, inStore, MemoryBacklog, StoredBacklog, type Waiting } from "./shareBacklog.ts";
import { encodeFor } from "./topicAliases.ts";
import type { Delivery } from "./topicEntry.ts";
import { VolatileOutgoing, type VolatileTotal } from "./volatileOutgoing.ts";

export interface ShareDeps {
  readonly store: Store;
  readonly ledger: AckLedger;
  readonly references: References;
  readonly metrics: BrokerMetrics;
  readonly limits: BrokerLimits;
  readonly access: Pick<Access, "mayRead">;
  /** What all groups without a durable member hold in memory. */
  readonly total: VolatileTotal;
  /** What the others have read ahead. */
  readonly loaded: VolatileTotal;
}

/** A QoS 2 message that a clean session gets once its mark is durable. */
interface Due {
  readonly group: number;
  readonly link: Link;
  readonly outgoing: VolatileOutgoing;
  readonly packetId: number;
  readonly message: Message;
  readonly member: Delivery;
  readonly retain: boolean;
}

/**
 * The members of one `$share/NAME/FILTER` (MQTT 5 section 4.8.2) and what waits for them. Messages go in turn to the members that are
 * online and have room; DESIGN.md says what becomes of them when a member leaves, and why at each crash point.
 */
export class ShareGroup {
  readonly share: string;
  readonly filter: string;
  readonly stored: StoredBacklog;
  /** What a member's reference says about which of its groups it came from, 1-31; two groups may have the same. */
  readonly tag: number;
  readonly #memory: MemoryBacklog;
  readonly #deps: ShareDeps;
  readonly #frames: PublishFrames;
  readonly #members: Delivery[] = [];
  readonly #due = new Fifo<Due>();
  #next = 0;
  #durable = 0;
  #qosMax: Qos = 0;
  #pumping = false;
  #scheduled = false;
  #awaiting = false;
  #closed = false;

  constructor(share: string, filter: string, deps: ShareDeps) {
    this.share = share;
    this.filter = filter;
    this.#deps = deps;
    this.stored = new StoredBacklog(shareQueueName(share, filter), deps);
    this.tag = shareTag(this.stored.name);
    this.#memory = new MemoryBacklog(deps.limits.session, deps.metrics, deps.total);
    this.#frames = new PublishFrames(() => deps.store.nowMs());
  }

  get references(): References {
    return this.#deps.references;
  }

  get size(): number {
    return this.#members.length;
  }

  get online(): boolean {
    for (const { session } of this.#members) if (session.link !== undefined) return true;
    return false;
  }

  set(delivery: Delivery): void {
    const { session } = delivery;
    const at = this.#members.findIndex((member) => member.session === session);
    if (at >= 0) this.#members[at] = delivery;
    else {
      this.#members.push(delivery);
      session.shares.push(this);
    }
    this.#count();
    this.pumpSoon(); // its SUBACK goes first
  }

  delete(session: Session): void {
    const at = this.#members.findIndex((member) => member.session === session);
    if (at < 0) return;
    this.#members.splice(at, 1);
    session.shares.splice(session.shares.indexOf(this), 1);
    this.#count();
  }

  of(session: Session): Delivery | undefined {
    return this.#members.find((member) => member.session === session);
  }

  /** Nobody is left: what waits is dropped, counted. */
  end(): void {
    this.#closed = true;
    this.#memory.drop();
    this.stored.drop();
  }

  /** The broker stops: nothing is handed on any more. */
  close(): void {
    this.#closed = true;
  }

  /**
   * Whether a message of this QoS is to be stored for the group: with a durable member it survives a restart and waits when nobody is
   * online; what was stored is passed on by the clean ones that are left before they go on without the store.
   */
  stores(qos: Qos, queueQos0: boolean): boolean {
    if (this.#durable === 0 && this.stored.waiting === 0) return false;
    return lowerQos(qos, this.#qosMax) > 0 || (queueQos0 && !this.online);
  }

  /** A message came. @param ordinal of its reference; 0: it is not stored; below: dropped. @param position of the stored message */
  arrived(frames: PublishFrames, ordinal: number, position: number): void {
    const { message } = frames;
    if (ordinal < 0) return;
    if (ordinal > 0) {
      if (this.#pumping || this.#memory.waiting > 0 || !this.online || !this.stored.takes(ordinal)) return; // it is read in its turn
      const { qos, retain } = message;
      const item = { ordinal, message: inStore, qos, retain, acceptedAtMs: frames.acceptedAtMs, position, bytes: 0 };
      this.#guarded(() => this.#give(item, this.stored, frames));
    } else if (lowerQos(message.qos, this.#qosMax) === 0) this.#giveOnce(frames);
    else this.#keep(frames);
  }

  /** Gives what waits, as far as members have room. */
  pump(): void {
    if (this.#pumping || this.#closed || this.#members.length === 0) return;
    if (this.#memory.waiting === 0 && this.stored.waiting <= 0) return;
    this.#guarded(() => this.#giveAll());
    if (this.#memory.waiting === 0 && this.stored.waiting > 0 && this.#hasRoom()) {
      this.stored.read(() => this.pump());
    }
  }

  pumpSoon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.pump();
    });
  }

  /** Now and then: what could not be read or sent is tried again. @returns whether something is left */
  tick(): boolean {
    this.#sendDue();
    this.pump();
    return this.#memory.waiting > 0 || this.stored.waiting > 0 || this.#due.peek() !== undefined;
  }

  #guarded(work: () => unknown): void {
    this.#pumping = true; // sending may call for more, from within
    try {
      work();
    } finally {
      this.#pumping = false;
    }
  }

  #giveAll(): void {
    const { store, metrics } = this.#deps;
    for (;;) {
      const backlog = this.#memory.waiting > 0 ? this.#memory : this.stored;
      const item = backlog.next();
      if (item === undefined) return;
      const message = unexpired(item.message, item.acceptedAtMs, store.nowMs());
      if (message === undefined) {
        metrics.dropped("expired").value += 1;
        discard(backlog, item);
        continue;
      }
      this.#frames.set(message);
      const given = this.#give(item, backlog, this.#frames);
      this.#frames.clear();
      if (!given) return;
    }
  }

  /** To the next member that has room and can take it. False: it has to wait. */
  #give(item: Waiting, backlog: Backlog, frames: PublishFrames): boolean {
    const count = this.#members.length;
    let online = false;
    let fitting = false;
    for (let step = 0; step < count; step += 1) {
      const at = (this.#next + step) % count;
      const member = this.#members[at];
      const link = member?.session.link;
      if (member === undefined || link === undefined || !this.#mayRead(member, frames)) continue;
      online = true;
      const qos = lowerQos(item.qos, member.qos); // [MQTT-4.8.2-3]
      const retain = member.retainAsPublished && item.retain;
      if (!fits(frames, link, member, qos, retain)) continue;
      fitting = true;
      if (qos === 0 ? link.outbox.full : !member.session.outgoing.hasRoom) continue;
      if (!this.#send(item, backlog, frames, link, member, qos, retain)) return false;
      this.#next = at + 1;
      return true;
    }
    const barred = !online && !this.#members.some((member) => this.#mayRead(member, frames));
    if ((!online && !barred) || fitting) return false;
    this.#deps.metrics.dropped(barred ? "denied" : "too-large").value += 1; // none of them will ever take it: it must not block the rest
    discard(backlog, item);
    return true;
  }

  #mayRead({ session }: Delivery, { message }: PublishFrames): boolean {
    return this.#deps.access.mayRead(session, message.topic);
  }

  /** False: the store does not take what has to be written first. */
  #send(
    item: Waiting,
    backlog: Backlog,
    frames: PublishFrames,
    link: Link,
    member: Delivery,
    qos: Qos,
    retain: boolean,
  ): boolean {
    const { session } = member;
    if (qos === 2 && (backlog === this.stored || session.durable)) {
      return this.#sendStored(item, backlog, frames, link, member, retain);
    }
    const before = backlog.before(item);
    const kept = backlog.give(item);
    if (qos === 0) {
      const frame = frames.frameFor(link, 0, retain, member.ids);
      link.outbox.append(frame, 0, frame.length);
      this.#deps.metrics.countSent(0, frames.message.payload.length);
      backlog.done(item);
      return true;
    }
    const again = before?.session === session ? before.packetId : 0;
    const frame =
      again === 0
        ? frames.frameFor(link, qos, retain, member.ids)
        : encodeFor(link, { ...publishPacket(frames.message, qos, retain, again, member.ids), dup: true });
    const given = new Given(this, backlog, session, kept, undefined);
    session.outgoing.share(frame, qos, given, again);
    this.#deps.metrics.countSent(qos, frames.message.payload.length);
    if (qos === 2) given.done();
    return true;
  }

  /** QoS 2 where something must be durable before the PUBLISH: the member's own reference, and that the message is no longer the group's. */
  #sendStored(
    item: Waiting,
    backlog: Backlog,
    frames: PublishFrames,
    link: Link,
    member: Delivery,
    retain: boolean,
  ): boolean {
    const { session } = member;
    const { outgoing } = session;
    const durable = outgoing instanceof DurableOutgoing ? outgoing : undefined;
    const message = frames.owned();
    const write = (txn: Txn): number => {
      if (backlog === this.stored) this.stored.mark(txn, item, durable !== undefined);
      if (durable === undefined) return 0;
      const position = item.position || txn.message(message, []);
      return durable.reference(txn, position, 2, retain, messageBytes(message), this.tag);
    };
    const kept = backlog.give(item);
    let ordinal: number;
    let group: number;
    try {
      ({ value: ordinal, group } = this.#deps.store.commit(write));
    } catch {
      backlog.back(item, undefined);
      return false;
    }
    const key = backlog === this.stored ? sentKey(this.stored.name, item.ordinal) : undefined;
    const given = new Given(this, backlog, session, kept, key);
    const { acceptedAtMs } = item;
    if (durable !== undefined) {
      durable.shareStored({ ordinal, message, qos: 2, retain, ids: member.ids, acceptedAtMs, group, given });
    } else if (outgoing instanceof VolatileOutgoing) {
      this.#due.push({ group, link, outgoing, packetId: outgoing.reserve(given), message, member, retain });
      this.#sendDue();
    }
    return true;
  }

  #sendDue(): void {
    const { ledger, metrics } = this.#deps;
    for (let due = this.#due.peek(); due !== undefined; due = this.#due.peek()) {
      const { group, link, outgoing, packetId, message, member, retain } = due;
      if (group > ledger.durableGroup && link.open) {
        this.#awaitDurable(group);
        return;
      }
      this.#due.shift();
      if (!link.open || !outgoing.keeps(packetId, message)) continue; // it is back with the group
      const frame = encodeFor(link, publishPacket(message, 2, retain, packetId, member.ids));
      outgoing.shareReserved(frame, packetId);
      metrics.countSent(2, message.payload.length);
    }
  }

  #awaitDurable(group: number): void {
    if (this.#awaiting) return;
    this.#awaiting = true;
    this.#deps.ledger.whenDurable(group, (durable) => {
      this.#awaiting = false;
      if (durable) this.#sendDue();
    });
  }

  /** QoS 0: to one that takes it now. */
  #giveOnce(frames: PublishFrames): void {
    const { metrics } = this.#deps;
    const { retain } = frames.message;
    const count = this.#members.length;
    let reason: "offline" | "too-large" | "outbox-full" = "offline";
    for (let step = 0; step < count; step += 1) {
      const at = (this.#next + step) % count;
      const member = this.#members[at];
      const link = member?.session.link;
      if (member === undefined || link === undefined || !this.#mayRead(member, frames)) continue;
      if (link.outbox.full) {
        reason = "outbox-full";
        continue;
      }
      const frame = frames.frameFor(link, 0, member.retainAsPublished && retain, member.ids);
      if (frame.length > link.packetSizeMax) {
        if (reason === "offline") reason = "too-large";
        continue;
      }
      link.outbox.append(frame, 0, frame.length);
      metrics.countSent(0, frames.message.payload.length);
      this.#next = at + 1;
      return;
    }
    metrics.dropped(reason).value += 1;
  }

  /** A group in memory. */
  #keep(frames: PublishFrames): void {
    if (!this.online) {
      this.#deps.metrics.dropped("offline").value += 1;
      return;
    }
    const message = frames.owned();
    const item = this.#memory.entry(message, frames.acceptedAtMs, messageBytes(message));
    if (item === undefined) return;
    if (this.#pumping || this.#memory.waiting > 0 || this.stored.waiting > 0) this.#memory.push(item);
    else this.#guarded(() => this.#give(item, this.#memory, frames) || this.#memory.push(item));
  }

  #hasRoom(): boolean {
    return this.#members.some(
      ({ session: { link, outgoing }, qos }) =>
        link !== undefined && (qos === 0 ? !link.outbox.full : outgoing.hasRoom),
    );
  }

  #count(): void {
    this.#durable = 0;
    this.#qosMax = 0;
    for (const { session, qos } of this.#members) {
      if (session.durable) this.#durable += 1;
      if (qos > this.#qosMax) this.#qosMax = qos;
    }
  }
}

function fits(frames: PublishFrames, link: Link, member: Delivery, qos: Qos, retain: boolean): boolean {
  if (link.packetSizeMax === Number.POSITIVE_INFINITY) return true;
  return frames.frame(link.version, qos, retain, member.ids).length <= link.packetSizeMax;
}

function discard(backlog: Backlog, item: Waiting): void {
  backlog.give(item);
  backlog.done(item);
}
