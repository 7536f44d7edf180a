import type { Clock, Timer } from "../base/clock.ts";
import type { Store, Txn } from "../base/contracts.ts";
import type { Message } from "../base/message.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import { messageBytes, unexpired } from "./publishFrames.ts";
import { TopicTree } from "./topicTree.ts";

export interface RetainedValue {
  readonly message: Message;
  readonly acceptedAtMs: number;
  /** Of its record in the store; 0 while it has none ($SYS, or QoS 0 not yet written). */
  position: number;
  readonly bytes: number;
}

const lazyMs = 1000;
const dirtyMax = 10_000;
/** How often all values may be looked through for expired ones, when there is no room. */
const sweepMs = 10_000;

/**
 * The last retained message of each topic, in memory within the limits, and in the store. A QoS 0 value is written with the next commit
 * or after a second, the last one per topic; values of `sys` never.
 */
export class Retained {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #metrics: BrokerMetrics;
  readonly #limits: BrokerLimits["retained"];
  readonly #values = new TopicTree<RetainedValue>();
  #bytes = 0;
  /** What memory knows and the store does not yet; null: removed. */
  readonly #dirty = new Map<string, RetainedValue | null>();
  #timer: Timer | undefined;
  #sweepDueMs = 0;
  /** Topics set or removed while the store's values are still being read. */
  #touched: Set<string> | undefined = new Set();
  readonly #write = (txn: Txn): void => this.flushInto(txn);

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

  /** Reads what the store holds, in the order it lies there. */
  async load(): Promise<void> {
    const stored = [...this.#store.retained()].sort((a, b) => a[1] - b[1]);
    for (const [topic, position] of stored) {
      const read = await this.#store.read(position);
      if (this.#touched?.has(topic)) continue;
      if (read === undefined) this.#metrics.dropped("rotten").value += 1;
      else if (this.hasRoom(topic, read.message)) this.#set(topic, read.message, read.acceptedAtMs, position);
      else this.#metrics.dropped("retained-full").value += 1;
    }
    this.#touched = undefined;
  }

  /** The value now, or undefined; what has expired is forgotten here. */
  get(topic: string): RetainedValue | undefined {
    const value = this.#values.get(topic);
    return value === undefined ? undefined : this.#fresh(value);
  }

  /** Topics with a value that `filter` matches. */
  topics(filter: string): string[] {
    return this.#values.match(filter).map((value) => value.message.topic);
  }

  /** Whether the limits allow this value in place of the topic's present one. An empty payload always has room: it removes. */
  hasRoom(topic: string, message: Message): boolean {
    if (this.#fits(topic, message)) return true;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#sweepDueMs) return false;
    this.#sweepDueMs = nowMs + sweepMs;
    for (const value of this.#values.match("#")) this.#fresh(value);
    return this.#fits(topic, message);
  }

  #fits(topic: string, message: Message): boolean {
    const before = this.#values.get(topic);
    const bytes = this.#bytes - (before?.bytes ?? 0) + messageBytes(message);
    const count = this.#values.size + (before === undefined ? 1 : 0);
    return message.payload.length === 0 || (count <= this.#limits.maxMessages && bytes <= this.#limits.maxBytes);
  }

  /** Whether the store has, or is about to have, a value of this topic. */
  isStored(topic: string): boolean {
    const value = this.#values.get(topic);
    return this.#touched !== undefined || (value !== undefined && value.message.source !== "sys");
  }

  /** Writes the value's place into the commit that wrote the message. */
  store(txn: Txn, message: Message, position: number): void {
    this.#dirty.delete(message.topic);
    if (message.payload.length === 0) txn.unretain(message.topic);
    else txn.retain(message.topic, position);
  }

  /** Sets or removes the value in memory. @param position of its record; 0: not in the store yet. @param message owns its payload */
  apply(message: Message, position: number): void {
    const { topic } = message;
    const wasStored = this.isStored(topic);
    this.#touched?.add(topic);
    if (message.payload.length === 0)
      this.#remove(topic); // [MQTT-3.3.1-6]
    else this.#set(topic, message, this.#store.nowMs(), position);
    if (position !== 0 || message.source === "sys") return;
    if (message.payload.length > 0) this.#mark(topic, this.#values.get(topic) ?? null);
    else if (wasStored) this.#mark(topic, null);
  }

  /** Adds what is not written yet to somebody's commit. */
  flushInto(txn: Txn): void {
    if (this.#dirty.size === 0) return;
    for (const [topic, value] of this.#dirty) {
      if (value === null) {
        txn.unretain(topic);
        continue;
      }
      value.position = txn.message(value.message, []);
      txn.retain(topic, value.position);
    }
    this.#dirty.clear();
  }

  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#dirty.size === 0 || this.#store.failed !== undefined) return;
    let bytes = 0;
    for (const value of this.#dirty.values()) bytes += value?.bytes ?? 0;
    try {
      if (this.#store.admit({ bytes, rejectNewest: [] }) !== "ok") throw new Error("the store is full");
      this.#store.commit(this.#write);
    } catch {
      this.#metrics.dropped("store-full").value += this.#dirty.size; // they stay in memory
      this.#dirty.clear();
    }
  }

  #mark(topic: string, value: RetainedValue | null): void {
    this.#dirty.set(topic, value);
    if (this.#dirty.size >= dirtyMax) this.flush();
    else this.#timer ??= this.#clock.setTimer(lazyMs, () => this.flush());
  }

  #set(topic: string, message: Message, acceptedAtMs: number, position: number): void {
    this.#bytes -= this.#values.get(topic)?.bytes ?? 0;
    const bytes = messageBytes(message);
    this.#bytes += bytes;
    this.#values.set(topic, { message, acceptedAtMs, position, bytes });
  }

  #remove(topic: string): void {
    this.#bytes -= this.#values.get(topic)?.bytes ?? 0;
    this.#values.delete(topic);
  }

  #fresh(value: RetainedValue): RetainedValue | undefined {
    if (unexpired(value.message, value.acceptedAtMs, this.#store.nowMs()) !== undefined) return value;
    this.#remove(value.message.topic);
    this.#metrics.dropped("expired").value += 1;
    if (value.message.source !== "sys") this.#mark(value.message.topic, null);
    return undefined;
  }
}
