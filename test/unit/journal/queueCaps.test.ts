import { expect } from "chai";
import type { Store, UplinkLimits } from "../../../src/base/contracts.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn } from "./support.ts";

const dayMs = 24 * 3600 * 1000;
const yearMs = 365 * dayMs;

describe("journal: an uplink's caps by size and age", () => {
  let files: FaultyFiles;
  let clock: TestClock;
  let store: Store;

  const start = async (limits: UplinkLimits): Promise<ReturnType<Store["uplink"]>> => {
    store = await open(files.mount(), clock, { segmentBytes: 16_384 });
    const queue = store.uplink("cloud", limits);
    store.configured();
    return queue;
  };
  const put = async (lane: number, from: number, to: number): Promise<void> => {
    for (let at = from; at < to; at += 1) {
      const text = `${at} `.padEnd(1000);
      const { group } = store.commit((txn) => void txn.message(message(text), [taker(lane)]));
      await durable(store, group);
    }
  };
  const left = async (queue: ReturnType<Store["uplink"]>): Promise<number[]> => {
    const got: number[] = [];
    for (let idle = 0; idle < 30; idle += 1) {
      for (let next = queue.next(); next !== undefined; next = queue.next()) {
        got.push(Number.parseInt(textOf(next), 10));
        idle = 0;
      }
      await turn();
    }
    queue.rewind();
    return got;
  };
  const restart = async (
    limits: UplinkLimits,
    how: "stop" | "kill" | "power",
    wallMs = 0,
  ): Promise<ReturnType<Store["uplink"]>> => {
    if (how === "stop") await store.close();
    else if (how === "kill") files.kill();
    else files.crash(() => 1);
    clock.forgetTimers();
    clock.wall += wallMs;
    return await start(limits);
  };

  beforeEach(() => {
    files = new FaultyFiles();
    clock = new TestClock();
  });
  afterEach(async () => {
    await store.close();
  });

  for (const how of ["stop", "kill", "power"] as const) {
    it(`maxBytes holds over a restart (${how}), lowered as well, with every drop counted`, async () => {
      const limits = { ...generous, maxBytes: 50_000 };
      let queue = await start(limits);
      await put(queue.lane(0), 0, 100);
      expect(queue.stats().bytes).to.be.within(48_000, 50_000);
      clock.advance(1100); // what was dropped is written
      for (let turns = 0; turns < 20; turns += 1) await turn();
      clock.advance(1100);
      for (let turns = 0; turns < 20; turns += 1) await turn();
      const { messages, dropped } = queue.stats();
      expect(dropped).to.deep.equal({ full: 100 - messages });
      queue = await restart(limits, how);
      expect(queue.stats()).to.deep.include({ messages, dropped });
      await put(queue.lane(0), 100, 110);
      expect(await left(queue)).to.deep.equal(Array.from({ length: messages }, (_, at) => 110 - messages + at));
      queue = await restart({ ...limits, maxBytes: 20_000 }, how);
      clock.advance(1001); // nobody asks: the cap holds all the same
      for (let turns = 0; turns < 50; turns += 1) await turn();
      expect(queue.stats().bytes).to.be.below(20_000);
      const numbers = await left(queue);
      expect(numbers.at(-1)).to.equal(109);
      expect(queue.stats().messages).to.equal(numbers.length);
      expect(queue.stats().dropped["full"]).to.equal(110 - numbers.length);
    });

    it(`maxAge counts running time and short stops (${how}), and no jump of the wall clock`, async () => {
      const limits = { ...generous, maxAgeMs: 10 * dayMs };
      let queue = await start(limits);
      await put(queue.lane(0), 0, 40);
      clock.advance(2 * dayMs);
      clock.wall += 2 * yearMs; // NTP
      clock.advance(1000);
      await put(queue.lane(0), 40, 80);
      expect(await left(queue)).to.have.length(80);
      queue = await restart(limits, how, 2 * yearMs);
      expect(await left(queue)).to.have.length(80);
      queue = await restart(limits, how, -5 * yearMs);
      clock.advance(7.9 * dayMs);
      expect(await left(queue)).to.have.length(80);
      clock.advance(0.2 * dayMs);
      expect(await left(queue), "the first were two days older").to.have.length(40);
      expect(queue.stats().dropped).to.deep.equal({ expired: 40 });
      clock.advance(dayMs);
      await put(queue.lane(0), 80, 81);
      queue = await restart(limits, how, dayMs / 2); // a stop that is believed
      clock.advance(0.5 * dayMs);
      expect(await left(queue)).to.deep.equal([80]);
      expect(queue.stats().dropped).to.deep.equal({ expired: 80 });
    });
  }
});
