/**
 * Memory held by packets of which only a part has come, over all connections. Each alone is bounded by maxPacketSize, but a thousand connections
 * that never send the rest are not, and that before any log-in. Beyond the limit the packet that has been incomplete for longest gives way with its
 * connection: who sends at a fair pace is through before he is the oldest.
 */

/** A scanner's first reserve and a few more: as much as each connection costs anyway. */
const smallBytes = 4096;

export interface PartialHolder {
  /** Its memory is wanted back: it closes, and holds nothing from then on. */
  partialDropped(): void;
}

export class PartialPackets<H extends PartialHolder = PartialHolder> {
  readonly #max: number;
  /** In the order in which their packets began. */
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

  /** To be called after each read. @param bytes held now; 0 when the connection ends. @param begun it is another packet than before */
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
      holder.partialDropped();
    }
  }
}
