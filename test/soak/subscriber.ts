import { topicMatches } from "../../src/base/topic.ts";
import type { SeenPacket } from "../helpers/fakeCloud.ts";
import { Actor, type ActorOptions } from "./actor.ts";

/** Acknowledges what comes, now and then late, always in order. */
abstract class Receiver extends Actor {
  /** QoS 2 packet ids that were received and not released. */
  protected readonly held = new Set<number>();
  #late: object[] = [];
  #slowTicks = 0;

  protected abstract take(topic: string, payload: Buffer, qos: number): void;

  protected override up(_present: boolean): void {
    this.#late = []; // what was not acknowledged comes again
  }

  protected override act(): void {
    if (this.#slowTicks > 0) {
      this.#slowTicks -= 1;
      return;
    }
    for (const packet of this.#late.splice(0)) this.send(packet);
    if (this.random() < 0.01) this.#slowTicks = Math.floor(this.random() * 20);
  }

  protected override on(packet: SeenPacket): void {
    const { messageId = 0, qos = 0, topic = "", payload = Buffer.alloc(0) } = packet;
    if (packet.cmd === "pubrel") {
      this.held.delete(messageId);
      this.#answer({ cmd: "pubcomp", messageId });
    } else if (packet.cmd === "publish") {
      if (!(qos === 2 && this.held.has(messageId))) this.take(topic, payload, qos);
      if (qos === 2) this.held.add(messageId);
      if (qos > 0) this.#answer({ cmd: qos === 2 ? "pubrec" : "puback", messageId });
    }
  }

  protected subscribe(filter: string, qos: 0 | 1 | 2): void {
    this.book.counts.subscribes += 1;
    const five = this.version === 5 ? { nl: false, rap: false, rh: 0 } : {};
    this.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: filter, qos, ...five }] });
  }

  #answer(packet: object): void {
    if (this.#slowTicks > 0 || this.#late.length > 0) this.#late.push(packet);
    else this.send(packet);
  }
}

/** Its session outlives its connections: it must get everything that was acknowledged, whatever happens to it. */
export class DurableSubscriber extends Receiver {
  readonly #filter: string;
  readonly #arrived: (topic: string, payload: Buffer, qos: number) => void;
  #subscribed = false;

  /** @param arrived each message, once it counts */
  constructor(options: ActorOptions, filter: string, arrived: (topic: string, payload: Buffer, qos: number) => void) {
    super(options);
    this.#filter = filter;
    this.#arrived = arrived;
  }

  get subscribed(): boolean {
    return this.#subscribed;
  }

  protected override up(present: boolean): void {
    super.up(present);
    if (this.#subscribed && !present) this.book.fault(`${this.id}: its session is gone`);
    if (!this.#subscribed) this.subscribe(this.#filter, 2);
  }

  protected override act(): void {
    super.act();
    if (this.random() < 0.002) this.subscribe(this.#filter, 2); // the same again changes nothing
  }

  protected override on(packet: SeenPacket): void {
    if (packet.cmd === "suback") this.#subscribed = true;
    super.on(packet);
  }

  protected override take(topic: string, payload: Buffer, qos: number): void {
    this.#arrived(topic, payload, qos);
  }
}

/** Subscribes, unsubscribes, shares. Nobody promised it anything but that what comes is what it asked for. */
export class Roamer extends Receiver {
  readonly #groups: readonly string[];
  /** All that it asked for on this connection: what it has left may still be under way. */
  readonly #asked = new Set<string>();

  constructor(options: ActorOptions, groups: readonly string[]) {
    super(options);
    this.#groups = groups;
  }

  protected override up(present: boolean): void {
    super.up(present);
    this.held.clear();
    this.#asked.clear();
  }

  protected override act(): void {
    super.act();
    if (this.random() > 0.01) return;
    const group = this.#groups[Math.floor(this.random() * this.#groups.length)] ?? "";
    const filter = [`soak/${group}/+/q1`, `soak/${group}/#`, `soak/+/${group}-p1/q2`, `+/${group}/+/+`][
      Math.floor(this.random() * 4)
    ] as string;
    if (this.#asked.size > 3) {
      const unsubscriptions = [...this.#asked].slice(0, 2);
      this.send({ cmd: "unsubscribe", messageId: 2, unsubscriptions });
      return;
    }
    const shared = this.random() < 0.3 ? `$share/crew/${filter}` : filter;
    this.#asked.add(shared);
    this.subscribe(shared, Math.floor(this.random() * 3) as 0 | 1 | 2);
  }

  protected override take(topic: string): void {
    for (const filter of this.#asked) if (topicMatches(filter.replace(/^\$share\/crew\//, ""), topic)) return;
    this.book.fault(`${this.id}: ${topic} was not asked for`);
  }
}
