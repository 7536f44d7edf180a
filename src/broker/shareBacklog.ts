import type { ReferencedMessage, ReferenceQueue, Store, Txn } from "../base/contracts.ts";
import type { Message, Qos } from "../base/message.ts";
import { Fifo } from "./fifo.ts";
import type { BrokerMetrics } from "./metrics.ts";
import { OldestFirst } from "./oldestFirst.ts";
import type { BrokerLimits } from "./options.ts";
import { messageBytes } from "./publishFrames.ts";
import { mapNames, type References, sentKey } from "./references.ts";
import type { Session } from "./session.ts";
import type { VolatileTotal } from "./volatileOutgoing.ts";

/** One message of a shared group. */
export interface Waiting {
  /** Rises within its backlog. */
  readonly ordinal: number;
  readonly message: Message;
  /** As published; each member's own subscription may lower it. */
  readonly qos: Qos;
  readonly retain: boolean;
  readonly acceptedAtMs: number;
  /** Of the stored message; 0: it is in memory only. */
  readonly position: number;
  readonly bytes: number;
}

/** Who was sent a message that came back, and under which id: to the same session it goes again with DUP and that id [MQTT-4.4.0-1]. */
export interface Before {
  readonly session: Session;
  readonly packetId: number;
}

/** What a group has to give: each message waits, then is with a member, and is done or comes back to its old place. */
export interface Backlog {
  /** The group is no more. */
  readonly ended: boolean;
  /** The oldest that waits, if it is in memory. */
  next(): Waiting | undefined;
  /** It goes to a member. @returns what has to be kept of it until `done` or `back` */
  give(item: Waiting): Waiting;
  /** With nobody any more: acknowledged, refused, or gone with a session. */
  done(item: Waiting): void;
  /** It waits again, at its old place. */
  back(item: Waiting, before: Before | undefined): void;
  before(item: Waiting): Before | undefined;
}

/** Stands for a message that the store has and memory need not. */
export const inStore: Message = { topic: "", payload: new Uint8Array(0), qos: 0, retain: false, source: "" };

/** A waiting message costs this much besides its own bytes. */
const entryBytes = 200;
const readLimits = { messages: 64, bytes: 256 * 1024 };
/** What all groups together may have read ahead, or be reading: one client can be a member of a thousand. Beyond it they take turns. */
const loadedMax = 16 * 1024 * 1024;

export interface StoredDeps {
  readonly store: Store;
  readonly references: References;
  readonly metrics: BrokerMetrics;
  readonly limits: BrokerLimits;
  /** What all groups have read ahead. */
  readonly loaded: VolatileTotal;
}

/**
 * A group's queue in the store. Its reference stays while a message is with a member at QoS 1, so that what is known in memory only (who
 * has it) need not survive: after a crash everything that waits here is with nobody.
 *
 *   ordinals   1 ... with members, or released | ready | ... not read ... | next
 *                                      ^ #cursor after #ready
 *
 * What comes back moves the cursor back to it; those above it that are with members are passed over when they are read again.
 */
export class StoredBacklog implements Backlog {
  readonly name: string;
  readonly #deps: StoredDeps;
  readonly #ready = new Fifo<Waiting>();
  #readyBytes = 0;
  /** With members; true: marked in the store as sent at QoS 2, or about to be. */
  readonly #given = new Map<number, boolean>();
  /** Done since the cursor moved back to before them: the store may still have them, since it is told lazily. */
  readonly #done = new Set<number>();
  readonly #before = new Map<number, Before>();
  #cursor = 0;
  /** Changes when the cursor moves back, so that a read that is under way does not count. */
  #epoch = 0;
  #reading = false;
  ended = false;

  constructor(name: string, deps: StoredDeps) {
    this.name = name;
    this.#deps = deps;
  }

  /** Messages that are with nobody. */
  get waiting(): number {
    return this.#deps.references.waiting(this.name) - this.#given.size;
  }

  get bytes(): number {
    return this.#queue()?.bytes ?? 0;
  }

