import { expect } from "chai";
import type { Store, Txn } from "../../../src/base/contracts.ts";
import type { Files, OpenFile } from "../../../src/base/files.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { mergedPaths, merging, seconds } from "./mergeRig.ts";
import { durable, message, open, randomOf, TestClock, textOf, turn, until } from "./support.ts";

// References are written when their group ends: what was released by then never is. Here groups are long, and end anywhere.

/** A disk whose syncs of segments take their time: meanwhile a group fills. */
function slow(files: Files, turns: () => number): Files {
  const wrap = (file: OpenFile): OpenFile => ({
    write: (buffers, position) => file.write(buffers, position),
    read: (target, position) => file.read(target, position),
    async datasync() {
      for (let left = turns(); left > 0; left -= 1) await turn();
      await file.datasync();
    },
    size: () => file.size(),
    truncate: (size) => file.truncate(size),
    close: () => file.close(),
  });
  return {
    ...files,
    open: async (path, mode) => {
      const file = await files.open(path, mode);
      return path.endsWith(".log") ? wrap(file) : file;
    },
  };
}

const names = ["a", "b", "c", "d", "e", "f"];

/** What the queues must hold, and a store that is asked for the same. */
class Twin {
  readonly files = new FaultyFiles();
  readonly clock = new TestClock();
  readonly random: () => number;
  store!: Store;
  #queues = new Map<string, { next: number; waiting: Map<number, string> }>();
  #texts = 0;
  #group = 0;

  constructor(seed: number) {
    this.random = randomOf(seed);
  }

  async open(): Promise<void> {
    this.clock.forgetTimers();
    const tuning = { sliceMs: 0, sliceItems: 1, checkpointBytes: 2000, largeRecordBytes: 1000 };
    const files = slow(this.files.mount(), () => this.below(60));
    this.store = await open(files, this.clock, { tuning, segmentBytes: 4000 });
  }

  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  /** One commit of some changes. One that throws leaves no trace. */
  commit(): void {
    const before = new Map(
      [...this.#queues].map(([name, { next, waiting }]) => [name, { next, waiting: new Map(waiting) }]),
    );
    const fails = this.below(6) === 0;
    try {
      const { group } = this.store.commit((txn) => {
        for (let left = 1 + this.below(4); left > 0; left -= 1) this.#change(txn);
        if (fails) throw new Error("taken back");
      });
      this.#group = Math.max(this.#group, group); // one that wrote nothing has an older one
    } catch (error) {
      if (!fails) throw error;
      this.#queues = before;
    }
  }

  #change(txn: Txn): void {
    const name = names[this.below(names.length)]!;
    const queue = this.#queues.get(name) ?? { next: 1, waiting: new Map<number, string>() };
    const dice = this.below(12);
    if (dice === 0) {
      txn.dropQueue(name);
      this.#queues.delete(name);
    } else if (dice < 7) {
      const text = `m${++this.#texts}${dice === 1 ? "x".repeat(1200) : ""}`;
      const position = txn.message(message(text), []);
      this.#queues.set(name, queue);
      for (let left = 1 + this.below(3); left > 0; left -= 1) {
        expect(txn.reference(name, position, 1)).to.equal(queue.next);
        queue.waiting.set(queue.next, text);
        queue.next += 1;
      }
    } else {
      const [first, count] = [Math.max(1, queue.next - this.below(12)), 1 + this.below(8)];
      txn.release(name, first, count);
      for (let ordinal = first; ordinal < first + count; ordinal += 1) queue.waiting.delete(ordinal);
    }
  }

