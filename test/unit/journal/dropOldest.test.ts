import { expect } from "chai";
import type { QueuedMessage, Store, UplinkQueue } from "../../../src/base/contracts.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, randomOf, TestClock, taker, textOf, turn, until } from "./support.ts";

const priorities = [9, 5, 1];

interface Waiting {
  readonly text: string;
  readonly bytes: number;
  flying?: QueuedMessage;
}

/** A queue beside a list per priority: what must be there after every step is computed, not guessed. */
class DropModel {
  readonly files = new FaultyFiles();
  readonly clock = new TestClock();
  readonly #random: () => number;
  readonly #maxBytes = 6000;
  readonly #lists = new Map<number, Waiting[]>(priorities.map((priority) => [priority, []]));
  #store!: Store;
  #queue!: UplinkQueue;
  #number = 0;
  #dropped = 0;

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  async start(): Promise<void> {
    this.clock.forgetTimers();
    this.#store = await open(this.files.mount(), this.clock, { segmentBytes: 3000 });
    this.#queue = this.#store.uplink("cloud", { ...generous, maxBytes: this.#maxBytes });
    for (const list of this.#lists.values()) for (const one of list) delete one.flying;
    await this.#trimmed();
  }

  get #bytes(): number {
    let bytes = 0;
    for (const list of this.#lists.values()) for (const one of list) bytes += one.bytes;
    return bytes;
  }

  async #trimmed(): Promise<void> {
    for (const priority of [...priorities].reverse()) {
      const list = this.#lists.get(priority)!;
      for (let index = 0; index < list.length && this.#bytes > this.#maxBytes; ) {
        if (list[index]!.flying !== undefined) index += 1;
        else {
          list.splice(index, 1);
          this.#dropped += 1;
        }
      }
    }
    await until(() => this.#queue.stats().bytes <= this.#bytes, "as little waits as should");
    expect(this.#queue.stats()).to.deep.include({ bytes: this.#bytes, messages: this.#count });
    expect(this.#queue.stats().dropped["full"] ?? 0).to.equal(this.#dropped);
  }

  get #count(): number {
    return [...this.#lists.values()].reduce((sum, list) => sum + list.length, 0);
  }

  async step(): Promise<void> {
    const dice = this.#random();
    if (dice < 0.5) await this.#put();
    else if (dice < 0.75) await this.#take();
    else if (dice < 0.9) await this.#settle();
    else if (dice < 0.95) {
      this.#queue.rewind();
      for (const list of this.#lists.values()) for (const one of list) delete one.flying;
    } else {
      // So that what waits is on disk only.
      this.clock.advance(100);
      await this.#store.close();
      await this.start();
    }
    await this.#trimmed();
  }

  async #put(): Promise<void> {
    const priority = priorities[Math.floor(this.#random() * 3)]!;
    const lane = this.#queue.lane(priority);
    const before = this.#queue.stats().bytes;
    const texts = Array.from({ length: 1 + Math.floor(this.#random() * 12) }, () => {
      this.#number += 1;
      return `${this.#number} ${"x".repeat(Math.floor(this.#random() * 300))}`;
    });
    let known = before;
    const { group } = this.#store.commit((txn) => {
      for (const text of texts) {
        txn.message(message(text), [taker(lane)]);
        const { bytes } = this.#queue.stats();
        this.#lists.get(priority)!.push({ text, bytes: bytes - known });
        known = bytes;
      }
    });
    await durable(this.#store, group);
  }

  async #take(): Promise<void> {
    for (let left = Math.floor(this.#random() * 5); left > 0; left -= 1) {
      const expected = this.#nextWaiting();
      let next: QueuedMessage | undefined;
      if (expected === undefined) {
        for (let turns = 0; turns < 5; turns += 1) await turn();
        expect(this.#queue.next()).to.equal(undefined);
        return;
      }
      await until(() => {
        next = this.#queue.next();
        return next !== undefined;
      }, expected.text);
      expect(textOf(next!)).to.equal(expected.text);
      expected.flying = next!;
    }
  }

  #nextWaiting(): Waiting | undefined {
    for (const list of this.#lists.values()) for (const one of list) if (one.flying === undefined) return one;
    return undefined;
  }

  async #settle(): Promise<void> {
    for (const list of this.#lists.values()) {
      for (const one of [...list]) {
        if (one.flying === undefined || this.#random() < 0.5) continue;
        this.#queue.settle(one.flying);
        list.splice(list.indexOf(one), 1);
      }
    }
  }

  async end(): Promise<void> {
    await this.#store.close();
  }
}

describe("journal: drop-oldest", () => {
  it("drops exactly the lowest priority's oldest that do not fly, from RAM and from disk, and never more", async function () {
    this.timeout(60_000);
    for (let seed = 1; seed <= 12; seed += 1) {
      const model = new DropModel(seed);
      try {
        await model.start();
        for (let step = 0; step < 80; step += 1) await model.step();
        await model.end();
      } catch (error) {
        throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
      }
    }
  });

  it("waits for a low priority that is not durable yet, instead of dropping a higher one", async () => {
    const files = new FaultyFiles();
    const store = await open(files.mount(), new TestClock());
    const queue = store.uplink("cloud", { ...generous, maxBytes: 3000 });
    const [high, low] = [queue.lane(9), queue.lane(1)];
    const put = (lane: number, count: number): number =>
      store.commit((txn) => {
        for (let left = count; left > 0; left -= 1) txn.message(message("x".repeat(200)), [taker(lane)]);
      }).group;
    await durable(store, put(high, 5));
    const first = put(high, 2); // its group is written while the next one fills
    await turn();
    const second = put(low, 20);
    await durable(store, first);
    await durable(store, second);
    await until(() => queue.stats().bytes <= 3000);
    const out: number[] = [];
    for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next.priority);
    expect(out.filter((priority) => priority === 9)).to.have.length(7);
    await store.close();
  });

  it("what expired in the segment that is being written goes unread too, and what comes after it stays", async () => {
    const clock = new TestClock();
    const files = new FaultyFiles();
    const store = await open(files.mount(), clock);
    const queue = store.uplink("cloud", { ...generous, maxAgeMs: 5000 });
    const lane = queue.lane(3);
    const put = (text: string): number => store.commit((txn) => txn.message(message(text), [taker(lane)])).group;
    for (const text of ["a", "b", "c"]) await durable(store, put(text));
    clock.advance(6000);
    await until(() => queue.stats().messages === 0, "dropped though nobody asked");
    expect(queue.stats()).to.deep.include({ bytes: 0, dropped: { expired: 3 } });
    await durable(store, put("d"));
    expect(textOf(queue.next()!)).to.equal("d");
    await store.close();
    const again = await open(files.mount(), clock);
    expect(again.uplink("cloud", generous).stats().messages).to.equal(1);
    await again.close();
  });

  it("a burst of 100,000 into 1 MiB costs no more than a few times its reading", async function () {
    this.timeout(60_000);
    const store = await open(new FaultyFiles().mount(), new TestClock(), { maxBytes: 2 ** 30 });
    const queue = store.uplink("cloud", { ...generous, maxBytes: 1024 * 1024 });
    const lane = queue.lane(5);
    const payload = message("x".repeat(150));
    const started = process.cpuUsage();
    let group = 0;
    for (let batch = 0; batch < 100; batch += 1) {
      group = store.commit((txn) => {
        for (let left = 1000; left > 0; left -= 1) txn.message(payload, [taker(lane)]);
      }).group;
      if (batch % 10 === 9) await durable(store, group);
    }
    await until(() => queue.stats().bytes <= 1024 * 1024, "trimmed");
    const spent = process.cpuUsage(started);
    expect(queue.stats().dropped["full"]).to.equal(100_000 - queue.stats().messages);
    expect(queue.stats().bytes).to.be.above(1024 * 1024 - 300);
    expect((spent.user + spent.system) / 1000, "CPU ms").to.be.below(6000);
    await store.close();
  });
});
