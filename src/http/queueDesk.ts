/** The queues of uplinks as an operator handles them. */
import type { DroppedTopic, PeekedMessage, Publisher, Store, UplinkState } from "../base/contracts.ts";
import { TidegateError } from "../base/errors.ts";

/** An uplink, as far as it is handled here. */
export interface PausableUplink {
  state(): UplinkState;
  /** Returns the group that must be durable. */
  pause(paused: boolean): number;
  readonly queue: { recentDrops(): DroppedTopic[] };
}

export interface QueueState {
  readonly name: string;
  /** Of the link; `orphaned`: the uplink is not in the config any more, and messages wait for it. */
  readonly state: UplinkState["link"] | "orphaned";
  readonly paused: boolean;
  readonly messages: number;
  readonly bytes: number;
  readonly inflight: number;
  /** Of the oldest message; null when nothing waits, or nobody knows. */
  readonly oldestAgeMs: number | null;
  readonly dropped: Readonly<Record<string, number>>;
}

export class QueueDesk {
  readonly #store: Store;
  readonly #publisher: Pick<Publisher, "whenDurable">;
  readonly #uplinks: readonly PausableUplink[];

  constructor(store: Store, publisher: Pick<Publisher, "whenDurable">, uplinks: readonly PausableUplink[]) {
    this.#store = store;
    this.#publisher = publisher;
    this.#uplinks = uplinks;
  }

  list(): QueueState[] {
    const nowMs = this.#store.nowMs();
    const configured = this.#uplinks.map((uplink): QueueState => {
      const { name, link, paused, inflight, queue } = uplink.state();
      const { messages, bytes, oldestAcceptedAtMs: oldest, dropped } = queue;
      const oldestAgeMs = oldest === undefined ? null : Math.max(0, Math.round(nowMs - oldest));
      return { name, state: link, paused, messages, bytes, inflight, oldestAgeMs, dropped };
    });
    const orphaned = this.#store.stats().orphaned.map(
      ({ name, messages, bytes, dropped }): QueueState => ({
        ...{ name, state: "orphaned", paused: false, messages, bytes, inflight: 0, oldestAgeMs: null, dropped },
      }),
    );
    return [...configured, ...orphaned];
  }

  /** Undefined: no such uplink in the config. */
  uplink(name: string): UplinkState | undefined {
    return this.#find(name)?.state();
  }

  /** The last ones that will not be sent, the newest first. Undefined: no such uplink in the config. */
  dropped(name: string): DroppedTopic[] | undefined {
    return this.#find(name)?.queue.recentDrops();
  }

  /** Undefined: no such queue. */
  async peek(name: string, count: number): Promise<{ messages: PeekedMessage[]; more: boolean } | undefined> {
    return this.#isThere(name) ? this.#store.peekUplink(name, count) : undefined;
  }

  /** Resolves once it would survive a crash. False: no such uplink. @throws TidegateError TG_STORE_FAILED */
  async pause(name: string, paused: boolean): Promise<boolean> {
    const uplink = this.#find(name);
    if (uplink === undefined) return false;
    const group = uplink.pause(paused);
    const durable = await new Promise<boolean>((resolve) => this.#publisher.whenDurable(group, resolve));
    if (!durable)
      throw new TidegateError("TG_STORE_FAILED", "the disk takes no writes: this holds until the next start only");
    return true;
  }

  /** All that waits goes, but for what is in flight; resolves once that is durable. Undefined: no such queue. */
  async purge(name: string): Promise<{ messages: number; bytes: number } | undefined> {
    return this.#isThere(name) ? this.#store.purgeUplink(name) : undefined;
  }

  #find(name: string): PausableUplink | undefined {
    return this.#uplinks.find((one) => one.state().name === name);
  }

  #isThere(name: string): boolean {
    return this.list().some((queue) => queue.name === name);
  }
}
