import type { QueuedMessage, Store, UplinkLimits, UplinkQueue } from "../../../src/base/contracts.ts";
import type { StoreOptions } from "../../../src/journal/options.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn, until } from "./support.ts";

/** An uplink's queue on a disk in memory, with what a link does to it. */
export class ShareRig {
  files = new FaultyFiles();
  clock = new TestClock();
  store!: Store;
  queue!: UplinkQueue;
  limits: UplinkLimits = generous;
  readonly #more: Partial<StoreOptions>;

  constructor(more: Partial<StoreOptions> = {}) {
    this.#more = { segmentBytes: 4000, ...more };
  }

  async open(): Promise<this> {
    this.store = await open(this.files.mount(), this.clock, this.#more);
    this.queue = this.store.uplink("cloud", this.limits);
    return this;
  }

  async put(texts: readonly string[], priority = 5, ttlMs?: number): Promise<void> {
    const lane = this.queue.lane(priority);
    const { group } = this.store.commit((txn) => {
      for (const text of texts) txn.message(message(text), [taker(lane, 1, ttlMs)]);
    });
    await durable(this.store, group);
  }

  linkUp(liveShare: number): void {
    this.queue.shareLink(this.store.head, liveShare);
  }

  async take(count: number): Promise<QueuedMessage[]> {
    const out: QueuedMessage[] = [];
    await until(() => {
      for (let next = this.queue.next(); next !== undefined; next = this.queue.next()) {
        out.push(next);
        if (out.length === count) return true;
      }
      return false;
    }, `${count} messages`);
    return out;
  }

  async texts(count: number): Promise<string[]> {
    return (await this.take(count)).map(textOf);
  }

  /** All that comes, settled, until no more than `left` wait. */
  async drain(left = 0): Promise<string[]> {
    const got: string[] = [];
    await until(() => {
      for (let next = this.queue.next(); next !== undefined; next = this.queue.next()) {
        got.push(textOf(next));
        this.queue.settle(next);
      }
      return this.queue.stats().messages === left;
    }, "drained");
    return got;
  }

  /** Until what was settled is in the file, synced or not. */
  async written(): Promise<void> {
    this.clock.advance(100);
    await until(() => this.store.stats().pendingBytes > 0, "the state is written");
    for (let turns = 0; turns < 10; turns += 1) await turn();
  }

  /** kill -9, and started again. */
  async kill(): Promise<void> {
    this.files.kill();
    this.clock = new TestClock();
    await this.open();
  }
}

export const named = (name: string, count: number, from = 0): string[] =>
  Array.from({ length: count }, (_, index) => `${name}${from + index}`);
