/** What a store holds, as text, and a random workload: what comes back after a stop must be what was there, when all of it was durable. */
import type { Store, UplinkQueue } from "../../../src/base/contracts.ts";
import type { StoreOptions } from "../../../src/journal/open.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { generous, message, open, randomOf, TestClock, taker, textOf, turn, until } from "./support.ts";

/** Every item of a checkpoint is a slice of its own; checkpoints come often. */
export const sliced = { tuning: { sliceMs: 0, sliceItems: 1, checkpointBytes: 3000 }, segmentBytes: 2500 } as const;

/** One line for each thing that waits or is kept. Not the lanes: reading those would move them. */
export async function holdings(store: Store): Promise<string[]> {
  const lines: string[] = [];
  for (const name of store.referenceNames()) {
    const queue = store.references(name)!;
    lines.push(`${name} next ${queue.nextOrdinal}`);
    const read = await queue.read(0, { messages: 1e6, bytes: 1e12 });
    lines.push(...read.map((one) => `${name} ${one.ordinal} ${one.meta} ${textOf(one)}`));
    if (read.length !== queue.size) lines.push(`${name} counts ${queue.size}`);
  }
  for (const [topic, position] of store.retained()) {
    const stored = await store.read(position);
    lines.push(`retained ${topic} ${stored === undefined ? "gone" : textOf(stored)}`);
  }
  for (const map of ["m", "n"]) {
    for (const [key, value] of store.entries(map)) lines.push(`${map} ${key} ${Buffer.from(value)}`);
  }
  const { messages, bytes } = store.uplink("cloud", generous).stats();
  return [...lines.sort(), `cloud ${messages} ${bytes}`];
}

/** Everything that waits in the lanes, in order. */
export async function lanes(store: Store): Promise<string[]> {
  const queue = store.uplink("cloud", generous);
  const out: string[] = [];
  await until(() => {
    for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(`${next.priority} ${textOf(next)}`);
    return queue.stats().messages === out.length;
  });
  return out;
}

export class Workload {
  readonly files = new FaultyFiles();
  readonly clock = new TestClock();
  readonly random: () => number;
  store!: Store;
  queue!: UplinkQueue;
  #rule = 0;
  #count = 0;
  #group = 0;
  readonly #more: Partial<StoreOptions>;

  constructor(seed: number, more: Partial<StoreOptions> = sliced) {
    this.random = randomOf(seed);
    this.#more = more;
  }

  async open(): Promise<void> {
    this.clock.forgetTimers();
    this.store = await open(this.files.mount(), this.clock, this.#more);
    this.queue = this.store.uplink("cloud", generous);
    this.#rule = this.store.rule("cloud", "{}");
  }

  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  /** One commit of one to four changes of any kind. */
  commit(): void {
    this.#group = this.store.commit((txn) => {
      for (let changes = 1 + this.below(4); changes > 0; changes -= 1) {
        const text = `m${++this.#count}`;
        const name = `q${this.below(3)}`;
        const dice = this.below(20);
        if (dice < 8) {
          const position = txn.message(message(text), dice < 4 ? [taker(this.queue.lane(dice), this.#rule)] : []);
          if (dice > 1) txn.reference(name, position, dice);
        } else if (dice < 13) {
          const oldest = this.store.references(name)?.oldest()?.ordinal ?? 0;
          txn.release(name, oldest + this.below(4));
        } else if (dice === 13) txn.dropQueue(name);
        else if (dice < 16) txn.retain(`t${this.below(5)}`, txn.message(message(text), []));
        else if (dice === 16) txn.unretain(`t${this.below(5)}`);
        else if (dice === 17) txn.delete("m", `k${this.below(6)}`);
        else txn.put(dice === 18 ? "m" : "n", `k${this.below(6)}`, Buffer.from(text));
      }
    }).group;
  }

  /** Hands out and settles some, not in order. */
  drain(): void {
    const out = [];
    for (let count = this.below(8); count > 0; count -= 1) {
      const next = this.queue.next();
      if (next !== undefined) out.push(next);
    }
    for (const one of out.reverse()) if (this.random() < 0.8) this.queue.settle(one);
  }

  async work(steps: number): Promise<void> {
    for (let step = 0; step < steps; step += 1) {
      const dice = this.random();
      if (dice < 0.55) this.commit();
      else if (dice < 0.65) this.drain();
      else if (dice < 0.75) this.clock.advance([1000, 150, 11_000][this.below(3)]!);
      for (let turns = this.below(4); turns > 0; turns -= 1) await turn();
    }
  }

  /** All that was committed, and the lanes' states, are durable. */
  async settleDown(): Promise<void> {
    this.queue.rewind();
    for (let round = 0; round < 3; round += 1) {
      this.clock.advance(150);
      for (let turns = 0; turns < 5; turns += 1) await turn();
      this.clock.advance(1000);
      await until(() => this.store.durableGroup >= this.#group, "durable");
      for (let turns = 0; turns < 5; turns += 1) await turn();
    }
  }

  checkpoints(): string[] {
    return this.files.paths().filter((path) => path.endsWith(".bin"));
  }
}
