import { expect } from "chai";
import type { Store } from "../../../src/base/contracts.ts";
import type { StoreOptions } from "../../../src/journal/options.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn, until } from "./support.ts";

const segmentBytes = 300 * 1024;
const more: Partial<StoreOptions> = {
  segmentBytes,
  tuning: { spares: 2, largeRecordBytes: 64 * 1024, lightMs: 10_000 },
};

describe("journal: prepared segments", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  let store: Store;

  beforeEach(async () => {
    files = new FaultyFiles();
    clock = new TestClock();
    store = await open(files.mount(), clock, more);
  });

  const names = (part: string): string[] => files.paths().filter((path) => path.includes(part));
  const reopen = async (): Promise<void> => {
    clock.forgetTimers();
    store = await open(files.mount(), clock, more);
  };
  const put = async (text: string): Promise<void> => {
    const lane = store.uplink("cloud", generous).lane(4);
    await durable(store, store.commit((txn) => txn.message(message(text), [taker(lane)])).group);
  };
  /** Time goes by until `condition`. */
  const pass = async (condition: () => boolean, stepMs = 20): Promise<void> => {
    for (let step = 0; !condition(); step += 1) {
      if (step > 2000) throw new Error("never came true");
      clock.advance(stepMs);
      for (let turns = 0; turns < 5; turns += 1) await turn();
    }
  };
  const prepared = (): Promise<void> => pass(() => store.stats().spares > 0);
  const everything = async (): Promise<string[]> => {
    const queue = store.uplink("cloud", generous);
    queue.rewind();
    const texts: string[] = [];
    await until(() => {
      for (let next = queue.next(); next !== undefined; next = queue.next()) texts.push(textOf(next));
      return queue.stats().messages === texts.length;
    });
    return texts;
  };

  it("with light load the store is on one within seconds: zeros, synced before use, and no folder sync a message after", async () => {
    await put("a");
    await prepared();
    const [spare] = names("spare-");
    expect(files.content(spare!).length).to.equal(segmentBytes);
    expect(files.content(spare!).every((byte) => byte === 0)).to.equal(true);
    await put("b"); // the last in the segment that grows
    files.log.length = 0;
    await put("c");
    const line = files.log.filter((entry) => !entry.startsWith("freeBytes"));
    expect(line.map((entry) => entry.replace(/\d{6,}/, "N"))).to.deep.equal([
      ...["rename seg-N.log", "syncDir data", "open seg-N.log", "write seg-N.log", "datasync seg-N.log"],
    ]);
    files.log.length = 0;
    await put("d");
    expect(files.log.filter((entry) => entry.includes("seg-")).length).to.equal(2);
    expect(files.log.filter((entry) => entry.startsWith("syncDir"))).to.deep.equal([]);
    files.crash(() => 0.9);
    await reopen();
    expect(await everything()).to.deep.equal(["a", "b", "c", "d"]);
    const { recovery } = store.stats();
    expect(recovery).to.deep.include({ corruptRecords: 0, tornBytes: 0 });
  });

  it("a start uses one that lies there, and gives back what the one before left unused", async () => {
    await put("a");
    await prepared();
    await put("b");
    await put("c");
    const [, half] = names("seg-");
    expect(files.content(half!).length).to.equal(segmentBytes);
    await pass(() => names("spare-").length === 0 || store.stats().spares > 0);
    for (let restart = 0; restart < 20; restart += 1) {
      await put(`r${restart}`);
      files.kill();
      await reopen();
      await pass(() => files.content(half!).length < segmentBytes, 1000);
    }
    expect(files.content(half!).length).to.be.below(10_000);
    expect(store.stats().bytes, "20 restarts").to.be.below(5 * segmentBytes);
    const { bytes } = store.stats();
    const found = files.paths().reduce((sum, path) => sum + files.content(path).length, 0);
    expect(bytes, "what is being filled counts in full").to.be.at.least(found - 10_000);
    expect((await everything()).length).to.equal(23);
  });

  it("what a crash leaves half filled is removed, never used", async () => {
    await pass(() => names(".tmp").length > 0);
    const [half] = names(".tmp");
    files.kill();
    await reopen();
    expect(files.paths()).to.not.include(half);
  });

  it("close() ends while one is being filled, at whatever write, without time going by", async () => {
    for (let writes = 1; writes <= 70; writes += 13) {
      files = new FaultyFiles();
      let closing: Promise<void> | undefined;
      let seen = 0;
      files.fault = (operation, path) => {
        if (operation === "write" && path.includes("spare-") && ++seen === writes) closing = store.close();
        return undefined;
      };
      clock.forgetTimers();
      store = await open(files.mount(), clock, more);
      await pass(() => closing !== undefined);
      let closed = false;
      void closing?.then(() => {
        closed = true;
      });
      await until(() => closed, `closed at write ${writes}`);
      expect(names("spare-")).to.deep.equal([]);
    }
  });

  it("a freed segment is used again, after its zeros are on the disk", async () => {
    const queue = store.uplink("cloud", generous);
    await put("a");
    await prepared();
    for (let count = 0; count < 12; count += 1) {
      await put(`${count}${"x".repeat(60_000)}`);
      clock.advance(4000);
    }
    await prepared();
    await until(() => {
      for (let next = queue.next(); next !== undefined; next = queue.next()) queue.settle(next);
      return queue.stats().messages === 0;
    });
    files.log.length = 0;
    await pass(() => files.log.some((entry) => /^rename spare-\d+\.tmp/.test(entry)), 4000);
    const renamed = files.log.findIndex((entry) => /^rename spare-\d+\.tmp/.test(entry));
    await prepared();
    const synced = files.log.findIndex((entry, at) => at > renamed && entry.startsWith("syncDir"));
    const cut = files.log.findIndex((entry, at) => at > renamed && /^(truncate|write) spare/.test(entry));
    expect(synced).to.be.within(renamed + 1, cut - 1);
    for (const path of names("spare-").filter((name) => name.endsWith(".log"))) {
      expect(files.content(path).every((byte) => byte === 0)).to.equal(true);
    }
  });

  it("under load nothing is prepared, and what lies there is kept as the reserve", async () => {
    await prepared();
    const before = store.stats().spares;
    for (let count = 0; count < 12; count += 1) await put(`${count}${"x".repeat(60_000)}`);
    const grown = files.log.filter((entry) => /^create seg-/.test(entry)).length;
    expect(grown, "segments that grow").to.be.at.least(2);
    expect(store.stats().spares).to.be.at.most(before);
    expect(names(".tmp")).to.deep.equal([]);
  });

  it("on a full disk they go first, and the write is tried again at once", async () => {
    await prepared();
    files.fault = (operation, path) =>
      operation === "write" && path.includes("seg-") && names("spare-").length > 0 ? "ENOSPC" : undefined;
    await put("kept"); // no time passes
    expect(names("spare-")).to.deep.equal([]);
    expect(store.stats()).to.deep.include({ spares: 0, state: "ok" });
    files.crash(() => 0.9);
    await reopen();
    expect(await everything()).to.deep.equal(["kept"]);
  });

  it("when the disk has less than the limit left, they are given up before anything is refused", async () => {
    files.free = 3_000_000;
    clock.advance(2000);
    for (let turns = 0; turns < 20; turns += 1) await turn();
    await prepared();
    files.free = 1_040_000;
    clock.advance(2000);
    for (let turns = 0; turns < 20; turns += 1) await turn();
    expect(store.admit({ bytes: 1000, rejectNewest: [] })).to.equal("ok");
    await until(() => names("spare-").length === 0);
  });

  it("a large record gets a segment of its own, in pieces, and what follows another", async () => {
    const big = "y".repeat(900 * 1024);
    await put("before");
    const lane = store.uplink("cloud", generous).lane(4);
    files.log.length = 0;
    const groups = ["one", big, "two", "three"].map(
      (text) => store.commit((txn) => txn.message(message(text), [taker(lane)])).group,
    );
    expect(new Set(groups).size, "two and three share a group").to.equal(3);
    await durable(store, groups[3]!);
    const sizes = names("seg-").map((path) => files.content(path).length);
    expect(sizes.length).to.equal(3);
    expect(sizes[1]).to.be.within(big.length, big.length + 4000);
    const [, own] = names("seg-").map((path) => path.slice(6));
    expect(files.log.filter((entry) => entry === `write ${own}`).length).to.be.at.least(3);
    files.crash(() => 0.9);
    await reopen();
    expect(await everything()).to.deep.equal(["before", "one", big, "two", "three"]);
  });

  it("a commit with a large record whose function throws leaves the store as it was", async () => {
    await put("before");
    const lane = store.uplink("cloud", generous).lane(4);
    const small = store.commit((txn) => txn.message(message("small"), [taker(lane)])).group;
    expect(() =>
      store.commit((txn) => {
        txn.message(message("z".repeat(100_000)), [taker(lane)]);
        throw new RangeError("no");
      }),
    ).to.throw(RangeError);
    await durable(store, small);
    await put("after");
    expect(await everything()).to.deep.equal(["before", "small", "after"]);
    files.crash(() => 0.9);
    await reopen();
    expect(await everything()).to.deep.equal(["before", "small", "after"]);
    expect(store.stats().recovery.corruptRecords).to.equal(0);
  });

  it("one that is taken back takes no room, where a segment begins with nothing", async () => {
    // No uplink, no rule: nothing is written where it was.
    const room = (): number => store.admittedTo([]) - store.head;
    const before = room();
    expect(() =>
      store.commit((txn) => {
        txn.message(message("z".repeat(100_000)), []);
        throw new RangeError("no");
      }),
    ).to.throw(RangeError);
    expect(before - room()).to.be.below(4096);
  });
});
