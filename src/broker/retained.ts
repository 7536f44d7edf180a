import type { Clock, Timer } from "../base/clock.ts";
import type { Store, Txn } from "../base/contracts.ts";
import type { Message } from "../base/message.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import { messageBytes, ownedMessage } from "./publishFrames.ts";
import { type TopicCursor, TopicTree } from "./topicTree.ts";

/** A message with the store clock's time at which it was accepted. */
export interface Held {
  readonly message: Message;
  readonly acceptedAtMs: number;
}

/** What is known of a topic's value: where it lies. A payload is in memory only as long as the store does not have it. */
export interface RetainedValue {
  readonly topic: string;
  /** Of its record in the store; 0 while it has none ($SYS, or QoS 0 not yet written); -1 once it is no longer the topic's value. */
  position: number;
  /** 0 until it is known: after a start all are weighed one by one. */
  bytes: number;
  /** Store clock; Infinity without an expiry, and until it is known. */
  expiresAtMs: number;
  held: Held | undefined;
}

const lazyMs = 1000;
const dirtyMax = 10_000;
/** How many values one turn of the event loop takes up, writes or looks through. */
const sliceValues = 1000;
const sliceSteps = 4000;
/** How often values may be looked through for expired ones, when there is no room. */
const sweepMs = 100;
const readLimits = { messages: 256, bytes: 256 * 1024 };

/**
 * The last retained message of each topic: in memory its place, in the store its payload. A QoS 0 value is written with the next commit
 * or after a second, the last one per topic; values of `sys` never, they stay in memory and count against no limit.
 */
export class Retained {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #metrics: BrokerMetrics;
  readonly #limits: BrokerLimits["retained"];
  readonly #values = new TopicTree<RetainedValue>();
  #bytes = 0;
  #sysCount = 0;
  /** Topics of which memory knows more than the store. */
  readonly #dirty = new Set<string>();
  #timer: Timer | undefined;
  #flushing = false;
  #sweepDueMs = 0;
  #sweep: TopicCursor<RetainedValue> | undefined;
  /** Topics set or removed while the store's values are still being taken up. */
  #touched: Set<string> | undefined = new Set();
  #closed = false;

  constructor(deps: { store: Store; clock: Clock; metrics: BrokerMetrics; limits: BrokerLimits["retained"] }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#metrics = deps.metrics;
    this.#limits = deps.limits;
  }

