import { expect } from "chai";
import type { QueuedMessage, Store, UplinkQueue } from "../../../src/base/contracts.ts";
import type { Files } from "../../../src/base/files.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn } from "./support.ts";

const total = 600;

/** Some twenty small segments with one lane's messages, and nothing of it in RAM. */
async function build(files: FaultyFiles): Promise<void> {
  const store = await open(files.mount(), new TestClock(), { segmentBytes: 8000 });
  const lane = store.uplink("cloud", generous).lane(4);
  for (let at = 0; at < total; at += 20) {
    const { group } = store.commit((txn) => {
      for (let index = at; index < at + 20; index += 1)
        txn.message(message(`${index} ${"x".repeat(200)}`), [taker(lane)]);
    });
    await durable(store, group);
  }
  await store.close();
}

const numberOf = (one: QueuedMessage): number => Number(textOf(one).split(" ")[0]);

/** Takes and settles until nothing waits, moving the clock so that what is tried again is tried again. */
async function drain(queue: UplinkQueue, clock: TestClock, each?: (number: number) => void): Promise<number[]> {
  const out: number[] = [];
  for (let rounds = 0; queue.stats().messages > 0; rounds += 1) {
    if (rounds > 5000) throw new Error(`${queue.stats().messages} never came out`);
    for (let next = queue.next(); next !== undefined; next = queue.next()) {
      out.push(numberOf(next));
      each?.(numberOf(next));
      queue.settle(next);
    }
    await turn();
    if (rounds % 20 === 19) clock.advance(1000);
  }
  return out;
}

const all = Array.from({ length: total }, (_, index) => index);

describe("journal: lanes read from a disk that misbehaves", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  let store: Store;
  let queue: UplinkQueue;

  const start = async (on: Files): Promise<void> => {
    store = await open(on, clock);
    queue = store.uplink("cloud", generous);
  };

  beforeEach(async () => {
    files = new FaultyFiles();
    clock = new TestClock();
    await build(files);
  });

  afterEach(() => store.close());

  it("no descriptors for a while: everything comes, in order, once there are some", async () => {
    await start(files.mount());
    let refused = 0;
    files.fault = (operation, path) => {
      if (operation !== "open" || !path.includes("seg-") || refused >= 5) return undefined;
      refused += 1;
      return "EMFILE";
    };
    expect(await drain(queue, clock)).to.deep.equal(all);
    expect(refused).to.equal(5);
    expect(queue.stats().dropped).to.deep.equal({});
  });

  it("reads that bring fewer bytes than asked for", async () => {
    const mounted = files.mount();
    await start({
      ...mounted,
      open: async (path, mode) => {
        const file = await mounted.open(path, mode);
        const few = (target: Uint8Array): Uint8Array => target.subarray(0, Math.ceil(target.length / 3));
        return { ...file, read: (target, position) => file.read(few(target), position) };
      },
    });
    expect(await drain(queue, clock)).to.deep.equal(all);
    expect(queue.stats().dropped).to.deep.equal({});
  });

  it("one sector that cannot be read costs the records in it, each counted", async () => {
    const bad = 4096;
    const mounted = files.mount();
    const [first] = files.paths().filter((path) => path.includes("seg-"));
    let armed = false;
    await start({
      ...mounted,
      open: async (path, mode) => {
        const file = await mounted.open(path, mode);
        return {
          ...file,
          read: async (target, position) => {
            if (armed && path === first && position < bad + 512 && position + target.length > bad)
              throw Object.assign(new Error("EIO: read"), { code: "EIO" });
            return await file.read(target, position);
          },
        };
      },
    });
    armed = true;
    const out = await drain(queue, clock);
    expect(out).to.deep.equal(all.filter((number) => out.includes(number)));
    expect(total - out.length).to.be.within(1, 20);
    expect(queue.stats()).to.deep.include({ messages: 0, bytes: 0, dropped: { corrupt: total - out.length } });
  });

  it("a segment whose file is gone is counted lost, and what follows comes", async () => {
    await start(files.mount());
    const paths = files.paths().filter((path) => path.includes("seg-"));
    files.remove(paths[3]!);
    const out = await drain(queue, clock);
    expect(out).to.deep.equal(all.filter((number) => out.includes(number)));
    expect(total - out.length).to.be.within(20, 60);
    expect(queue.stats()).to.deep.include({ messages: 0, bytes: 0, dropped: { corrupt: total - out.length } });
  });

  it("a rewind, a settle of all and the freeing of segments while a read is in flight repeat and lose nothing", async () => {
    const mounted = files.mount();
    let waiting: Array<() => void> = [];
    let hold = false;
    await start({
      ...mounted,
      open: async (path, mode) => {
        const file = await mounted.open(path, mode);
        return {
          ...file,
          read: async (target, position) => {
            if (hold) await new Promise<void>((resolve) => waiting.push(resolve));
            return await file.read(target, position);
          },
        };
      },
    });
    let flying: QueuedMessage[] = [];
    const done: number[] = [];
    for (let round = 0; done.length < total; round += 1) {
      if (round > 20_000) throw new Error(`only ${done.length} came out`);
      hold = round % 3 === 0;
      while (flying.length < 40) {
        const next = queue.next();
        if (next === undefined) break;
        flying.push(next);
      }
      if (round % 5 === 4) {
        queue.rewind();
        flying = [];
      }
      for (const one of flying) {
        queue.settle(one);
        done.push(numberOf(one));
      }
      flying = [];
      clock.advance(round % 7 === 0 ? 11_000 : 100);
      for (let turns = 0; turns < 6; turns += 1) await turn();
      const held = waiting;
      waiting = [];
      for (const release of held) release();
      await turn();
    }
    expect(done).to.deep.equal(all);
    expect(queue.stats()).to.deep.include({ messages: 0, bytes: 0, dropped: {} });
    hold = false;
    for (const release of waiting) release();
  });
});
