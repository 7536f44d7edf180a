import { expect } from "chai";
import type { Files } from "../../../src/base/files.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, turn, until } from "./support.ts";

describe("journal: freeing", () => {
  it("a segment goes only when what emptied it is on the disk", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const mounted = files.mount();
    let hold = false;
    let held: Array<() => void> = [];
    const slow: Files = {
      ...mounted,
      open: async (path, mode) => {
        const file = await mounted.open(path, mode);
        const datasync = async (): Promise<void> => {
          if (hold && path.includes("seg-")) await new Promise<void>((resolve) => held.push(resolve));
          await file.datasync();
        };
        return { ...file, datasync };
      },
    };
    const store = await open(slow, clock, { segmentBytes: 4000, tuning: { spares: 0, checkpointBytes: 3000 } });
    const queue = store.uplink("cloud", generous);
    const lane = queue.lane(4);
    const pass = async (): Promise<void> => {
      clock.advance(1000);
      for (let turns = 0; turns < 50; turns += 1) await turn();
    };
    const oldest = (): string | undefined => files.paths().find((path) => path.includes("seg-"));
    for (let count = 0; count < 20; count += 1) {
      await durable(store, store.commit((txn) => txn.message(message("x".repeat(1000)), [taker(lane)])).group);
      await pass();
    }
    expect(files.paths().filter((path) => path.includes("ckpt-")).length, "both are newer than the oldest").to.equal(2);
    const first = oldest();
    hold = true;
    await until(() => {
      for (let next = queue.next(); next !== undefined; next = queue.next()) queue.settle(next);
      return queue.stats().messages === 0;
    });
    for (let seconds = 0; seconds < 10; seconds += 1) await pass();
    expect(held.length, "a sync is under way").to.be.above(0);
    expect(oldest(), "what emptied it may be lost with the power").to.equal(first);
    hold = false;
    for (const release of held) release();
    held = [];
    for (let seconds = 0; seconds < 10 && oldest() === first; seconds += 1) await pass();
    expect(oldest()).to.not.equal(first);
    await store.close();
  });
});
