import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { systemClock } from "../../../src/base/clock.ts";
import type { Store } from "../../../src/base/contracts.ts";
import { TidegateError } from "../../../src/base/errors.ts";
import { nodeFiles } from "../../../src/base/files.ts";
import { lockFolder } from "../../../src/journal/folderLock.ts";
import { formatVersion } from "../../../src/journal/format.ts";
import { openStore } from "../../../src/journal/open.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { until as untilTime } from "../../helpers/wait.ts";
import { durable, generous, message, open, optionsOn, TestClock, taker, textOf, turn, until } from "./support.ts";

const everything = { messages: 1000, bytes: 1e9 };

async function rejection(promise: Promise<unknown>): Promise<TidegateError> {
  try {
    await promise;
  } catch (error) {
    expect(error).to.be.instanceOf(TidegateError);
    return error as TidegateError;
  }
  throw new Error("did not reject");
}

describe("journal: store", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  let store: Store;

  beforeEach(async () => {
    files = new FaultyFiles();
    clock = new TestClock();
    store = await open(files.mount(), clock);
  });

  const reopen = async (): Promise<void> => {
    await store.close();
    clock.forgetTimers();
    store = await open(files.mount(), clock);
  };

  it("keeps everything over a clean stop, and says it was clean", async () => {
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(3);
    const rule = store.rule("cloud", '{"topic":"#"}');
    const { value } = store.commit((txn) => {
      const position = txn.message(message("one"), [taker(lane, rule)]);
      txn.reference("alice", position, 5);
      txn.reference("alice", txn.message(message("two", { qos: 2, properties: { contentType: "a/b" } }), []), 6);
      txn.retain("t", position);
      txn.put("sessions", "alice", Buffer.from("state"));
      return position;
    });
    const { epoch } = store;
    await reopen();
    expect(store.stats().recovery).to.deep.include({ clean: true, corruptRecords: 0, tornBytes: 0 });
    expect(store.epoch).to.equal(epoch);
    expect(store.ruleDefinition(rule)).to.equal('{"topic":"#"}');
    expect(store.rule("cloud", '{"topic":"#"}')).to.equal(rule);
    expect(store.uplink("cloud", generous).lane(3)).to.equal(lane);
    expect([...store.retained()]).to.deep.equal([["t", value]]);
    expect(textOf((await store.read(value))!)).to.equal("one");
    expect(Buffer.from(store.get("sessions", "alice")!).toString()).to.equal("state");
    const read = await store.references("alice")!.read(0, everything);
    expect(read.map((one) => [one.ordinal, one.meta, textOf(one)])).to.deep.equal([
      [1, 5, "one"],
      [2, 6, "two"],
    ]);
    expect(read[1]?.message.properties).to.deep.equal({ contentType: "a/b" });
    expect(store.uplink("cloud", generous).next()).to.equal(undefined); // on disk: read first
    await until(() => store.uplink("cloud", generous).next() !== undefined);
  });

  it("a commit whose function throws leaves no trace, in RAM or on disk", async () => {
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(3);
    store.commit((txn) => {
      const position = txn.message(message("kept"), []);
      txn.reference("alice", position, 1);
      txn.retain("t", position);
      txn.put("m", "k", Buffer.from("before"));
    });
    const { head } = store;
    const [, retainedAt] = [...store.retained()][0]!;
    expect(() =>
      store.commit((txn) => {
        const position = txn.message(message("gone"), [taker(lane)]);
        txn.reference("alice", position, 1);
        txn.release("alice", 1);
        txn.reference("bob", position, 1);
        txn.dropQueue("alice");
        txn.retain("t", position);
        txn.retain("u", position);
        txn.put("m", "k", Buffer.from("after"));
        txn.delete("m", "k");
        throw new RangeError("no");
      }),
    ).to.throw(RangeError);
    const check = async (): Promise<void> => {
      expect(store.references("bob")).to.equal(undefined);
      expect((await store.references("alice")!.read(0, everything)).map(textOf)).to.deep.equal(["kept"]);
      expect(store.references("alice")!.nextOrdinal).to.equal(2);
      expect([...store.retained()]).to.deep.equal([["t", retainedAt]]);
      expect(Buffer.from(store.get("m", "k")!).toString()).to.equal("before");
      expect(store.uplink("cloud", generous).stats()).to.deep.include({ messages: 0, bytes: 0 });
    };
    expect(store.head).to.equal(head);
    await check();
    await reopen();
    await check();
  });

  it("references are read in order, by ordinal, within the limits, durable or not", async () => {
    const { group } = store.commit((txn) => {
      for (let index = 1; index <= 10; index += 1) txn.reference("q", txn.message(message(`m${index}`), []), index);
    });
    const queue = store.references("q")!;
    expect((await queue.read(0, { messages: 3, bytes: 1e6 })).map((one) => one.group)).to.deep.equal([
      group,
      group,
      group,
    ]);
    expect((await queue.read(4, { messages: 2, bytes: 1e6 })).map(textOf)).to.deep.equal(["m5", "m6"]);
    expect((await queue.read(4, { messages: 9, bytes: 1 })).map(textOf)).to.deep.equal(["m5"]);
    store.commit((txn) => [1, 2, 4, 99].forEach((ordinal) => void txn.release("q", ordinal)));
    expect(queue.oldest()).to.deep.equal({ ordinal: 3, meta: 3 });
    expect(queue.size).to.equal(7);
    store.commit((txn) => txn.dropQueue("q"));
    expect(store.references("q")).to.equal(undefined);
    expect(store.commit((txn) => txn.reference("q", txn.message(message("new"), []), 0)).value).to.equal(1);
  });

  it("takes payloads up to maxMessageBytes, and nothing above", async () => {
    const big = Buffer.alloc(1024 * 1024, 7);
    const { value, group } = store.commit((txn) => {
      const position = txn.message({ ...message("big"), payload: big }, []);
      txn.retain("big", position);
      return position;
    });
    await durable(store, group);
    await reopen();
    expect(big.equals((await store.read(value))!.message.payload)).to.equal(true);
    const over = { ...message("x"), payload: Buffer.alloc(1024 * 1024 + 1) };
    expect(() => store.commit((txn) => txn.message(over, []))).to.throw(TidegateError);
  });

  it("a write or sync that fails once costs nothing: the group goes to another segment", async () => {
    for (const operation of ["write", "datasync", "create", "syncDir"] as const) {
      let armed = true;
      files.fault = (now) => {
        if (now !== operation || !armed) return undefined;
        armed = false;
        return "EIO";
      };
      if (operation === "create" || operation === "syncDir") {
        const { group } = store.commit((txn) =>
          txn.retain("fill", txn.message({ ...message("f"), payload: Buffer.alloc(1024 * 1024) }, [])),
        );
        await durable(store, group);
        for (let index = 0; index < 8; index += 1) {
          await durable(
            store,
            store.commit((txn) => txn.message({ ...message("f"), payload: Buffer.alloc(1024 * 1024) }, [])).group,
          );
        }
      }
      const { group } = store.commit((txn) => txn.reference("q", txn.message(message(operation), []), 0));
      await durable(store, group);
      expect(store.failed).to.equal(undefined);
      expect(armed, operation).to.equal(false);
    }
    files.crash(() => 0.9); // nothing unsynced survives
    store = await open(files.mount(), clock);
    const read = await store.references("q")!.read(0, everything);
    expect(read.map(textOf)).to.deep.equal(["write", "datasync", "create", "syncDir"]);
  });

  it("a disk that fails twice: durable publishes are refused, what is in RAM goes on, a restart returns to what was durable", async () => {
    await durable(store, store.commit((txn) => txn.put("m", "k", Buffer.from("durable"))).group);
    const reported: string[] = [];
    store.onFailed((error) => reported.push(error.code));
    files.fault = (operation) => (operation === "datasync" ? "EIO" : undefined);
    const { group } = store.commit((txn) => txn.put("m", "k", Buffer.from("never")));
    await until(() => store.failed !== undefined);
    expect(reported).to.deep.equal(["TG_STORE_FAILED"]);
    expect(store.admit({ bytes: 1, rejectNewest: [] })).to.equal("failed");
    expect(store.durableGroup).to.be.below(group);
    const later = store.commit((txn) => txn.reference("q", txn.message(message("ram only"), []), 0));
    expect(later.group).to.be.above(store.durableGroup);
    expect((await store.references("q")!.read(0, everything)).map(textOf)).to.deep.equal(["ram only"]);
    await store.close();
    files.crash(() => 0.9);
    store = await open(files.mount(), clock);
    expect(Buffer.from(store.get("m", "k")!).toString()).to.equal("durable");
  });

  it("a full disk is full, not failed: it goes on once there is space", async () => {
    files.fault = (operation) => (operation === "write" ? "ENOSPC" : undefined);
    const { group } = store.commit((txn) => txn.put("m", "k", Buffer.from("v")));
    await until(() => store.admit({ bytes: 1, rejectNewest: [] }) === "full");
    for (let retry = 0; retry < 3; retry += 1) {
      clock.advance(1000);
      for (let turns = 0; turns < 10; turns += 1) await turn();
    }
    expect(store.failed).to.equal(undefined);
    files.fault = () => undefined;
    clock.advance(1000);
    await durable(store, group);
    expect(store.admit({ bytes: 1, rejectNewest: [] })).to.equal("ok");
    files.crash(() => 0.9);
    store = await open(files.mount(), clock);
    expect(Buffer.from(store.get("m", "k")!).toString()).to.equal("v");
  });

  it("storage.maxBytes and minFreeBytes refuse before the effect", async () => {
    expect(store.admit({ bytes: 65 * 1024 * 1024, rejectNewest: [] })).to.equal("full");
    files.free = 10_000_000;
    const tight = await open(files.mount(), new TestClock(), { minFreeBytes: 5_000_000, dir: "/tight" });
    expect(tight.admit({ bytes: 1_000_000, rejectNewest: [] })).to.equal("ok");
    expect(tight.admit({ bytes: 6_000_000, rejectNewest: [] })).to.equal("full");
    const greedy = await open(files.mount(), new TestClock(), { minFreeBytes: 0, dir: "/greedy" });
    expect(greedy.admit({ bytes: 8_000_000, rejectNewest: [] })).to.equal("ok");
    expect(greedy.admit({ bytes: 9_500_000, rejectNewest: [] }), "acknowledgements must still fit").to.equal("full");
  });

  it("starts on a disk that takes nothing, and refuses durable publishes", async () => {
    await store.close();
    files.fault = (operation) => (operation === "create" || operation === "write" ? "EROFS" : undefined);
    store = await open(files.mount(), clock);
    expect(store.admit({ bytes: 1, rejectNewest: [] })).to.equal("failed");
  });

  it("the store clock goes on from what was journalled, and believes only short gaps of the wall clock", async () => {
    const started = store.nowMs();
    clock.advance(5000);
    expect(store.nowMs()).to.equal(started + 5000);
    store.commit((txn) => txn.put("m", "k", Buffer.alloc(1)));
    await reopen();
    expect(store.nowMs()).to.equal(started + 5000);
    await store.close();
    clock.wall += 3600_000;
    store = await open(files.mount(), clock);
    expect(store.nowMs()).to.equal(started + 5000 + 3600_000);
    await store.close();
    clock.wall += 2 * 365 * 86_400_000; // NTP, at last
    store = await open(files.mount(), clock);
    expect(store.nowMs()).to.equal(started + 5000 + 3600_000);
    await store.close();
    clock.wall -= 3 * 365 * 86_400_000;
    store = await open(files.mount(), clock);
    expect(store.nowMs()).to.equal(started + 5000 + 3600_000);
  });

  it("leaves alone what is not its own, and does not start on a newer format", async () => {
    await store.close();
    files.replace("/data/notes.txt", Buffer.from("mine"));
    files.replace("/data/seg-abc.log", Buffer.from("not a segment"));
    store = await open(files.mount(), clock);
    await store.close();
    expect(files.content("/data/notes.txt").toString()).to.equal("mine");
    const newer = new FaultyFiles();
    const other = await open(newer.mount(), clock);
    await other.close();
    const before = newer.paths().filter((path) => path.includes("seg-"));
    const changed = Buffer.from(newer.content(before[0]!));
    for (const at of [0, 512]) {
      changed.writeUInt16LE(formatVersion + 1, at + 8);
      changed.writeUInt32LE(0, at + 12);
      const { crc32 } = await import("node:zlib");
      changed.writeUInt32LE(crc32(changed.subarray(at, at + 128)), at + 12);
    }
    newer.replace(before[0]!, changed);
    const paths = newer.paths();
    expect((await rejection(open(newer.mount(), clock))).code).to.equal("TG_STORE_FOREIGN");
    expect(newer.paths()).to.deep.equal(paths);
  });

  it("commits are counted in groups: one callback for what one turn brought", async () => {
    const groups: number[] = [];
    store.onDurable((group) => groups.push(group));
    const commits = Array.from(
      { length: 50 },
      (_, index) => store.commit((txn) => txn.put("m", `${index}`, Buffer.alloc(1))).group,
    );
    expect(new Set(commits).size).to.equal(1);
    await durable(store, commits[0]!);
    expect(groups).to.deep.equal([commits[0]]);
  });
});

