import { expect } from "chai";
import { durable, Rig, type TestClient, text } from "../../helpers/brokerRig.ts";

const session = { maxMessages: 1000, maxBytes: 1_000_000, whenFull: "drop-oldest", queueQos0: false } as const;

async function subscribe(rig: Rig, clientId: string, qos: 1 | 2 = 1): Promise<TestClient> {
  const client = await rig.client(5, clientId, durable(5));
  await client.subscribe(`to/${clientId}`, qos);
  return client;
}

async function absent(rig: Rig, clientId: string): Promise<void> {
  const client = await subscribe(rig, clientId);
  client.drop();
  await client.gone();
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
    const rig = new Rig({ limits: { session, maxInflight: 2 } });
    for (const id of ["thin", "fat", "other"]) await absent(rig, id);
    const online = await subscribe(rig, "online");
    publish(rig, "thin", ["a", "b"]);
    publish(rig, "fat", ["1", "2", "3", "4", "5", "6"]);
    expect(rig.store.askSessions(250), "each is 106 bytes").to.be.within(250, 400);
    expect(rig.dropped("store-full")).to.equal(3);
    publish(rig, "online", ["7", "8", "9"]);
    publish(rig, "other", ["x"]);
    expect(rig.store.askSessions(100), "fat is still the fattest").to.be.within(100, 120);
    expect(rig.dropped("store-full")).to.equal(4);
    expect(await received(rig, "thin")).to.deep.equal(["a", "b"]);
    expect(await received(rig, "fat")).to.deep.equal(["5", "6"]);
    expect(rig.store.askSessions(1_000_000), "x, and the 9 that is not on its way").to.be.within(200, 230);
    expect((await online.take()).map((packet) => packet.cmd === "publish" && text(packet).trim())).to.deep.equal([
      "7",
      "8",
    ]);
    await rig.close();
  });

  it("never what was sent, though it is not acknowledged, nor what its PUBREC was seen of", async () => {
    const rig = new Rig({ limits: { session, maxInflight: 2 } });
    const client = await subscribe(rig, "c", 2);
    publish(rig, "c", ["1", "2", "3", "4"], 2);
    const first = await client.next("publish");
    client.send({ cmd: "pubrec", messageId: first.messageId ?? 0, reasonCode: 0 });
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
    await absent(rig, "c");
    publish(rig, "c", ["1", "2", "3", "4"]);
    // The disk takes its time to read them back.
    const { store } = rig;
    const references = store.references.bind(store);
    let read = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      read = resolve;
    });
    store.references = (name) => {
      const queue = references(name);
      return (
        queue &&
        Object.defineProperty(queue, "read", {
          value: async (after: number, limits: { messages: number; bytes: number }) => {
            const batch = await references(name)!.read(after, limits);
            await gate;
            return batch;
          },
        })
      );
    };
    const client = await rig.client(5, "c", durable(5));
    expect(await client.take()).to.deep.equal([]);
    const released = store.askSessions(150);
    publish(rig, "c", ["5"]);
    read();
    const got = (await client.take()).filter((packet) => packet.cmd === "publish").map((packet) => text(packet).trim());
    expect(released).to.be.within(200, 230);
    expect(got).to.deep.equal(["3", "4", "5"]);
    await rig.close();
  });

  it("with drop-newest no session gives anything", async () => {
    const rig = new Rig({ limits: { session: { ...session, whenFull: "drop-newest" } } });
    await absent(rig, "c");
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
