import type { QueuedMessage } from "../base/contracts.ts";
import type { Qos } from "../base/message.ts";

/** A message that was taken to be sent and has no answer yet. */
export interface Slot {
  readonly packetId: number;
  readonly message: QueuedMessage;
  readonly bytes: number;
  /** With which it is sent. It never rises, for what went out with QoS 1 may have arrived. */
  qos: Qos;
  /** Commit group that must be durable before it is sent: that of its identifier (QoS 2). Infinity: not committed yet. */
  group: number;
  /** Its identifier is on record (SentIds), and has to be struck out when it leaves. */
  noted: boolean;
  refusals: number;
  /** Refusals that count against it. */
  strikes: number;
  firstRefusedMs: number;
  /**
   * wire: sent on this connection, or about to be. again: waits for its turn on this connection. held: refused, waits for its lane's pause to end.
   * doomed: refused for good, waits for room among the dead letters.
   */
  place: "wire" | "again" | "held" | "doomed";
  /** Waits for the disk, or behind one that does: not sent on this connection yet. */
  staged: boolean;
  /** Sent in the session that the cloud has, and not refused since. */
  known: boolean;
}

/** What the cloud has taken with QoS 2 (PUBREC), and has not said PUBCOMP for. */
export interface Release {
  readonly packetId: number;
  /** Undefined: it is not in the queue any more, and only its identifier has to become free. */
  readonly message: QueuedMessage | undefined;
  readonly bytes: number;
  /** Commit group that must be durable before PUBREL goes out. */
  group: number;
  /** PUBREL went out on this connection. */
  sent: boolean;
}

/** Identifiers that a window can give out. */
export const windowMax = 65_534;

/**
 * The messages that were sent and have no last answer: packet identifier <-> message, in the order sent; with QoS 2, from its PUBREC on, in the order of
 * these. After a lost link they go out again first, in these orders and with the same identifiers [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4].
 */
export class Window {
  readonly #slots = new Map<number, Slot>();
  readonly #releases = new Map<number, Release>();
  /** Identifiers that are in use by nothing here, and not to be given out. */
  readonly #reserved = new Set<number>();
  /** To send again on this connection, in order. An entry counts only while its place is "again". */
  #again: Slot[] = [];
  #againAt = 0;
  #lastId = 0;
  #bytes = 0;
  #onWire = 0;
  #held = 0;
  #heldBytes = 0;

  /** Messages in the window, wherever they are. */
  get size(): number {
    return this.#slots.size + this.#releases.size;
  }

  /** Identifiers that cannot be given out. */
  get used(): number {
    return this.size + this.#reserved.size;
  }

  /** Bytes of their payloads, topics and properties, roughly. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Sent on the present connection without a last answer: what the cloud's Receive Maximum counts (MQTT 5 section 4.9), and a little more. */
  get onWire(): number {
    return this.#onWire + this.#releases.size;
  }

