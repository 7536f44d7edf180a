import { expect } from "chai";
import type { BackupInfo, Store, UplinkQueue } from "../../../src/base/contracts.ts";
import { silentLog } from "../../../src/base/log.ts";
import { backupStopped } from "../../../src/journal/offlineBackup.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { dir, durable, generous, message, open, randomOf, TestClock, taker, textOf, turn, until } from "./support.ts";

// A backup is what was durable when it was asked for, whole or not at all; whoever starts from it never speaks with the old epoch again.

const target = "/backup";
const request = { dir: target, gateway: "g1", version: "1.2.3" };
const small = { segmentBytes: 8 * 1024, tuning: { checkpointBytes: 20 * 1024, checkpointEveryMs: 100 } } as const;

describe("journal: backup", () => {
  let disk: FaultyFiles;
  let clock: TestClock;
  let store: Store;
  let sent: number;
  const opened: Store[] = [];

  beforeEach(async () => {
    disk = new FaultyFiles();
    clock = new TestClock();
    sent = 0;
    store = await start(disk);
  });
  afterEach(async () => {
    for (const one of opened.splice(0)) await one.close();
  });

  async function start(on: FaultyFiles, folder = dir): Promise<Store> {
    const made = await open(on.mount(), clock, { ...small, dir: folder });
    opened.push(made);
    return made;
  }

  /** Stores numbered messages of 300 bytes; resolves once they are durable. */
  async function feed(count: number): Promise<void> {
    const lane = store.uplink("cloud", generous).lane(5);
    const rule = store.rule("cloud", "{}");
    for (let index = 0; index < count; index += 1) {
      const text = `${sent++} `.padEnd(300, "x");
      await durable(store, store.commit((txn) => txn.message(message(text), [taker(lane, rule)])).group);
    }
  }

  async function drain(queue: UplinkQueue, from: Store): Promise<number[]> {
    const taken: number[] = [];
    for (let idle = 0; queue.stats().messages > 0 && idle < 5000; ) {
      const next = queue.next();
      if (next === undefined) {
        idle += 1;
        await turn();
        continue;
      }
      idle = 0;
      taken.push(Number.parseInt(textOf(next), 10));
      queue.settle(next);
    }
    await durable(from, from.durableGroup);
    return taken;
  }

  /** Only the backup's files, under the data folder's name, on a disk of their own. */
  function copied(from = disk): FaultyFiles {
    const other = new FaultyFiles();
    for (const path of from.paths())
      if (path.startsWith(`${target}/`)) other.replace(`${dir}${path.slice(target.length)}`, from.content(path));
    return other;
  }

  async function waitingIn(on: FaultyFiles): Promise<{ numbers: number[]; epoch: number }> {
    const restored = await start(on);
    return { numbers: await drain(restored.uplink("cloud", generous), restored), epoch: restored.epoch };
  }

  const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

  const refusal = async (of: Promise<unknown>): Promise<{ code: string; message: string }> =>
    await of.then(
      () => expect.fail("it was not refused"),
      (error: unknown) => error as { code: string; message: string },
    );

  it("holds all that was durable, linked where it is sealed, and starts with a higher epoch", async () => {
    await feed(120);
    const info = await store.backup(request);
    expect(info.files).to.be.above(4);
    expect(info.linkedBytes).to.be.within(info.bytes / 2, info.bytes - 1); // the open segment is a copy
    expect(info.epoch).to.equal(store.epoch);
    await feed(20);
    const { numbers, epoch } = await waitingIn(copied());
    expect(numbers).to.deep.equal(upTo(120));
    expect(epoch).to.be.above(store.epoch);
  });

  for (const [lost, at] of [
    ["names", 0],
    ["bytes", 1],
  ] as const)
    it(`is on the disk when it says so (unsynced ${lost} are lost), and the data folder's own files are not touched`, async () => {
      await feed(60);
      const before = new Map(disk.paths().map((path) => [path, Buffer.from(disk.content(path))]));
      await store.backup(request);
      for (const [path, content] of before) expect(disk.content(path).equals(content), path).to.equal(true);
      disk.crash(() => at);
      opened.length = 0; // nothing that it calls answers any more
      expect((await waitingIn(copied())).numbers).to.deep.equal(upTo(60));
    });

  it("copies where there are no links, and frees nothing before it is done", async () => {
    await feed(100);
    let free: Promise<number[]> | undefined;
    let unlinkedInside = 0;
    disk.fault = (operation, path) => {
      if (operation === "link") return "EROFS";
      if (operation === "unlink" && path.startsWith(`${dir}/`) && !path.endsWith(".tmp")) unlinkedInside += 1;
      // In the middle of it all is sent, and checkpoints become due: without the hold segments would go.
      if (operation === "create" && path.startsWith(`${target}/seg`))
        free ??= drain(store.uplink("cloud", generous), store);
      return undefined;
    };
    const making = store.backup(request);
    let done = false;
    void making.finally(() => (done = true));
    while (!done) {
      clock.advance(1000);
      await turn();
    }
    const info = await making;
    expect(info.linkedBytes).to.equal(0);
    expect(unlinkedInside).to.equal(0);
    expect((await free)?.length).to.equal(100);
    disk.fault = () => undefined;
    for (let seconds = 0; seconds < 60; seconds += 1) {
      clock.advance(1000);
      for (let turns = 0; turns < 20; turns += 1) await turn();
    }
    expect(store.stats().segments, "released again").to.be.below(4);
    expect((await waitingIn(copied())).numbers).to.deep.equal(upTo(100));
  });

  it("a store that starts in the folder of links leaves the files of the other alone", async () => {
    await feed(100);
    await store.backup(request);
    const before = new Map(disk.paths().map((path) => [path, Buffer.from(disk.content(path))]));
    const twin = await start(disk, target);
    expect((await drain(twin.uplink("cloud", generous), twin)).length).to.equal(100);
    for (let seconds = 0; seconds < 60; seconds += 1) {
      clock.advance(1000);
      for (let turns = 0; turns < 20; turns += 1) await turn();
    }
    expect(twin.stats().segments).to.be.below(4);
    for (const [path, content] of before) {
      if (!path.startsWith(`${dir}/seg`)) continue;
      // The other goes on writing to its newest; what was there stays as it was.
      const now = disk.content(path).subarray(0, content.length);
      expect(now.equals(content), path).to.equal(true);
    }
  });

  for (const [what, code] of [
    ["ENOSPC", "no space left"],
    ["EIO", "EIO"],
    ["EROFS", "cannot be written"],
  ] as const) {
    it(`leaves nothing behind when the disk says ${what} at any of its steps`, async () => {
      await feed(60);
      let step = 0;
      for (let at = 1; ; at += 1) {
        step = 0;
        disk.fault = (operation, path) => {
          const changes = ["create", "write", "datasync", "rename", "syncDir"].includes(operation);
          if (!path.startsWith(target) || !changes) return undefined;
          step += 1;
          return step === at ? what : undefined;
        };
        const made = await store.backup(request).then(
          () => true,
          (error: { code: string; message: string }) => {
            expect(error.code).to.equal("TG_BACKUP");
            expect(error.message).to.contain(target).and.contain(code);
            return false;
          },
        );
        if (made) break;
        expect(disk.paths().filter((path) => path.startsWith(target))).to.deep.equal([]);
      }
      expect(step).to.be.above(8);
      disk.fault = () => undefined;
      expect((await waitingIn(copied())).numbers).to.deep.equal(upTo(60));
    });
  }

  it("cut short by a crash at any step it is refused, or it is whole", async () => {
    await feed(40);
    const random = randomOf(7);
    let whole = 0;
    let refused = 0;
    for (let at = 1; whole === 0; at += 1) {
      const copy = disk.clone();
      const victim = await start(copy);
      let step = 0;
      copy.fault = (_operation, path) => {
        if (path.startsWith(target)) step += 1;
        return step >= at ? "stop" : undefined;
      };
      let done = false;
      void victim.backup(request).then(() => (done = true));
      await until(() => done || copy.stopped, "backup or crash");
      copy.crash(random);
      opened.pop();
      if (copied(copy).paths().length === 0) continue;
      const error = await start(copied(copy)).then(
        async (restored) => {
          expect(await drain(restored.uplink("cloud", generous), restored)).to.deep.equal(upTo(40));
          expect(restored.epoch).to.be.above(store.epoch);
          return undefined;
        },
        (thrown: { code: string }) => thrown,
      );
      if (error !== undefined) refused += 1;
      if (error !== undefined) expect(error.code).to.equal("TG_BACKUP_BROKEN");
      if (done) whole += 1;
    }
    expect(refused).to.be.above(5);
  });

  it("the restore may be cut short at any step: it begins again, and never speaks with the old epoch", async () => {
    await feed(40);
    await store.backup(request);
    const random = randomOf(11);
    for (let at = 1; ; at += 1) {
      const copy = copied();
      copy.fault = (_operation, _path, step) => (step >= at ? "stop" : undefined);
      let first: Store | undefined;
      void open(copy.mount(), clock, { ...small, dir }).then(
        (made) => (first = made),
        () => undefined,
      );
      await until(() => first !== undefined || copy.stopped, "opened or crashed");
      const epoch = first?.epoch; // what it may have sent with
      copy.crash(random);
      clock.forgetTimers();
      const again = await waitingIn(copy);
      expect(again.numbers, `step ${at}`).to.deep.equal(upTo(40));
      expect(again.epoch).to.be.above(store.epoch);
      expect(copy.paths().filter((path) => path.includes("backup.json"))).to.deep.equal([]);
      if (epoch === undefined) continue;
      expect(again.epoch).to.equal(epoch);
      break;
    }
  });

  it("names each file that is cut short, changed, missing or strange, and changes nothing", async () => {
    await feed(60);
    await store.backup(request);
    const whole = copied();
    const faults: Array<[string, (content: Buffer) => Buffer | undefined, string]> = [];
    for (const path of whole.paths()) {
      faults.push([path, (content) => content.subarray(0, content.length - 2), "bytes, not"]);
      faults.push([path, (content) => content.subarray(0, 0), "bytes, not"]);
      faults.push([path, () => undefined, "is missing"]);
      faults.push([path, flipped, "other bytes"]);
    }
    for (const [path, change, says] of faults) {
      const damaged = whole.clone();
      const changed = change(whole.content(path));
      if (changed === undefined) damaged.remove(path);
      else damaged.replace(path, changed);
      const manifest = path.endsWith("backup.json");
      if (manifest && changed === undefined) continue; // then it is no backup any more
      const before = damaged.paths();
      const error = await refusal(start(damaged));
      expect(error.code, path).to.equal("TG_BACKUP_BROKEN");
      expect(error.message)
        .to.contain(path.slice(dir.length + 1))
        .and.contain("Nothing was changed");
      if (!manifest) expect(error.message).to.contain(says);
      expect(damaged.paths()).to.deep.equal(before);
      expect(damaged.log.filter((line) => /^(create|write|rename|unlink)/.test(line))).to.deep.equal([]);
    }
    const mixed = whole.clone();
    await feed(60);
    const later = disk
      .paths()
      .filter((path) => path.startsWith(`${dir}/seg`))
      .at(-1)!;
    mixed.replace(later, disk.content(later));
    expect((await refusal(start(mixed))).message).to.contain("not part of the backup");
  });

  function flipped(content: Buffer): Buffer {
    const changed = Buffer.from(content);
    changed[Math.floor(changed.length / 2)]! ^= 1;
    return changed;
  }

  it("does not start from a backup of a newer version", async () => {
    await feed(3);
    await store.backup(request);
    const newer = copied();
    const path = `${dir}/backup.json`;
    const { crc32: _, ...content } = JSON.parse(newer.content(path).toString()) as Record<string, unknown>;
    const { crc32 } = await import("node:zlib");
    const changed = { ...content, format: 2, version: "9.0.0" };
    const sum = crc32(JSON.stringify(changed)).toString(16).padStart(8, "0");
    newer.replace(path, Buffer.from(JSON.stringify({ ...changed, crc32: sum })));
    const error = await refusal(start(newer));
    expect(error.code).to.equal("TG_STORE_FOREIGN");
    expect(error.message).to.contain("9.0.0");
  });

  it("the first start from a backup needs a disk that writes, and says so", async () => {
    await feed(10);
    await store.backup(request);
    const full = copied();
    full.fault = (operation) => (operation === "write" ? "ENOSPC" : undefined);
    const error = await refusal(start(full));
    expect(error.code).to.equal("TG_DATA_DIR");
    expect(error.message).to.contain("first start from a backup");
    full.fault = () => undefined;
    expect((await waitingIn(full)).numbers).to.deep.equal(upTo(10));
  });

  it("needs an empty folder outside of the data, room on the disk, and is made one at a time", async () => {
    await feed(40);
    disk.replace(`${target}/letter.txt`, Buffer.from("mine"));
    expect((await refusal(store.backup(request))).message).to.contain("not empty");
    expect(disk.content(`${target}/letter.txt`).toString()).to.equal("mine");
    disk.remove(`${target}/letter.txt`);
    for (const inside of [dir, `${dir}/backup`, `${target}/../data/x`])
      expect((await refusal(store.backup({ ...request, dir: inside }))).message).to.contain("inside the data folder");
    disk.free = 100;
    expect((await refusal(store.backup(request))).message).to.match(/not enough space.* are needed/);
    disk.free = Number.MAX_SAFE_INTEGER;
    const [first, second] = await Promise.allSettled([store.backup(request), store.backup({ ...request, dir: "/b2" })]);
    expect(first.status).to.equal("fulfilled");
    expect(second).to.have.nested.property("reason.message").that.contains("another backup");
    expect(disk.paths().filter((path) => path.startsWith("/b2"))).to.deep.equal([]);
  });

  it("given up, or stopped with the gateway, it is removed", async () => {
    await feed(60);
    const ending = new AbortController();
    let endings: () => void = () => ending.abort();
    disk.fault = (operation, path) => {
      if (operation === "create" && path.startsWith(`${target}/seg`)) endings();
      return undefined;
    };
    const given = await refusal(store.backup({ ...request, signal: ending.signal }));
    expect(given.message).to.contain("given up");
    let closing: Promise<void> | undefined;
    endings = () => (closing ??= store.close());
    await refusal(store.backup(request));
    await closing;
    expect((await refusal(store.backup(request))).message).to.contain("stopping");
    expect(disk.paths().filter((path) => path.startsWith(target))).to.deep.equal([]);
  });

  describe("of a folder that nobody has open", () => {
    const place = () => ({ dir, files: disk.mount(), clock, log: silentLog, minFreeBytes: 0 });
    const noLock = async () => async () => undefined;
    const stopped = (): Promise<BackupInfo> => backupStopped(place(), request, noLock);

    it("holds what a start would find, also after a kill", async () => {
      await feed(60);
      disk.kill();
      opened.length = 0;
      const info = await stopped();
      expect(info.epoch).to.equal(store.epoch);
      disk.crash(() => 1);
      expect((await waitingIn(copied())).numbers).to.deep.equal(upTo(60));
    });

    it("refuses a folder that is a backup, that holds nothing, or that is in use", async () => {
      await feed(5);
      const used = async () => Promise.reject(new Error("in use by another tidegate"));
      expect((await refusal(backupStopped(place(), request, used))).message).to.contain("in use");
      await stopped();
      const of = (folder: string) => backupStopped({ ...place(), dir: folder }, { ...request, dir: "/b3" }, noLock);
      expect((await refusal(of(target))).message).to.contain("a backup itself");
      expect((await refusal(of("/nothing"))).message).to.contain("nothing in it");
    });
  });
});
