import { expect } from "chai";
import type { QueuedMessage, Store, UplinkLimits, UplinkQueue } from "../../../src/base/contracts.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn, until } from "./support.ts";

// What an uplink's QoS 2 exchanges need of the journal over a restart.

class Rig {
  readonly files = new FaultyFiles();
  readonly clock = new TestClock();
  store!: Store;
  queue!: UplinkQueue;

  async start(limits: UplinkLimits = generous): Promise<this> {
    this.store = await open(this.files.mount(), this.clock, { segmentBytes: 32_768 });
    this.queue = this.store.uplink("cloud", limits);
    this.store.configured();
    return this;
  }

  async restart(limits?: UplinkLimits): Promise<void> {
    this.files.kill();
    this.clock.forgetTimers();
    await this.start(limits);
  }

  async put(texts: readonly string[], priority = 0, ttlMs?: number): Promise<void> {
    const [lane, rule] = [this.queue.lane(priority), this.store.rule("cloud", "{}")];
    const { group } = this.store.commit((txn) => {
      for (const text of texts) txn.message(message(text), [{ ...taker(lane, rule), ttlMs }]);
    });
    await durable(this.store, group);
  }

  async take(count: number): Promise<QueuedMessage[]> {
    const got: QueuedMessage[] = [];
    await until(() => {
      const next = this.queue.next();
      if (next !== undefined) got.push(next);
      return got.length === count;
    });
    return got;
  }
}

const texts = (count: number, name = "m"): string[] =>
  Array.from({ length: count }, (_, n) => `${name}${n}`.padEnd(40));
const many = { messages: 10_000, bytes: 2 ** 30 };

