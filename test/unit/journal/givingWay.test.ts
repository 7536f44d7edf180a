import { expect } from "chai";
import type { QueuedMessage, Store, UplinkLimits, UplinkQueue, UplinkQueueStats } from "../../../src/base/contracts.ts";
import type { Log, LogFields } from "../../../src/base/log.ts";
import type { StoreOptions } from "../../../src/journal/options.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { dir, durable, generous, message, open, randomOf, TestClock, taker, textOf, turn, until } from "./support.ts";

const mebi = 1024 * 1024;
const sessionNames = ["session/a", "session/b"];
const seeds = Number(process.env["TIDEGATE_SEEDS"] ?? 12);
const rejecting: UplinkLimits = { ...generous, whenFull: "reject-newest" };

const stored = (files: FaultyFiles): number =>
  files
    .paths()
    .filter((path) => path.startsWith(dir))
    .reduce((sum, path) => sum + files.content(path).length, 0);

/** Publishes as the broker does: waits while the store is crowded, and until what it gave is durable. */
class Feeder {
  readonly store: Store;
  readonly clock: TestClock;
  readonly accepted = new Map<number, number>();
  refused = 0;
  #next = 0;

  constructor(store: Store, clock: TestClock) {
    this.store = store;
    this.clock = clock;
  }

  /** @returns the text, undefined when it was refused */
  async put(lanes: readonly number[], bytes: number, session?: string): Promise<string | undefined> {
    for (let waits = 0; this.store.crowded; waits += 1) {
      if (waits % 50 === 49) this.clock.advance(100);
      await turn();
    }
    if (this.store.admit({ bytes, rejectNewest: [] }) !== "ok") {
      this.refused += 1;
      return undefined;
    }
    const text = `${this.#next++} ${"x".repeat(bytes)}`;
    const { group } = this.store.commit((txn) => {
      const position = txn.message(
        message(text),
        lanes.map((lane) => taker(lane)),
      );
      if (session !== undefined) txn.reference(session, position, 1);
    });
    for (const lane of lanes) this.accepted.set(lane, (this.accepted.get(lane) ?? 0) + 1);
    await durable(this.store, group);
    return text;
  }

  async fill(lanes: readonly number[], bytesInAll: number, session?: string): Promise<void> {
    for (let sent = 0; sent < bytesInAll; sent += 4096) await this.put(lanes, 4000, session);
  }
}

async function drain(queue: UplinkQueue, max = Number.POSITIVE_INFINITY): Promise<string[]> {
  const got: string[] = [];
  for (let idle = 0; idle < 50 && got.length < max; ) {
    const next = queue.next();
    if (next === undefined) {
      idle += 1;
      await turn();
      continue;
    }
    idle = 0;
    got.push(textOf(next).split(" ")[0]!);
    queue.settle(next);
  }
  return got;
}

const countsOf = (queue: UplinkQueue): Pick<UplinkQueueStats, "messages" | "bytes" | "dropped"> => {
  const { messages, bytes, dropped } = queue.stats();
  return { messages, bytes, dropped };
};
const rising = (texts: readonly string[]): boolean => texts.every((text, at) => at === 0 || +texts[at - 1]! < +text);
const lost = (queue: UplinkQueue): number => queue.stats().dropped["store-full"] ?? 0;

