import { expect } from "chai";
import { durable, Rig, text, turns, versions } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";

describe("a durable session that comes back with nothing waiting", () => {
  for (const version of versions) {
    for (const qos of [1, 2] as const) {
      it(`is sent what comes next at once, MQTT ${version} QoS ${qos}`, async () => {
        const rig = new Rig();
        const sender = await rig.client(version, "sender");
        for (const round of [1, 2, 3]) {
          const client = await rig.client(version, "c", durable(version));
          if (round === 1) await client.subscribe("t", qos);
          sender.publish("t", `${round}`, 1);
          const packet = await client.next("publish");
          expect(text(packet)).to.equal(`${round}`);
          client.send({ cmd: "puback", messageId: packet.messageId ?? 0 });
          await turns();
          rig.advance(100); // what was acknowledged is released
          await turns();
          client.drop();
          await turns();
        }
        await rig.close();
      });
    }
  }
});

describe("a durable session that comes back before the disk has its PUBREC", () => {
  for (const version of versions) {
    it(`gets PUBREL only then: it forgets the id with it, MQTT ${version}`, async () => {
      const rig = new Rig({ store: new MemoryStore({ hold: true }) });
      const first = await rig.client(version, "c", durable(version));
      await first.subscribe("t", 2);
      rig.broker.publish({ topic: "t", payload: Buffer.from("x"), qos: 2, retain: false, source: "source:test" });
      rig.store.settle();
      const { messageId = 0 } = await first.next("publish");
      first.send({ cmd: "pubrec", messageId });
      await turns();
      first.drop();
      await first.gone();
      const again = await rig.client(version, "c", durable(version));
      expect(await again.take()).to.deep.equal([]);
      rig.store.settle();
      expect((await again.next("pubrel")).messageId).to.equal(messageId);
      await rig.close();
    });
  }
});
