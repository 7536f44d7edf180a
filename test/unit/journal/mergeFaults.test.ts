import { expect } from "chai";
import type { QueuedMessage, Store } from "../../../src/base/contracts.ts";
import { ByteReader } from "../../../src/journal/bytes.ts";
import { headerBytes } from "../../../src/journal/format.ts";
import { PositionTable, PositionTableBuilder, readMerged, writeMerged } from "../../../src/journal/positionTable.ts";
import { Tail } from "../../../src/journal/tail.ts";
import { type Fault, FaultyFiles, type Operation } from "../../helpers/faultyFiles.ts";
import { fill, inspect, type Live, look, mergedPaths, merging, notMerging, openOn, seconds } from "./mergeRig.ts";
import { durable, generous, message, open, randomOf, TestClock, taker, textOf, turn, until } from "./support.ts";

const staged = (files: FaultyFiles): string[] => files.paths().filter((path) => path.endsWith(".tmp"));

describe("journal: merging goes wrong", () => {
  let files: FaultyFiles;
  let live: Live;
  let clock: TestClock;
  let store: Store;

  beforeEach(async () => {
    files = new FaultyFiles();
    clock = new TestClock();
    store = await openOn(files, clock, notMerging);
    live = await fill(store);
    await seconds(clock, 5, files);
    await store.close();
    clock.forgetTimers();
  });

  const whole = async (): Promise<void> => {
    expect(await look(store)).to.deep.equal(live);
    await store.close();
    expect(await inspect(files)).to.deep.equal({ ...live, corrupt: 0 });
    expect(staged(files)).to.deep.equal([]);
  };

  const faults: Array<[operation: Operation, fault: Fault, name: RegExp]> = [
    ["create", "EMFILE", /tmp$/],
    ["write", "ENOSPC", /tmp$/],
    ["write", "EIO", /tmp$/],
    ["write", "short", /tmp$/],
    ["datasync", "EIO", /tmp$/],
    ["rename", "EIO", /seg-\d+-\d+\.log$/],
    ["read", "EIO", /seg-000000000002\.log$/],
  ];
  for (const [operation, fault, name] of faults) {
    it(`${fault} at ${operation} of ${name.source}: the segments stay as they are, and are tried again later`, async () => {
      store = await openOn(files, clock, merging);
      files.fault = (now, path) => (now === operation && name.test(path) ? fault : undefined);
      await seconds(clock, 5, files);
      const merged = mergedPaths(files);
      expect(merged.some((path) => path.includes("000000000001-"))).to.equal(fault === "short");
      if (fault !== "short") expect(staged(files)).to.deep.equal([]);
      const tries = files.log.filter((line) => line.startsWith("create seg-000000000001-")).length;
      expect(tries, "left alone for a while").to.equal(1);
      files.fault = () => undefined;
      expect(await look(store)).to.deep.equal(live);
      await seconds(clock, 70, files);
      expect(mergedPaths(files).some((path) => path.includes("000000000001-"))).to.equal(true);
      await whole();
    });
  }

  it("a folder that cannot be synced: the old ones stay until a merge succeeds", async () => {
    store = await openOn(files, clock, merging);
    let named = false;
    files.fault = (operation) => {
      if (operation === "rename") named = true;
      return operation === "syncDir" && named ? "EIO" : undefined;
    };
    await seconds(clock, 5, files);
    expect(named).to.equal(true);
    expect(mergedPaths(files)).to.deep.equal([]);
    expect(files.paths()).to.include("/data/seg-000000000001.log");
    files.fault = () => undefined;
    await whole();
  });

  it("old files that cannot be removed are removed later, and what replaces them stays until then", async () => {
    store = await openOn(files, clock, merging);
    files.fault = (operation, path) => (operation === "unlink" && /seg-\d+\.log$/.test(path) ? "EIO" : undefined);
    await seconds(clock, 5, files);
    expect(mergedPaths(files).length).to.equal(1);
    // Nothing waits for what was merged any more: without the guard it would be freed.
    const queue = store.uplink("cloud", generous);
    await until(() => {
      for (let next = queue.next(); next !== undefined; next = queue.next()) queue.settle(next);
      return queue.stats().messages === 0;
    });
    store.commit((txn) => {
      txn.dropQueue("alice");
      for (const topic of Object.keys(live.retained)) txn.unretain(topic);
    });
    await seconds(clock, 30, files);
    expect(mergedPaths(files).length).to.equal(1);
    files.fault = () => undefined;
    await seconds(clock, 30, files);
    expect(files.paths()).to.not.include("/data/seg-000000000001.log");
    expect(mergedPaths(files)).to.deep.equal([]);
    await store.close();
  });

  it("does not take the room that a nearly full disk needs for other things", async () => {
    files.free = 1_000_000;
    store = await openOn(files, clock, merging);
    await seconds(clock, 5, files);
    expect(mergedPaths(files)).to.deep.equal([]);
    files.free = 10_000_000;
    await seconds(clock, 5, files);
    expect(mergedPaths(files)).to.not.deep.equal([]);
    await whole();
  });

  it("keeps to its rate", async () => {
    store = await openOn(files, clock, { ...merging, mergeRate: 5000 });
    const started = files.log.length;
    await seconds(clock, 4, files);
    expect(mergedPaths(files)).to.deep.equal([]);
    expect(staged(files).length).to.equal(1);
    await seconds(clock, 10, files);
    expect(mergedPaths(files)).to.not.deep.equal([]);
    expect(files.log.slice(started).length).to.be.above(0);
    await whole();
  });

  it("closing gives up what is being merged", async () => {
    store = await openOn(files, clock, { ...merging, mergeRate: 1000 });
    await seconds(clock, 3, files);
    expect(staged(files).length).to.equal(1);
    await whole();
    expect(mergedPaths(files)).to.deep.equal([]);
  });

  it("what is pinned anew while the merge runs is never left behind", async () => {
    for (let wait = 0; wait < 60; wait += 3) {
      const copy = files.clone();
      const own = new TestClock();
      own.advance(1_000_000);
      const opened = await openOn(copy, own, merging);
      const queue = opened.uplink("cloud", generous);
      const out: QueuedMessage[] = [];
      await until(() => {
        for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next);
        return out.length === queue.stats().messages;
      });
      own.advance(1000);
      for (let turns = 0; turns < wait; turns += 1) await turn();
      // From lane to reference in one commit, as a late subscriber takes a message that an uplink still has.
      const moved = out[0]!;
      const { group } = opened.commit((txn) => txn.reference("late", moved.position, 0));
      queue.settle(moved);
      await durable(opened, group);
      await seconds(own, 5, copy);
      const read = await opened.references("late")!.read(0, { messages: 9, bytes: 1e6 });
      expect(read.map(textOf), `after ${wait} turns`).to.deep.equal([textOf(moved)]);
      copy.crash(randomOf(wait));
      const again = await openOn(copy, new TestClock(), notMerging);
      const after = await again.references("late")!.read(0, { messages: 9, bytes: 1e6 });
      expect(after.map(textOf), `after ${wait} turns`).to.deep.equal([textOf(moved)]);
    }
  });
});

