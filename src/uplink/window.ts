import type { QueuedMessage } from "../base/contracts.ts";

/**
 * The QoS 1 messages that were sent and not yet acknowledged: packet identifier <-> message, in the order sent. After a lost link they go
 * out again first, in that order and with the same identifiers [MQTT-4.4.0-1], [MQTT-4.6.0-1].
 */
export class Window {
  readonly #slots = new Map<number, Slot>();
  /** Identifiers to send again on this connection, in order. An entry counts only while its slot's place is "again". */
  #again: number[] = [];
  #againAt = 0;
  #lastId = 0;
  #bytes = 0;
  #onWire = 0;
  #held = 0;
  #heldBytes = 0;

  /** Messages in the window, wherever they are. */
  get size(): number {
    return this.#slots.size;
  }

  /** Bytes of their payloads, topics and properties, roughly. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Sent on the present connection and unanswered: what the cloud's Receive Maximum counts. */
  get onWire(): number {
    return this.#onWire;
  }

  /** Of `size` and `bytes`: refused ones that wait, and what waits with them. They keep their identifiers and none of the room of others. */
  get held(): number {
    return this.#held;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Takes a message that is sent now and gives it a free identifier, 1-65534. The caller keeps `size` below 65534. */
  add(message: QueuedMessage): number {
    do
      this.#lastId = this.#lastId === 65_534 ? 1 : this.#lastId + 1; // 65535 is the SUBSCRIBE's
    while (this.#slots.has(this.#lastId));
    const bytes = weight(message);
    this.#slots.set(this.#lastId, {
      message,
      bytes,
      refusals: 0,
      strikes: 0,
      firstRefusedMs: 0,
      place: "wire",
      known: true,
    });
    this.#bytes += bytes;
    this.#onWire += 1;
    return this.#lastId;
  }

  /**
   * The cloud has it: the message leaves. Undefined for an identifier that the cloud cannot know: not in use, refused by it before, or
   * not yet sent in its present session. To believe such an answer would lose the message.
   */
  acknowledged(packetId: number): QueuedMessage | undefined {
    return this.#slots.get(packetId)?.known ? this.remove(packetId) : undefined;
  }

  /** The message leaves, whatever the cloud knows of it. */
  remove(packetId: number): QueuedMessage | undefined {
    const slot = this.#slots.get(packetId);
    if (slot === undefined) return undefined;
    this.#move(slot, "again"); // counted nowhere
    this.#slots.delete(packetId);
    this.#bytes -= slot.bytes;
    return slot.message;
  }

  /**
   * The cloud refused it (MQTT 5): how often so far, this time included; 0 for an identifier that the cloud cannot know. It keeps its
   * place, but is no longer on the wire, until `retry`. @param wallMs now
   */
  refused(packetId: number, wallMs = 0): number {
    const slot = this.#slots.get(packetId);
    if (!slot?.known) return 0;
    if (slot.refusals === 0) slot.firstRefusedMs = wallMs;
    slot.refusals += 1;
    // A refusal ends that delivery [MQTT-4.4.0-2]: what follows is a new one, so without DUP.
    slot.known = false;
    this.#move(slot, "held");
    return slot.refusals;
  }

  /** It will not be sent any more, but cannot leave yet: `retry` and `heldOf` pass it over. Undefined: there is none. */
  doom(packetId: number): QueuedMessage | undefined {
    const slot = this.#slots.get(packetId);
    if (slot !== undefined) this.#move(slot, "doomed");
    return slot?.message;
  }

  /** One more refusal counts against it. @returns how many by now */
  strike(packetId: number): number {
    const slot = this.#slots.get(packetId);
    if (slot === undefined) return 0;
    slot.strikes += 1;
    return slot.strikes;
  }

  /** A message in the window, and how often and since when (wall clock) it was refused. */
  at(packetId: number): { message: QueuedMessage; refusals: number; firstRefusedMs: number } | undefined {
    return this.#slots.get(packetId);
  }

  /** Identifiers of a lane's held ones, in the order first sent. */
  *heldOf(lane: number): Generator<number> {
    for (const [packetId, { message, place }] of this.#slots)
      if (place === "held" && message.lane === lane) yield packetId;
  }

  /** The lane stands still: what waits for its turn to be sent again is held as well. @returns its identifiers */
  hold(lane: number): number[] {
    const held: number[] = [];
    for (const [packetId, slot] of this.#slots) {
      if (slot.place !== "again" || slot.message.lane !== lane) continue;
      this.#move(slot, "held");
      held.push(packetId);
    }
    return held;
  }

  /** Sends a refused one again on the present connection, after those already waiting for it. */
  retry(packetId: number): void {
    const slot = this.#slots.get(packetId);
    if (slot?.place !== "held") return;
    this.#move(slot, "again");
    this.#again.push(packetId);
  }

  /** A new connection: everything unacknowledged goes out again. @param sessionPresent whether the cloud still knows the identifiers */
  reconnect(sessionPresent: boolean): void {
    this.#again = [...this.#slots.keys()];
    this.#againAt = 0;
    for (const slot of this.#slots.values()) {
      this.#move(slot, "again");
      slot.known &&= sessionPresent;
    }
  }

  /** The next to send again, now; `dup` when the cloud's session has seen it. Those acknowledged meanwhile are passed over. */
  nextAgain(): { packetId: number; message: QueuedMessage; dup: boolean } | undefined {
    while (this.#againAt < this.#again.length) {
      const packetId = this.#again[this.#againAt++] ?? 0;
      const slot = this.#slots.get(packetId);
      if (slot?.place !== "again") continue;
      if (this.#againAt > 1024) this.#compact();
      this.#move(slot, "wire");
      const dup = slot.known;
      slot.known = true;
      return { packetId, message: slot.message, dup };
    }
    this.#again = [];
    this.#againAt = 0;
    return undefined;
  }

  /** The one sent first, for messages to people. */
  oldest(): QueuedMessage | undefined {
    for (const { message } of this.#slots.values()) return message;
    return undefined;
  }

  clear(): void {
    this.#slots.clear();
    this.#again = [];
    this.#againAt = 0;
    this.#bytes = 0;
    this.#onWire = 0;
    this.#held = 0;
    this.#heldBytes = 0;
  }

  #move(slot: Slot, place: Slot["place"]): void {
    this.#count(slot, -1);
    slot.place = place;
    this.#count(slot, 1);
  }

  #count({ place, bytes }: Slot, by: 1 | -1): void {
    if (place === "wire") this.#onWire += by;
    else if (place !== "again") {
      this.#held += by;
      this.#heldBytes += by * bytes;
    }
  }

  #compact(): void {
    this.#again = this.#again.slice(this.#againAt);
    this.#againAt = 0;
  }
}

interface Slot {
  readonly message: QueuedMessage;
  readonly bytes: number;
  refusals: number;
  /** Refusals that count against it. */
  strikes: number;
  firstRefusedMs: number;
  /**
   * wire: sent on this connection. again: waits for its turn on this connection. held: refused, or behind a refused one, waits for its lane's pause to
   * end. doomed: refused for good, waits for room among the dead letters.
   */
  place: "wire" | "again" | "held" | "doomed";
  /** Sent in the session that the cloud has, and not refused since. */
  known: boolean;
}

function weight({ message }: QueuedMessage): number {
  const { topic, payload, properties } = message;
  let bytes = topic.length + payload.length + (properties?.correlationData?.length ?? 0);
  for (const [name, value] of properties?.userProperties ?? []) bytes += name.length + value.length;
  return bytes;
}
