/**
 * Memory of packets of which only a part has come, over all connections. Each alone is bounded (by maxPacketSize), but a thousand connections that never
 * send the rest are not, and that before any log-in. Beyond the limit the one that has held its own for longest gives way with its connection: who gets
 * on at a fair pace is through before he is the oldest.
 */

/** A scanner's first reserve and a few more: as much as each connection costs anyway. */
export const smallBytes = 4096;
const why = "packets that have not all come take too much memory, and this one is the oldest";

export interface MemoryHolder {
  /** Its memory is wanted back: it closes, and holds nothing from then on. @param fault as it is counted @param why for people */
  giveWay(fault: "incomplete" | "paused", why: string): void;
}

export class HeldMemory<H extends MemoryHolder = MemoryHolder> {
  readonly #max: number;
  /** In the order in which they began to hold it. */
  readonly #held = new Map<H, number>();
  #bytes = 0;

  /** @param max bytes over all connections */
  constructor(max: number) {
    this.#max = max;
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
      holder.giveWay("incomplete", why);
    }
  }
}