  /** Of `size` and `bytes`: refused ones that wait, and what waits with them. They keep their identifiers and none of the room of others. */
  get held(): number {
    return this.#held;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Takes a message and gives it a free identifier, 1-65534. The caller keeps `used` below 65534. It counts as on the wire, and is `known` once it is. */
  add(message: QueuedMessage, qos: Qos): Slot {
    do
      this.#lastId = this.#lastId === windowMax ? 1 : this.#lastId + 1; // 65535 is the SUBSCRIBE's
    while (this.#isUsed(this.#lastId));
    return this.#put(this.#lastId, message, qos, false);
  }

  #isUsed(packetId: number): boolean {
    if (this.#slots.has(packetId)) return true;
    if (this.#releases.size > 0 && this.#releases.has(packetId)) return true;
    return this.#reserved.size > 0 && this.#reserved.has(packetId);
  }

  /** Takes a message with the identifier that it had in an earlier run. */
  restore(packetId: number, message: QueuedMessage, qos: Qos, known: boolean): Slot {
    this.#reserved.delete(packetId);
    return this.#put(packetId, message, qos, known);
  }

  #put(packetId: number, message: QueuedMessage, qos: Qos, known: boolean): Slot {
    const slot: Slot = {
      packetId,
      message,
      bytes: weight(message),
      qos,
      group: 0,
      noted: false,
      refusals: 0,
      strikes: 0,
      firstRefusedMs: 0,
      place: "wire",
      staged: false,
      known,
    };
    this.#slots.set(packetId, slot);
    this.#bytes += slot.bytes;
    this.#onWire += 1;
    return slot;
  }

  /**
   * The cloud has it: the message leaves (QoS 1). Undefined for an identifier that the cloud cannot know: not in use, refused by it before, of QoS 2, or
   * not yet sent in its present session. To believe such an answer would lose the message.
   */
  acknowledged(packetId: number): Slot | undefined {
    const slot = this.#slots.get(packetId);
    if (!slot?.known || slot.qos !== 1) return undefined;
    this.#leave(slot);
    return slot;
  }

  /** The cloud has it (QoS 2): what is left to do is PUBREL. Undefined as with `acknowledged`. */
  received(packetId: number): Release | undefined {
    const slot = this.#slots.get(packetId);
    if (!slot?.known || slot.qos !== 2) return undefined;
    this.#remove(slot);
    return this.restoreRelease(packetId, slot.message, slot.bytes);
  }

  /** Takes an identifier whose PUBREC was seen in an earlier run, or whose message is gone. */
  restoreRelease(packetId: number, message: QueuedMessage | undefined, bytes = message ? weight(message) : 0): Release {
    const release: Release = { packetId, message, bytes, group: 0, sent: false };
    this.#reserved.delete(packetId);
    this.#releases.set(packetId, release);
    this.#bytes += bytes;
    return release;
  }

  release(packetId: number): Release | undefined {
    return this.#releases.get(packetId);
  }

  /** In the order of their PUBRECs. */
  releases(): Iterable<Release> {
    return this.#releases.values();
  }

  /** The exchange has ended. Its identifier is reserved until `free`. */
  complete(release: Release): void {
    if (!this.#releases.delete(release.packetId)) return;
    this.#bytes -= release.bytes;
    this.#reserved.add(release.packetId);
  }

  reserve(packetId: number): void {
    this.#reserved.add(packetId);
  }

  free(packetId: number): void {
    this.#reserved.delete(packetId);
  }

  /** The message leaves, whatever the cloud knows of it. An identifier that is on record is reserved until `free`. */
  remove(packetId: number): Slot | undefined {
    const slot = this.#slots.get(packetId);
    if (slot === undefined) return undefined;
    this.#leave(slot);
    return slot;
  }

  #leave(slot: Slot): void {
    this.#remove(slot);
    if (slot.noted) this.#reserved.add(slot.packetId);
  }

  #remove(slot: Slot): void {
    this.#move(slot, "again"); // counted nowhere
    this.#slots.delete(slot.packetId);
    this.#bytes -= slot.bytes;
  }

  /**
   * The cloud refused it (MQTT 5): how often so far, this time included; 0 for an identifier that the cloud cannot know. It keeps its
   * place, but is no longer on the wire, until `retry`. @param wallMs now
   */
  refused(packetId: number, qos: Qos, wallMs = 0): number {
    const slot = this.#slots.get(packetId);
    if (!slot?.known || slot.qos !== qos) return 0;
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
  at(packetId: number): Readonly<Slot> | undefined {
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
      const waits = slot.place === "again" || (slot.place === "wire" && slot.staged);
      if (!waits || slot.message.lane !== lane) continue;
      this.#move(slot, "held");
      held.push(packetId);
    }
    return held;
  }

  /** Sends a refused one again on the present connection, after those already waiting for it. */
  retry(packetId: number): void {
    const slot = this.#slots.get(packetId);
    if (slot?.place !== "held") return;
    slot.staged = false; // held while it waited for the disk: it begins anew
    this.#move(slot, "again");
    this.#again.push(slot);
  }

  /** A new connection: everything unacknowledged goes out again. @param sessionPresent whether the cloud still knows the identifiers */
  reconnect(sessionPresent: boolean): void {
    this.#again = [...this.#slots.values()];
    this.#againAt = 0;
    for (const slot of this.#again) {
      this.#move(slot, "again");
      slot.staged = false;
      slot.known &&= sessionPresent;
    }
    for (const release of this.#releases.values()) release.sent = false;
  }

  /** The next to send again, now. Those acknowledged meanwhile are passed over. */
  nextAgain(): Slot | undefined {
    while (this.#againAt < this.#again.length) {
      const slot = this.#again[this.#againAt++];
      if (slot?.place !== "again" || this.#slots.get(slot.packetId) !== slot) continue;
      if (this.#againAt > 1024) this.#compact();
      this.#move(slot, "wire");
      return slot;
    }
    if (this.#again.length > 0) this.#again = [];
    this.#againAt = 0;
    return undefined;
  }

  /** The one sent first, for messages to people. */
  oldest(): QueuedMessage | undefined {
    for (const { message } of this.#slots.values()) return message;
    return undefined;
  }

  /** The first that went out on this connection and has no answer. */
  oldestOnWire(): Slot | undefined {
    for (const slot of this.#slots.values()) if (slot.place === "wire" && slot.known && !slot.staged) return slot;
    return undefined;
  }

  /** The first whose PUBREL went out on this connection. */
  oldestReleased(): Release | undefined {
    for (const release of this.#releases.values()) if (release.sent) return release;
    return undefined;
  }

  clear(): void {
    this.#slots.clear();
    this.#releases.clear();
    this.#reserved.clear();
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

function weight({ message }: QueuedMessage): number {
  const { topic, payload, properties } = message;
  let bytes = topic.length + payload.length + (properties?.correlationData?.length ?? 0);
  for (const [name, value] of properties?.userProperties ?? []) bytes += name.length + value.length;
  return bytes;
}
