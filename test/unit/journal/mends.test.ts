/** Mends that guard against loss and that only lucky seeds of the crash model would notice the want of. */
import { expect } from "chai";
import type { Store, UplinkQueue } from "../../../src/base/contracts.ts";
import { headerBytes, recordType, seedOf, segmentMagic } from "../../../src/journal/format.ts";
import { type Group, sealGroup } from "../../../src/journal/groupBytes.ts";
import { acceptedEnd } from "../../../src/journal/lastGroup.ts";
import { writeGroupEnd, writePut } from "../../../src/journal/records.ts";
import { Segment } from "../../../src/journal/segments.ts";
import { Tail } from "../../../src/journal/tail.ts";
import { RecordWalker } from "../../../src/journal/walk.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn } from "./support.ts";

const headOf = (queue: UplinkQueue): string | undefined => {
  const next = queue.next();
  return next === undefined ? undefined : textOf(next);
};
const segmentsOf = (files: FaultyFiles): string[] => files.paths().filter((path) => path.includes("seg-"));

describe("journal: what is dropped unread takes nothing else along", () => {
  it("a failed sync moves a message on: the part that it was counted in ends where its segment does", async () => {
    const files = new FaultyFiles();
    const store = await open(files.mount(), new TestClock());
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(4);
    await durable(store, store.commit((txn) => txn.message(message("old"), [taker(lane)])).group);
    const { bytes } = queue.stats();
    let failed = 0;
    files.fault = (operation) => (operation === "datasync" && failed++ === 0 ? "EIO" : undefined);
    await durable(store, store.commit((txn) => txn.message(message("new"), [taker(lane)])).group);
    expect(segmentsOf(files).length, "moved").to.equal(2);
    store.uplink("cloud", { ...generous, maxBytes: queue.stats().bytes - bytes });
    expect(queue.stats()).to.deep.include({ messages: 1, dropped: { full: 1 } });
    expect(headOf(queue)).to.equal("new");
    await store.close();
  });

  it("a commit that throws: its part reaches no further than before", async () => {
    const files = new FaultyFiles();
    const store = await open(files.mount(), new TestClock(), { segmentBytes: 3000 });
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(4);
    const { group } = store.commit((txn) => txn.message(message("o".repeat(3000)), [taker(lane)]));
    const { bytes } = queue.stats();
    expect(() =>
      store.commit((txn) => {
        for (let count = 0; count < 50; count += 1) txn.message(message("never".repeat(20)), [taker(lane)]);
        throw new Error("meant");
      }),
    ).to.throw("meant");
    await durable(store, group);
    await durable(store, store.commit((txn) => txn.message(message("new"), [taker(lane)])).group);
    expect(segmentsOf(files).length, "the next segment").to.equal(2);
    store.uplink("cloud", { ...generous, maxBytes: queue.stats().bytes - bytes });
    expect(queue.stats()).to.deep.include({ messages: 1, dropped: { full: 1 } });
    expect(headOf(queue)).to.equal("new");
    await store.close();
  });

  it("stats asked for within a commit that throws: the lane comes by what is written there next", async () => {
    const store = await open(new FaultyFiles().mount(), new TestClock());
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(4);
    await durable(store, store.commit((txn) => txn.put("m", "k", Buffer.from("v"))).group);
    expect(() =>
      store.commit((txn) => {
        txn.put("m", "k", Buffer.alloc(5000));
        txn.message(message("never"), [taker(lane)]);
        expect(queue.stats().messages).to.equal(1);
        throw new Error("meant");
      }),
    ).to.throw("meant");
    await durable(store, store.commit((txn) => txn.message(message("new"), [taker(lane)])).group);
    expect(headOf(queue)).to.equal("new");
    await store.close();
  });
});

/** A group that nobody waited for, which ends with a sector, and an empty one behind it that was synced with it. */
function twoGroups(): { buffer: Buffer; first: number; seed: number } {
  const seed = 7;
  for (let bytes = 600; ; bytes += 1) {
    const tail = new Tail(1, 1e6);
    const segment = new Segment({ number: 1, base: 1, firstGroup: 3, prevEnd: 1, seed });
    const add = (number: number, payload: number): number => {
      const start = tail.end;
      if (payload > 0) writePut(tail, "map", "key", Buffer.alloc(payload, 1));
      const records = payload > 0 ? 1 : 0;
      const times = { clockMs: 5000, wallMs: 1e12 };
      writeGroupEnd(tail, { group: number, durable: 2, bytes: tail.end - start, records, ...times });
      const state = { touched: true, needsSync: payload === 0, apart: false };
      const group: Group = { number, start, end: tail.end, records, segment, ...state };
      sealGroup(tail, group);
      return tail.end - 1;
    };
    const first = add(3, bytes);
    const last = add(4, 0);
    if (first % 512 === 0) return { buffer: Buffer.concat(tail.slices(1, last + 1)), first, seed };
    expect(bytes).to.be.below(2000);
  }
}

