import { expect } from "chai";
import { loadCheckpoint } from "../../../src/journal/checkpoint.ts";
import { checkpointMagic, encodeHeader } from "../../../src/journal/format.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { holdings, lanes, sliced, Workload } from "./checkpointSupport.ts";
import { durable, generous, message, open, TestClock, taker, turn, until } from "./support.ts";

const seeds = 40;

async function compareAfterKill(work: Workload, what: string): Promise<void> {
  const before = await holdings(work.store);
  const waiting = await lanes(work.store);
  work.files.kill();
  await work.open();
  expect(work.store.stats().recovery.corruptRecords, what).to.equal(0);
  expect(await holdings(work.store), what).to.deep.equal(before);
  expect(await lanes(work.store), what).to.deep.equal(waiting);
  work.queue.rewind();
}

describe("journal: checkpoints beside commits", () => {
  it(`what changes while the slices run comes out right after a kill, dropped and remade queues too (${seeds} seeds)`, async function () {
    this.timeout(120_000);
    let taken = 0;
    for (let seed = 1; seed <= seeds; seed += 1) {
      const work = new Workload(seed);
      await work.open();
      for (let life = 0; life < 4; life += 1) {
        await work.work(60);
        await work.settleDown();
        taken += work.checkpoints().length;
        await compareAfterKill(work, `seed ${seed} life ${life}`);
      }
    }
    expect(taken, "checkpoints were at work").to.be.above(seeds * 4);
  });

  it("one counts only once all that it may have seen is durable: its mark's sync is awaited before the footer and the rename", async () => {
    const work = new Workload(3);
    await work.open();
    for (let index = 0; index < 40; index += 1) work.commit();
    let held = false;
    work.clock.advance(1000);
    // From now on no sync of a segment ends.
    work.files.fault = (operation, path) => {
      if (operation === "write" && path.endsWith(".tmp")) held = true;
      return undefined;
    };
    await until(() => held, "slices are written");
    const release = work.store.references("q1")?.oldest()?.ordinal ?? 1;
    work.store.commit((txn) => txn.release("q1", release));
    const before = work.files.log.length;
    await until(() => work.files.log.some((line) => line.startsWith("rename ckpt-")), "checkpoint");
    const log = work.files.log.slice(before);
    const rename = log.findIndex((line) => line.startsWith("rename ckpt-"));
    const synced = log.slice(0, rename).filter((line) => line.startsWith("datasync seg-"));
    expect(synced, "the mark's group").to.have.length.of.at.least(1);
    expect(log.slice(0, rename).at(-1)).to.match(/^datasync ckpt-/);
  });

  it("its name is on the disk before anything that it replaces goes", async () => {
    const work = new Workload(5);
    await work.open();
    await work.work(250);
    await work.store.close();
    const { log } = work.files;
    const renames = log.flatMap((line, index) => (line.startsWith("rename ckpt-") ? [index] : []));
    expect(renames.length).to.be.above(3);
    let removals = 0;
    for (const at of renames) {
      const sync = log.indexOf("syncDir data", at);
      const removal = log.findIndex((line, index) => index > at && /^unlink (seg|ckpt)-.*(log|bin)/.test(line));
      if (removal >= 0) removals += 1;
      expect(sync, "the folder is synced").to.be.above(at);
      if (removal >= 0) expect(sync, "before any removal").to.be.below(removal);
    }
    expect(removals).to.be.above(2);
  });

  it("bytes that move to another segment while it is taken: it is taken anew", async () => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const work = new Workload(seed);
      await work.open();
      await work.work(40);
      let armed = false;
      work.files.fault = (operation, path) => {
        if (operation === "unlink" && path.endsWith(".tmp") && !armed)
          armed = true; // it begins: its group is not synced yet
        else if (armed && operation === "datasync" && path.endsWith(".log")) {
          work.files.fault = () => undefined;
          return "EIO";
        }
        return undefined;
      };
      await work.work(60);
      work.files.fault = () => undefined;
      await work.settleDown();
      await compareAfterKill(work, `seed ${seed}`);
    }
  });

  it("a stop while one is taken is quick, clean, and leaves nothing half made", async () => {
    for (let turns = 0; turns < 30; turns += 3) {
      const work = new Workload(7);
      await work.open();
      for (let index = 0; index < 60; index += 1) work.commit();
      work.clock.advance(1000);
      for (let left = turns; left > 0; left -= 1) await turn();
      await work.store.close();
      expect(work.files.paths().filter((path) => path.endsWith(".tmp"))).to.deep.equal([]);
      await work.open();
      expect(work.store.stats().recovery).to.deep.include({ clean: true, corruptRecords: 0 });
    }
  });

  it("a disk that takes no checkpoint keeps the last one, and does not try again with every sync", async () => {
    const work = new Workload(9);
    await work.open();
    let tries = 0;
    work.files.fault = (operation, path) => {
      if (operation !== "create" || !path.endsWith(".tmp")) return undefined;
      tries += 1;
      return "ENOSPC";
    };
    for (let index = 0; index < 100; index += 1) {
      work.commit();
      await turn();
      await turn();
    }
    expect(tries).to.equal(1);
    work.clock.advance(1000);
    await until(() => tries === 2, "a second try");
    expect(work.store.failed).to.equal(undefined);
  });

  it("after a drain the disk is given back within four ticks, though no journal grows", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const more = { segmentBytes: 100_000, tuning: { checkpointBytes: 200_000 } };
    const store = await open(files.mount(), clock, more);
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(5);
    let group = 0;
    for (let index = 0; index < 400; index += 1) {
      group = store.commit((txn) =>
        txn.message({ ...message(`m${index}`), payload: Buffer.alloc(5000) }, [taker(lane)]),
      ).group;
      if (index % 20 === 0) await durable(store, group);
    }
    await durable(store, group);
    clock.advance(1000);
    for (let turns = 0; turns < 50; turns += 1) await turn();
    let left = 400;
    await until(() => {
      for (let next = queue.next(); next !== undefined; next = queue.next()) {
        queue.settle(next);
        left -= 1;
      }
      return left === 0;
    });
    for (let tick = 0; tick < 4; tick += 1) {
      clock.advance(1000);
      for (let turns = 0; turns < 60; turns += 1) await turn();
    }
    expect(store.stats().bytes).to.be.below(250_000);
    const count = files.log.filter((line) => line.startsWith("rename ckpt-")).length;
    for (let tick = 0; tick < 30; tick += 1) {
      clock.advance(1000);
      for (let turns = 0; turns < 20; turns += 1) await turn();
    }
    expect(files.log.filter((line) => line.startsWith("rename ckpt-")).length, "then there is peace").to.equal(count);
  });

  it("a new segment that begins with older lane states than the checkpoint takes nothing back", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const more = { segmentBytes: 3000, tuning: { checkpointBytes: 1000 } };
    let store = await open(files.mount(), clock, more);
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(5);
    const add = (text: string, bytes: number): Promise<void> => {
      const big = { ...message(text), payload: Buffer.from(text.padEnd(bytes, ".")) };
      return durable(store, store.commit((txn) => txn.message(big, [taker(lane)])).group);
    };
    const quiet = async (): Promise<void> => {
      for (let turns = 0; turns < 60; turns += 1) await turn();
    };
    files.fault = (operation, path) => (operation === "create" && path.endsWith(".tmp") ? "ENOSPC" : undefined);
    clock.advance(940);
    for (let index = 0; index < 6; index += 1) await add(`m${index}`, 100);
    await add("fills", 3000); // the segment that is open now began with what the lane's state was here
    await quiet();
    files.fault = () => undefined;
    const handed = Array.from({ length: 4 }, () => queue.next()!);
    // The first stays in flight: the others are done above the mark. The tick's checkpoint comes before the timer that would write it.
    for (const one of handed.slice(1)) queue.settle(one);
    const before = files.log.length;
    clock.advance(60);
    await quiet();
    expect(files.log.slice(before).some((line) => line.startsWith("rename ckpt-"))).to.equal(true);
    files.kill();
    clock.forgetTimers();
    store = await open(files.mount(), clock, more);
    const found = await lanes(store);
    expect(found.map((line) => line.replace(/\.+$/, ""))).to.deep.equal(["5 m0", "5 m4", "5 m5", "5 fills"]);
    expect(store.stats().recovery.corruptRecords).to.equal(0);
  });

  it("a segment whose header keeps the one before it cut outlives it: without checkpoints nothing that was moved comes back", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const more = { tuning: { checkpointBytes: 600 }, segmentBytes: 4000 };
    let store = await open(files.mount(), clock, more);
    const pin = store.commit((txn) => txn.retain("keeps", txn.message(message("keeps the first segment"), [])));
    await durable(store, pin.group);
    // Written to the first segment, not synced there: moved to a second one, and the first one is cut.
    let armed = true;
    files.fault = (operation, path) => {
      if (!armed || operation !== "datasync" || !path.endsWith(".log")) return undefined;
      armed = false;
      return "EIO";
    };
    await durable(store, store.commit((txn) => txn.reference("q", txn.message(message("moved"), []), 0)).group);
    expect(armed).to.equal(false);
    await durable(store, store.commit((txn) => txn.release("q", 1)).group);
    for (let round = 0; round < 30; round += 1) {
      await durable(store, store.commit((txn) => txn.put("m", "k", Buffer.alloc(500, round))).group);
      clock.advance(round % 10 === 9 ? 11_000 : 1000);
      for (let turns = 0; turns < 40; turns += 1) await turn();
    }
    const segments = files.paths().filter((path) => path.endsWith(".log"));
    expect(segments.length, "others were freed").to.be.below(6);
    expect(segments[0]).to.contain("000001.log");
    files.kill();
    for (const path of files.paths()) if (path.endsWith(".bin")) files.remove(path);
    clock.forgetTimers();
    store = await open(files.mount(), clock, more);
    expect(store.references("q")?.size ?? 0).to.equal(0);
    expect([...store.retained()].length).to.equal(1);
  });

  it("a checkpoint of the first version, with a reference to a record and without proofs, still loads", () => {
    const header = encodeHeader(checkpointMagic, {
      ...{ storeId: Buffer.from("2f8f146df828610a", "hex"), epoch: 1767225600000, number: 1 },
      ...{ base: 335, firstGroup: 3, prevEnd: 0, wallMs: 1767225600000 },
    });
    const records = Buffer.from(
      "EgAAAPPXze8NAAVjbG91ZAIAEgAAAMaVsdoDAAEEBWNsb3VkDQAAAPr1JeUEAAEAABQAAABiYNKuBQABBWNsb3VkAnt9IQAAAJDb1JwOAAEBzwIBAQEvawCA0Oq2tzOA0Oq2tzMAFQAAAI0qmkEGAAVhbGljZQKuAQYsEQAAACGhTycPAAVhbGljZQMRAAAAfOJbdQkABXRvcGljax8AAAAP4la1CwAIc2Vzc2lvbnMFYWxpY2UFc3RhdGUZAAAA44VamhAACYDQ6ra3M4DQ6ra3MwEC",
      "base64",
    );
    const loaded = loadCheckpoint(Buffer.concat([header, records]));
    if (loaded === undefined || loaded === "newer") throw new Error("did not load");
    expect(loaded).to.deep.include({ clean: true, nextSegment: 2, provenGroup: 3, provenEnd: 335, records: 10 });
    const alice = loaded.state.queues.get("alice")!;
    expect([alice.size, alice.nextOrdinal, alice.positionOf(2)]).to.deep.equal([1, 3, 174]);
    expect(loaded.state.retained.get("topic")).to.equal(107);
    expect(`${loaded.state.maps.get("sessions")?.get("alice")}`).to.equal("state");
  });
});

