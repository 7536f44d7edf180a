import { expect } from "chai";
import type { IPublishPacket, Packet } from "mqtt-packet";
import { Rig, type TestClient, versions } from "../../helpers/brokerRig.ts";

/** Answers one message and after it the next, so that all but the first `maxInflight` of them wait; returns them as they came. */
async function takeOneByOne(client: TestClient, count: number): Promise<IPublishPacket[]> {
  const got: IPublishPacket[] = [];
  while (got.length < count) {
    const packet = await client.next("publish");
    got.push(packet);
    const { qos, messageId = 0 } = packet;
    if (qos === 0) continue;
    client.send({ cmd: qos === 1 ? "puback" : "pubrec", messageId } as Packet);
    if (qos === 2) client.send({ cmd: "pubcomp", messageId } as Packet);
  }
  return got;
}

const withAliases = { properties: { topicAliasMaximum: 5 } };

/** What waits for the window of a clean session is kept as the packet that it came as, where it can be. */
describe("messages that wait for the window of a clean session", () => {
  for (const version of versions) {
    for (const qos of [1, 2] as const) {
      it(`QoS ${qos}, MQTT ${version}: come as they were, with ids, QoS, identifier and alias of each subscriber`, async () => {
        const rig = new Rig({ limits: { maxInflight: 2 } });
        const publisher = await rig.client(version, "p");
        const topic = "waiting/messages";
        const clients: TestClient[] = [];
        for (const name of ["same", "another", "QoS 1", "other version", "with identifier", "with aliases"]) {
          const other = version === 4 ? 5 : 4;
          const its = name === "other version" ? other : name.startsWith("with") ? 5 : version;
          const client = await rig.client(its, name, name === "with aliases" ? withAliases : {});
          await client.subscribe(topic, name === "QoS 1" ? 1 : 2, name === "with identifier" ? { id: 7 } : {});
          clients.push(client);
        }
        publisher.publish(topic, "warm", 0);
        // Short ones lie together, long ones for themselves.
        const texts = Array.from({ length: 60 }, (_, n) => `${n} `.repeat(1 + ((n * 37) % 300)));
        for (const [at, text] of texts.entries()) publisher.publish(topic, text, qos, { messageId: 500 + at });
        for (const [at, client] of clients.entries()) {
          const [warm, ...got] = await takeOneByOne(client, 1 + texts.length);
          expect(String(warm?.payload)).to.equal("warm");
          expect(got.map(({ payload }) => String(payload))).to.deep.equal(texts);
          expect(got.map(({ messageId }) => messageId)).to.deep.equal(texts.map((_, n) => n + 1));
          for (const packet of got) {
            expect(packet).to.include({ qos: at === 2 ? 1 : qos, dup: false, retain: false });
            expect(packet.topic).to.equal(at === 5 ? "" : topic);
            if (at === 4) expect(packet.properties?.subscriptionIdentifier).to.equal(7);
          }
        }
        await rig.close();
      });
    }
  }

  it("have what is left of their expiry, and are dropped when nothing is", async () => {
    const rig = new Rig({ limits: { maxInflight: 1 } });
    const publisher = await rig.client(5, "p");
    const subscriber = await rig.client(5, "s");
    await subscriber.subscribe("a", 1);
    const expiring = (seconds: number): object => ({ properties: { messageExpiryInterval: seconds } });
    publisher.publish("a", "in flight", 1, { messageId: 1 });
    publisher.publish("a", "short", 1, { messageId: 2, ...expiring(5) });
    publisher.publish("a", "long", 1, { messageId: 3, ...expiring(100) });
    publisher.publish("a", "for ever", 1, { messageId: 4 });
    for (let answers = 0; answers < 4; answers += 1) await publisher.next("puback");
    rig.advance(10_000);
    const got = await takeOneByOne(subscriber, 3);
    expect(got.map(({ payload }) => String(payload))).to.deep.equal(["in flight", "long", "for ever"]);
    expect(got.map(({ properties }) => properties?.messageExpiryInterval)).to.deep.equal([undefined, 90, undefined]);
    expect(rig.dropped("expired")).to.equal(1);
    await rig.close();
  });

  it("are dropped, counted, where the client takes no packet so large", async () => {
    const rig = new Rig({ limits: { maxInflight: 1 } });
    const publisher = await rig.client(4, "p");
    const subscriber = await rig.client(5, "s", { properties: { maximumPacketSize: 60 } });
    await subscriber.subscribe("a", 1);
    for (const [at, text] of ["1", "2".repeat(100), "3"].entries())
      publisher.publish("a", text, 1, { messageId: 1 + at });
    const got = await takeOneByOne(subscriber, 2);
    expect(got.map(({ payload }) => String(payload))).to.deep.equal(["1", "3"]);
    expect(rig.dropped("too-large")).to.equal(1);
    await rig.close();
  });
});