describe("journal: a full store gives way", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  const stores: Store[] = [];

  const start = async (more: Partial<StoreOptions> = {}): Promise<Store> => {
    const store = await open(files.mount(), clock, { maxBytes: 2 * mebi, ...more });
    stores.push(store);
    return store;
  };

  beforeEach(() => {
    files = new FaultyFiles();
    clock = new TestClock();
  });
  afterEach(async () => {
    for (const store of stores.splice(0)) await store.close();
  });

  it("drop-oldest: never refuses, keeps the newest, in order, within maxBytes", async () => {
    const store = await start();
    const queue = store.uplink("cloud", generous);
    store.configured();
    const feeder = new Feeder(store, clock);
    let most = 0;
    for (let round = 0; round < 20; round += 1) {
      await feeder.fill([queue.lane(0)], mebi / 2);
      most = Math.max(most, stored(files));
    }
    expect(feeder.refused).to.equal(0);
    expect(most).to.be.at.most(2 * mebi);
    const { messages, bytes } = queue.stats();
    expect(bytes, "no more than needed").to.be.greaterThan(mebi);
    expect(lost(queue)).to.equal(feeder.accepted.get(queue.lane(0))! - messages);
    const got = await drain(queue);
    expect(got.length).to.equal(messages);
    expect(+got[0]!, "the newest").to.equal(lost(queue));
    expect(rising(got)).to.equal(true);
  });

  it("reject-newest: refuses, drops nothing", async () => {
    const store = await start();
    const queue = store.uplink("cloud", rejecting);
    store.configured();
    const feeder = new Feeder(store, clock);
    for (let tries = 0; feeder.refused === 0 && tries < 1000; tries += 1) await feeder.put([queue.lane(0)], 4000);
    expect(feeder.refused).to.equal(1);
    expect(queue.stats().messages).to.equal(feeder.accepted.get(queue.lane(0)));
    expect(queue.stats().dropped).to.deep.equal({});
    expect(stored(files))
      .to.be.greaterThan(1.5 * mebi)
      .and.at.most(2 * mebi);
    expect(await drain(queue, 100)).to.have.length(100);
  });

  it("orphaned uplinks first, then the lowest priority over all, then sessions; reject-newest never", async () => {
    const before = await start();
    const gone = before.uplink("gone", generous);
    await new Feeder(before, clock).fill([gone.lane(9)], 0.4 * mebi);
    await before.close();
    const store = await start();
    const [one, two, kept] = [
      store.uplink("one", generous),
      store.uplink("two", generous),
      store.uplink("kept", rejecting),
    ];
    let asked = 0;
    store.onCrowded(() => {
      asked += 1;
      return 0;
    });
    expect(store.stats().orphaned, "nobody is an orphan before all are named").to.deep.equal([]);
    store.configured();
    expect(store.stats().orphaned.map(({ name, messages }) => [name, messages])).to.deep.equal([["gone", 103]]);
    const feeder = new Feeder(store, clock);
    await feeder.fill([kept.lane(0)], 0.3 * mebi);
    await feeder.fill([two.lane(1)], 0.3 * mebi);
    await feeder.fill([one.lane(0)], 0.3 * mebi);
    expect([lost(one), lost(two), asked]).to.deep.equal([0, 0, 0]);
    const orphan = (): number => store.stats().orphaned[0]?.messages ?? 0;
    while (orphan() > 0) {
      await feeder.put([kept.lane(0)], 4000);
      if (orphan() > 0) expect([lost(one), lost(two), asked]).to.deep.equal([0, 0, 0]);
    }
    while (one.stats().messages > 20) {
      await feeder.put([kept.lane(0)], 4000);
      if (one.stats().messages > 20) expect([lost(two), asked]).to.deep.equal([0, 0]);
    }
    while (feeder.refused === 0) await feeder.put([kept.lane(0)], 4000);
    expect(lost(two)).to.be.greaterThan(0);
    expect(asked).to.be.greaterThan(0);
    expect(kept.stats().dropped).to.deep.equal({});
    expect(kept.stats().messages).to.equal(feeder.accepted.get(kept.lane(0)));
  });

  it("what is in flight is never dropped, and drops are told once a minute with how many", async () => {
    const lines: LogFields[] = [];
    const log: Log = { debug() {}, info() {}, error() {}, warn: (fields) => void lines.push(fields), child: () => log };
    const store = await start({ log });
    const queue = store.uplink("cloud", generous);
    store.configured();
    const feeder = new Feeder(store, clock);
    await feeder.fill([queue.lane(0)], mebi);
    const held = [queue.next(), queue.next()];
    while (held.some((entry) => entry === undefined)) {
      await turn();
      held.push(queue.next());
      held.splice(0, held.length, ...held.filter((entry) => entry !== undefined));
      if (held.length < 2) held.push(undefined);
    }
    await feeder.fill([queue.lane(0)], 2 * mebi);
    expect(feeder.refused).to.equal(0);
    queue.rewind();
    const got = await drain(queue);
    expect(got.slice(0, 2)).to.deep.equal(["0", "1"]);
    expect(+got[2]!, "those after it went").to.be.greaterThan(2);
    expect(lost(queue)).to.equal(feeder.accepted.get(queue.lane(0))! - got.length);
    const said = lines.filter(({ reason }) => reason === "store-full");
    expect(said).to.have.length(1);
    clock.advance(61_000);
    const told = lines.filter(({ reason }) => reason === "store-full");
    expect(told.reduce((sum, { messages }) => sum + Number(messages), 0)).to.equal(lost(queue));
    expect(told).to.have.length(2);
  });

  it("others fill the disk: what we hold gives way to the newest, and we grow no further", async () => {
    files.free = 100 * mebi;
    const store = await start({ maxBytes: 64 * mebi, segmentBytes: 65_536, minFreeBytes: 10 * mebi });
    const queue = store.uplink("cloud", generous);
    store.configured();
    const feeder = new Feeder(store, clock);
    await feeder.fill([queue.lane(0)], 2 * mebi);
    expect(lost(queue)).to.equal(0);
    files.free = 8 * mebi;
    clock.advance(1001);
    await until(() => store.admit({ bytes: 2 * mebi, rejectNewest: [] }) === "full");
    await feeder.fill([queue.lane(0)], 3 * mebi);
    expect(feeder.refused).to.equal(0);
    expect(lost(queue)).to.be.greaterThan(0);
    expect(queue.stats().bytes).to.be.greaterThan(mebi);
    expect(stored(files)).to.be.below(2.2 * mebi);
  });

  for (const maxBytes of [0, 64 * 1024, mebi, 2 ** 50]) {
    it(`starts, answers and keeps its word with maxBytes ${maxBytes}`, async () => {
      const store = await start({ maxBytes });
      const queue = store.uplink("cloud", generous);
      store.configured();
      const feeder = new Feeder(store, clock);
      await feeder.fill([queue.lane(0)], 1.5 * mebi);
      if (maxBytes === 0) expect(queue.stats().messages).to.equal(0);
      if (maxBytes >= mebi) expect(feeder.refused).to.equal(0);
      expect(queue.stats().messages + lost(queue)).to.equal(feeder.accepted.get(queue.lane(0)) ?? 0);
      if (maxBytes > 0) expect(stored(files)).to.be.at.most(maxBytes);
    });
  }

  it("a limit that was lowered below what is there: starts, gives way, takes the newest", async () => {
    const before = await start({ maxBytes: 64 * mebi, segmentBytes: 65_536 });
    const old = before.uplink("cloud", generous);
    const feeder = new Feeder(before, clock);
    await feeder.fill([old.lane(0)], 4 * mebi);
    await before.close();
    const lines: string[] = [];
    const log: Log = { debug() {}, info() {}, error() {}, warn: (_, text) => void lines.push(text), child: () => log };
    const store = await start({ maxBytes: 2 * mebi, log });
    const queue = store.uplink("cloud", generous);
    store.configured();
    expect(lines.join()).to.contain("more is stored than there is room for");
    for (let waits = 0; store.admit({ bytes: 4096, rejectNewest: [] }) !== "ok"; waits += 1) {
      if (waits > 1000) throw new Error("never");
      if (waits % 50 === 49) clock.advance(1000);
      await turn();
    }
    expect(stored(files)).to.be.at.most(2 * mebi);
    expect(queue.stats().messages + lost(queue)).to.equal(feeder.accepted.get(old.lane(0)));
    const got = await drain(queue);
    expect(+got.at(-1)!).to.equal(feeder.accepted.get(old.lane(0))! - 1);
  });

  it("a backlog comes back with its uplink; a purge is durable, and counted", async () => {
    const first = await start();
    const [a, b] = [first.uplink("a", generous), first.uplink("b", generous)];
    await new Feeder(first, clock).fill([a.lane(0), b.lane(0)], 0.2 * mebi);
    const messages = a.stats().messages;
    await first.close();
    const second = await start();
    second.uplink("c", generous);
    second.configured();
    expect(second.stats().orphaned.map(({ name }) => name)).to.deep.equal(["a", "b"]);
    const purged = await second.purgeUplink("b");
    expect(purged.messages).to.equal(messages);
    expect(await second.purgeUplink("b")).to.deep.equal({ messages: 0, bytes: 0 });
    expect(await second.purgeUplink("never heard of")).to.deep.equal({ messages: 0, bytes: 0 });
    stores.pop(); // the power goes
    files.crash(() => 1);
    clock.forgetTimers();
    const third = await start();
    const again = third.uplink("a", generous);
    third.configured();
    expect(third.stats().orphaned).to.deep.equal([]);
    expect(third.uplink("b", generous).stats()).to.deep.include({ messages: 0, dropped: { purged: messages } });
    expect(await drain(again)).to.have.length(messages);
    expect(third.uplink("new", generous).stats().messages).to.equal(0);
  });

  for (let seed = 1; seed <= seeds; seed += 1) {
    it(`random work over three uplinks and two sessions (seed ${seed}): counts are exact, nothing is refused without need`, async () => {
      const store = await start({ maxBytes: 3 * mebi });
      const work = new RandomWork(store, files, clock, randomOf(seed));
      await work.run();
      for (let waits = 0; waits < 10 || store.stats().pendingBytes > 0; waits += 1) {
        clock.advance(300);
        for (let turns = 0; turns < 10; turns += 1) await turn();
      }
      const counts = work.check();
      stores.pop(); // the power goes: what was dropped stays dropped and counted
      files.crash(() => 1);
      clock.forgetTimers();
      const again = await start({ maxBytes: 3 * mebi });
      expect(again.stats().recovery.corruptRecords).to.equal(0);
      expect(work.queuesOf(again).map((queue) => countsOf(queue))).to.deep.equal(counts);
      for (const [at, queue] of work.queuesOf(again).entries()) {
        const got = await drain(queue);
        expect(got).to.have.length(counts[at]!.messages);
        expect(got.filter((text) => work.delivered[at]!.has(text))).to.deep.equal([]);
      }
    });
  }
});

