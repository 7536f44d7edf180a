import type { ReferencedMessage, ReferenceQueue, Txn } from "../base/contracts.ts";
import type { Qos } from "../base/message.ts";
import { packetIdOffset } from "../wire/mqtt/publish.ts";
import { ackByte } from "./ackLedger.ts";
import { type DurableDeps, type Item, type KeptItem, metaOf } from "./durableItem.ts";
import { Fifo } from "./fifo.ts";
import { type Given, GivenMessages } from "./givenMessages.ts";
import type { DropReason } from "./metrics.ts";
import { answers, type PublishFrames, publishPacket, unexpired } from "./publishFrames.ts";
import { clientKey, mapNames, noBytes, queueName } from "./references.ts";
import { idOf, type NextAnswer, ReceivedMessages, SentMessages } from "./sentMessages.ts";
import type { Link, Outgoing, Session } from "./session.ts";
import { encodeFor } from "./topicAliases.ts";

const readBytes = 256 * 1024;

/**
 * Delivery of a session that outlives its connection. Every message is a reference in the store first; its ordinal k gives the packet
 * id 1 + k % 65535, so ids survive a crash unwritten. While there are references not read yet, live messages are only referenced,
 * so nothing overtakes.
 *
 *   ordinals   1 ... | sent, unacknowledged | ready | ... not read ... | next
 *                                                   ^ #cursor
 */
export class DurableOutgoing implements Outgoing {
  readonly #session: Session;
  readonly #deps: DurableDeps;
  readonly #queue: string;
  readonly #inflight = new SentMessages();
  readonly #ready = new Fifo<Item | KeptItem>();
  /** QoS 1 of shared groups: no references of this session. */
  readonly #given = new GivenMessages();
  readonly #received: ReceivedMessages;
  /** The newest group that says so of one of them. */
  #receivedGroup = 0;
  #resumed: ReadonlySet<number> = new Set(); // those whose PUBREL this connection began with
  #cursor = 0;
  /** All references up to here that were not read were dropped. */
  #droppedUpTo = 0;
  /** Ordinals that this connection has not read and that gave way to a full store. */
  #gaveWay = { from: 0, upTo: -1 };
  /** Newest ordinal that any connection was sent: DUP is set up to here. */
  #sentUpTo: number;
  #sentBefore = 0;
  /** The same without a guess: after a crash `sentUpTo` is the most that may have been sent. */
  #surelySent: number;
  #surelySentBefore = 0;
  #known: ReferenceQueue | undefined;
  /** Changes with each connection, so that an old read cannot disturb a new one. */
  #epoch = 0;
  #reading = false;
  #awaitingGroup = false;

  /** @param sentUpTo newest ordinal that may have been sent in an earlier run. @param surelySent the newest that was */
  constructor(session: Session, deps: DurableDeps, sentUpTo: number, surelySent: number, recSeen: readonly number[]) {
    this.#session = session;
    this.#deps = deps;
    this.#queue = queueName(session.clientId);
    this.#sentUpTo = sentUpTo;
    this.#surelySent = surelySent;
    this.#received = new ReceivedMessages(recSeen);
  }

  get inflight(): number {
    return this.#inflight.size + this.#given.size;
  }

