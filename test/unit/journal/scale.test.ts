import { expect } from "chai";
import { measureScale } from "../../bench/storageScale.ts";

// Small here; by hand with five million (see storageScale.ts).
describe("journal: many messages, little memory", () => {
  it("50,000 over 3 uplinks and 10 priorities survive a kill -9 and come out in order, with a heap of 32 MiB", async function () {
    this.timeout(120_000);
    const { load, drain } = await measureScale({
      ...{ messages: 50_000, uplinks: 3, priorities: 10, heapMiB: 32, settleMs: 0 },
    });
    expect(drain).to.deep.include({ missing: 0, wrong: 0 });
    expect(Math.max(load.rssPeak, drain.rssPeak), "MiB resident").to.be.below(110);
    expect(drain.diskBytes).to.be.at.most(40 * 1024 * 1024);
  });
});