  /** Room for one more, as the policy for sessions says. False: this one is dropped. Has commits of its own. */
  makeRoom(bytes: number): boolean {
    if (!this.#isFull(bytes)) return true;
    const { references, limits, metrics } = this.#deps;
    const { whenFull, maxBytes } = limits.session;
    references.flush();
    while (this.#isFull(bytes)) {
      const victim = whenFull === "drop-oldest" && bytes <= maxBytes ? this.#victim() : 0;
      metrics.dropped("queue-full").value += 1;
      if (victim === 0 || !references.releaseNow(this.name, victim)) return false;
    }
    return true;
  }

  /** @returns the ordinal @param bytes of the message, as limits count them */
  reference(txn: Txn, position: number, qos: Qos, retain: boolean, bytes: number): number {
    return this.#deps.references.add(txn, this.name, position, qos | (retain ? 4 : 0), bytes);
  }

  /** Whether the message just referenced may be given without being read: nothing older waits. It then counts as `next`. */
  takes(ordinal: number): boolean {
    if (this.#reading || this.#ready.size > 0) return false;
    return this.#cursor === ordinal - 1 || this.waiting === 1;
  }

  next(): Waiting | undefined {
    return this.#ready.peek();
  }

  give(item: Waiting): Waiting {
    if (this.#ready.peek() === item) this.#shift();
    this.#cursor = Math.max(this.#cursor, item.ordinal);
    this.#given.set(item.ordinal, false);
    this.#before.delete(item.ordinal);
    return item.message === inStore ? item : { ...item, message: inStore };
  }

  /** Marks it in this commit as gone to a member at QoS 2: from then on it is nobody else's, whatever happens. Durable before it is sent. */
  mark(txn: Txn, item: Waiting, durable: boolean): void {
    txn.put(mapNames.shareSent, sentKey(this.name, item.ordinal), Uint8Array.of(durable ? 0 : 1));
    this.#given.set(item.ordinal, true);
  }

  done({ ordinal }: Waiting): void {
    const marked = this.#given.get(ordinal);
    if (this.ended || marked === undefined) return;
    this.#given.delete(ordinal);
    if (ordinal > this.#cursor) this.#done.add(ordinal);
    this.#deps.references.release(this.name, ordinal, undefined, marked ? sentKey(this.name, ordinal) : undefined);
  }

  /** Its mark, if there was one, must have been deleted. */
  back({ ordinal }: Waiting, before: Before | undefined): void {
    if (this.ended || !this.#given.delete(ordinal)) return;
    if (before !== undefined) this.#before.set(ordinal, before);
    this.#rewind(ordinal - 1);
  }

  before({ ordinal }: Waiting): Before | undefined {
    return this.#before.get(ordinal);
  }

  /** Reads on, if something waits that is not read. @param then called when there is something new for `next`, perhaps */
  read(then: () => void): void {
    const queue = this.#queue();
    const { loaded } = this.#deps;
    if (queue === undefined || this.#reading || this.#ready.size > 0 || loaded.bytes >= loadedMax) return;
    this.#reading = true;
    loaded.bytes += readLimits.bytes;
    const epoch = this.#epoch;
    queue.read(this.#cursor, readLimits).then(
      (batch) => {
        loaded.bytes -= readLimits.bytes;
        if (epoch !== this.#epoch) return;
        this.#reading = false;
        for (const read of batch) this.#took(read);
        if (batch.length > 0) then();
      },
      () => {
        loaded.bytes -= readLimits.bytes;
        if (epoch === this.#epoch) this.#reading = false; // tried again with the broker's next tick
      },
    );
  }

  /** Lets go of the oldest that are with nobody, because the store is full. @returns bytes */
  giveWay(bytes: number): number {
    const { references, metrics } = this.#deps;
    references.flush();
    const first = this.#ready.peek();
    if (first !== undefined) this.#rewind(this.#cursor);
    const released = references.releaseFrom(this.name, this.#cursor + 1, bytes, (ordinal) => {
      if (this.#given.has(ordinal)) return true;
      this.#before.delete(ordinal);
      return false;
    });
    this.#cursor = Math.max(this.#cursor, released.upTo);
    metrics.dropped("store-full").value += released.messages;
    return released.bytes;
  }

  /** The group is no more: its queue goes, and so do its marks. Answers that come later mean nothing. */
  drop(): void {
    this.ended = true;
    this.#epoch += 1; // what is being read is nobody's
    this.#clear();
    const { store, references, metrics } = this.#deps;
    references.flush();
    if (this.#queue() === undefined || store.failed !== undefined) return;
    const lost = this.waiting;
    try {
      store.commit((txn) => {
        for (const [ordinal, marked] of this.#given) {
          if (marked) txn.delete(mapNames.shareSent, sentKey(this.name, ordinal));
        }
        references.drop(txn, this.name);
      });
      if (lost > 0) metrics.dropped("session-ended").value += lost;
    } catch {
      metrics.dropped("write-failed").value += 1;
    }
  }

  #took(read: ReferencedMessage): void {
    const { ordinal, meta, message, acceptedAtMs, position } = read;
    if (ordinal <= this.#cursor) return; // gave way meanwhile
    this.#cursor = ordinal;
    if (this.#done.delete(ordinal) || this.#given.has(ordinal)) return;
    const qos = (meta & 3) as Qos; // what `reference` wrote
    const bytes = messageBytes(message) + entryBytes;
    this.#ready.push({ ordinal, message, qos, retain: (meta & 4) !== 0, acceptedAtMs, position, bytes });
    this.#readyBytes += bytes;
    this.#deps.loaded.bytes += bytes;
  }

  #shift(): Waiting | undefined {
    const item = this.#ready.shift();
    this.#readyBytes -= item?.bytes ?? 0;
    this.#deps.loaded.bytes -= item?.bytes ?? 0;
    return item;
  }

  #clear(): void {
    this.#ready.clear();
    this.#deps.loaded.bytes -= this.#readyBytes;
    this.#readyBytes = 0;
  }

  #rewind(cursor: number): void {
    this.#deps.references.flush();
    this.#done.clear(); // the store knows them now
    const readFrom = (this.#ready.peek()?.ordinal ?? Number.POSITIVE_INFINITY) - 1; // it is let go of, so read again as well
    this.#clear();
    this.#cursor = Math.min(this.#cursor, cursor, readFrom);
    this.#epoch += 1;
    this.#reading = false;
  }

  #queue(): ReferenceQueue | undefined {
    return this.#deps.store.references(this.name);
  }

  #isFull(bytes: number): boolean {
    return !this.#deps.references.hasRoom(this.#queue(), bytes, this.#deps.limits);
  }

  /** The oldest that is with nobody, passed over from now on; 0: none. */
  #victim(): number {
    const ready = this.#shift();
    if (ready !== undefined) {
      this.#before.delete(ready.ordinal);
      return ready.ordinal;
    }
    const queue = this.#queue();
    let next = queue?.nextAfter(this.#cursor) ?? 0;
    while (next > 0 && this.#given.has(next)) next = queue?.nextAfter(next) ?? 0;
    if (next > 0) this.#cursor = next;
    this.#before.delete(next);
    return next;
  }
}

/** All groups in memory together may hold as much as this many full ones, and each this many messages beyond that. */
const fullGroupsMax = 4;
const messagesMin = 32;

/** A group of clean sessions only: what waits, and what may come back, is in memory, within the limits of one session. */
export class MemoryBacklog implements Backlog {
  readonly #limits: BrokerLimits["session"];
  readonly #metrics: BrokerMetrics;
  readonly #total: VolatileTotal;
  readonly #waiting = new Fifo<Waiting>();
  /** Came back: older than all that wait. */
  readonly #again = new OldestFirst<Waiting>();
  readonly #before = new Map<number, Before>();
  readonly #given = new Set<number>();
  ended = false;
  #bytes = 0;
  #nextOrdinal = 1;

  constructor(limits: BrokerLimits["session"], metrics: BrokerMetrics, total: VolatileTotal) {
    this.#limits = limits;
    this.#metrics = metrics;
    this.#total = total;
  }

  get waiting(): number {
    return this.#waiting.size + this.#again.size;
  }

  /** Makes an entry of it, if there is room; it neither waits yet nor is with anybody. */
  entry(message: Message, acceptedAtMs: number, bytes: number): Waiting | undefined {
    const cost = bytes + entryBytes;
    while (this.#isFull(cost)) {
      this.#metrics.dropped("queue-full").value += 1;
      const oldest = this.#limits.whenFull === "drop-newest" ? undefined : this.#waiting.shift();
      if (oldest === undefined) return undefined;
      this.#left(oldest);
    }
    this.#bytes += cost;
    this.#total.bytes += cost;
    const { qos, retain } = message;
    return { ordinal: this.#nextOrdinal++, message, qos, retain, acceptedAtMs, position: 0, bytes: cost };
  }

  push(item: Waiting): void {
    this.#waiting.push(item);
  }

  next(): Waiting | undefined {
    return this.#again.peek() ?? this.#waiting.peek();
  }

  give(item: Waiting): Waiting {
    if (this.#again.peek() === item) this.#again.shift();
    else if (this.#waiting.peek() === item) this.#waiting.shift();
    this.#before.delete(item.ordinal);
    this.#given.add(item.ordinal);
    return item;
  }

  done(item: Waiting): void {
    if (this.#given.delete(item.ordinal)) this.#left(item);
  }

  back(item: Waiting, before: Before | undefined): void {
    if (this.ended || !this.#given.delete(item.ordinal)) return;
    if (before !== undefined) this.#before.set(item.ordinal, before);
    this.#again.add(item);
  }

  before({ ordinal }: Waiting): Before | undefined {
    return this.#before.get(ordinal);
  }

  drop(): void {
    this.ended = true;
    if (this.waiting > 0) this.#metrics.dropped("session-ended").value += this.waiting;
    this.#waiting.clear();
    this.#again.clear();
    this.#before.clear();
    this.#given.clear();
    this.#total.bytes -= this.#bytes;
    this.#bytes = 0;
  }

  #left({ ordinal, bytes }: Waiting): void {
    this.#before.delete(ordinal);
    this.#bytes -= bytes;
    this.#total.bytes -= bytes;
  }

  /** What is with members counts too: it is kept until they have acknowledged it. */
  #isFull(bytes: number): boolean {
    const { maxMessages, maxBytes } = this.#limits;
    if (this.#waiting.size >= maxMessages || this.#bytes + bytes > maxBytes) return true;
    return this.#waiting.size >= messagesMin && this.#total.bytes + bytes > fullGroupsMax * maxBytes;
  }
}
