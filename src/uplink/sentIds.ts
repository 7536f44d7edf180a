import type { Clock, Timer } from "../base/clock.ts";
import type { Store, Txn } from "../base/contracts.ts";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Release, Slot } from "./window.ts";

/** The packet identifier of a QoS 2 message that went, or was about to go, to the cloud. */
export interface SentId {
  readonly packetId: number;
  readonly lane: number;
  readonly position: number;
  /** Rises with each statement: of the PUBLISH, or once PUBREC was seen of that. */
  readonly order: number;
  /** PUBREC was seen: the message is the cloud's. */
  readonly received: boolean;
}

export interface SentIdsDeps {
  readonly store: Pick<Store, "commit" | "entries" | "failed">;
  readonly clock: Clock;
  readonly log: Log;
  /** These identifiers can be used again. */
  freed(packetIds: readonly number[]): void;
  /** What could not be written is to be committed again. */
  again(): void;
}

/** An exchange that has ended is struck out with others, so long after it or when there are so many. */
const endedMs = 100;
const endedMax = 4096;
const retryMs = 1000;
/** state u8 | lane u32 | position f64 | order f64, little-endian */
const valueBytes = 21;
const state = { sent: 1, received: 2 } as const;

/**
 * What a QoS 2 exchange must not forget over a restart: a map of the store, `uplink-sent/NAME`, from packet identifier to message. Statements are collected and
 * committed together. An identifier is struck out in the group that says that its message is done, or after it: whatever a crash leaves, a message that
 * the cloud took is done, or its identifier still says so.
 */
export class SentIds {
  readonly #uplink: string;
  readonly #map: string;
  readonly #deps: SentIdsDeps;
  #sent: Slot[] = [];
  #received: Release[] = [];
  #ended: number[] = [];
  #order = 1;
  #timer: Timer | undefined;
  #faulty = false;
  readonly #write = (txn: Txn): void => this.#writeAll(txn);

  constructor(uplink: string, deps: SentIdsDeps) {
    this.#uplink = uplink;
    this.#map = `uplink-sent/${uplink}`;
    this.#deps = deps;
  }

  /** What was noted could not be committed. */
  get isFaulty(): boolean {
    return this.#faulty;
  }

  /** Nothing is on record. */
  get isEmpty(): boolean {
    for (const _ of this.#deps.store.entries(this.#map)) return false;
    return true;
  }

  /** All that are on record, in their order. */
  load(): SentId[] {
    const ids: SentId[] = [];
    for (const [key, value] of this.#deps.store.entries(this.#map)) {
      const id = parse(Number(key), value);
      if (id !== undefined) ids.push(id);
    }
    ids.sort((a, b) => a.order - b.order);
    this.#order = Math.max(this.#order, (ids.at(-1)?.order ?? 0) + 1);
    return ids;
  }

  /** It may be sent once the group that `commit` gives it is durable. */
  sent(slot: Slot): void {
    slot.group = Number.POSITIVE_INFINITY;
    slot.noted = true;
    this.#sent.push(slot);
  }

  /** PUBREL may go out once the group that `commit` gives it is durable. */
  received(release: Release): void {
    release.group = Number.POSITIVE_INFINITY;
    this.#received.push(release);
  }

  /** The exchange is over, and its message left the queue; the identifier stays reserved until `freed` names it. */
  ended(packetId: number): void {
    this.#ended.push(packetId);
    if (this.#ended.length >= endedMax) this.strikeOut();
    else this.#arm(endedMs);
  }

  /** Commits what was noted. @returns the group to wait for; 0: nothing was noted, or it could not be written now */
  commit(): number {
    if (this.#sent.length + this.#received.length === 0) return 0;
    const group = this.#commit(this.#write);
    if (group === 0) return 0;
    for (const slot of this.#sent) slot.group = group;
    for (const release of this.#received) release.group = group;
    this.#sent = [];
    this.#received = [];
    return group;
  }

  /** Strikes out what has ended. */
  strikeOut(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#ended.length === 0) return;
    const ended = this.#ended;
    const group = this.#commit((txn) => {
      txn.laneStates(this.#uplink);
      for (const packetId of ended) txn.delete(this.#map, String(packetId));
    });
    if (group === 0) return;
    this.#ended = [];
    this.#deps.freed(ended);
  }

  /** Commits everything; what cannot be is forgotten here, as by a crash. */
  release(): void {
    this.commit();
    this.strikeOut();
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#sent = [];
    this.#received = [];
    this.#ended = [];
  }

  #writeAll(txn: Txn): void {
    for (const { packetId, message } of this.#received) this.#put(txn, packetId, message, state.received);
    for (const { packetId, message } of this.#sent) this.#put(txn, packetId, message, state.sent);
  }

  #put(
    txn: Txn,
    packetId: number,
    message: { readonly lane: number; readonly position: number } | undefined,
    is: number,
  ): void {
    const value = Buffer.allocUnsafe(valueBytes); // the store copies it
    value[0] = is;
    value.writeUInt32LE(message?.lane ?? 0, 1);
    value.writeDoubleLE(message?.position ?? 0, 5);
    value.writeDoubleLE(this.#order++, 13);
    txn.put(this.#map, String(packetId), value);
  }

  #commit(write: (txn: Txn) => void): number {
    const { store, log } = this.#deps;
    if (store.failed !== undefined) return 0;
    try {
      const { group } = store.commit(write);
      this.#faulty = false;
      return group;
    } catch (error) {
      if (!this.#faulty) log.error({ error: messageOf(error) }, "packet identifiers could not be written; tried again");
      this.#faulty = true;
      this.#arm(retryMs);
      return 0;
    }
  }

  #arm(ms: number): void {
    this.#timer ??= this.#deps.clock.setTimer(ms, () => {
      this.#timer = undefined;
      this.strikeOut();
      if (this.#faulty) this.#deps.again();
    });
  }
}

function parse(packetId: number, value: Uint8Array): SentId | undefined {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const is = bytes[0];
  if (!(packetId >= 1 && packetId <= 65_534) || bytes.length < valueBytes) return undefined;
  if (is !== state.sent && is !== state.received) return undefined;
  const [position, order] = [bytes.readDoubleLE(5), bytes.readDoubleLE(13)];
  return { packetId, lane: bytes.readUInt32LE(1), position, order, received: is === state.received };
}
