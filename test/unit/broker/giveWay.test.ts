import { expect } from "chai";
import { durable, Rig, type TestClient, text } from "../../helpers/brokerRig.ts";

const session = { maxMessages: 1000, maxBytes: 1_000_000, whenFull: "drop-oldest", queueQos0: false } as const;

async function subscribe(rig: Rig, clientId: string, qos: 1 | 2 = 1): Promise<TestClient> {
  const client = await rig.client(5, clientId, durable(5));
  await client.subscribe(`to/${clientId}`, qos);
  return client;
}

const publish = (rig: Rig, clientId: string, texts: readonly string[], qos: 1 | 2 = 1): void => {
  for (const one of texts) {
    const payload = Buffer.from(one.padEnd(100));
    rig.broker.publish({ topic: `to/${clientId}`, payload, qos, retain: false, source: "source:test" });
  }
};

async function received(rig: Rig, clientId: string): Promise<string[]> {
  const client = await rig.client(5, clientId, durable(5));
  const packets = await client.take();
  return packets.filter((packet) => packet.cmd === "publish").map((packet) => text(packet).trim());
}

describe("sessions give way to a full store", () => {
  it("the fattest of absent clients first, its oldest first, counted; then those online", async () => {
    const rig = new Rig({ limits: { session } });
    for (const id of ["thin", "fat"]) (await subscribe(rig, id)).drop();
    const online = await subscribe(rig, "online");
    online.stall();
    await online.take();
    publish(rig, "thin", ["a", "b"]);
    publish(rig, "fat", ["1", "2", "3", "4", "5", "6"]);
    expect(rig.store.askSessions(250), "each is 106 bytes").to.be.within(250, 400);
    expect(rig.dropped("store-full")).to.equal(3);
    expect(await received(rig, "thin")).to.deep.equal(["a", "b"]);
    expect(await received(rig, "fat")).to.deep.equal(["4", "5", "6"]);
    await rig.close();
  });

  it("never what was sent, though it is not acknowledged, nor what its PUBREC was seen of", async () => {
    const rig = new Rig({ limits: { session, maxInflight: 2 } });
    const client = await subscribe(rig, "c", 2);
    publish(rig, "c", ["1", "2", "3", "4"], 2);
    const first = await client.next("publish");
    client.send({ cmd: "pubrec", messageId: first.messageId, reasonCode: 0 });
    await client.next("pubrel");
    expect(rig.store.askSessions(1_000_000)).to.be.within(200, 230);
    expect(rig.dropped("store-full")).to.equal(2);
    client.drop();
    await client.gone();
    expect(rig.store.askSessions(1_000_000), "what is on its way stays, online or not").to.equal(0);
    publish(rig, "c", ["5"], 2);
    const again = await rig.client(5, "c", durable(5));
    expect((await again.next("pubrel")).messageId).to.equal(first.messageId);
    expect(text(await again.next("publish")).trim()).to.equal("2");
    await rig.close();
  });

  it("what gives way while it is read back is not sent, and what comes later is", async () => {
    const rig = new Rig({ limits: { session, maxInflight: 5 } });
    (await subscribe(rig, "c")).drop();
    publish(rig, "c", ["1", "2", "3", "4"]);
    const client = rig.open(5);
    client.send({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 5,
      clientId: "c",
      keepalive: 0,
      ...durable(5),
    } as never);
    for (let turns = 0; rig.broker.stats().connections === 0; turns += 1) {
      if (turns > 1000) throw new Error("not connected");
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    const released = rig.store.askSessions(150);
    publish(rig, "c", ["5"]);
    const got = (await client.take()).filter((packet) => packet.cmd === "publish").map((packet) => text(packet).trim());
    const expected = released === 0 ? ["1", "2", "3", "4", "5"] : ["3", "4", "5"];
    expect(got).to.deep.equal(expected);
    await rig.close();
  });

  it("with drop-newest no session gives anything", async () => {
    const rig = new Rig({ limits: { session: { ...session, whenFull: "drop-newest" } } });
    (await subscribe(rig, "c")).drop();
    publish(rig, "c", ["1", "2"]);
    expect(rig.store.askSessions(1_000_000)).to.equal(0);
    expect(await received(rig, "c")).to.deep.equal(["1", "2"]);
    await rig.close();
  });

  it("a crowded store is given a pause: publishers are read again when it is not", async () => {
    const rig = new Rig();
    const subscriber = await subscribe(rig, "c");
    const publisher = await rig.client(5, "p");
    rig.store.crowded = true;
    publisher.publish("to/c", "1", 1, { messageId: 1 });
    await publisher.next("puback");
    await subscriber.next("publish");
    publisher.publish("to/c", "2", 1, { messageId: 2 });
    expect(await publisher.take()).to.deep.equal([]);
    rig.store.crowded = false;
    rig.advance(1000);
    expect((await publisher.next("puback")).messageId).to.equal(2);
    await rig.close();
  });
});
