import { expect } from "chai";
import { Meter } from "../../../src/base/meter.ts";
import { Drops } from "../../../src/journal/drops.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker } from "./support.ts";

describe("journal: drops", () => {
  const rules = new Map([
    [1, { uplink: "cloud", definition: '{"filter":"plant/#","to":"x","qos":1}' }],
    [2, { uplink: "cloud", definition: '{"filter":"yard/+","to":"x","qos":1}' }],
    [3, { uplink: "other", definition: '{"filter":"only/#"}' }],
    [4, { uplink: "third", definition: "of a newer version" }],
  ]);
  let nowMs = 0;
  const make = (meter = new Meter()): Drops =>
    new Drops({
      state: { rules },
      wallMs: () => nowMs,
      counter: (uplink, rule, reason) => meter.counter("dropped", "", { uplink, rule, reason }),
    });

  it("counts by rule and reason; what went unread is put to the only rule there is, else to none", () => {
    const meter = new Meter();
    const drops = make(meter);
    drops.one("cloud", "full", "plant/1", 1);
    drops.one("cloud", "full", "plant/2", 1);
    drops.one("cloud", "expired", "yard/1", 2);
    drops.several("cloud", "full", 100);
    drops.several("other", "store-full", 7);
    drops.one("third", "refused", "t", 4);
    drops.one("third", "refused", "t", 99);
    expect(drops.byRule("cloud")).to.deep.equal({
      ...{ "plant/#": { full: 2 }, "yard/+": { expired: 1 }, "*": { full: 100 } },
    });
    expect(drops.byRule("other")).to.deep.equal({ "only/#": { "store-full": 7 } });
    expect(drops.byRule("third")).to.deep.equal({ "rule 4": { refused: 1 }, "rule 99": { refused: 1 } });
    expect(drops.byRule("nobody")).to.deep.equal({});
    expect(meter.expose()).to.include('dropped{reason="full",rule="*",uplink="cloud"} 100');
  });

  it("keeps the last hundred of each uplink, the newest first, topics cut; dead letters are counted only", () => {
    const drops = make();
    for (let n = 1; n <= 250; n += 1) {
      nowMs = n;
      drops.one("cloud", "full", `plant/${n}/${"x".repeat(1000)}`, 1);
    }
    drops.one("other", "full", "mine", 3);
    drops.one("cloud", "dead-letter", "plant/letter", 1);
    const recent = drops.recent("cloud");
    expect(recent).to.have.length(100);
    expect(recent.map(({ atMs }) => atMs)).to.deep.equal(Array.from({ length: 100 }, (_, at) => 250 - at));
    expect(recent[0]).to.include({ messages: 1, reason: "full", rule: "plant/#", uplink: "cloud" });
    expect(recent[0]?.topic).to.have.length(256);
    expect(drops.recent("cloud")).to.deep.equal(recent); // looking changes nothing
    expect(drops.recent("other").map(({ topic }) => topic)).to.deep.equal(["mine"]);
    expect(drops.byRule("cloud")["plant/#"]).to.deep.equal({ full: 250, "dead-letter": 1 });
    expect(drops.recent("nobody")).to.deep.equal([]);
  });

  it("is bounded however many rules there were", () => {
    const drops = make();
    for (let n = 100; n < 5000; n += 1) drops.one("third", "full", "t", n);
    expect(Object.keys(drops.byRule("third"))).to.have.length.within(1000, 1001);
    expect(drops.byRule("third")["*"]).to.deep.equal({ full: 3900 });
  });

  it("adds up with what the queue counts, by whatever way messages go", async () => {
    const clock = new TestClock();
    const store = await open(new FaultyFiles().mount(), clock, { segmentBytes: 3000 });
    const queue = store.uplink("cloud", { ...generous, maxBytes: 6000 });
    store.configured();
    const plant = store.rule("cloud", '{"filter":"plant/#"}');
    const yard = store.rule("cloud", '{"filter":"yard/#"}');
    const lane = queue.lane(5);
    const put = (text: string, rule: number, ttlMs?: number) =>
      store.commit((txn) => txn.message(message(text), [{ ...taker(lane), rule, ttlMs }])).group;
    for (let n = 0; n < 200; n += 1) {
      await durable(
        store,
        put(`message ${n} ${"x".repeat(80)}`, n % 3 === 0 ? yard : plant, n % 5 === 0 ? 1000 : undefined),
      );
      const next = n % 7 === 0 ? queue.next() : undefined;
      if (next !== undefined) queue.settle(next, n % 2 === 0 ? "refused" : undefined);
      clock.advance(50);
    }
    const { dropped, droppedByRule } = queue.stats();
    const summed: Record<string, number> = {};
    for (const reasons of Object.values(droppedByRule))
      for (const [reason, count] of Object.entries(reasons)) summed[reason] = (summed[reason] ?? 0) + count;
    expect(summed).to.deep.equal(dropped);
    expect(dropped["full"]).to.be.above(0);
    expect(dropped["expired"]).to.be.above(0);
    expect(dropped["refused"]).to.be.above(0);
    await store.purgeUplink("cloud");
    expect(queue.recentDrops()[0]).to.include({ reason: "purged", rule: "*", topic: null });
    await store.close();
  });
});