describe("journal: on the real disk", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const onDisk = (dir: string): Promise<Store> =>
    openStore({ ...optionsOn(nodeFiles, systemClock, { dir, lock: lockFolder }) });

  it("keeps what it was given, and admits one gateway a folder", async () => {
    const dir = join(folder, "deep", "data");
    const store = await onDisk(dir);
    const { group, value } = store.commit((txn) => {
      const position = txn.message(message("hello"), []);
      txn.retain("t", position);
      return position;
    });
    await untilTime("durable", () => store.durableGroup >= group); // a disk may take longer than any number of turns
    const second = await rejection(onDisk(dir));
    expect(second.code).to.equal("TG_DATA_DIR");
    expect(second.message).to.contain("in use by another tidegate");
    await store.close();
    const again = await onDisk(dir);
    expect(textOf((await again.read(value))!)).to.equal("hello");
    await again.close();
    expect(readdirSync(dir).every((name) => /^(seg|ckpt)-\d{12}\.(log|bin)$/.test(name))).to.equal(true);
  });

  it("says what to mend when the folder cannot be used", async () => {
    writeFileSync(join(folder, "file"), "");
    const error = await rejection(onDisk(join(folder, "file", "data")));
    expect(error.code).to.equal("TG_DATA_DIR");
    expect(error.message).to.contain("gateway.dataDir");
  });
});
