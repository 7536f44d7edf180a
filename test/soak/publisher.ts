import type { SeenPacket } from "../helpers/fakeCloud.ts";
import { Actor, type ActorOptions } from "./actor.ts";
import { payloadOf, type TopicBook } from "./book.ts";

interface Sent {
  readonly id: number;
  readonly topic: TopicBook;
  readonly number: number;
  readonly payload: Buffer;
  received: boolean;
}

const windowMax = 15;

/** Publishes at every QoS, each to a topic of its own. What was not acknowledged is sent again, as MQTT wants it. */
export class Publisher extends Actor {
  readonly #topics: readonly TopicBook[];
  /** In the order in which they were sent first. */
  #inflight = new Map<number, Sent>();
  #nextId = 1;
  feeding = true;

  /** @param group the first level below soak/ */
  constructor(options: ActorOptions, group: string) {
    super(options);
    const { book, id } = options;
    this.#topics = ([0, 1, 2] as const).map((qos) => book.topic(`soak/${group}/${id}/q${qos}`, qos));
  }

  get idle(): boolean {
    return this.#inflight.size === 0;
  }

  protected override up(present: boolean): void {
    const before = [...this.#inflight.values()];
    if (present) {
      for (const sent of before) {
        if (sent.received) this.send({ cmd: "pubrel", messageId: sent.id });
        else this.#send(sent, true);
      }
      return;
    }
    this.#inflight = new Map();
    for (const sent of before) {
      // Without a session, a QoS 2 message may have arrived or not: to send it again could make it two.
      if (sent.topic.qos === 1) this.#send({ ...sent, id: this.#id() }, false);
    }
  }

  protected override act(): void {
    if (!this.feeding || this.random() > 0.1) return;
    for (let burst = 1 + Math.floor(this.random() * 3); burst > 0; burst -= 1) this.#publish();
    if (this.random() < 0.02) this.vanish(); // before the answers are there
  }

  protected override on(packet: SeenPacket): void {
    const id = packet.messageId ?? 0;
    const code = packet.reasonCode ?? 0;
    const sent = this.#inflight.get(id);
    if (packet.cmd === "puback" || packet.cmd === "pubrec") {
      if (code >= 0x80) this.book.fault(`${this.id}: ${packet.cmd} ${code}`);
      else if (sent?.topic.qos !== (packet.cmd === "puback" ? 1 : 2))
        this.book.fault(`${this.id}: ${packet.cmd} ${id} answers nothing`);
      else {
        sent.received = true;
        sent.topic.open.delete(sent.number);
        if (packet.cmd === "puback") this.#inflight.delete(id);
        else this.send({ cmd: "pubrel", messageId: id });
      }
    } else if (packet.cmd === "pubcomp") this.#inflight.delete(id);
  }

  #publish(): void {
    const topic = this.#topics[Math.floor(this.random() * 3)];
    if (topic === undefined || this.#inflight.size >= windowMax) return;
    const size = Math.floor(this.random() < 0.98 ? this.random() * 200 : this.random() * 20_000);
    const number = topic.next++;
    const payload = payloadOf(number, size);
    if (topic.qos > 0) topic.open.add(number);
    this.#send({ id: topic.qos === 0 ? 0 : this.#id(), topic, number, payload, received: false }, false);
  }

  #send(sent: Sent, dup: boolean): void {
    const { id, topic, payload } = sent;
    if (topic.qos > 0) this.#inflight.set(id, sent);
    this.send({ cmd: "publish", topic: topic.topic, payload, qos: topic.qos, messageId: id, dup, retain: false });
  }

  #id(): number {
    do this.#nextId = (this.#nextId % 65_535) + 1;
    while (this.#inflight.has(this.#nextId));
    return this.#nextId;
  }
}