  get waiting(): number {
    return Math.max(0, this.#deps.references.waiting(this.#queue) - this.#inflight.size);
  }

  get sentUpTo(): number {
    return this.#sentUpTo;
  }

  /** Ordinals of QoS 2 messages whose PUBREC came. */
  recSeenOrdinals(): Iterable<number> {
    return this.#received.of(this.#inflight);
  }

  /**
   * Room for one more reference, by dropping the oldest that is not on its way where the policy says so. False: this one is dropped.
   * Has commits of its own, so it must be called before the one that adds the reference.
   */
  makeRoom(bytes: number): boolean {
    if (!this.#isFull(bytes)) return true;
    const { references, limits, metrics } = this.#deps;
    references.flush();
    while (this.#isFull(bytes)) {
      const victim = limits.session.whenFull === "drop-oldest" && bytes <= limits.session.maxBytes ? this.#victim() : 0;
      if (victim === 0) {
        metrics.dropped("queue-full").value += 1;
        return false;
      }
      if (references.releaseNow(this.#queue, victim)) metrics.dropped("queue-full").value += 1;
      else if (this.#session.link === undefined) return false;
    }
    return true;
  }

  /** Lets go of the oldest that no connection was ever sent, because the store is full. @returns bytes */
  giveWay(bytes: number): number {
    const { references, metrics } = this.#deps;
    references.flush();
    const taken = this.#session.link === undefined ? 0 : Math.max(this.#cursor, this.#droppedUpTo);
    const oldest = this.#references()?.oldest()?.ordinal ?? 1;
    const from = Math.max(taken, this.#sentUpTo, this.#gaveWay.upTo, oldest - 1) + 1;
    const released = references.releaseFrom(this.#queue, from, bytes);
    if (released.messages === 0) return 0;
    metrics.dropped("store-full").value += released.messages;
    if (this.#gaveWay.upTo < 0) this.#gaveWay.from = from;
    this.#gaveWay.upTo = released.upTo;
    return released.bytes;
  }

  /** Makes the session wait for a stored message; returns the ordinal. @param bytes of the message, as limits count them */
  reference(txn: Txn, position: number, qos: Qos, retain: boolean, bytes: number, tag = 0): number {
    return this.#deps.references.add(txn, this.#queue, position, metaOf(qos, retain, tag), bytes);
  }

  deliver(
    frames: PublishFrames,
    qos: Qos,
    retain: boolean,
    ids: readonly number[] | undefined,
    ordinal: number,
    group: number,
  ): void {
    const link = this.#session.link;
    if (link === undefined || ordinal === 0 || this.#reading || this.#cursor !== ordinal - 1) return;
    if (this.inflight + this.#ready.size >= link.window || link.outbox.full) return; // it is read from the store later
    this.#cursor = ordinal;
    const atOnce = qos === 1 && this.#ready.size === 0 && this.#idFree(ordinal);
    const came = atOnce ? frames.cameAs(link, qos, retain, ids === undefined) : undefined;
    if (came !== undefined) {
      link.outbox.appendWithId(came.buffer, came.start, came.end, came.idAt, this.#sending(ordinal, "puback"));
      this.#deps.metrics.countSent(1, frames.message.payload.length);
      return;
    }
    const frame = atOnce ? frames.frameFor(link, qos, retain, ids) : undefined;
    if (frame === undefined || frame.length > link.packetSizeMax) {
      const { acceptedAtMs } = frames;
      // After a crash even a new ordinal may be one that was sent.
      const packet = ordinal > this.#sentBefore ? frames.keep(link, qos, retain, ids) : undefined;
      if (packet !== undefined) this.#ready.push({ ordinal, qos, group, packet });
      else this.#ready.push({ ordinal, message: frames.owned(), qos, retain, ids, acceptedAtMs, group });
      this.pump();
      return;
    }
    link.outbox.appendWithId(frame, 0, frame.length, packetIdOffset(frame), this.#sending(ordinal, "puback"));
    this.#deps.metrics.countSent(1, frames.message.payload.length);
  }

  get hasRoom(): boolean {
    const { link } = this.#session;
    if (link === undefined || this.#reading || this.inflight + this.#ready.size >= link.window) return false;
    if (link.outbox.full) return false;
    return this.#cursor >= (this.#references()?.nextOrdinal ?? 1) - 1;
  }

  share(frame: Buffer, _qos: Qos, given: Given, wantedId: number): void {
    const packetId = this.#given.freeId(wantedId, this.#inflight, this.#references()?.nextOrdinal ?? 1);
    this.#given.add(packetId, given);
    this.#session.link?.outbox.appendWithId(frame, 0, frame.length, packetIdOffset(frame), packetId);
  }

  /** A group's QoS 2 message, which has a reference of this session now. Only while `hasRoom`. */
  shareStored(item: Item): void {
    this.#cursor = item.ordinal;
    this.#ready.push(item);
    this.pump();
  }

  puback(packetId: number): void {
    if (this.#given.done(packetId)) {
      this.pump();
      return;
    }
    if (!answers(this.#inflight.next(packetId), "puback")) return;
    this.#done(packetId, this.#inflight.ordinal(packetId));
  }

  pubrec(packetId: number, reasonCode: number): void {
    const link = this.#session.link;
    const ordinal = this.#inflight.ordinal(packetId);
    if (link === undefined) return;
    const expected = this.#expected(packetId);
    answers(expected === "pubcomp" ? "pubrec" : expected, "pubrec");
    if (reasonCode >= 0x80) {
      if (ordinal === 0) return;
      this.#deps.metrics.dropped("client-refused").value += 1;
      this.#done(packetId, ordinal);
      return;
    }
    let group = 0;
    if (expected === "pubrec") {
      this.#inflight.set(ordinal, "pubcomp");
      const key = clientKey(this.#session.clientId, ordinal);
      try {
        group = this.#receivedGroup = this.#deps.store.commit((txn) => txn.put(mapNames.qos2Out, key, noBytes)).group;
        this.#received.add(ordinal);
      } catch {
        link.storeLost();
        return;
      }
    }
    this.#deps.ledger.add(link, ackByte.pubrel, packetId, ordinal === 0 ? 0x92 : 0, group);
  }

  pubcomp(packetId: number): void {
    if (answers(this.#expected(packetId), "pubcomp")) this.#done(packetId, this.#inflight.ordinal(packetId));
  }

  #expected(packetId: number): NextAnswer | undefined {
    return this.#given.has(packetId) ? "puback" : this.#inflight.next(packetId);
  }

  attached(): void {
    const { link } = this.#session;
    this.#deps.references.flush(); // what was acknowledged must not be read again
    this.#epoch += 1;
    this.#reading = this.#awaitingGroup = false;
    const received = this.#received.of(this.#inflight);
    this.#inflight.clear();
    this.#ready.clear();
    this.#known = undefined;
    this.#cursor = this.#droppedUpTo = 0;
    this.#gaveWay = { from: 0, upTo: -1 };
    this.#sentBefore = this.#sentUpTo;
    this.#surelySentBefore = this.#surelySent;
    this.#resumed = new Set(received);
    if (link === undefined) return;
    // The client forgets the id with PUBREL, so it waits for the disk on this connection too.
    for (const ordinal of received) {
      this.#deps.ledger.add(link, ackByte.pubrel, this.#sending(ordinal, "pubcomp"), 0, this.#receivedGroup);
    }
    this.pump();
  }

  detached(): void {
    this.#epoch += 1;
    this.#reading = this.#awaitingGroup = false;
    this.#received.of(this.#inflight);
    this.#inflight.clear();
    this.#given.back(true);
    for (let item = this.#ready.shift(); item !== undefined; item = this.#ready.shift()) {
      item.given?.back(0, { queue: this.#queue, ordinal: item.ordinal });
    }
  }

  pump(): void {
    const link = this.#session.link;
    if (link === undefined) return;
    for (let item = this.#ready.peek(); item !== undefined; item = this.#ready.peek()) {
      if (this.inflight >= link.window || link.outbox.full || !this.#idFree(item.ordinal)) return;
      if (item.qos === 2 && item.group > this.#deps.ledger.durableGroup) {
        this.#pumpWhenDurable(item.group);
        return;
      }
      this.#ready.shift();
      if (item.packet !== undefined) this.#sendKept(link, item);
      else this.#send(link, item);
    }
    if (this.inflight < link.window && !link.outbox.full) this.#read(link);
    if (this.#session.shares.length > 0 && this.hasRoom) this.#session.pull();
  }

  #sendKept(link: Link, { ordinal, qos, packet }: KeptItem): void {
    const { buffer, start, end, idAt, topic, payloadBytes } = packet;
    if (!this.#deps.access.mayRead(this.#session, topic)) return this.#drop("denied", ordinal);
    if (end - start > link.packetSizeMax) return this.#drop("too-large", ordinal);
    link.outbox.appendWithId(buffer, start, end, idAt, this.#sending(ordinal, qos === 1 ? "puback" : "pubrec"));
    this.#deps.metrics.countSent(qos, payloadBytes);
  }

  #drop(reason: DropReason, ordinal: number): void {
    this.#deps.metrics.dropped(reason).value += 1;
    this.#deps.references.release(this.#queue, ordinal);
  }

  #send(link: Link, item: Item): void {
    if (!this.#deps.access.mayRead(this.#session, item.message.topic)) {
      if (item.given === undefined) this.#drop("denied", item.ordinal);
      else item.given.back(0, { queue: this.#queue, ordinal: item.ordinal }); // others of the group may
      return;
    }
    item.given?.done(); // from here on it is this session's alone
    // Only what nobody began to send expires [MQTT-3.3.2-5]: a PUBLISH without its answer is sent again [MQTT-4.4.0-1].
    const begun = item.ordinal <= this.#surelySentBefore;
    const message = unexpired(item.message, item.acceptedAtMs, this.#deps.store.nowMs(), begun);
    const packetId = idOf(item.ordinal);
    const packet = message && publishPacket(message, item.qos, item.retain, packetId, item.ids);
    const dup = item.qos > 0 && item.ordinal <= this.#sentBefore;
    const frame = packet && encodeFor(link, dup ? { ...packet, dup } : packet);
    if (frame === undefined || frame.length > link.packetSizeMax) {
      this.#drop(frame === undefined ? "expired" : "too-large", item.ordinal);
      return;
    }
    link.outbox.append(frame, 0, frame.length);
    this.#deps.metrics.countSent(item.qos, item.message.payload.length);
    if (item.qos === 0) this.#deps.references.release(this.#queue, item.ordinal);
    else this.#sending(item.ordinal, item.qos === 1 ? "puback" : "pubrec");
  }

  /** Takes the ordinal into the window; returns its packet id. */
  #sending(ordinal: number, next: NextAnswer): number {
    this.#inflight.set(ordinal, next);
    if (ordinal > this.#sentUpTo) this.#sentUpTo = ordinal;
    if (ordinal > this.#surelySent) this.#surelySent = ordinal;
    return idOf(ordinal);
  }

  #done(packetId: number, ordinal: number): void {
    const received = this.#inflight.next(packetId) === "pubcomp";
    this.#inflight.delete(packetId);
    if (received) this.#received.done(this.#inflight);
    const recKey = received ? clientKey(this.#session.clientId, ordinal) : undefined;
    this.#deps.references.release(this.#queue, ordinal, recKey);
    this.pump();
  }

  /** Two ordinals 65535 apart have the same packet id: the older one must be done first. */
  #idFree(ordinal: number): boolean {
    const id = idOf(ordinal);
    return !this.#inflight.has(id) && !this.#given.has(id);
  }

  #pumpWhenDurable(group: number): void {
    if (this.#awaitingGroup) return;
    this.#awaitingGroup = true;
    const epoch = this.#epoch;
    this.#deps.ledger.whenDurable(group, (durable) => {
      if (epoch !== this.#epoch) return;
      this.#awaitingGroup = false;
      if (durable) this.pump();
    });
  }

  #read(link: Link): void {
    const queue = this.#references();
    if (queue === undefined || this.#reading || this.#cursor >= queue.nextOrdinal - 1) return;
    if (queue.size === 0) {
      this.#cursor = queue.nextOrdinal - 1; // nothing waits; what comes next follows on it
      return;
    }
    this.#reading = true;
    const epoch = this.#epoch;
    const upTo = queue.nextOrdinal - 1;
    const limits = { messages: Math.max(1, link.window - this.inflight), bytes: readBytes };
    queue.read(this.#cursor, limits).then(
      (batch) => {
        if (epoch === this.#epoch) this.#took(batch, upTo);
      },
      () => {
        // The store counts what it cannot read; the connection ends so that the client asks again.
        if (epoch === this.#epoch) this.#session.link?.close(0x80);
      },
    );
  }

  #took(batch: readonly ReferencedMessage[], upTo: number): void {
    this.#reading = false;
    for (const read of batch) {
      this.#cursor = Math.max(this.#cursor, read.ordinal);
      if (read.ordinal <= this.#droppedUpTo || this.#resumed.has(read.ordinal)) continue;
      if (read.ordinal >= this.#gaveWay.from && read.ordinal <= this.#gaveWay.upTo) continue;
      const { ordinal, meta, message, acceptedAtMs, group } = read;
      const qos = (meta & 3) as Qos; // what metaOf wrote
      const ids = this.#session.usesIds ? this.#deps.idsFor(this.#session, message.topic, meta >> 3) : undefined;
      this.#ready.push({ ordinal, message, qos, retain: (meta & 4) !== 0, ids, acceptedAtMs, group });
    }
    if (batch.length === 0) this.#cursor = Math.max(this.#cursor, upTo); // all of them were dropped meanwhile
    this.pump();
  }

  /** Kept from one time to the next: it is asked for with each message and each acknowledgement. */
  #references(): ReferenceQueue | undefined {
    if (this.#known?.ended !== false) this.#known = this.#deps.store.references(this.#queue);
    return this.#known;
  }

  #isFull(bytes: number): boolean {
    return !this.#deps.references.hasRoom(this.#references(), bytes, this.#deps.limits);
  }

  /** The oldest ordinal that is not on its way (online it may be a released one, then the next is tried); 0: none. */
  #victim(): number {
    const queue = this.#references();
    if (queue === undefined) return 0;
    if (this.#session.link === undefined) {
      const oldest = queue.oldest()?.ordinal ?? 0;
      return this.#received.of(this.#inflight).includes(oldest) ? 0 : oldest;
    }
    let next = Math.max(this.#cursor, this.#droppedUpTo, (queue.oldest()?.ordinal ?? 1) - 1) + 1;
    while (this.#inflight.awaitsPubcomp(next)) next += 1;
    if (next >= queue.nextOrdinal) return 0;
    this.#droppedUpTo = next;
    return next;
  }
}