  get count(): number {
    return this.#values.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Takes up what the store holds; all of it, whatever the limits say now: what is not known here could never be removed. */
  async load(): Promise<void> {
    let taken = 0;
    for (const [topic, position] of this.#store.retained()) {
      if (this.#touched?.has(topic) === true) continue;
      this.#values.set(topic, { topic, position, bytes: 0, expiresAtMs: Number.POSITIVE_INFINITY, held: undefined });
      taken += 1;
      if (taken % sliceValues === 0) await nextTurn();
    }
    this.#touched = undefined;
  }

  /** Learns size and expiry of what `load` took up, by reading it once, beside everything else. Never rejects. */
  async weigh(): Promise<void> {
    const cursor = this.#values.cursor("#");
    while (!cursor.done && !this.#closed) {
      const unknown = cursor.next(sliceValues, sliceSteps).filter(({ bytes, position }) => bytes === 0 && position > 0);
      unknown.sort((a, b) => a.position - b.position);
      for (let at = 0; at < unknown.length && !this.#closed; ) at += (await this.read(unknown.slice(at))).length;
      await nextTurn();
    }
  }

  /** Values whose topic `filter` matches. */
  cursor(filter: string): TopicCursor<RetainedValue> {
    return this.#values.cursor(filter);
  }

  /**
   * Payloads of the first of these values, at least one, as many as fit into one read; undefined where it is no longer the topic's value, has
   * expired or has rotted, and `changed` where another has taken its place meanwhile. Never rejects.
   */
  async read(values: readonly RetainedValue[]): Promise<Array<Held | "changed" | undefined>> {
    const [first] = values;
    if (first !== undefined && first.position <= 0) return [this.#fresh(first)?.held];
    const stored = values.slice(0, readLimits.messages).map(({ position }) => position);
    const inMemory = stored.findIndex((position) => position <= 0);
    const positions = inMemory < 0 ? stored : stored.slice(0, inMemory);
    const found = await this.#store.readMany(positions, readLimits.bytes);
    return found.map((held, at) => {
      const value = values[at];
      const position = positions[at];
      return value === undefined || position === undefined ? undefined : this.#found(value, position, held);
    });
  }

  #found(value: RetainedValue, position: number, held: Held | "later" | undefined): Held | "changed" | undefined {
    if (value.position !== position) return value.position < 0 ? undefined : "changed";
    if (held === "later") {
      this.#metrics.dropped("read-failed").value += 1;
      return undefined;
    }
    if (held === undefined) {
      this.#metrics.dropped("rotten").value += 1;
      this.#remove(value);
      this.#mark(value.topic);
      return undefined;
    }
    if (value.bytes === 0) {
      value.bytes = messageBytes(held.message);
      this.#bytes += value.bytes;
      value.expiresAtMs = expiryOf(held.message, held.acceptedAtMs);
    }
    return this.#fresh(value) === undefined ? undefined : held;
  }

  /** Whether the limits allow this value in place of the topic's present one. An empty payload always has room: it removes. */
  hasRoom(topic: string, message: Message): boolean {
    if (message.source === "sys" || this.#fits(topic, message)) return true;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#sweepDueMs) return false;
    this.#sweepDueMs = nowMs + sweepMs;
    if (this.#sweep === undefined || this.#sweep.done) this.#sweep = this.#values.cursor("#");
    for (const value of this.#sweep.next(sliceSteps, sliceSteps)) this.#fresh(value);
    return this.#fits(topic, message);
  }

  #fits(topic: string, message: Message): boolean {
    const before = this.#values.get(topic);
    const bytes = this.#bytes - (before?.bytes ?? 0) + messageBytes(message);
    const count = this.#values.size - this.#sysCount + (before === undefined ? 1 : 0);
    return message.payload.length === 0 || (count <= this.#limits.maxMessages && bytes <= this.#limits.maxBytes);
  }

  /** Whether the store has, or is about to have, a value of this topic. */
  isStored(topic: string): boolean {
    const value = this.#values.get(topic);
    return this.#touched !== undefined || (value !== undefined && !isSys(value));
  }

  /** Writes the value's place into the commit that wrote the message. */
  store(txn: Txn, message: Message, position: number): void {
    this.#dirty.delete(message.topic);
    if (message.payload.length === 0) txn.unretain(message.topic);
    else txn.retain(message.topic, position);
  }

  /** Sets or removes the value in memory. @param position of its record; 0: not in the store yet; -1: removed there */
  apply(message: Message, position: number): void {
    const { topic } = message;
    const wasStored = this.isStored(topic);
    this.#touched?.add(topic);
    const before = this.#values.get(topic);
    if (message.payload.length === 0) {
      if (before !== undefined) this.#remove(before); // [MQTT-3.3.1-6]
      if (position === 0 && wasStored && message.source !== "sys") this.#mark(topic);
      return;
    }
    const acceptedAtMs = this.#store.nowMs();
    const held = position > 0 ? undefined : { message: ownedMessage(message), acceptedAtMs };
    const expiresAtMs = expiryOf(message, acceptedAtMs);
    this.#set(before, { topic, position: Math.max(0, position), bytes: messageBytes(message), expiresAtMs, held });
    if (position === 0 && message.source !== "sys") this.#mark(topic);
  }

  /** Writes what the store does not know yet, in slices. */
  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#store.failed !== undefined) return;
    this.#flushSlice(sliceValues);
    if (this.#dirty.size === 0 || this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      if (!this.#closed) this.flush();
    });
  }

  /** Writes all that is left. */
  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#closed = true;
    if (this.#store.failed === undefined) this.#flushSlice(Number.POSITIVE_INFINITY);
  }

  #flushSlice(valuesMax: number): void {
    const topics: string[] = [];
    let bytes = 0;
    for (const topic of this.#dirty) {
      if (topics.length >= valuesMax) break;
      topics.push(topic);
      bytes += this.#values.get(topic)?.bytes ?? 0;
    }
    if (topics.length === 0) return;
    for (const topic of topics) this.#dirty.delete(topic);
    try {
      if (this.#store.admit({ bytes, rejectNewest: [] }) !== "ok") throw new Error("the store is full");
      const { value: positions } = this.#store.commit((txn) => topics.map((topic) => this.#writeOne(txn, topic)));
      topics.forEach((topic, at) => {
        const value = this.#values.get(topic);
        const position = positions[at] ?? 0;
        if (value === undefined || position === 0) return;
        value.position = position;
        value.held = undefined;
      });
    } catch {
      this.#metrics.dropped("store-full").value += topics.length; // they stay in memory
    }
  }

  /** @returns the position of a value that only memory had, else 0 */
  #writeOne(txn: Txn, topic: string): number {
    const value = this.#values.get(topic);
    if (value === undefined) txn.unretain(topic);
    if (value?.held === undefined) return 0;
    const position = txn.message(value.held.message, []);
    txn.retain(topic, position);
    return position;
  }

  #mark(topic: string): void {
    this.#dirty.add(topic);
    if (this.#dirty.size >= dirtyMax) this.flush();
    else this.#timer ??= this.#clock.setTimer(lazyMs, () => this.flush());
  }

  /** In place: whoever is reading the value sees that it has changed. */
  #set(before: RetainedValue | undefined, value: RetainedValue): void {
    if (before === undefined) this.#values.set(value.topic, value);
    else {
      this.#forget(before);
      Object.assign(before, value);
    }
    this.#bytes += isSys(value) ? 0 : value.bytes;
    this.#sysCount += isSys(value) ? 1 : 0;
  }

  #remove(value: RetainedValue): void {
    this.#forget(value);
    this.#values.delete(value.topic);
  }

  #forget(value: RetainedValue): void {
    this.#bytes -= isSys(value) ? 0 : value.bytes;
    this.#sysCount -= isSys(value) ? 1 : 0;
    value.position = -1;
    value.held = undefined;
  }

  /** The value, unless it has expired [MQTT-3.3.2-5]: then it is forgotten here. */
  #fresh(value: RetainedValue): RetainedValue | undefined {
    if (value.position < 0) return undefined;
    if (value.expiresAtMs > this.#store.nowMs()) return value;
    const stored = !isSys(value);
    this.#remove(value);
    this.#metrics.dropped("expired").value += 1;
    if (stored) this.#mark(value.topic);
    return undefined;
  }
}

const isSys = (value: RetainedValue): boolean => value.held?.message.source === "sys";

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function expiryOf(message: Message, acceptedAtMs: number): number {
  const seconds = message.properties?.messageExpirySeconds;
  return seconds === undefined ? Number.POSITIVE_INFINITY : acceptedAtMs + seconds * 1000;
}