describe("journal: what an earlier run had in flight", () => {
  it("tells of what had to be passed when nothing else is left to read", async () => {
    const rig = await new Rig().start();
    await rig.put(texts(1));
    const [one] = await rig.take(1);
    const inFlight = [{ lane: one!.lane, position: one!.position }];
    await rig.restart();
    rig.queue.keep(inFlight);
    let told = 0;
    rig.queue.onReadable(() => (told += 1));
    expect(rig.queue.next({ has: () => true })).to.equal(undefined); // its lane stands still
    rig.store.uplink("cloud", { maxBytes: 1, maxAgeMs: 1e12, whenFull: "drop-oldest" });
    await until(() => {
      rig.store.uplink("cloud", { maxBytes: 1, maxAgeMs: 1e12, whenFull: "drop-oldest" });
      return told > 0;
    });
    expect(textOf((await rig.take(1))[0]!)).to.equal(texts(1)[0]);
    await rig.store.close();
  });

  it("says all that is done, however scattered, when a commit wants to rely on it", async () => {
    const rig = await new Rig().start();
    await rig.put(texts(1200));
    const got = await rig.take(1200);
    got.forEach((one, at) => {
      if (at % 2 === 1) rig.queue.settle(one);
    });
    rig.clock.advance(200); // the lane's state is written, with as many intervals as that takes
    const { group } = rig.store.commit((txn) => {
      txn.laneStates("cloud");
      txn.put("test", "x", new Uint8Array(0));
    });
    await durable(rig.store, group);
    await rig.restart();
    expect(rig.queue.stats().messages).to.equal(600);
    const left = (await rig.take(600)).map(textOf);
    expect(left).to.deep.equal(texts(1200).filter((_, at) => at % 2 === 0));
    await rig.store.close();
  });

  it("hands out lane by lane what is kept, and what lies between", async () => {
    const rig = await new Rig().start();
    expect(rig.queue.isNew).to.equal(true);
    await rig.put(texts(300, "low"), 0);
    await rig.put(texts(300, "high"), 9);
    const got = await rig.take(600);
    await rig.restart();
    expect(rig.queue.isNew).to.equal(false);
    const [low, high] = [got.filter(({ priority }) => priority === 0), got.filter(({ priority }) => priority === 9)];
    const kept = [low[1], low[250], high[3]].filter((one) => one !== undefined);
    rig.queue.keep(kept);
    const { found, ahead } = await rig.queue.recall(many);
    expect(found.map(textOf)).to.deep.equal([...high.slice(0, 4), ...low.slice(0, 251)].map(textOf));
    expect([...ahead]).to.deep.equal([]);
    expect(textOf((await rig.take(1))[0] as QueuedMessage)).to.equal("high4".padEnd(40));
    await rig.store.close();
  });

  it("stops when too many others lie between, and says which come later", async () => {
    const rig = await new Rig().start();
    await rig.put(texts(300));
    const got = await rig.take(300);
    await rig.restart();
    const kept = [got[2], got[290]].filter((one) => one !== undefined);
    rig.queue.keep(kept);
    const { found, ahead } = await rig.queue.recall({ messages: 20, bytes: 2 ** 30 });
    expect(found).to.have.length(21);
    expect([...ahead]).to.deep.equal([kept[1]?.position]);
    await rig.store.close();
  });

  it("forgets a call that a rewind overtakes, and what is done or was never there", async () => {
    const rig = await new Rig().start();
    await rig.put(texts(3));
    const got = await rig.take(3);
    rig.queue.settle(got[0] as QueuedMessage);
    rig.clock.advance(200);
    for (let turns = 0; turns < 40; turns += 1) await turn();
    await rig.restart();
    rig.queue.keep([...got, { lane: 99, position: 5 }, { lane: got[0]?.lane ?? 0, position: 1e9 }]);
    const overtaken = rig.queue.recall(many);
    rig.queue.rewind(got);
    await overtaken;
    const { found, ahead } = await rig.queue.recall(many);
    expect(found.map(textOf)).to.deep.equal(texts(3).slice(1));
    expect(ahead.size).to.equal(0);
    await rig.store.close();
  });

  for (const [what, limits, ttlMs] of [
    ["age", { ...generous, maxAgeMs: 5000 }, undefined],
    ["ttl", generous, 5000],
    ["a full queue", { ...generous, maxBytes: 3000 }, undefined],
  ] as const)
    it(`keeps it whatever ${what} does to the rest`, async () => {
      const rig = await new Rig().start();
      await rig.put(texts(500), 0, ttlMs);
      const got = await rig.take(500);
      await rig.restart(limits);
      const kept = [got[0], got[7], got[400]].filter((one) => one !== undefined);
      rig.queue.keep(kept);
      rig.clock.advance(6000);
      await rig.put(texts(100, "new"));
      for (let ticks = 0; ticks < 30; ticks += 1) {
        rig.clock.advance(1000);
        for (let turns = 0; turns < 5; turns += 1) await turn();
        if (ticks === 3) await rig.put(["last"]);
      }
      const { found, ahead } = await rig.queue.recall(many);
      const all = found.map(({ position }) => position);
      expect(all).to.include.members(kept.map(({ position }) => position));
      expect(ahead.size).to.equal(0);
      expect(rig.queue.stats().dropped, "dropped").to.have.any.keys("expired", "full");
      expect(rig.queue.stats().messages).to.be.below(250);
      await rig.store.close();
    });

  it("is passed over by a purge, which takes the rest", async () => {
    const rig = await new Rig().start();
    for (let n = 0; n < 20; n += 1) await rig.put(texts(100, `${n} `));
    const got = await rig.take(2000);
    await rig.restart();
    const kept = [got[3], got[1000]].filter((one) => one !== undefined);
    rig.queue.keep(kept);
    await rig.store.purgeUplink("cloud");
    const { found } = await rig.queue.recall({ messages: 100_000, bytes: 2 ** 30 });
    expect(found.map(({ position }) => position)).to.include.members(kept.map(({ position }) => position));
    // What shares a segment with them stays too: this is a matter of the moment between a start and its recall.
    const { messages } = rig.queue.stats();
    expect(messages).to.be.within(found.length, 1000);
    for (const one of [...found, ...(await rig.take(messages - found.length))]) rig.queue.settle(one);
    expect(rig.queue.stats()).to.include({ messages: 0, bytes: 0 });
    await rig.store.close();
  });
});
