import { expect } from "chai";
import type { Store } from "../../../src/base/contracts.ts";
import { Meter } from "../../../src/base/meter.ts";
import { type Fault, FaultyFiles, type Operation } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn, until } from "./support.ts";

describe("journal: a disk that refuses", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  let store: Store;

  beforeEach(async () => {
    files = new FaultyFiles();
    clock = new TestClock();
    store = await open(files.mount(), clock, { segmentBytes: 4000 });
  });

  const put = (text: string): number => {
    const lane = store.uplink("cloud", generous).lane(4);
    return store.commit((txn) => txn.message(message(text), [taker(lane)])).group;
  };
  const afterPowerCut = async (): Promise<string[]> => {
    files.crash(() => 0.9); // nothing unsynced survives
    clock.forgetTimers();
    store = await open(files.mount(), clock, { segmentBytes: 4000 });
    expect(store.stats().recovery.corruptRecords).to.equal(0);
    const queue = store.uplink("cloud", generous);
    const texts: string[] = [];
    await until(() => {
      for (let next = queue.next(); next !== undefined; next = queue.next()) texts.push(textOf(next));
      return queue.stats().messages === texts.length;
    });
    return texts;
  };
  /** The next faults of journal writing, in order; those of other operations pass by. */
  const faults = (...wanted: Array<readonly [Operation, Fault]>): (() => number) => {
    let at = 0;
    files.fault = (operation, path) => {
      if (wanted[at]?.[0] !== operation || path.includes("ckpt")) return undefined;
      at += 1;
      return wanted[at - 1]![1];
    };
    return () => wanted.length - at;
  };
  const seconds = async (count: number): Promise<void> => {
    for (let second = 0; second < count; second += 1) {
      clock.advance(1000);
      for (let turns = 0; turns < 15; turns += 1) await turn();
    }
  };

  it("a sync that fails when the next segment was begun already, then a large message: no bytes are missed between two segments", async () => {
    await store.close();
    const more = { segmentBytes: 4000, tuning: { spares: 0, largeRecordBytes: 2000 } };
    store = await open(files.mount(), clock, more);
    await durable(store, put("a"));
    const left = faults(["datasync", "EIO"]);
    await durable(store, put("b".repeat(1900))); // not large
    await durable(store, put("c".repeat(1900))); // fills the segment
    expect(left()).to.equal(0);
    await durable(store, put("l".repeat(2500)));
    await durable(store, put("d"));
    expect((await afterPowerCut()).map(([first]) => first)).to.deep.equal(["a", "b", "c", "l", "d"]);
  });

  for (const [name, wanted] of [
    ["EIO on a write", [["write", "EIO"]]],
    ["EIO on a sync", [["datasync", "EIO"]]],
    [
      "EIO on a sync, then no space in the new segment",
      [
        ["datasync", "EIO"],
        ["write", "ENOSPC"],
      ],
    ],
    [
      "EIO on a sync, then no space to create the new segment, twice",
      [
        ["datasync", "EIO"],
        ["create", "ENOSPC"],
        ["create", "ENOSPC"],
      ],
    ],
    [
      "no space, then EIO in the new segment",
      [
        ["write", "ENOSPC"],
        ["write", "EIO"],
      ],
    ],
    [
      "no space twice while the removal of the torn segment fails as well",
      [
        ["write", "ENOSPC"],
        ["write", "ENOSPC"],
        ["unlink", "EIO"],
        ["write", "ENOSPC"],
      ],
    ],
    [
      "a short write, then no space",
      [
        ["write", "short"],
        ["write", "ENOSPC"],
      ],
    ],
  ] as ReadonlyArray<readonly [string, ReadonlyArray<readonly [Operation, Fault]>]>) {
    it(`${name}: nothing acknowledged is lost, nothing comes twice`, async () => {
      await durable(store, put("before"));
      const left = faults(...wanted);
      const groups = [put("a"), put("b")];
      await seconds(5);
      await durable(store, groups[1]!);
      expect(left(), "all faults came").to.equal(0);
      expect(store.stats().state).to.equal("ok");
      await durable(store, put("after"));
      expect(await afterPowerCut()).to.deep.equal(["before", "a", "b", "after"]);
    });
  }

  for (const [operation, fault] of [
    ["create", "ENOSPC"],
    ["create", "EIO"],
    ["write", "ENOSPC"],
    ["syncDir", "EIO"],
    ["datasync", "EIO"],
  ] as const) {
    it(`${fault} on ${operation} while a full segment is left for the next`, async () => {
      const texts: string[] = [];
      let rolls = 0;
      files.fault = (now, path) => {
        if (now === "create" && path.includes("seg-")) rolls += 1;
        if (now !== operation || rolls <= 0 || path.includes("ckpt")) return undefined;
        rolls = -1000; // once
        return fault;
      };
      for (let count = 0; count < 12; count += 1) {
        texts.push(`${count}${"x".repeat(600)}`);
        const group = put(texts.at(-1)!);
        await seconds(2);
        await durable(store, group);
      }
      expect(rolls, "the fault came").to.be.below(0);
      expect(await afterPowerCut()).to.deep.equal(texts);
    });
  }

  it("close() while the disk is full ends, says why, and keeps what was acknowledged", async () => {
    await durable(store, put("before"));
    files.fault = (operation) => (operation === "write" ? "ENOSPC" : undefined);
    put("never");
    await until(() => store.stats().state === "full");
    expect(store.stats().problem).to.contain("make room");
    await store.close();
    expect(store.failed?.message).to.contain("the disk is full: make room");
    expect(await afterPowerCut()).to.deep.equal(["before"]);
  });

  for (const [fault, remedy] of [
    ["EIO", "dmesg"],
    ["EROFS", "mount it read-write"],
    ["EACCES", "chown"],
    ["EMFILE", "LimitNOFILE"],
  ] as const) {
    it(`${fault} that goes on is TG_STORE_FAILED, and says what to do`, async () => {
      await durable(store, put("before"));
      files.fault = (operation) => (operation === "write" || operation === "create" ? fault : undefined);
      put("never");
      await until(() => store.failed !== undefined);
      expect(store.failed?.code).to.equal("TG_STORE_FAILED");
      expect(store.failed?.message).to.contain(remedy).and.contain(fault).and.contain("/data");
      expect(store.stats()).to.deep.include({ state: "failed", problem: store.failed?.message });
      await store.close();
      expect(await afterPowerCut()).to.deep.equal(["before"]);
    });
  }

  it("tells on /metrics and in stats what was written, by the block, and what a day would make", async () => {
    const meter = new Meter();
    store = await open(files.mount(), clock, { dir: "/metered", meter });
    const before = store.stats().writtenBytes;
    await durable(store, put("a"));
    expect(store.stats().writtenBytes - before).to.equal(4096);
    clock.advance(3600_000);
    const { writtenBytes, writtenPerDay } = store.stats();
    expect(writtenPerDay.extrapolated).to.equal(true);
    expect(writtenPerDay.bytes).to.be.within(24 * writtenBytes * 0.9, 24 * store.stats().writtenBytes * 1.1);
    for (let hour = 0; hour < 24; hour += 1) clock.advance(3600_000);
    const { bytes, extrapolated } = store.stats().writtenPerDay;
    expect(extrapolated).to.equal(false);
    expect(bytes).to.be.below(store.stats().writtenBytes, "the first hour is over a day ago");
    const text = meter.expose();
    expect(text).to.match(/^# TYPE tidegate_storage_written_bytes_total counter$/m);
    expect(text).to.contain('tidegate_storage_state{state="ok"} 1');
    expect(text).to.match(/^tidegate_storage_group_records_count \d+$/m);
  });
});
