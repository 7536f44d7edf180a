import { expect } from "chai";
import type { QueuedMessage, Store, UplinkLimits, UplinkQueue } from "../../../src/base/contracts.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, until } from "./support.ts";

describe("journal: uplink queues", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  let store: Store;
  let queue: UplinkQueue;

  beforeEach(async () => {
    files = new FaultyFiles();
    clock = new TestClock();
    store = await open(files.mount(), clock, { segmentBytes: 4000 });
    queue = store.uplink("cloud", generous);
  });

  const put = (texts: string[], priority = 5, ttlMs?: number): number => {
    const lane = queue.lane(priority);
    return store.commit((txn) => texts.forEach((text) => void txn.message(message(text), [taker(lane, 1, ttlMs)])))
      .group;
  };

  const take = async (count: number): Promise<QueuedMessage[]> => {
    const out: QueuedMessage[] = [];
    await until(() => {
      for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next);
      return out.length >= count;
    }, `${count} messages`);
    return out;
  };

  it("hands out nothing before it is durable, then 9 first and the oldest of each", async () => {
    put(["low 1", "low 2"], 2);
    put(["high"], 9);
    const group = put(["middle"], 5);
    expect(queue.next()).to.equal(undefined);
    await durable(store, group);
    const out = await take(4);
    expect(out.map(textOf)).to.deep.equal(["high", "middle", "low 1", "low 2"]);
    expect(out.map(({ seq }) => seq)).to.deep.equal([3, 4, 1, 2]);
    expect(out[0]?.message).to.deep.equal(message("high"));
  });

  it("fires readable once for each next() that had nothing", async () => {
    let fired = 0;
    queue.onReadable(() => {
      fired += 1;
    });
    expect(queue.next()).to.equal(undefined);
    await durable(store, put(["a"]));
    await durable(store, put(["b"]));
    expect(fired).to.equal(1);
    expect((await take(2)).map(textOf)).to.deep.equal(["a", "b"]);
    await durable(store, put(["c"]));
    expect(fired).to.equal(2);
  });

  it("after a rewind only what was not settled comes again, in order; a late settle of the old one is ignored", async () => {
    await durable(store, put(["a", "b", "c", "d", "e"]));
    const [a, b, , d] = await take(5);
    queue.settle(d!);
    queue.settle(b!);
    queue.rewind();
    queue.settle(a!);
    const again = await take(3);
    expect(again.map(textOf)).to.deep.equal(["a", "c", "e"]);
    for (const one of again) queue.settle(one);
    expect(queue.stats()).to.deep.include({ messages: 0, bytes: 0, oldestAcceptedAtMs: undefined });
  });

  it("rewinds with holes again and again without forgetting or repeating", async () => {
    const texts = Array.from({ length: 40 }, (_, index) => `m${index}`);
    await durable(store, put(texts));
    const left = new Set(texts);
    for (let round = 0; left.size > 0; round += 1) {
      const out = await take(left.size);
      expect(out.map(textOf)).to.deep.equal([...left]);
      out.forEach((one, index) => {
        if ((index + round) % 3 !== 0) return;
        queue.settle(one);
        left.delete(textOf(one));
      });
      queue.rewind();
    }
    expect(queue.stats().messages).to.equal(0);
  });

  it("what a kill -9 leaves: settled messages do not come again once 100 ms passed, though nothing was synced", async () => {
    await durable(store, put(["a", "b", "c"]));
    const [a, , c] = await take(3);
    queue.settle(a!);
    queue.settle(c!);
    clock.advance(100);
    await until(() => store.stats().pendingBytes > 0, "the state is written");
    for (let turns = 0; turns < 10; turns += 1) await new Promise(setImmediate);
    files.kill();
    store = await open(files.mount(), new TestClock());
    queue = store.uplink("cloud", generous);
    expect((await take(1)).map(textOf)).to.deep.equal(["b"]);
    expect(queue.stats().messages).to.equal(1);
  });

  it("ttl and maxAge count from acceptance by the store clock, exactly, and are counted", async () => {
    await durable(store, put(["short"], 5, 1000));
    await durable(store, put(["long"], 5, 3000));
    await durable(store, put(["kept"], 5));
    clock.advance(999);
    expect((await take(3)).map(textOf)).to.deep.equal(["short", "long", "kept"]);
    queue.rewind();
    clock.advance(1);
    expect((await take(2)).map(textOf)).to.deep.equal(["long", "kept"]);
    queue.rewind();
    store.uplink("cloud", { ...generous, maxAgeMs: 60_000 });
    clock.advance(59_001);
    expect(queue.next()).to.equal(undefined);
    expect(queue.stats()).to.deep.include({ messages: 0, dropped: { expired: 3 } });
  });

  it("drops whole expired segments while nobody reads", async () => {
    for (let batch = 0; batch < 10; batch += 1)
      await durable(store, put(Array.from({ length: 20 }, () => "x".repeat(60))));
    store.uplink("cloud", { ...generous, maxAgeMs: 10_000 });
    clock.advance(11_000);
    await until(() => queue.stats().messages < 60, "most are dropped unread");
  });

  it("drop-oldest: the lowest priority first, oldest first, never what is in flight", async () => {
    const limits: UplinkLimits = { ...generous, maxBytes: 2000 };
    await durable(store, put(["in flight"], 1));
    const [flying] = await take(1);
    store.uplink("cloud", limits);
    for (let index = 0; index < 12; index += 1) await durable(store, put([`low ${index} ${"x".repeat(100)}`], 1));
    for (let index = 0; index < 5; index += 1) await durable(store, put([`high ${index} ${"x".repeat(100)}`], 9));
    await until(() => queue.stats().bytes <= 2000, "trimmed");
    const out = (await take(5)).map((one) => textOf(one).slice(0, 6).trim());
    expect(out.slice(0, 5)).to.deep.equal(["high 0", "high 1", "high 2", "high 3", "high 4"]);
    const low = out.slice(5);
    expect(low.at(-1)).to.equal("low 11");
    expect(queue.stats().dropped["full"]).to.equal(12 - low.length);
    queue.settle(flying!);
    expect(queue.stats().messages).to.equal(5 + low.length);
  });

  it("reject-newest is told by admit, before anything happens", async () => {
    store.uplink("cloud", { ...generous, maxBytes: 500, whenFull: "reject-newest" });
    expect(store.admit({ bytes: 100, rejectNewest: ["cloud"] })).to.equal("ok");
    await durable(store, put(["x".repeat(450)]));
    expect(store.admit({ bytes: 100, rejectNewest: ["cloud"] })).to.equal("full");
    expect(store.admit({ bytes: 100, rejectNewest: [] })).to.equal("ok");
  });

  it("drains what lies on disk, in order, each once, and gives the disk back", async () => {
    const count = 3000;
    for (let at = 0; at < count; at += 100) {
      const group = put(Array.from({ length: 100 }, (_, index) => `${at + index} ${"x".repeat(3000)}`));
      await durable(store, group);
    }
    expect(store.stats().segments).to.be.above(20);
    let next = 0;
    await until(() => {
      for (let one = queue.next(); one !== undefined; one = queue.next()) {
        expect(textOf(one).split(" ")[0]).to.equal(String(next));
        next += 1;
        queue.settle(one);
      }
      return next === count;
    }, "all drained");
    for (let round = 0; store.stats().segments > 3 && round < 10; round += 1) {
      clock.advance(10_000);
      for (let turns = 0; turns < 50; turns += 1) await new Promise(setImmediate);
    }
    expect(store.stats().segments).to.be.at.most(3);
    expect(files.paths().length).to.be.at.most(6);
  });
});
