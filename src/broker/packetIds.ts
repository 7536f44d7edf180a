/** Ids there are, and 0. */
const slotsMax = 65_536;
const slotsMin = 8;
/** So many are kept when nothing is left in them. */
const keptSlots = 128;
const noIds: number[] = [];

/**
 * Something for each of the packet ids that are in use on one side of a connection. Ids mostly follow on each other, so nearly always each has the slot
 * of its low bits for itself. A Map would sort itself out anew with every few dozen that come and go, and once it is old, each of its new tables is
 * garbage that only a collection of the whole heap takes away: that was a quarter of the time of QoS 2. An id whose slot is taken, by one that
 * stays while others pass it, is in a map after all.
 */
export class PacketIds<Value extends number | string> {
  /** By slot: the id; 0: free. A power of two of them, or none. */
  #ids = noIds;
  #values: Array<Value | undefined> = [];
  #others: Map<number, Value> | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(packetId: number): boolean {
    return this.#ids[packetId & (this.#ids.length - 1)] === packetId || this.#others?.has(packetId) === true;
  }

  get(packetId: number): Value | undefined {
    const slot = packetId & (this.#ids.length - 1);
    return this.#ids[slot] === packetId ? this.#values[slot] : this.#others?.get(packetId);
  }

  /** As `set` for an id that is not there yet. False: it is, and stays as it was. */
  add(packetId: number, value: Value): boolean {
    const slot = packetId & (this.#ids.length - 1);
    if (this.#ids[slot] === 0 && this.#others === undefined) {
      this.#ids[slot] = packetId;
      this.#values[slot] = value;
      this.#size += 1;
      return true;
    }
    if (this.has(packetId)) return false;
    this.set(packetId, value);
    return true;
  }

  /** @param packetId 1 or more */
  set(packetId: number, value: Value): void {
    if (this.#others?.has(packetId) === true) {
      this.#others.set(packetId, value);
      return;
    }
    let slot = packetId & (this.#ids.length - 1);
    if (this.#ids[slot] !== packetId) {
      this.#size += 1;
      if (this.#ids[slot] !== 0 && this.#ids.length < Math.min(4 * this.#size + slotsMin, slotsMax)) {
        this.#grow();
        slot = packetId & (this.#ids.length - 1);
      }
      if (this.#ids[slot] !== 0) {
        this.#others ??= new Map();
        this.#others.set(packetId, value);
        return;
      }
      this.#ids[slot] = packetId;
    }
    this.#values[slot] = value;
  }

  /** False: it was not there. */
  delete(packetId: number): boolean {
    const slot = packetId & (this.#ids.length - 1);
    if (this.#ids[slot] === packetId) this.#ids[slot] = 0;
    else if (this.#others?.delete(packetId) !== true) return false;
    this.#size -= 1;
    if (this.#others?.size === 0) this.#others = undefined;
    if (this.#size === 0 && this.#ids.length > keptSlots) this.clear();
    return true;
  }

  clear(): void {
    this.#ids = noIds;
    this.#values = [];
    this.#others = undefined;
    this.#size = 0;
  }

  *keys(): Iterable<number> {
    for (const packetId of this.#ids) if (packetId > 0) yield packetId;
    yield* this.#others?.keys() ?? [];
  }

  #grow(): void {
    const [ids, values] = [this.#ids, this.#values];
    const count = Math.max(slotsMin, 2 * ids.length);
    this.#ids = new Array<number>(count).fill(0);
    this.#values = new Array<Value | undefined>(count).fill(undefined);
    for (let at = 0; at < ids.length; at += 1) {
      const packetId = ids[at] ?? 0;
      if (packetId === 0) continue;
      const slot = packetId & (count - 1); // two that lay apart with fewer slots do so with more
      this.#ids[slot] = packetId;
      this.#values[slot] = values[at];
    }
  }
}
