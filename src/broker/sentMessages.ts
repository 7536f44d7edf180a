/** Number of packet ids (MQTT section 2.2.1). */
export const idCount = 65_535;

/** What the client has to answer next. */
export type NextAnswer = "puback" | "pubrec" | "pubcomp";

const answersByCode = ["puback", "pubrec", "pubcomp"] as const;
const codes = { puback: 0, pubrec: 1, pubcomp: 2 } as const;
const slotsMin = 32;

/** The packet id of the message with an ordinal: it need not be written down to be the same after a crash. */
export const idOf = (ordinal: number): number => 1 + (ordinal % idCount);

/**
 * The messages of one durable session that are on their way, by packet id. Ids follow on each other, so nearly always each has the slot of its low bits
 * for itself, where a map would make an object of each message and sort itself out anew with every few dozen. One whose slot is taken, by a
 * message that is not answered while others pass it, is in a map after all.
 *
 *   slot   1 + 4 x ordinal + code of the next answer; 0: free
 */
export class SentMessages {
  #slots: number[] = [];
  /** By packet id, the same numbers. */
  readonly #others = new Map<number, number>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(packetId: number): boolean {
    return this.#find(packetId) > 0;
  }

  /** Of the message with this packet id; 0: none. */
  ordinal(packetId: number): number {
    return ordinalIn(this.#find(packetId));
  }

  /** Undefined: no such message. */
  next(packetId: number): NextAnswer | undefined {
    const slot = this.#find(packetId);
    return slot === 0 ? undefined : answersByCode[(slot - 1) % 4];
  }

  awaitsPubcomp(ordinal: number): boolean {
    return this.#find(idOf(ordinal)) === 1 + 4 * ordinal + codes.pubcomp;
  }

  /** Adds a message, or says what its next answer is now. @param ordinal 1 or more */
  set(ordinal: number, next: NextAnswer): void {
    const packetId = idOf(ordinal);
    this.delete(packetId);
    if (this.#isTaken(packetId) && this.#slots.length < 4 * this.#size + slotsMin) this.#grow();
    const slot = 1 + 4 * ordinal + codes[next];
    if (this.#isTaken(packetId)) this.#others.set(packetId, slot);
    else this.#slots[packetId & (this.#slots.length - 1)] = slot;
    this.#size += 1;
  }

  delete(packetId: number): void {
    if (!this.has(packetId)) return;
    this.#size -= 1;
    if (this.#others.size === 0 || !this.#others.delete(packetId)) this.#slots[packetId & (this.#slots.length - 1)] = 0;
  }

  clear(): void {
    this.#slots = [];
    this.#others.clear();
    this.#size = 0;
  }

  /** What stands in the slot of this packet id's message; 0: there is none. */
  #find(packetId: number): number {
    const slot = this.#slots[packetId & (this.#slots.length - 1)] ?? 0;
    if (slot > 0 && idOf(ordinalIn(slot)) === packetId) return slot;
    return this.#others.size === 0 ? 0 : (this.#others.get(packetId) ?? 0);
  }

  #isTaken(packetId: number): boolean {
    return this.#slots[packetId & (this.#slots.length - 1)] !== 0; // there may be no slots at all
  }

  #grow(): void {
    const before = this.#slots;
    const count = Math.max(slotsMin, 2 * before.length);
    this.#slots = new Array<number>(count).fill(0);
    for (const slot of before) {
      // Two that lay apart with fewer slots do so with more.
      if (slot > 0) this.#slots[idOf(ordinalIn(slot)) & (count - 1)] = slot;
    }
  }
}

/** So many that are done may stand among those that are not. */
const doneMax = 64;

/**
 * Ordinals whose PUBREC came, in its order [MQTT-4.6.0-4], of messages that are not done: no PUBLISH of theirs again [MQTT-4.3.3-6]. A list, from which
 * those that are done are taken now and then.
 */
export class ReceivedMessages {
  #ordinals: number[];
  #done = 0;

  constructor(ordinals: readonly number[]) {
    this.#ordinals = [...ordinals];
  }

  add(ordinal: number): void {
    this.#ordinals.push(ordinal);
  }

  /** One of them is done, and no longer among those that were sent. */
  done(sent: SentMessages): void {
    this.#done += 1;
    if (this.#done >= doneMax && this.#done * 2 > this.#ordinals.length) this.of(sent);
  }

  /** All of them. @param sent by the present connection, or by the last one until this was asked for at its end */
  of(sent: SentMessages): readonly number[] {
    if (this.#done > 0) {
      this.#ordinals = this.#ordinals.filter((ordinal) => sent.awaitsPubcomp(ordinal));
      this.#done = 0;
    }
    return this.#ordinals;
  }
}

const ordinalIn = (slot: number): number => (slot === 0 ? 0 : Math.floor((slot - 1) / 4));