describe("journal: both checkpoints damaged", () => {
  /** Three queues, retained values and maps in two checkpoints, more after them, the first segments gone. */
  async function build(): Promise<Workload> {
    const work = new Workload(1, { ...sliced, segmentBytes: 1500 });
    await work.open();
    await durable(
      work.store,
      work.store.commit((txn) => {
        for (let index = 0; index < 12; index += 1) txn.put("n", `fixed${index}`, Buffer.from(`value ${index}`));
      }).group,
    );
    for (
      let round = 0;
      work.checkpoints().length < 2 || work.files.paths().some((path) => path.endsWith("0001.log"));
      round += 1
    ) {
      if (round > 40) throw new Error("the first segment was never freed");
      await work.work(20);
      work.store.commit((txn) => {
        for (const name of ["q0", "q1", "q2"]) txn.release(name, work.store.references(name)?.oldest()?.ordinal ?? 0);
        for (const topic of ["t0", "t1", "t2", "t3", "t4"]) txn.retain(topic, txn.message(message(`new ${topic}`), []));
      });
      work.drain();
      work.clock.advance(11_000);
      for (let turns = 0; turns < 60; turns += 1) await turn();
    }
    await work.work(10);
    await work.settleDown();
    for (let turns = 0; turns < 200; turns += 1) await turn();
    work.files.kill();
    return work;
  }

  async function damaged(work: Workload, flips: ReadonlyArray<readonly [path: string, at: number]>): Promise<string[]> {
    const files = work.files.clone();
    for (const [path, at] of flips) {
      const bytes = Buffer.from(files.content(path));
      bytes[at] = bytes[at]! ^ (1 << (at % 8));
      files.replace(path, bytes);
    }
    const store = await open(files.mount(), new TestClock(), { segmentBytes: 1500 });
    expect(store.failed).to.equal(undefined);
    const found = await holdings(store);
    return [...found, ...(await lanes(store))];
  }

  it("one flipped bit anywhere in either costs nothing; one in each costs one record at most", async function () {
    this.timeout(120_000);
    const work = await build();
    const [older, newer] = work.checkpoints().slice(-2) as [string, string];
    const whole = await damaged(work, []);
    const size = (path: string): number => work.files.content(path).length;
    for (const path of [older, newer]) {
      for (let at = 0; at < size(path); at += at < 1024 ? 64 : 1) {
        expect(await damaged(work, [[path, at]]), `${path} at ${at}`).to.deep.equal(whole);
      }
    }
    // A footer in the one, any record in the other: each holds what the other lost.
    const footers = [older, newer].map((path) => [path, size(path) - 1] as const);
    for (const [footer, other] of [footers, [...footers].reverse()] as const) {
      for (let at = 1024; at < size(other![0]) - 1; at += 11) {
        const found = await damaged(work, [footer!, [other![0], at]]);
        expect(found, `${other![0]} at ${at}, and the footer of the other`).to.deep.equal(whole);
      }
    }
    let losses = 0;
    for (let pair = 0; pair < 80; pair += 1) {
      const flips = [older, newer].map((path) => [path, 1024 + work.below(size(path) - 1024)] as const);
      const found = await damaged(work, flips);
      const where = flips.map(([path, at]) => `${path} at ${at}`).join(", ");
      const missing = whole.filter((line) => !found.includes(line) && !/ next \d+$/.test(line));
      expect(missing.length, `${where}: ${missing}`).to.be.at.most(1);
      if (missing.length > 0) losses += 1;
      expect(
        found.filter((line) => /^\d m/.test(line)),
        where,
      ).to.deep.equal(whole.filter((line) => /^\d m/.test(line)));
    }
    expect(losses, "the same record in both is rare").to.be.below(60);
  });

  it("heals: two new ones are taken at once, and then segments may go again", async () => {
    const work = await build();
    for (const path of work.checkpoints()) {
      const bytes = Buffer.from(work.files.content(path));
      bytes[1100] = bytes[1100]! ^ 1;
      work.files.replace(path, bytes);
    }
    const broken = work.checkpoints();
    await work.open();
    expect(work.store.stats().recovery.corruptRecords).to.equal(2);
    for (let tick = 0; tick < 3; tick += 1) {
      work.clock.advance(1000);
      for (let turns = 0; turns < 80; turns += 1) await turn();
    }
    expect(work.checkpoints()).to.have.length(2);
    expect(work.checkpoints().some((path) => broken.includes(path))).to.equal(false);
    const before = await holdings(work.store);
    work.files.kill();
    await work.open();
    expect(work.store.stats().recovery.corruptRecords).to.equal(0);
    expect(await holdings(work.store)).to.deep.equal(before);
  });
});

