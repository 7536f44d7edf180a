import type { Delivery } from "./topicEntry.ts";

/**
 * The members of one `$share/NAME/FILTER`. A message goes to one of them, in turn: those that are online first, else to a durable
 * one that will be back.
 */
export class ShareGroup {
  readonly #members: Delivery[] = [];
  #next = 0;

  get size(): number {
    return this.#members.length;
  }

  set(delivery: Delivery): void {
    const at = this.#members.findIndex((member) => member.session === delivery.session);
    if (at >= 0) this.#members[at] = delivery;
    else this.#members.push(delivery);
  }

  delete(session: Delivery["session"]): void {
    const at = this.#members.findIndex((member) => member.session === session);
    if (at >= 0) this.#members.splice(at, 1);
  }

  of(session: Delivery["session"]): Delivery | undefined {
    return this.#members.find((member) => member.session === session);
  }

  /** @param mayRead undefined: every member may */
  pick(mayRead?: (session: Delivery["session"]) => boolean): Delivery | undefined {
    let durable: Delivery | undefined;
    const count = this.#members.length;
    for (let step = 0; step < count; step += 1) {
      const at = (this.#next + step) % count;
      const member = this.#members[at];
      if (member === undefined || mayRead?.(member.session) === false) continue;
      if (member.session.link !== undefined) {
        this.#next = at + 1;
        return member;
      }
      if (member.session.durable) durable ??= member;
    }
    this.#next += 1;
    return durable;
  }
}
