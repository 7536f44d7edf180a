import { expect } from "chai";
import { Rig, turns } from "../../helpers/brokerRig.ts";

describe("turns of connections", () => {
  for (const version of [4, 5] as const) {
    it(`who sends thousands of small packets at once lets others have their turn, and all of it is answered, MQTT ${version}`, async () => {
      const rig = new Rig();
      const greedy = await rig.client(version, "greedy");
      const other = await rig.client(version, "other");
      const pings = 30_000;
      greedy.raw(Buffer.alloc(pings * 2, "c000", "hex"));
      other.send({ cmd: "pingreq" });
      await other.next("pingresp");
      expect(greedy.received.length).to.be.below(pings);
      while (greedy.received.length < pings) await turns(1);
      greedy.publish("t", "x", 1);
      expect((await greedy.next("puback")).messageId).to.equal(1);
      await rig.close();
    });
  }
});
