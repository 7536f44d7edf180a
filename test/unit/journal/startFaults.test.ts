/** What a start may find besides a torn end: a clock set back, pages that a failed sync left behind, reads that fail once, somebody else's files. */
import { expect } from "chai";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import type { Store } from "../../../src/base/contracts.ts";
import { durable, message, open, TestClock, textOf, turn, until } from "./support.ts";

const minuteMs = 60_000;

async function turns(count: number): Promise<void> {
  for (let done = 0; done < count; done += 1) await turn();
}

describe("journal: what a start finds", () => {
  it("the store clock after idle minutes, kill -9 and a wall clock set back", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const store = await open(files.mount(), clock);
    await durable(store, store.commit((txn) => txn.message(message("one"), [])).group);
    for (let seconds = 0; seconds < 10 * 60; seconds += 1) {
      clock.advance(1000);
      await turns(3);
    }
    const stood = store.nowMs();
    const writes = files.log.filter((line) => line.startsWith("datasync")).length;
    expect(writes, "a sync each minute at most").to.be.at.most(10 + 4);
    files.kill();
    clock.wall -= 30 * minuteMs;
    const again = await open(files.mount(), clock);
    expect(again.nowMs()).to.be.within(stood - minuteMs - 2000, stood);
  });

  it("pages that a failed sync left behind: what a start after kill -9 tells of survives a power cut", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const store = await open(files.mount(), clock);
    files.fault = (operation) => (operation === "datasync" ? "EIO" : undefined);
    store.commit((txn) => txn.reference("queue", txn.message(message("value"), []), 0));
    await until(() => store.failed !== undefined, "failed");
    files.kill();
    const second = await open(files.mount(), clock);
    const waiting = async (of: Store) => (await of.references("queue")?.read(0, { messages: 9, bytes: 999 }))?.map(textOf);
    expect(await waiting(second), "whole in the page cache").to.deep.equal(["value"]);
    await turns(20);
    files.crash(() => 1); // nothing survives that no sync took to the disk
    const third = await open(files.mount(), clock);
    expect(await waiting(third)).to.deep.equal(["value"]);
    expect(third.stats().recovery.corruptRecords).to.equal(0);
  });
});
