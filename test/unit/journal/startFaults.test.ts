/** What a start may find besides a torn end: a clock set back, pages that a failed sync left behind, reads that fail once, somebody else's files. */
import { expect } from "chai";
import type { Store } from "../../../src/base/contracts.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
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
    const waiting = async (of: Store) =>
      (await of.references("queue")?.read(0, { messages: 9, bytes: 999 }))?.map(textOf);
    expect(await waiting(second), "whole in the page cache").to.deep.equal(["value"]);
    await turns(20);
    files.crash(() => 1); // nothing survives that no sync took to the disk
    const third = await open(files.mount(), clock);
    expect(await waiting(third)).to.deep.equal(["value"]);
    expect(third.stats().recovery.corruptRecords).to.equal(0);
  });

  it("checkpoints of another store, with higher numbers, copied into the folder: they are left alone", async () => {
    const clock = new TestClock();
    const [own, other] = [new FaultyFiles(), new FaultyFiles()];
    for (let lives = 0; lives < 4; lives += 1) {
      const foreign = await open(other.mount(), clock);
      await durable(foreign, foreign.commit((txn) => txn.put("map", "key", Buffer.from("theirs"))).group);
      await foreign.close();
    }
    clock.wall += minuteMs;
    await (await open(own.mount(), clock)).close();
    const store = await open(own.mount(), clock);
    await durable(store, store.commit((txn) => txn.put("map", "key", Buffer.from("ours"))).group);
    await until(() => own.paths().some((path) => path.endsWith(".bin")), "a checkpoint of ours");
    own.kill();
    const theirs = other.paths().findLast((path) => path.endsWith(".bin"))!;
    expect(own.paths().filter((path) => path >= theirs && path.endsWith(".bin"))).to.deep.equal([]);
    own.replace(theirs, other.content(theirs));
    for (let lives = 0; lives < 3; lives += 1) {
      const again = await open(own.mount(), clock);
      expect(Buffer.from(again.get("map", "key") ?? []).toString()).to.equal("ours");
      expect(again.stats().recovery.corruptRecords).to.equal(0);
      await again.close();
    }
    expect(own.content(theirs), "left alone").to.deep.equal(other.content(theirs));
  });

  it("a read that fails once costs nothing", async () => {
    const files = new FaultyFiles();
    const clock = new TestClock();
    const store = await open(files.mount(), clock);
    await durable(store, store.commit((txn) => txn.put("map", "key", Buffer.from("value"))).group);
    files.kill();
    const reads = 40;
    for (let failing = 1; failing <= reads; failing += 1) {
      const copy = files.clone();
      let seen = 0;
      copy.fault = (operation, path) => {
        if (operation !== "read" && (operation !== "open" || !/seg|ckpt/.test(path))) return undefined;
        seen += 1;
        return seen === failing ? "EIO" : undefined;
      };
      const again = await open(copy.mount(), clock);
      expect(Buffer.from(again.get("map", "key") ?? []).toString(), `read ${failing}`).to.equal("value");
      expect(again.stats().recovery.corruptRecords, `read ${failing}`).to.equal(0);
      await again.close();
      if (seen < failing) break;
    }
  });
});
