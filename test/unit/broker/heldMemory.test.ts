import { expect } from "chai";
import { HeldMemory } from "../../../src/broker/heldMemory.ts";
import { limitDefaults } from "../../../src/broker/options.ts";
import { Rig, type TestClient, turns } from "../../helpers/brokerRig.ts";
import { metricOf } from "../../helpers/metric.ts";

const KiB = 1024;

/** The first `bytes` of a PUBLISH of 500 KiB. */
function partOfPublish(bytes: number): Buffer {
  const part = Buffer.alloc(bytes, "x");
  part.set([0x30, 0x80, 0xa0, 0x1f, 0, 1, 0x74, 0]); // remaining length 512,000, topic t, no properties
  return part;
}

describe("packets of which only a part has come", () => {
  it("take a bounded memory over all connections; the oldest gives way, told why, and others are served", async () => {
    const rig = new Rig({ limits: { partialBytes: 1000 * KiB } });
    const holders: TestClient[] = [];
    for (let n = 0; n < 6; n += 1) {
      const client = await rig.client(5, `c${n}`);
      client.raw(partOfPublish(300 * KiB));
      await turns();
      holders.push(client);
    }
    expect(holders.map(({ closed }) => closed)).to.deep.equal([true, true, true, false, false, false]);
    const said = await holders[0]!.next("disconnect");
    expect(said.reasonCode).to.equal(0x97);
    expect(metricOf(rig.meter, 'tidegate_mqtt_protocol_errors_total{reason="incomplete"}')).to.equal(3);
    expect(metricOf(rig.meter, "tidegate_mqtt_incomplete_bytes")).to.be.within(900 * KiB, 1000 * KiB);
    // Who sends the rest in time is served, and holds nothing then.
    const watcher = await rig.client(5, "watcher");
    await watcher.subscribe("t");
    holders[5]!.raw(Buffer.alloc(512_000 + 4 - 300 * KiB, "x"));
    expect((await watcher.next("publish")).topic).to.equal("t");
    expect(metricOf(rig.meter, "tidegate_mqtt_incomplete_bytes")).to.be.below(700 * KiB);
    await rig.close();
  });

  it("hold nothing once their connections are gone", async () => {
    const rig = new Rig({ limits: { partialBytes: 1000 * KiB } });
    const client = await rig.client(4, "c");
    client.raw(partOfPublish(300 * KiB));
    await turns();
    expect(metricOf(rig.meter, "tidegate_mqtt_incomplete_bytes")).to.be.above(299 * KiB);
    client.drop();
    await turns();
    expect(metricOf(rig.meter, "tidegate_mqtt_incomplete_bytes")).to.equal(0);
    await rig.close();
  });

  it("give way before a log-in too", async () => {
    const rig = new Rig({ limits: { partialBytes: 1000 * KiB } });
    const strangers = Array.from({ length: 5 }, () => rig.open(5));
    const start = Buffer.alloc(300 * KiB);
    start.set([0x10, 0x80, 0xa0, 0x1f, 0, 4, 0x4d, 0x51, 0x54, 0x54, 5]);
    for (const stranger of strangers) stranger.raw(start);
    await turns(30);
    expect(strangers.filter(({ closed }) => closed)).to.have.length(2);
    await rig.close();
  });

  it("who completes packets at a fair pace is never the oldest", () => {
    const gone: string[] = [];
    const partials = new HeldMemory(100 * KiB);
    const holder = (name: string) => ({ giveWay: () => gone.push(name) });
    const [fair, slow, third] = [holder("fair"), holder("slow"), holder("third")];
    partials.set(fair, 40 * KiB, true);
    partials.set(slow, 40 * KiB, true);
    partials.set(fair, 30 * KiB, true); // the next of its packets
    partials.set(third, 60 * KiB, true);
    expect(gone).to.deep.equal(["slow"]);
    expect(partials.bytes).to.equal(90 * KiB);
  });

  it("the default leaves room for more than the largest packet", () => {
    expect(limitDefaults.partialBytes).to.be.at.least(2 * limitDefaults.maxPacketSize);
  });
});
