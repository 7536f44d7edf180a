import { crc32 } from "node:zlib";
import { expect } from "chai";
import type { QueuedMessage } from "../../../src/base/contracts.ts";
import type { Files } from "../../../src/base/files.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import {
  fill,
  inspect,
  type Live,
  look,
  mergedPaths,
  merging,
  notMerging,
  openOn,
  seconds,
  segmentBytes,
  segmentPaths,
} from "./mergeRig.ts";
import { durable, generous, message, open, randomOf, TestClock, taker, textOf, turn, until } from "./support.ts";

describe("journal: merging", () => {
  let before: FaultyFiles;
  let live: Live;
  let clock: TestClock;

  /** A store that wants merging and was closed before it got it. */
  beforeEach(async () => {
    before = new FaultyFiles();
    clock = new TestClock();
    const store = await openOn(before, clock, notMerging);
    live = await fill(store);
    await seconds(clock, 5, before);
    await store.close();
    clock.forgetTimers();
    expect(mergedPaths(before)).to.deep.equal([]);
  });

  it("gives the room back, and everything live is read as before", async () => {
    const files = before.clone();
    const bytes = (): number => segmentPaths(files).reduce((sum, path) => sum + files.content(path).length, 0);
    const was = { bytes: bytes(), segments: segmentPaths(files).length };
    const store = await openOn(files, clock, merging);
    expect(await look(store)).to.deep.equal(live);
    await seconds(clock, 10, files);
    expect(mergedPaths(files)).to.not.deep.equal([]);
    expect(bytes()).to.be.below(was.bytes / 2);
    expect(segmentPaths(files).length).to.be.below(was.segments / 2);
    expect(await look(store)).to.deep.equal(live);
    expect(store.stats().segments).to.equal(segmentPaths(files).length);
    await store.close();
    expect(await inspect(files)).to.deep.equal({ ...live, corrupt: 0 });
    expect(await inspect(files), "again").to.deep.equal({ ...live, corrupt: 0 });
  });

  /** Opens and runs for some seconds, in which something is merged, unless the machine stops before. */
  async function mergeSome(files: FaultyFiles, ms = 4): Promise<void> {
    const own = new TestClock();
    own.advance(1_000_000);
    let opened = false;
    openOn(files, own, merging).then(
      () => {
        opened = true;
      },
      () => undefined,
    );
    await until(() => files.stopped || opened, "opened");
    await seconds(own, ms, files);
  }

  it("a stop after any step of it loses nothing, whether the power goes or the process", async function () {
    this.timeout(120_000);
    const whole = before.clone();
    await mergeSome(whole);
    const steps = whole.steps;
    expect(mergedPaths(whole).length).to.be.at.least(2);
    const first = whole.log.findIndex((line) => line.startsWith("create seg-000000000001-1"));
    expect(first).to.be.above(10);
    for (let at = first - 2; at <= steps; at += 1) {
      for (const how of ["kill", "nothing survives", "some"] as const) {
        const files = before.clone();
        files.fault = (_operation, _path, step) => (step >= at ? "stop" : undefined);
        await mergeSome(files);
        const random = randomOf(at * 7 + how.length);
        if (how === "kill") files.kill();
        else files.crash(how === "some" ? random : () => 0.9);
        const where = `step ${at} (${whole.log[at - 1]}), ${how}`;
        // What recovery does may be undone by the next power cut, too.
        if (how !== "nothing survives") {
          await openOn(files, new TestClock(), notMerging);
          files.crash(random);
        }
        expect(await inspect(files), where).to.deep.equal({ ...live, corrupt: 0 });
        expect(
          files.paths().filter((path) => path.endsWith(".tmp")),
          where,
        ).to.deep.equal([]);
        if (how !== "some") continue;
        await mergeSome(files);
        files.crash(random);
        expect(await inspect(files), `${where}, merged after all`).to.deep.equal({ ...live, corrupt: 0 });
      }
    }
  });

  it("leaves out only what is durably done: after a power cut nothing is looked for that is not there", async () => {
    for (let wait = 2; wait < 220; wait += 6) {
      const files = before.clone();
      const own = new TestClock();
      own.advance(1_000_000);
      const store = await openOn(files, own, merging);
      const queue = store.uplink("cloud", generous);
      const out: QueuedMessage[] = [];
      await until(() => {
        for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next);
        return out.length === queue.stats().messages;
      });
      for (const next of out) queue.settle(next);
      if (wait % 4 === 0) store.commit((txn) => txn.dropQueue("alice")); // else nobody asks for a sync
      own.advance(1000);
      for (let turns = 0; turns < wait; turns += 1) await turn();
      files.crash(() => 0.9);
      const again = await openOn(files, new TestClock(), notMerging);
      const found = await look(again);
      expect(again.uplink("cloud", generous).stats().dropped, `after ${wait} turns`).to.deep.equal({});
      expect(again.stats().recovery.corruptRecords, `after ${wait} turns`).to.equal(0);
      const none = { ...live, lane: [], high: [] };
      if (found.lane.length === 0)
        expect(found).to.deep.include({ ...none, queue: found.queue, nextOrdinal: found.nextOrdinal });
      else expect(found, `after ${wait} turns`).to.deep.equal(live);
      if (found.queue.length > 0) expect(found.queue).to.deep.equal(live.queue);
    }
  });

  it("merges merged ones again, and again", async () => {
    const files = before.clone();
    let store = await openOn(files, clock, merging);
    await seconds(clock, 5, files);
    for (let round = 0; round < 3; round += 1) {
      const queue = store.uplink("cloud", generous);
      // Two of three that wait are settled; more come that are settled at once.
      const out: QueuedMessage[] = [];
      await until(() => {
        for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next);
        return out.length === queue.stats().messages;
      });
      for (const [index, next] of out.entries()) {
        if (index % 3 === 0) continue;
        queue.settle(next);
        live.lane = live.lane.filter((text) => text !== textOf(next));
        live.high = live.high.filter((text) => text !== textOf(next));
      }
      queue.rewind();
      live = await fill(store, 48, `again${round}-`, live);
      await seconds(clock, 8, files);
      expect(await look(store)).to.deep.equal(live);
      await store.close();
      store = await openOn(files, clock, merging);
    }
    const generations = mergedPaths(files).map((path) => Number(/-(\d+)\.log/.exec(path)![1]));
    expect(Math.max(...generations)).to.be.at.least(2);
    expect(await look(store)).to.deep.equal(live);
    await store.close();
    expect(await inspect(files)).to.deep.equal({ ...live, corrupt: 0 });
    for (const path of files.paths()) if (path.includes("ckpt-")) files.remove(path);
    const found = await inspect(files);
    // What was put, or given an ordinal, in a segment that nothing pinned is in checkpoints only.
    for (const [key, value] of Object.entries(found.map)) expect(live.map[key], key).to.equal(value);
    expect(found, "without any checkpoint").to.deep.equal({
      ...live,
      ...{ map: found.map, nextOrdinal: found.nextOrdinal, corrupt: 0 },
    });
    expect(found.nextOrdinal).to.be.above(live.queue.at(-1)![0]);
  });

  it("both checkpoints damaged: no more is lost than before merging", async () => {
    const damage = (files: FaultyFiles): FaultyFiles => {
      for (const path of files.paths()) if (path.includes("ckpt-")) files.replace(path, Buffer.alloc(3000, 0x5a));
      return files;
    };
    expect(await inspect(damage(before.clone()))).to.deep.equal({ ...live, corrupt: 2 });
    const files = before.clone();
    await mergeSome(files);
    files.kill();
    expect(mergedPaths(files).length).to.be.at.least(2);
    const found = await inspect(damage(files));
    expect(found).to.deep.equal({ ...live, corrupt: 2 });
  });

  for (const checkpoints of [true, false]) {
    it(`a flipped bit in a merged file costs that record at most (${checkpoints ? "with" : "without"} checkpoints)`, async function () {
      this.timeout(120_000);
      const files = before.clone();
      await mergeSome(files);
      files.kill();
      if (!checkpoints) for (const path of files.paths()) if (path.includes("ckpt-")) files.remove(path);
      const lostOf = (found: Live): Set<string> => {
        const lost = [...live.lane, ...live.high].filter((text) => ![...found.lane, ...found.high].includes(text));
        const texts = found.queue.map(([, text]) => text);
        lost.push(...live.queue.map(([, text]) => text).filter((text) => !texts.includes(text)));
        for (const [topic, text] of Object.entries(live.retained)) if (found.retained[topic] !== text) lost.push(text);
        for (const [key, text] of Object.entries(live.map)) if (found.map[key] !== text) lost.push(key);
        return new Set(lost);
      };
      for (const path of mergedPaths(files)) {
        const content = files.content(path);
        for (let at = 0; at < content.length; at += at < 1024 ? 7 : 11) {
          if (at >= 128 && at < 1024 && (at < 512 || at >= 640)) continue;
          const copy = files.clone();
          const flipped = Buffer.from(content);
          flipped[at] = flipped[at]! ^ (1 << (at % 8));
          copy.replace(path, flipped);
          const found = await inspect(copy);
          const lost = lostOf(found);
          expect(lost.size, `${path} at ${at}: ${[...lost].join(" ")}`).to.be.at.most(1);
          const order = live.lane.filter((text) => found.lane.includes(text));
          expect(found.lane, `${path} at ${at}`).to.deep.equal(order);
        }
        const headless = files.clone();
        headless.replace(path, Buffer.concat([Buffer.alloc(1024), content.subarray(1024)]));
        expect(await inspect(headless), "without its header").to.deep.equal({ ...live, corrupt: 0 });
      }
    });
  }

  it("a folder of version 1 is merged, and opens again", async () => {
    const files = before.clone();
    for (const path of files.paths()) {
      const old = Buffer.from(files.content(path));
      for (const at of [0, 512]) {
        old.writeUInt16LE(1, at + 8);
        old.writeUInt32LE(0, at + 12);
        old.writeUInt32LE(crc32(old.subarray(at, at + 128)), at + 12);
      }
      files.replace(path, old);
    }
    expect(await inspect(files.clone())).to.deep.equal({ ...live, corrupt: 0 });
    await mergeSome(files);
    files.kill();
    expect(mergedPaths(files).length).to.be.at.least(2);
    expect(await inspect(files)).to.deep.equal({ ...live, corrupt: 0 });
  });

  it("goes on while a drain reads the same segments: each message comes out once, in order", async () => {
    for (let seed = 1; seed <= 12; seed += 1) {
      const random = randomOf(seed);
      const files = before.clone();
      const own = new TestClock();
      own.advance(1_000_000);
      const store = await openOn(files, own, merging);
      const queue = store.uplink("cloud", generous);
      const out: QueuedMessage[] = [];
      for (let steps = 0; out.length < live.lane.length + live.high.length; steps += 1) {
        if (steps > 3000) throw new Error(`seed ${seed}: the drain hangs at ${out.length}`);
        const dice = random();
        if (dice < 0.2) {
          const next = queue.next();
          if (next !== undefined) out.push(next);
        } else if (dice < 0.3 && out.length > 0) queue.settle(out[Math.floor(random() * out.length)]!);
        else if (dice < 0.4) own.advance(1000);
        else if (dice < 0.45) {
          expect((await store.references("alice")!.read(0, { messages: 2, bytes: 1e6 })).map(textOf)).to.deep.equal(
            live.queue.slice(0, 2).map(([, text]) => text),
          );
        } else await turn();
      }
      expect(out.map(textOf), `seed ${seed}`).to.deep.equal([...live.high, ...live.lane]);
      expect(queue.stats().dropped).to.deep.equal({});
      for (const next of out) queue.settle(next);
      await seconds(own, 4, files);
      expect(queue.stats().messages).to.equal(0);
      expect(mergedPaths(files).length, `seed ${seed}`).to.be.at.least(1);
      await store.close();
      expect(await inspect(files), `seed ${seed}`).to.deep.equal({ ...live, lane: [], high: [], corrupt: 0 });
    }
  });

  it("gets its name only once what it left out is durably done", async () => {
    const files = before.clone();
    const own = new TestClock();
    own.advance(1_000_000);
    let held = false;
    let letGo: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const mounted = files.mount();
    const gated: Files = {
      ...mounted,
      open: async (path, mode) => {
        const file = await mounted.open(path, mode);
        const slow = path.endsWith(".log");
        return { ...file, datasync: () => (held && slow ? gate.then(() => file.datasync()) : file.datasync()) };
      },
    };
    const store = await open(gated, own, { segmentBytes, tuning: merging });
    held = true;
    await seconds(own, 8, files);
    expect(mergedPaths(files)).to.deep.equal([]);
    expect(files.paths().some((path) => path.endsWith("-1.tmp"))).to.equal(true);
    letGo();
    await seconds(own, 3, files);
    expect(mergedPaths(files)).to.not.deep.equal([]);
    expect(await look(store)).to.deep.equal(live);
    await store.close();
  });

  it("waits for a reader that is inside, and what it reads next comes out once, in order", async () => {
    const files = before.clone();
    const own = new TestClock();
    own.advance(1_000_000);
    let slow = false;
    let letGo: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const mounted = files.mount();
    const gated: Files = {
      ...mounted,
      open: async (path, mode) => {
        const held = slow;
        const file = await mounted.open(path, mode);
        return held ? { ...file, read: (target, at) => gate.then(() => file.read(target, at)) } : file;
      },
    };
    const store = await open(gated, own, { segmentBytes, tuning: merging });
    const queue = store.uplink("cloud", generous);
    slow = true;
    expect(queue.next()).to.equal(undefined); // its read has begun
    slow = false;
    await seconds(own, 3, files);
    expect(mergedPaths(files).length).to.equal(1);
    expect(files.paths(), "still read").to.include("/data/seg-000000000001.log");
    letGo();
    const out: QueuedMessage[] = [];
    await until(() => {
      own.advance(10);
      const next = queue.next();
      if (next !== undefined) {
        out.push(next);
        if (out.length % 2 === 0) queue.settle(next);
      }
      return out.length === live.lane.length + live.high.length;
    });
    expect(out.map(textOf)).to.deep.equal([...live.high, ...live.lane]);
    await seconds(own, 3, files);
    expect(files.paths()).to.not.include("/data/seg-000000000001.log");
    for (const next of out) queue.settle(next);
    expect(queue.stats()).to.deep.include({ messages: 0, dropped: {} });
    await store.close();
  });

  it("keeps what takes back something that lies before it: without any checkpoint nothing comes back to life", async () => {
    const files = new FaultyFiles();
    const store = await openOn(files, clock, merging);
    const queue = store.uplink("cloud", generous);
    const dense = "d".repeat(2600);
    const first = store.commit((txn) => {
      const position = txn.message(message(dense), [taker(queue.lane(2))]);
      for (const name of ["released", "dropped"]) txn.reference(name, position, 0);
      for (const topic of ["early", "early2"]) txn.retain(topic, position);
      txn.put("m", "early", Buffer.from("x"));
    });
    await durable(store, first.group);
    store.commit((txn) => {
      txn.release("released", 1);
      txn.dropQueue("dropped");
      txn.unretain("early");
      txn.unretain("early2");
      txn.delete("m", "early");
    });
    const wanted = await fill(store);
    await seconds(clock, 8, files);
    expect(files.paths()).to.include("/data/seg-000000000001.log");
    expect(mergedPaths(files)).to.not.deep.equal([]);
    await store.close();
    for (const path of files.paths()) if (path.includes("ckpt-")) files.remove(path);
    const again = await openOn(files, new TestClock(), notMerging);
    expect(again.references("released")?.size ?? 0).to.equal(0);
    expect(again.references("dropped")?.size ?? 0).to.equal(0);
    expect([...again.retained()].map(([topic]) => topic).sort()).to.deep.equal(Object.keys(wanted.retained).sort());
    expect(again.get("m", "early")).to.equal(undefined);
    await again.close();
  });
});
