import { expect } from "chai";
import { Written } from "../../../src/journal/written.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker } from "./support.ts";

const hourMs = 3600_000;

describe("journal: what the card had to write", () => {
  it("outlives a restart: the day and the whole, by hours of the store clock", () => {
    let nowMs = 10 * hourMs;
    const make = (kept: Uint8Array | undefined, epoch = 1): Written =>
      new Written({ storeMs: () => nowMs, epoch, kept, total: { value: 0 } });
    const first = make(undefined);
    for (let hour = 0; hour < 30; hour += 1) {
      first.add(0, 4096);
      nowMs += hourMs;
    }
    expect(first.perDay()).to.deep.equal({ bytes: 23 * 4096, extrapolated: false, measuredMs: 30 * hourMs });
    const kept = first.due(true);
    const second = make(kept);
    expect(second.bytes).to.equal(0);
    expect(second.totalBytes).to.equal(30 * 4096);
    expect(second.perDay()).to.deep.equal(first.perDay());
    second.add(4095, 2); // two blocks
    expect(second.totalBytes).to.equal(32 * 4096);
    nowMs += 48 * hourMs;
    expect(second.perDay().bytes).to.equal(0);
    // Another card, and what makes no sense: counted anew.
    expect(make(kept, 2).totalBytes).to.equal(0);
    for (const text of [
      "",
      "null",
      "{}",
      '{"epoch":1,"hours":[1]}',
      '{"epoch":1,"firstMs":-1,"hour":1e99,"hours":[],"total":0}',
    ])
      expect(make(Buffer.from(text)).totalBytes, text).to.equal(0);
  });

  it("is due once an hour, and at the end, and not when nothing was written", () => {
    let nowMs = 0;
    const written = new Written({ storeMs: () => nowMs, epoch: 1, kept: undefined, total: { value: 0 } });
    expect(written.due(true)).to.equal(undefined);
    written.add(0, 1);
    expect(written.due(false)).to.equal(undefined);
    nowMs += hourMs;
    expect(written.due(false)).to.not.equal(undefined);
    expect(written.due(false)).to.equal(undefined);
    nowMs += hourMs;
    expect(written.due(false)).to.equal(undefined);
    written.add(0, 1);
    expect(written.due(true)).to.not.equal(undefined);
  });

  for (const how of ["stop", "kill"] as const)
    it(`is in the store (${how}), and costs a lonely message nothing`, async () => {
      const files = new FaultyFiles();
      const clock = new TestClock();
      let store = await open(files.mount(), clock);
      const queue = store.uplink("cloud", generous);
      const put = () => store.commit((txn) => txn.message(message("a"), [taker(queue.lane(1))])).group;
      await durable(store, put());
      clock.advance(hourMs + 1000);
      await durable(store, put());
      const before = store.stats().writtenBytes;
      await durable(store, put());
      expect(store.stats().writtenBytes - before).to.equal(4096);
      const { writtenTotalBytes } = store.stats();
      if (how === "stop") await store.close();
      clock.forgetTimers();
      store = await open(files.mount(), clock);
      // A crash forgets what came after the last full hour, a stop what the stop itself wrote.
      expect(store.stats().writtenTotalBytes - store.stats().writtenBytes).to.be.within(4096, writtenTotalBytes + 4096);
      if (how === "stop")
        expect(store.stats().writtenTotalBytes - store.stats().writtenBytes).to.be.at.least(writtenTotalBytes);
      await store.close();
    });
});
