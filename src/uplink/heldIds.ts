import type { Store, Txn } from "../base/contracts.ts";
import type { HeldId } from "../base/inFlight.ts";

/**
 * Identifiers of QoS 2 messages of the cloud that were taken and not released yet (PUBREL): a repeated PUBLISH with one of them is not taken again
 * [MQTT-4.3.3-10]. On record in a map of the store, `uplink-held/NAME`, in the commit that takes the message. They belong to the cloud's session,
 * and are as many as it has identifiers, at most.
 */
export class HeldIds {
  readonly #map: string;
  readonly #store: Pick<Store, "commit" | "entries">;
  /** Identifier to the group that has to be durable before PUBREC; 0: it is, or nothing was stored. */
  readonly #groups = new Map<number, number>();
  /** On record of a session that is gone, for the disk did not take that it is: a restart must not find them. */
  readonly #stale = new Set<number>();

  constructor(uplink: string, store: Pick<Store, "commit" | "entries">) {
    this.#map = `uplink-held/${uplink}`;
    this.#store = store;
    for (const [key] of store.entries(this.#map)) this.#groups.set(Number(key), 0);
  }

  get size(): number {
    return this.#groups.size;
  }

  /** What `Publisher.publish` is to note with the message. */
  recordOf(packetId: number): HeldId {
    return { map: this.#map, key: String(packetId) };
  }

  /** Undefined: it is not held. */
  groupOf(packetId: number): number | undefined {
    return this.#groups.get(packetId);
  }

  /** @param group of the commit that noted it; 0: it is not on record, for its message went nowhere */
  hold(packetId: number, group: number): void {
    this.#groups.set(packetId, group);
  }

  /** The disk did not take it, and the cloud is told so. */
  drop(packetId: number): void {
    this.#groups.delete(packetId);
  }

  /** @returns the group that must be durable before PUBCOMP; undefined: it was not held. @throws what a commit throws */
  release(packetId: number): number | undefined {
    if (!this.#groups.has(packetId)) return undefined;
    const { group } = this.#store.commit((txn) => {
      txn.delete(this.#map, String(packetId));
      this.#strikeOut(txn);
    });
    this.#groups.delete(packetId);
    this.#stale.clear();
    return group;
  }

  /** The cloud has forgotten its session: what it sends from now on is new, whatever the identifier. @throws what a commit throws */
  forget(): void {
    for (const packetId of this.#groups.keys()) this.#stale.add(packetId);
    this.#groups.clear();
    if (this.#stale.size === 0) return;
    this.#store.commit((txn) => this.#strikeOut(txn));
    this.#stale.clear();
  }

  /** What is held anew meanwhile is on record by right. */
  #strikeOut(txn: Pick<Txn, "delete">): void {
    for (const packetId of this.#stale) if (!this.#groups.has(packetId)) txn.delete(this.#map, String(packetId));
  }
}