describe("journal: rot between checkpoints", () => {
  it("each small record's bit costs that record only: no reference, retained value or entry after it", async function () {
    this.timeout(60_000);
    const files = new FaultyFiles();
    const clock = new TestClock();
    const store = await open(files.mount(), clock);
    for (let index = 0; index < 6; index += 1) {
      await durable(
        store,
        store.commit((txn) => {
          txn.reference("q", txn.message(message(`old ${index}`), []), 0);
          txn.put("m", `k${index}`, Buffer.from(`${index}`));
          txn.retain(`t${index}`, txn.message(message(`r${index}`), []));
          if (index === 2) txn.dropQueue("q");
          if (index > 3) txn.release("q", 1);
        }).group,
      );
    }
    clock.advance(1000);
    clock.advance(1000);
    for (let turns = 0; turns < 20; turns += 1) await turn();
    files.kill();
    const [path] = files.paths() as [string];
    const read = async (from: FaultyFiles): Promise<string[]> => {
      const opened = await open(from.mount(), new TestClock());
      return (await holdings(opened)).filter((line) => !/next|cloud/.test(line));
    };
    const whole = await read(files.clone());
    const content = files.content(path);
    for (let at = 1024; at < content.length; at += 1) {
      const copy = files.clone();
      const flipped = Buffer.from(content);
      flipped[at] = flipped[at]! ^ (1 << (at % 8));
      copy.replace(path, flipped);
      const found = await read(copy);
      expect(whole.filter((line) => !found.includes(line)).length, `at ${at}`).to.be.at.most(1);
    }
  });
});