describe("journal: merged segments of some size", () => {
  const segmentBytes = 256 * 1024;

  it("are read right wherever a reader begins, through holes, large records and long stretches of statements", async function () {
    this.timeout(60_000);
    const files = new FaultyFiles();
    const clock = new TestClock();
    const tuning = { ...merging, largeRecordBytes: 1024 * 1024 };
    const store = await open(files.mount(), clock, { segmentBytes, tuning });
    const queue = store.uplink("cloud", generous);
    const [low, high] = [queue.lane(1), queue.lane(5)];
    const kept = { low: [] as string[], high: [] as string[], queue: [] as string[] };
    const positions = new Map<string, number>();
    const done = new Set<string>();
    for (let index = 0; index < 3000; index += 1) {
      const size = index === 1500 ? 300_000 : index % 500 === 3 ? 70_000 : 700;
      const text = `${index}-${"y".repeat(size)}`;
      const { group } = store.commit((txn) => {
        const position = txn.message(message(text), [taker(index % 9 === 4 ? high : low)]);
        positions.set(text, position);
        if (index % 11 === 0) txn.reference("q", position, 0);
        else if (index % 7 === 3 || size === 300_000) (index % 9 === 4 ? kept.high : kept.low).push(text);
        else done.add(text);
        if (index % 11 === 0) {
          kept.queue.push(text);
          done.add(text);
        }
        if (index > 2000 && index < 2100) txn.put("big", `${index}`, Buffer.alloc(4000, index));
      });
      if (index % 50 === 49) await durable(store, group);
    }
    const out: QueuedMessage[] = [];
    await until(() => {
      for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next);
      return out.length === 3000;
    });
    for (const next of out) if (done.has(textOf(next))) queue.settle(next);
    queue.rewind();
    await seconds(clock, 40, files);
    expect(mergedPaths(files).length).to.be.at.least(1);
    const largest = Math.max(...mergedPaths(files).map((path) => files.content(path).length));
    expect(largest).to.be.above(300_000);
    const read = async (from: Store): Promise<string[]> => {
      const lanes = from.uplink("cloud", generous);
      const got: QueuedMessage[] = [];
      await until(() => {
        for (let next = lanes.next(); next !== undefined; next = lanes.next()) got.push(next);
        return got.length === lanes.stats().messages;
      });
      lanes.rewind();
      return got.map(textOf);
    };
    expect(await read(store)).to.deep.equal([...kept.high, ...kept.low]);
    // Rewound with holes, so that reading begins anywhere.
    const random = randomOf(5);
    for (let round = 0; round < 6; round += 1) {
      const got: QueuedMessage[] = [];
      await until(() => {
        for (let next = queue.next(); next !== undefined; next = queue.next()) got.push(next);
        return got.length === queue.stats().messages;
      });
      for (const next of got) {
        if (random() > (round < 3 ? 0.3 : 0.6)) continue;
        queue.settle(next);
        const text = textOf(next);
        kept.low = kept.low.filter((one) => one !== text);
        kept.high = kept.high.filter((one) => one !== text);
      }
      queue.rewind();
      if (round === 4) await seconds(clock, 20, files);
    }
    for (const text of [...kept.queue].sort(() => random() - 0.5)) {
      expect(textOf((await store.read(positions.get(text)!))!)).to.equal(text);
    }
    expect((await store.references("q")!.read(0, { messages: 9999, bytes: 1e9 })).map(textOf)).to.deep.equal(
      kept.queue,
    );
    expect(await read(store)).to.deep.equal([...kept.high, ...kept.low]);
    await seconds(clock, 2, files);
    files.kill();
    const again = await open(files.mount(), new TestClock(), { segmentBytes, tuning });
    expect(await read(again)).to.deep.equal([...kept.high, ...kept.low]);
    expect(again.stats().recovery.corruptRecords).to.equal(0);
    await again.close();
  });

  it("a table finds the last pair at or before a position, and is the same after a round trip", () => {
    const builder = new PositionTableBuilder();
    for (let index = 0; index < 1000; index += 1) builder.add(2 ** 40 + index * 5000, headerBytes + index * 300);
    const table = builder.finish();
    const sink = new Tail(0, Number.POSITIVE_INFINITY);
    const of = { generation: 3, lastNumber: 77, base: 2 ** 40, end: 2 ** 41, prevEnd: 2 ** 40 - 5, firstGroup: 12 };
    writeMerged(sink, { ...of, kept: { statements: 5, pinnedMean: 700 }, table });
    const slice = sink.slices(0, sink.end)[0]!;
    const said = readMerged(new ByteReader(slice, 10, slice.length));
    expect(said).to.deep.include({ ...of, kept: { statements: 5, pinnedMean: 700 } });
    for (let index = 0; index < 1000; index += 1) {
      const position = 2 ** 40 + index * 5000;
      for (const at of [position, position + 1, position + 4999]) {
        const offset = said.table.offsetOf(at);
        expect(offset).to.equal(table.offsetOf(at));
        expect(offset).to.be.within(headerBytes + index * 300 - 8192 + 1, headerBytes + index * 300);
      }
    }
    expect(said.table.offsetOf(5)).to.equal(headerBytes);
    expect(new PositionTable([], []).offsetOf(5)).to.equal(headerBytes);
  });
});
