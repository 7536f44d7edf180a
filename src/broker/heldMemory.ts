/**
 * Memory that connections hold for what they sent and nobody could handle yet, over all of them: packets of which only a part has come, and what lies
 * at those that are not read now. Each alone is bounded (by maxPacketSize, by a chunk), but a thousand connections that never send the rest, or do not
 * read our answers, are not, and that before any log-in. Beyond the limit the one that has held its own for longest gives way with its connection: who
 * gets on at a fair pace is through before he is the oldest.
 */

/** A scanner's first reserve and a few more: as much as each connection costs anyway. */
const smallBytes = 4096;

export interface MemoryHolder {
  /** Its memory is wanted back: it closes, and holds nothing from then on. @param fault as it is counted @param why for people */
  giveWay(fault: "incomplete" | "paused", why: string): void;
}

export class HeldMemory<H extends MemoryHolder = MemoryHolder> {
  readonly #max: number;
  readonly #fault: "incomplete" | "paused";
  readonly #why: string;
  /** In the order in which they began to hold it. */
  readonly #held = new Map<H, number>();
  #bytes = 0;

  /** @param max bytes over all connections @param fault as who gives way is counted @param why what he is told */
  constructor(max: number, fault: "incomplete" | "paused", why: string) {
    this.#max = max;
    this.#fault = fault;
    this.#why = why;
  }

  /** Over all connections, those of a few bytes left out. */
  get bytes(): number {
    return this.#bytes;
  }

  /** To be called when it may have changed. @param bytes held now; 0 when the connection ends. @param begun it is for something else than before */
  set(holder: H, bytes: number, begun: boolean): void {
    const before = this.#held.get(holder) ?? 0;
    const held = bytes <= smallBytes ? 0 : bytes;
    if (held === before && !begun) return;
    if (begun || held === 0) this.#held.delete(holder);
    if (held > 0) this.#held.set(holder, held);
    this.#bytes += held - before;
    if (this.#bytes > this.#max) this.#giveWay();
  }

  #giveWay(): void {
    for (const [holder, bytes] of this.#held) {
      if (this.#bytes <= this.#max) return;
      this.#held.delete(holder);
      this.#bytes -= bytes;
      holder.giveWay(this.#fault, this.#why);
    }
  }
}
