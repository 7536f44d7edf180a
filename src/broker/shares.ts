import type { Store } from "../base/contracts.ts";
import type { Hoard } from "./giveWay.ts";
import { groupOfQueue, isShareQueue, mapNames, sentKey } from "./references.ts";
import { type ShareDeps, ShareGroup } from "./shareGroup.ts";

export type SharesDeps = Omit<ShareDeps, "total" | "loaded">;

/** All shared groups, and what the store keeps of those with a durable member. */
export class Shares {
  readonly #deps: ShareDeps;
  readonly #groups = new Map<string, ShareGroup>();
  /** Queues whose members are not known, by name, with the store clock at which they go. */
  readonly #orphans = new Map<string, number>();

  constructor(deps: SharesDeps) {
    this.#deps = { ...deps, total: { bytes: 0 }, loaded: { bytes: 0 } };
    this.#forgetSent(deps.store);
  }

  /** Memberships, over all groups. */
  get count(): number {
    let members = 0;
    for (const { size } of this.#groups.values()) members += size;
    return members;
  }

  /** Messages that wait in the store for groups. */
  get waiting(): number {
    let waiting = 0;
    for (const { stored } of this.#groups.values()) waiting += stored.waiting;
    return waiting;
  }

  /** The group of that name and filter, made when new. */
  group(share: string, filter: string): ShareGroup {
    const key = `${share}/${filter}`;
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new ShareGroup(share, filter, this.#deps);
      this.#groups.set(key, group);
      this.#orphans.delete(group.stored.name);
    }
    return group;
  }

  /** Its last member has gone. */
  end(group: ShareGroup): void {
    this.#groups.delete(`${group.share}/${group.filter}`);
    group.end();
  }

  /**
   * To be called when all sessions are loaded. A queue without members is what a rotten record of a subscription leaves: as sessions in that case, it is
   * kept as long as sessions can be, for a member that subscribes again.
   */
  loaded(): void {
    const { store, limits } = this.#deps;
    for (const name of store.referenceNames()) {
      if (!isShareQueue(name) || (store.references(name)?.size ?? 0) === 0) continue;
      const { share, filter } = groupOfQueue(name);
      if (this.#groups.has(`${share}/${filter}`)) continue;
      this.#orphans.set(name, store.nowMs() + limits.sessionExpiryMaxMs);
    }
  }

  /** @param nowMs store clock @returns how long until there is something to do again, ms */
  tick(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const group of this.#groups.values()) if (group.tick()) nextMs = 0;
    for (const [name, dueMs] of this.#orphans) {
      nextMs = Math.min(nextMs, dueMs - nowMs);
      if (nowMs < dueMs) continue;
      const { share, filter } = groupOfQueue(name);
      this.end(this.group(share, filter));
    }
    return nextMs;
  }

  /** What could give way to a full store. */
  *hoards(): Iterable<Hoard> {
    for (const { stored, online } of this.#groups.values()) {
      if (stored.bytes > 0) yield { online, bytes: stored.bytes, giveWay: (bytes) => stored.giveWay(bytes) };
    }
  }

  /** The broker stops: what comes back from its connections is not handed on. */
  close(): void {
    for (const group of this.#groups.values()) group.close();
  }

  /** What went to a member at QoS 2 in an earlier run is with that member's session, or ended with it. */
  #forgetSent(store: Store): void {
    const { references, metrics } = this.#deps;
    for (const [key, value] of [...store.entries(mapNames.shareSent)]) {
      const split = key.indexOf("\u0000");
      const queue = key.slice(0, split);
      const ordinal = Number(key.slice(split + 1));
      const waits = store.references(queue)?.nextAfter(ordinal - 1) === ordinal;
      if (waits) references.release(queue, ordinal, undefined, sentKey(queue, ordinal));
      else references.takeBack(undefined, key);
      if (waits && value[0] === 1) metrics.dropped("session-ended").value += 1;
    }
    references.flush();
  }
}
