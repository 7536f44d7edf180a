/**
 * How an uplink's backlog and its fresh readings share the link (`liveShare`). Only turns at which both have something to send, and priority does
 * not decide for the fresh one anyway, are counted, by bytes: whoever had nothing for a while saves nothing up.
 */
export class LinkShare {
  /** What lies before it is backlog. */
  readonly head: number;
  readonly #part: number;
  #fresh = 0;
  #backlog = 0;

  /** @param part of the bytes that fresh readings get, above 0 and below 1 */
  constructor(head: number, part: number) {
    this.head = head;
    this.#part = part;
  }

  /** Both would send: whether it is the fresh one's turn. */
  chooseFresh(backlog: Weighed, fresh: Weighed): boolean {
    if (fresh.priority > backlog.priority) return true;
    if (this.#fresh < this.#part * (this.#fresh + this.#backlog)) {
      this.#fresh += fresh.bytes;
      return true;
    }
    this.#backlog += backlog.bytes;
    return false;
  }
}

interface Weighed {
  readonly priority: number;
  readonly bytes: number;
}
