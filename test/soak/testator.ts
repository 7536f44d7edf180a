import type { SeenPacket } from "../helpers/fakeCloud.ts";
import { Actor, type ActorOptions } from "./actor.ts";
import { payloadOf, type TopicBook } from "./book.ts";

/** Has a will on each of its connections: sent when it vanishes or is taken over, not when it says goodbye. */
export class Testator extends Actor {
  readonly #topic: TopicBook;
  /** The numbers of wills that must not come. */
  readonly unsent = new Set<number>();
  /** Of the connection that is up, and of the one that is being made. */
  #number = 0;
  #made = 0;

  constructor(options: ActorOptions, group: string) {
    super(options);
    this.#topic = options.book.topic(`wills/${group}/${options.id}`, 1);
  }

  get topic(): string {
    return this.#topic.topic;
  }

  protected override get more(): object {
    this.#made = this.#topic.next++;
    this.#topic.open.add(this.#made); // owed to nobody until its connection has ended
    return { will: { topic: this.#topic.topic, payload: payloadOf(this.#made, 20), qos: 1, retain: false } };
  }

  protected override up(): void {
    this.#number = this.#made;
  }

  protected override act(): void {}

  protected override on(_packet: SeenPacket): void {}

  protected override gone(how: "vanished" | "taken over" | "left"): void {
    if (how === "left") this.unsent.add(this.#number);
    else {
      this.#topic.open.delete(this.#number);
      this.book.counts.wills += 1;
    }
  }
}
