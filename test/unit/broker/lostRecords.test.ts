import { expect } from "chai";
import { connectPacket, durable, Rig, text, turns, versions } from "../../helpers/brokerRig.ts";

describe("a session whose own record is lost to a flipped bit", () => {
  for (const version of versions) {
    it(`keeps its subscriptions and what waits for it, MQTT ${version}`, async () => {
      const before = new Rig();
      const away = await before.client(version, "away", durable(version));
      await away.subscribe("t/#", 1);
      away.drop();
      await turns();
      const sender = await before.client(version, "sender");
      for (const payload of ["1", "2", "3"]) sender.publish("t/a", payload, 1);
      await turns();
      before.store.commit((txn) => txn.delete("session", "away"));
      before.store.settle();
      const rig = new Rig({ store: before.store.crash() });
      await rig.broker.ready;
      const publisher = await rig.client(version, "sender");
      publisher.publish("t/a", "4", 1);
      await turns();
      const back = rig.open(version);
      back.send(connectPacket(version, "away", durable(version)));
      expect((await back.connack()).sessionPresent).to.equal(true);
      const got: string[] = [];
      while (got.length < 4) {
        const packet = await back.next("publish");
        got.push(text(packet));
        back.send({ cmd: "puback", messageId: packet.messageId ?? 0 });
      }
      expect(got).to.deep.equal(["1", "2", "3", "4"]);
      await rig.close();
    });
  }

  it("is gone for good once the client has asked for a clean session", async () => {
    const before = new Rig();
    const client = await before.client(4, "c", durable(4));
    await client.subscribe("t", 1);
    client.drop();
    await turns();
    await before.client(4, "c");
    await turns();
    before.store.settle();
    const rig = new Rig({ store: before.store.crash() });
    expect(rig.broker.stats().sessions).to.equal(0);
    await rig.close();
  });
});
