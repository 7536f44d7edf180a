import { expect } from "chai";
import type { QueuedMessage, Store, UplinkQueue } from "../../../src/base/contracts.ts";
import type { Files, OpenFile } from "../../../src/base/files.ts";
import { PendingBytes } from "../../../src/broker/pendingBytes.ts";
import type { StoreOptions } from "../../../src/journal/options.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { dir, generous, message, open, randomOf, TestClock, taker, textOf, turn } from "./support.ts";

const mebi = 1024 * 1024;
const seeds = Number(process.env["TIDEGATE_SEEDS"] ?? 8);
const rejecting = { ...generous, whenFull: "reject-newest" } as const;

const stored = (files: FaultyFiles): number =>
  files.paths().reduce((sum, path) => sum + (path.startsWith(dir) ? files.content(path).length : 0), 0);

/** A disk whose syncs take as long as `ms` says, by the test's clock. */
function slow(files: Files, clock: TestClock, ms: () => number): Files {
  const wait = (): Promise<void> => new Promise((resolve) => clock.setTimer(ms(), resolve));
  const slowFile = (file: OpenFile): OpenFile => ({
    ...file,
    datasync: async () => {
      await wait();
      await file.datasync();
    },
  });
  return {
    ...files,
    open: async (path, mode) => slowFile(await files.open(path, mode)),
    syncDir: async (path) => {
      await wait();
      await files.syncDir(path);
    },
  };
}

/** Publishers as the broker reads them: each goes on until after one of its own messages the store wants a pause. */
class Publishers {
  readonly store: Store;
  readonly #random: () => number;
  readonly #largest: number;
  readonly #pending: PendingBytes;
  readonly #paused: boolean[];
  readonly #lanes: readonly number[];
  accepted = 0;
  refused = 0;
  pauses = 0;

  constructor(store: Store, lanes: readonly number[], random: () => number, of: { count: number; largest: number }) {
    this.store = store;
    this.#lanes = lanes;
    this.#random = random;
    this.#largest = of.largest;
    this.#paused = new Array<boolean>(of.count).fill(false);
    this.#pending = new PendingBytes(
      4 * mebi,
      () => this.#paused.fill(false),
      () => store.crowded,
    );
    store.onDurable((group) => this.#pending.settle(group));
  }