  async work(steps: number): Promise<void> {
    for (let step = 0; step < steps; step += 1) {
      const dice = this.random();
      if (dice < 0.7) this.commit();
      else if (dice < 0.75) this.clock.advance(1000);
      for (let turns = this.below(6); turns > 0; turns -= 1) await turn();
    }
    this.clock.advance(1000);
    await durable(this.store, this.#group);
  }

  async compare(what: string): Promise<void> {
    const found: string[] = [];
    for (const name of names) {
      const queue = this.store.references(name);
      if (queue === undefined) continue;
      const read = await queue.read(0, { messages: 1e6, bytes: 1e9 });
      found.push(`${name} next ${queue.nextOrdinal}`, ...read.map((one) => `${name} ${one.ordinal} ${textOf(one)}`));
      expect(queue.size, `${what}: size of ${name}`).to.equal(read.length);
    }
    const wanted = names.flatMap((name) => {
      const queue = this.#queues.get(name);
      if (queue === undefined) return [];
      return [
        `${name} next ${queue.next}`,
        ...[...queue.waiting].map(([ordinal, text]) => `${name} ${ordinal} ${text}`),
      ];
    });
    expect(found, what).to.deep.equal(wanted);
  }
}

describe("journal: references of the open group", () => {
  it("after a kill and after a power cut each queue holds what it held, with the ordinals that were given out", async function () {
    this.timeout(120_000);
    let checkpoints = 0;
    for (let seed = 1; seed <= 60; seed += 1) {
      const twin = new Twin(seed);
      await twin.open();
      for (let life = 0; life < 4; life += 1) {
        const what = `seed ${seed} life ${life}`;
        await twin.work(120);
        await twin.compare(what);
        if (life % 2 === 0) twin.files.kill();
        else twin.files.crash(twin.random);
        checkpoints += twin.files.log.filter((line) => line.startsWith("rename ckpt-")).length;
        await twin.open();
        expect(twin.store.stats().recovery.corruptRecords, what).to.equal(0);
        await twin.compare(`${what}, again`);
      }
    }
    expect(checkpoints, "checkpoints were at work").to.be.above(500);
  });

  it("a write that fails takes them to the new segment", async () => {
    for (let seed = 100; seed < 120; seed += 1) {
      const twin = new Twin(seed);
      await twin.open();
      await twin.work(30);
      let syncs = 0;
      twin.files.fault = (operation, path) => {
        if (operation !== "datasync" || !path.endsWith(".log")) return undefined;
        syncs += 1;
        return syncs % 5 === 2 ? "EIO" : undefined;
      };
      await twin.work(120);
      await twin.compare(`seed ${seed}`);
      twin.files.kill();
      await twin.open();
      await twin.compare(`seed ${seed}, again`);
    }
  });

  it("of those that were released before their group ended nothing is on the disk but which ordinals were given out", async () => {
    const files = new FaultyFiles();
    let store = await open(files.mount(), new TestClock());
    const bytes = (): number => files.paths().reduce((sum, path) => sum + files.content(path).length, 0);
    const group = (count: number): number => {
      store.commit((txn) => {
        const position = txn.message(message("m"), []);
        for (let left = count; left > 0; left -= 1) txn.reference("q", position, 1);
      });
      const { nextOrdinal } = store.references("q")!;
      return store.commit((txn) => txn.release("q", nextOrdinal - count, count)).group;
    };
    await durable(store, group(1));
    const before = bytes();
    await durable(store, group(1));
    const one = bytes() - before;
    await durable(store, group(1000));
    expect(bytes() - before - one).to.be.within(one, one + 8);
    files.crash(() => 0.9);
    store = await open(files.mount(), new TestClock());
    const queue = store.references("q");
    expect([queue?.size, queue?.nextOrdinal]).to.deep.equal([0, 1003]);
  });

  it("in a disk that has failed they go on in RAM", async () => {
    const files = new FaultyFiles();
    const store = await open(files.mount(), new TestClock());
    files.fault = (operation) => (operation === "write" || operation === "datasync" ? "EIO" : undefined);
    const add = (): number => store.commit((txn) => txn.reference("q", txn.message(message("m"), []), 1)).value;
    add();
    await until(() => store.failed !== undefined, "failed");
    expect([add(), add(), add()]).to.deep.equal([2, 3, 4]);
    store.commit((txn) => txn.release("q", 2, 2));
    const read = await store.references("q")!.read(0, { messages: 10, bytes: 1e6 });
    expect(read.map(({ ordinal }) => ordinal)).to.deep.equal([1, 4]);
  });

  for (const checkpoints of [true, false]) {
    it(`a merge keeps of a record those that still wait (${checkpoints ? "with" : "without"} checkpoints)`, async () => {
      const files = new FaultyFiles();
      const clock = new TestClock();
      let store = await open(files.mount(), clock, { segmentBytes: 3000, tuning: merging });
      const waiting: string[] = [];
      let next = 1;
      for (let round = 0; round < 40; round += 1) {
        const first = next;
        for (let at = 0; at < 20; at += 1) {
          const text = `m${next}-${"x".repeat(60)}`;
          store.commit((txn) => txn.reference("q", txn.message(message(text), []), 1));
          if (next % 9 === 4) waiting.push(`${next} ${text}`);
          next += 1;
        }
        await durable(store, store.commit((txn) => txn.put("m", "round", Buffer.from(`${round}`))).group);
        for (let ordinal = first; ordinal < next; ordinal += 1)
          if (ordinal % 9 !== 4) store.commit((txn) => txn.release("q", ordinal));
      }
      await seconds(clock, 10, files);
      expect(mergedPaths(files)).to.not.deep.equal([]);
      files.kill();
      if (!checkpoints) for (const path of files.paths()) if (path.includes("ckpt-")) files.remove(path);
      store = await open(files.mount(), new TestClock(), { segmentBytes: 3000, tuning: { mergeBytes: 0 } });
      const queue = store.references("q")!;
      expect(queue.size).to.equal(waiting.length);
      const read = await queue.read(0, { messages: 1e6, bytes: 1e9 });
      expect(read.map((one) => `${one.ordinal} ${textOf(one)}`)).to.deep.equal(waiting);
      expect(store.stats().recovery.corruptRecords).to.equal(0);
    });
  }
});
