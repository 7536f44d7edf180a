import { expect } from "chai";
import { Rig, turns } from "../../helpers/brokerRig.ts";

describe("clean sessions that do not acknowledge", () => {
  it("are bounded together, not only each for itself, and leave each its first messages", async () => {
    const maxBytes = 20_000;
    const session = { maxMessages: 10_000, maxBytes, whenFull: "drop-oldest", queueQos0: false } as const;
    const rig = new Rig({ limits: { maxInflight: 1, session } });
    const count = 12;
    for (let n = 0; n < count; n += 1) {
      const client = await rig.client(4, `c${n}`);
      client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "t", qos: 1 }] });
    }
    await turns(20);
    expect(rig.broker.stats().subscriptions).to.equal(count);
    for (let n = 0; n < 200; n += 1) {
      rig.broker.publish({ topic: "t", payload: Buffer.alloc(50), qos: 1, retain: false, source: "source:x" });
    }
    const queued = [...rig.broker.clients()].map((client) => client.queued);
    // Each alone could keep about 75; four full sessions' worth over twelve is about 25 each, and 32 are left to each.
    expect(Math.max(...queued)).to.be.below(85);
    expect(Math.min(...queued)).to.be.at.least(32);
    expect(queued.reduce((sum, each) => sum + each, 0)).to.be.below(count * 40);
    expect(rig.dropped("queue-full")).to.be.above(0);
    await rig.close();
  });
});
