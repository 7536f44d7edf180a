import type { BrokerContext } from "./context.ts";
import { DurableOutgoing } from "./durableOutgoing.ts";
import { Fifo } from "./fifo.ts";
import { lowerQos, messageBytes, unexpired } from "./publishFrames.ts";
import type { Held, RetainedValue } from "./retained.ts";
import type { Session } from "./session.ts";
import type { Delivery } from "./topicEntry.ts";
import type { TopicCursor } from "./topicTree.ts";

/** Messages handed over in one turn. */
const sendMax = 256;
/**
 * Values found before any is read, and read in the order in which they lie in the store. A filter's order is by device, the store's by time: of
 * a thousand out of a hundred thousand each lies alone, and costs a read of its own (measured: five times as long to serve them all).
 */
const findMax = 16_384;
/** Nodes looked at in one turn. */
const stepsMax = 4096;

/**
 * The retained messages for new subscriptions of one connection, sent as fast as the client takes them: a subscription to # may match a
 * hundred thousand, whose payloads are in the store. A value that another has replaced by the time it was read goes out as it is then.
 */
export class RetainedFeed {
  readonly #context: BrokerContext;
  readonly #session: Session;
  readonly #subscriptions = new Fifo<{ filter: string; delivery: Delivery }>();
  #cursor: TopicCursor<RetainedValue> | undefined;
  #delivery: Delivery | undefined;
  #filter = "";
  /** Found, not read; complete and sorted when `#sorted`. */
  #found: RetainedValue[] = [];
  #sorted = false;
  /** Read, not sent; of #found from #at on. */
  #ready: Array<Held | "changed" | undefined> = [];
  #at = 0;
  #reading = false;
  #scheduled = false;
  #closed = false;

  readonly #ended: (feed: RetainedFeed) => void;

  /** @param ended called when nothing is left to send; it may be used again all the same */
  constructor(context: BrokerContext, session: Session, ended: (feed: RetainedFeed) => void) {
    this.#context = context;
    this.#session = session;
    this.#ended = ended;
  }

  /** Subscriptions whose retained messages have not begun to be sent. */
  get waiting(): number {
    return this.#subscriptions.size;
  }

  add(filter: string, delivery: Delivery): void {
    this.#subscriptions.push({ filter, delivery });
  }

  /** The connection is gone: nothing of this goes to the one that takes its place. */
  close(): void {
    this.#closed = true;
  }

  /** To be called when there is room, or an acknowledgement came. */
  pump(): void {
    for (let sent = 0; sent < sendMax && this.#hasRoom(); sent += 1) {
      if (this.#at === this.#ready.length) {
        if (!this.#reading && this.#findMore()) void this.#read();
        return;
      }
      this.#sendNext();
    }
    if (this.#hasRoom()) this.#continue();
  }

  #hasRoom(): boolean {
    const { link, outgoing } = this.#session;
    if (this.#closed || link === undefined) return false;
    return !link.outbox.full && outgoing.waiting + outgoing.inflight < link.window;
  }

  #continue(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.pump();
    });
  }

  /** Whether there is something to read now. When not, and there may be later, the next turn goes on. */
  #findMore(): boolean {
    this.#found.splice(0, this.#at);
    this.#at = 0;
    this.#ready = [];
    if (this.#found.length > 0 && this.#sorted) return true;
    if (this.#found.length === 0 && !this.#begin()) return false;
    const cursor = this.#cursor;
    for (const value of cursor?.next(findMax - this.#found.length, stepsMax) ?? []) this.#found.push(value);
    this.#sorted = cursor?.done !== false || this.#found.length >= findMax;
    if (this.#sorted && this.#found.length > 0) {
      this.#found.sort((a, b) => a.position - b.position);
      return true;
    }
    this.#continue();
    return false;
  }

  /** Goes on with the filter, or to the next one. False: there is none. */
  #begin(): boolean {
    if (this.#cursor !== undefined && !this.#cursor.done) return true;
    const next = this.#subscriptions.shift();
    this.#cursor = next === undefined ? undefined : this.#context.retained.cursor(next.filter);
    this.#delivery = next?.delivery;
    this.#filter = next?.filter ?? "";
    if (next === undefined) this.#ended(this);
    return next !== undefined;
  }

  async #read(): Promise<void> {
    this.#reading = true;
    this.#ready = await this.#context.retained.read(this.#found);
    this.#reading = false;
    this.pump();
  }

  #sendNext(): void {
    const value = this.#found[this.#at];
    const held = this.#ready[this.#at];
    this.#at += 1;
    if (value === undefined || held === undefined || this.#delivery === undefined) return;
    if (!this.#session.subscriptions.has(this.#filter)) return; // unsubscribed meanwhile: nothing new begins [MQTT-3.10.4-2]
    if (!this.#context.access.mayRead(this.#session, value.topic)) return;
    // Replaced while it was read; the new one is fresh enough to be read from memory.
    if (held === "changed") this.#found.push(value);
    else if (value.position >= 0) this.#send(held, value, this.#delivery);
  }

  #send(held: Held, value: RetainedValue, delivery: Delivery): void {
    const { store, deliverer, metrics } = this.#context;
    const message = unexpired(held.message, held.acceptedAtMs, store.nowMs());
    if (message === undefined) return;
    const { outgoing } = this.#session;
    if (delivery.own === null && message.source === this.#session.source) return; // No Local [MQTT-3.8.3-3]
    const qos = lowerQos(message.qos, delivery.qos);
    if (qos === 0 || !(outgoing instanceof DurableOutgoing)) {
      deliverer.single(message, delivery, true, 0, 0); // retain is set [MQTT-3.3.1-8]
      return;
    }
    if (!outgoing.makeRoom(messageBytes(message))) return;
    try {
      const { value: ordinal, group } = store.commit((txn) => {
        const position = value.position > 0 ? value.position : txn.message(held.message, []);
        return outgoing.reference(txn, position, qos, true, value.bytes);
      });
      deliverer.single(message, delivery, true, ordinal, group);
    } catch {
      metrics.dropped("write-failed").value += 1;
    }
  }
}
