import type { BrokerContext } from "./context.ts";
import { DurableOutgoing } from "./durableOutgoing.ts";
import { Fifo } from "./fifo.ts";
import { lowerQos, messageBytes, unexpired } from "./publishFrames.ts";
import type { Session } from "./session.ts";
import type { Delivery } from "./topicEntry.ts";

const sliceMax = 256;

/**
 * The retained messages for new subscriptions of one connection, sent as fast as the client takes them: a subscription to # may match a
 * hundred thousand. Each is looked up when its turn comes, so what a live message has replaced meanwhile goes out as it is now.
 */
export class RetainedFeed {
  readonly #context: BrokerContext;
  readonly #session: Session;
  readonly #subscriptions = new Fifo<{ filter: string; delivery: Delivery }>();
  #topics: string[] = [];
  #at = 0;
  #delivery: Delivery | undefined;
  #scheduled = false;

  constructor(context: BrokerContext, session: Session) {
    this.#context = context;
    this.#session = session;
  }

  /** Subscriptions whose retained messages have not begun to be sent. */
  get waiting(): number {
    return this.#subscriptions.size;
  }

  add(filter: string, delivery: Delivery): void {
    this.#subscriptions.push({ filter, delivery });
  }

  pump(): void {
    for (let sent = 0; sent < sliceMax; sent += 1) {
      const link = this.#session.link;
      if (link === undefined || !this.#hasNext()) return;
      const { outgoing } = this.#session;
      if (link.outbox.full || outgoing.waiting + outgoing.inflight >= link.window) return; // room or an acknowledgement calls again
      const topic = this.#topics[this.#at];
      this.#at += 1;
      if (topic !== undefined && this.#delivery !== undefined) this.#send(topic, this.#delivery);
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.pump();
    });
  }

  #hasNext(): boolean {
    while (this.#at >= this.#topics.length) {
      const next = this.#subscriptions.shift();
      if (next === undefined) {
        this.#topics = [];
        this.#at = 0;
        return false;
      }
      this.#topics = this.#context.retained.topics(next.filter);
      this.#at = 0;
      this.#delivery = next.delivery;
    }
    return true;
  }

  #send(topic: string, delivery: Delivery): void {
    const { retained, store, deliverer, metrics } = this.#context;
    const value = retained.get(topic);
    if (value === undefined) return;
    const message = unexpired(value.message, value.acceptedAtMs, store.nowMs());
    if (message === undefined) return;
    const { outgoing } = this.#session;
    const qos = lowerQos(message.qos, delivery.qos);
    if (qos === 0 || !(outgoing instanceof DurableOutgoing)) {
      deliverer.single(message, delivery, true, 0, 0); // retain is set [MQTT-3.3.1-8]
      return;
    }
    if (!outgoing.makeRoom(messageBytes(message))) return;
    try {
      const { value: ordinal, group } = store.commit((txn) => {
        const position = value.position > 0 ? value.position : txn.message(value.message, []);
        return outgoing.reference(txn, position, qos, true);
      });
      deliverer.single(message, delivery, true, ordinal, group);
    } catch {
      metrics.dropped("write-failed").value += 1;
    }
  }
}