  /** What one poll of all sockets brings: up to 50 messages of each. */
  read(): void {
    for (let at = 0; at < this.#paused.length; at += 1) {
      for (let left = 1 + Math.floor(this.#random() * 50); left > 0 && this.#paused[at] === false; left -= 1)
        this.#publish(at);
    }
  }

  #publish(at: number): void {
    const bytes = 200 + Math.floor(this.#random() * (this.#largest - 200));
    if (this.store.admit({ bytes, rejectNewest: [] }) !== "ok") this.refused += 1;
    else {
      const lane = this.#lanes[Math.floor(this.#random() * this.#lanes.length)]!;
      const text = `${this.accepted} `.padEnd(bytes, "x");
      const { group } = this.store.commit((txn) => txn.message(message(text), [taker(lane)]));
      this.#pending.add(group, bytes);
      this.accepted += 1;
    }
    if (!this.#pending.above) return;
    this.#paused[at] = true;
    this.pauses += 1;
  }
}

describe("journal: a crowded store", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  let store: Store | undefined;
  let syncMs = (): number => 0;

  const start = async (more: Partial<StoreOptions> = {}): Promise<Store> => {
    const disk = slow(files.mount(), clock, () => syncMs());
    store = undefined;
    void open(disk, clock, { maxBytes: 2 * mebi, ...more }).then((opened) => {
      store = opened;
    });
    await go(() => store !== undefined, 100);
    return store!;
  };

  /** Time goes by in steps until it is so. @throws after a day of it */
  const go = async (until: () => boolean, stepMs: number): Promise<void> => {
    for (let gone = 0; !until(); gone += stepMs) {
      if (gone > 86_400_000) throw new Error("it never came to that");
      clock.advance(stepMs);
      for (let turns = 0; turns < 6; turns += 1) await turn();
    }
  };

  beforeEach(() => {
    files = new FaultyFiles();
    clock = new TestClock();
    syncMs = () => 0;
  });
  afterEach(async () => {
    syncMs = () => 0;
    files.fault = () => undefined;
    let closed = false;
    void store?.close().then(() => {
      closed = true;
    });
    if (store !== undefined) await go(() => closed, 100);
  });

  for (let seed = 1; seed <= seeds; seed += 1) {
    it(`drop-oldest, slow syncs, publishers that are paused: never a refusal (seed ${seed})`, async () => {
      const random = randomOf(seed);
      const opened = await start({ maxBytes: (2 + Math.floor(random() * 3)) * mebi });
      const queue = opened.uplink("cloud", generous);
      opened.configured();
      const lanes = [queue.lane(0), queue.lane(5)];
      const publishers = new Publishers(opened, lanes, random, { count: 8, largest: seed % 2 === 0 ? 16_000 : 2000 });
      syncMs = () => random() ** 3 * 4000;
      let most = 0;
      const rounds = (): boolean => {
        publishers.read();
        most = Math.max(most, stored(files));
        return (queue.stats().dropped["store-full"] ?? 0) > (seed % 2 === 0 ? 500 : 4000);
      };
      await go(rounds, 100);
      expect(publishers.refused).to.equal(0);
      expect(opened.stats().refused).to.equal(0);
      expect(publishers.pauses).to.be.above(0);
      expect(most).to.be.at.most(4 * mebi);
      const { messages, bytes, dropped } = queue.stats();
      expect(messages + (dropped["store-full"] ?? 0)).to.equal(publishers.accepted);
      expect(bytes, "not more than needed").to.be.above(mebi);
    });
  }

  /** Drop-oldest, as full as it gets while no file can go. */
  const crowd = async (): Promise<Publishers> => {
    const opened = await start();
    const queue = opened.uplink("cloud", generous);
    opened.configured();
    const publishers = new Publishers(opened, [queue.lane(0)], randomOf(1), { count: 1, largest: 4000 });
    files.fault = (operation, path) => (operation === "create" && path.includes("ckpt") ? "EIO" : undefined);
    await go(() => {
      publishers.read();
      return opened.crowded;
    }, 1);
    expect(publishers.refused).to.equal(0);
    return publishers;
  };

  it("no checkpoint can be made: after ten seconds with nothing happening publishers are told, once there is one they are not", async () => {
    const publishers = await crowd();
    for (let second = 0; second < 8; second += 1) await go(() => true, 1000);
    let waitedMs = 0;
    await go(() => {
      publishers.read();
      waitedMs += 500;
      return publishers.refused > 0;
    }, 500);
    expect(waitedMs).to.be.within(5000, 25_000);
    files.fault = () => undefined;
    await go(() => store!.admit({ bytes: 64 * 1024, rejectNewest: [] }) === "ok" && !store!.crowded, 100);
    const { refused, accepted } = publishers;
    await go(() => {
      publishers.read();
      return publishers.accepted > accepted + 1000;
    }, 20);
    expect(publishers.refused).to.equal(refused);
  });

  it("a sync that takes half a minute is waited for; one that takes more than one is not", async () => {
    const publishers = await crowd();
    files.fault = () => undefined;
    syncMs = () => 30_000;
    store!.commit((txn) => txn.put("m", "k", Buffer.from("v")));
    for (let second = 0; second < 28; second += 1) {
      clock.advance(1000);
      for (let turns = 0; turns < 6; turns += 1) await turn();
      publishers.read();
      expect(store!.crowded, `after ${second} s`).to.equal(true);
    }
    expect(publishers.refused).to.equal(0);
    syncMs = () => 600_000;
    await go(() => !store!.crowded, 1000);
  });

  it("reject-newest: nothing can go, so nobody waits: it is refused at the limit", async () => {
    const opened = await start();
    const queue = opened.uplink("cloud", rejecting);
    opened.configured();
    const publishers = new Publishers(opened, [queue.lane(0)], randomOf(1), { count: 1, largest: 4000 });
    const fromMs = clock.monotonicMs();
    await go(() => {
      publishers.read();
      return publishers.refused > 0;
    }, 1);
    expect(clock.monotonicMs() - fromMs).to.be.below(2000);
    expect(queue.stats().messages).to.equal(publishers.accepted);
    expect(stored(files)).to.be.above(1.7 * mebi);
  });

  it("says which limit it is, for a message of 64 KiB", async () => {
    const opened = await start({ minFreeBytes: 10 * mebi });
    const queue = opened.uplink("cloud", rejecting);
    opened.configured();
    expect(opened.stats().state).to.equal("ok");
    const put = (bytes: number): void =>
      void opened.commit((txn) => txn.message(message("x".repeat(bytes)), [taker(queue.lane(0))]));
    while (opened.admit({ bytes: 60_000, rejectNewest: [] }) === "ok") put(16_000);
    expect(opened.admit({ bytes: 1, rejectNewest: [] })).to.equal("ok");
    const { state, problem } = opened.stats();
    expect([state, problem]).to.deep.equal([
      "full",
      "storage.maxBytes is reached: raise it, or see why the uplinks do not take what waits. Durable messages are refused",
    ]);
    files.free = 5 * mebi;
    await go(() => opened.stats().problem?.includes("storage.minFreeBytes") === true, 1000);
    files.free = mebi;
    files.fault = (operation) => (operation === "write" ? "ENOSPC" : undefined);
    put(1);
    await go(() => opened.stats().problem?.includes("the disk is full") === true, 1000);
  });
});

describe("journal: merging comes before dropping", () => {
  const retainedText = (topic: number): string => `value of ${topic} ${"v".repeat(120)}`;

  /** Uplink traffic that is taken at once, and between it the retained values: each segment holds a few. */
  async function traffic(
    store: Store,
    clock: TestClock,
    queue: UplinkQueue,
    of: { bytesInAll: number; retained: number },
  ): Promise<number> {
    let refused = 0;
    let topic = 0;
    for (let sent = 0; sent < of.bytesInAll; ) {
      for (let waits = 0; store.crowded; waits += 1) {
        if (waits > 20_000) throw new Error("no room ever");
        clock.advance(1);
        await turn();
      }
      clock.advance(5);
      for (let burst = 0; burst < 20 && !store.crowded; burst += 1) {
        if (store.admit({ bytes: 4000, rejectNewest: ["cloud"] }) !== "ok") {
          refused += 1;
          break;
        }
        const isRetained = topic < of.retained && sent / of.bytesInAll > topic / of.retained / 2;
        store.commit((txn) => {
          txn.message(message("u".repeat(4000)), [taker(queue.lane(0))]);
          if (!isRetained) return;
          txn.retain(`r/${topic}`, txn.message(message(retainedText(topic)), []));
        });
        if (isRetained) topic += 1;
        sent += 4000;
      }
      await turn();
      for (let next: QueuedMessage | undefined = queue.next(); next !== undefined; next = queue.next())
        queue.settle(next);
    }
    return refused;
  }

  for (const [name, limits] of [
    ["reject-newest", rejecting],
    ["drop-oldest", generous],
  ] as const) {
    it(`${name}: 1,000 retained values in segments that are drained otherwise: none is lost, nothing refused or dropped`, async () => {
      const files = new FaultyFiles();
      const clock = new TestClock();
      const tuning = { spares: 0, mergeRate: 8 * 1024 }; // far too slow, unless it is lifted
      const store = await open(files.mount(), clock, { maxBytes: 2 * mebi, tuning });
      const queue = store.uplink("cloud", limits);
      store.configured();
      try {
        expect(await traffic(store, clock, queue, { bytesInAll: 24 * mebi, retained: 1000 })).to.equal(0);
        expect(store.stats().refused).to.equal(0);
        expect(queue.stats().dropped).to.deep.equal({});
        const retained = new Map(store.retained());
        expect(retained.size).to.equal(1000);
        for (let topic = 0; topic < 1000; topic += 1) {
          const read = await store.read(retained.get(`r/${topic}`)!);
          expect(read === undefined ? "gone" : textOf(read)).to.equal(retainedText(topic));
        }
        expect(stored(files)).to.be.at.most(2 * mebi);
      } finally {
        await store.close();
      }
    });
  }
});