/** Two uplinks may drop, one may not but is small; sessions let go of what they are asked for. */
class RandomWork {
  readonly delivered = [new Set<string>(), new Set<string>(), new Set<string>()];
  readonly #store: Store;
  readonly #files: FaultyFiles;
  readonly #clock: TestClock;
  readonly #random: () => number;
  readonly #queues: UplinkQueue[];
  readonly #lanes: number[][];
  readonly #feeder: Feeder;
  /** In flight. */
  readonly #held = new Set<QueuedMessage>();
  #referenced = 0;
  #released = 0;

  constructor(store: Store, files: FaultyFiles, clock: TestClock, random: () => number) {
    this.#store = store;
    this.#files = files;
    this.#clock = clock;
    this.#random = random;
    this.#queues = this.queuesOf(store);
    this.#lanes = this.#queues.map((queue) => [0, 5, 9].map((priority) => queue.lane(priority)));
    this.#feeder = new Feeder(store, clock);
    store.onCrowded((bytes) => this.#release(bytes));
    store.configured();
  }

  queuesOf(store: Store): UplinkQueue[] {
    return [
      store.uplink("one", generous),
      store.uplink("two", { ...generous, maxBytes: mebi }),
      store.uplink("kept", { ...rejecting, maxBytes: mebi / 4 }),
    ];
  }

  async run(): Promise<void> {
    for (let step = 0; step < 1500; step += 1) {
      const pick = this.#random();
      const at = this.#below(3);
      if (pick < 0.9) await this.#publish();
      else if (pick < 0.95) this.#deliver(at);
      else if (pick < 0.97) {
        for (const queue of this.#queues) queue.rewind();
        this.#held.clear();
      } else this.#clock.advance(this.#below(1500));
      expect(stored(this.#files)).to.be.at.most(3 * mebi);
    }
  }

  check(): Array<Pick<UplinkQueueStats, "messages" | "bytes" | "dropped">> {
    expect(this.#feeder.refused).to.equal(0);
    const counts = this.#queues.map((queue) => countsOf(queue));
    for (const [at, { messages, dropped }] of counts.entries()) {
      const accepted = this.#lanes[at]!.reduce((sum, lane) => sum + (this.#feeder.accepted.get(lane) ?? 0), 0);
      const gone = Object.values(dropped).reduce((sum, count) => sum + count, 0);
      expect(messages).to.equal(accepted - this.delivered[at]!.size - gone);
    }
    expect(counts[2]!.dropped).to.deep.equal({});
    const left = sessionNames.reduce((sum, name) => sum + (this.#store.references(name)?.size ?? 0), 0);
    expect(left).to.equal(this.#referenced - this.#released);
    return counts;
  }

  async #publish(): Promise<void> {
    const room = this.#queues[2]!.stats().bytes < mebi / 4;
    const takers = [0, 1, 2].filter((at) => this.#random() < 0.4 && (at < 2 || room));
    const session = this.#random() < 0.2 ? sessionNames[this.#below(2)] : undefined;
    if (takers.length === 0 && session === undefined) return;
    const chosen = takers.map((at) => this.#lanes[at]![this.#below(3)]!);
    const put = await this.#feeder.put(chosen, 500 + this.#below(8000), session);
    if (put !== undefined && session !== undefined) this.#referenced += 1;
  }

  #deliver(at: number): void {
    for (let left = 20; left > 0; left -= 1) {
      const next = this.#queues[at]!.next();
      if (next === undefined) break;
      if (this.#held.size < 3 && this.#random() < 0.2) {
        this.#held.add(next);
        continue;
      }
      this.#queues[at]!.settle(next);
      const [number] = textOf(next).split(" ");
      expect(this.delivered[at]!.has(number!), "twice").to.equal(false);
      this.delivered[at]!.add(number!);
    }
  }

  #release(bytes: number): number {
    let given = 0;
    for (const name of sessionNames) {
      const queue = this.#store.references(name);
      while (queue !== undefined && queue.size > 0 && given < bytes) {
        const held = queue.bytes;
        this.#store.commit((txn) => txn.release(name, queue.oldest()!.ordinal));
        given += held - queue.bytes;
        this.#released += 1;
      }
    }
    return given;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }
}