describe("journal: a group that nobody waited for, and the empty one behind it", () => {
  const { buffer, first, seed } = twoGroups();
  const endOf = (bytes: Buffer): number =>
    acceptedEnd({ buffer: bytes, at: headerBytes, seed, proven: 2 }) - headerBytes;

  it("whole, both count", () => {
    expect(endOf(Buffer.from(buffer))).to.equal(buffer.length);
  });

  it("with any sector of the first missing, its end's too, neither counts", () => {
    for (let from = 0; from < first; from += 512) {
      const torn = Buffer.from(buffer);
      torn.fill(0, from, from + 512);
      expect(endOf(torn), `sector at ${from}`).to.equal(0);
    }
  });

  it("with bits of the first's end flipped, both count", () => {
    const rotten = Buffer.from(buffer);
    for (const back of [3, 9, 14]) rotten[first - back] = rotten[first - back]! ^ 0x42;
    expect(endOf(rotten)).to.equal(buffer.length);
  });
});

describe("journal: numbers after the last group went bad", () => {
  const count = 5;

  /** @returns the number of the first message that is accepted after a restart with these bytes in the segment */
  async function nextNumber(damage: (content: Buffer, from: number, to: number) => Buffer): Promise<number> {
    const files = new FaultyFiles();
    const store = await open(files.mount(), new TestClock());
    const lane = store.uplink("cloud", generous).lane(4);
    await durable(store, store.commit((txn) => txn.put("m", "k", Buffer.from("v"))).group);
    let group = 0;
    for (let at = 0; at < count; at += 1)
      group = store.commit((txn) => txn.message(message("x".repeat(700)), [taker(lane)])).group;
    await durable(store, group);
    const sent = store.uplink("cloud", generous);
    for (let at = 1; at <= count; at += 1) expect(sent.next()!.seq).to.equal(at);
    files.kill();
    const [path] = segmentsOf(files);
    const content = files.content(path!);
    const walker = new RecordWalker();
    walker.start(content, headerBytes, content.length, 0, seedOf(segmentMagic, content.subarray(16, 24), 1));
    const ends: number[] = [];
    while (walker.step() === "record") if (walker.type === recordType.groupEnd) ends.push(walker.next);
    files.replace(path!, damage(Buffer.from(content), ends.at(-2)!, ends.at(-1)!));
    const again = await open(files.mount(), new TestClock());
    const queue = again.uplink("cloud", generous);
    expect(queue.stats().messages, "the group is gone").to.equal(0);
    await durable(again, again.commit((txn) => txn.message(message("new"), [taker(queue.lane(4))])).group);
    const { seq } = queue.next()!;
    await again.close();
    return seq;
  }

  it("a sector of it is zeros: none is given again", async () => {
    for (let sector = 1; sector <= 6; sector += 1) {
      const next = await nextNumber((content, from) => {
        const at = (Math.floor(from / 512) + sector) * 512;
        return content.fill(0, at, at + 512);
      });
      expect(next, `sector ${sector}`).to.be.above(count);
    }
  });

  it("it is cut off in its middle: none is given again", async () => {
    expect(await nextNumber((content, from, to) => content.subarray(0, (from + to) >>> 1))).to.be.above(count);
  });
});

describe("journal: a segment between two others that lost its header", () => {
  it("holds no message, and lies behind a prepared file: it is counted as damage, and not removed", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const more = { segmentBytes: 300 * 1024, tuning: { spares: 1, lightMs: 10_000 } };
    const put = async (store: Store, key: string): Promise<void> =>
      durable(store, store.commit((txn) => txn.put("m", key, Buffer.from(key))).group);
    const first = await open(files.mount(), clock, more);
    for (let step = 0; first.stats().spares === 0; step += 1) {
      expect(step).to.be.below(2000);
      clock.advance(20);
      for (let turns = 0; turns < 5; turns += 1) await turn();
    }
    await put(first, "a"); // the last in the segment that grows
    await put(first, "b");
    const before = segmentsOf(files).at(-1)!;
    expect(files.content(before).length, "prepared").to.equal(more.segmentBytes);
    let failed = 0;
    files.fault = (operation) => (operation === "datasync" && failed++ === 0 ? "EIO" : undefined);
    await put(first, "c"); // in a segment that begins where the synced bytes of the prepared one end
    expect(segmentsOf(files).at(-1)).to.not.equal(before);
    await put(first, "e");
    files.kill();
    clock.forgetTimers();
    await put(await open(files.mount(), clock), "d");
    expect(files.content(before).length, "still longer than what counts").to.equal(more.segmentBytes);
    files.kill();
    clock.forgetTimers();
    const middle = segmentsOf(files).at(-2)!;
    expect(middle > before).to.equal(true);
    const rotten = Buffer.from(files.content(middle));
    for (const copy of [0, 512]) rotten[copy + 50] = rotten[copy + 50]! ^ 1;
    files.replace(middle, rotten);
    const store = await open(files.mount(), clock);
    expect(["a", "b", "c", "d"].filter((key) => store.get("m", key) === undefined)).to.deep.equal([]);
    const { corruptRecords } = store.stats().recovery;
    expect(store.get("m", "e") !== undefined || corruptRecords > 0, "told of").to.equal(true);
    expect(segmentsOf(files)).to.include(middle);
    await store.close();
  });
});
