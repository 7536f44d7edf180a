import { expect } from "chai";
import { generate, type Packet } from "mqtt-packet";
import { durable, Rig, type TestClient, text, turns, type Version, versions } from "../helpers/brokerRig.ts";
import { MemoryStore } from "../helpers/memoryStore.ts";

const publishes = (packets: Packet[]): string[] =>
  packets.flatMap((packet) => (packet.cmd === "publish" ? [`${text(packet)}${packet.dup ? " dup" : ""}`] : []));

async function leave(client: TestClient): Promise<void> {
  client.send({ cmd: "disconnect", reasonCode: 0 });
  await client.gone();
}

const publishPacket = (payload: string, qos: 0 | 1): Packet => ({
  ...{ cmd: "publish", topic: "t", payload, qos, retain: false, dup: false, messageId: 1 },
});

/** A durable session `s` with one subscription, offline; and a publisher. */
async function prepared(rig: Rig, version: Version, filter = "t", qos: 1 | 2 = 1): Promise<TestClient> {
  const subscriber = await rig.client(version, "s", durable(version));
  await subscriber.subscribe(filter, qos);
  await leave(subscriber);
  return rig.client(version, "p");
}

for (const version of versions) {
  describe(`sessions, MQTT ${version}`, () => {
    it("keep QoS 1 and 2 while offline, in order, and drop QoS 0", async () => {
      const rig = new Rig();
      const publisher = await prepared(rig, version, "t", 2);
      for (let at = 1; at <= 5; at += 1) publisher.publish("t", String(at), ((at % 2) + 1) as 1 | 2, { messageId: at });
      publisher.publish("t", "zero", 0);
      await turns();
      expect(rig.broker.stats().queued).to.equal(5);
      const again = await rig.client(version, "s", durable(version));
      expect(publishes(await again.take())).to.deep.equal(["1", "2", "3", "4", "5"]);
      expect(rig.dropped("offline")).to.equal(1);
      await rig.close();
    });

    it("keep QoS 0 as well with queueQos0", async () => {
      const limits = {
        session: { maxMessages: 10, maxBytes: 1000, whenFull: "drop-oldest", queueQos0: true },
      } as const;
      const rig = new Rig({ limits });
      const publisher = await prepared(rig, version);
      publisher.publish("t", "zero", 0);
      await turns();
      const again = await rig.client(version, "s", durable(version));
      expect(publishes(await again.take())).to.deep.equal(["zero"]);
      rig.advance(100);
      expect(rig.broker.stats().queued).to.equal(0);
      await rig.close();
    });

    it("send what was not acknowledged again with DUP and the same id [MQTT-4.4.0-1]", async () => {
      const rig = new Rig();
      const subscriber = await rig.client(version, "s", durable(version));
      await subscriber.subscribe("t", 1);
      const publisher = await rig.client(version, "p");
      for (const payload of ["a", "b", "c"]) publisher.publish("t", payload, 1);
      const sent = (await subscriber.take()) as Array<{ messageId: number }>;
      subscriber.send({ cmd: "puback", messageId: sent[1]?.messageId as number });
      await turns();
      subscriber.drop();
      await turns();
      publisher.publish("t", "d", 1);
      await turns();
      const again = await rig.client(version, "s", durable(version));
      const got = await again.take();
      expect(publishes(got)).to.deep.equal(["a dup", "c dup", "d"]);
      expect(got[0]?.messageId).to.equal(sent[0]?.messageId);
      await rig.close();
    });

    it("survive a crash of the gateway: subscriptions, queue, ids", async () => {
      const rig = new Rig();
      const publisher = await prepared(rig, version, "t/+");
      publisher.publish("t/1", "before", 1);
      await publisher.next("puback");
      const after = new Rig({ store: rig.store.crash() });
      expect(after.broker.stats()).to.include({ sessions: 1, subscriptions: 1, queued: 1 });
      const other = await after.client(version, "p");
      other.publish("t/2", "after", 1);
      await other.next("puback");
      const client = after.open(version);
      client.send({ cmd: "connect", protocolId: "MQTT", protocolVersion: version, clientId: "s", clean: false });
      expect((await client.connack()).sessionPresent).to.equal(true);
      expect(publishes(await client.take())).to.deep.equal(["before", "after"]);
      await after.close();
    });

    it("QoS 2 out waits for the disk: PUBLISH for its message, PUBREL for PUBREC seen", async () => {
      const rig = new Rig({ store: new MemoryStore({ hold: true }) });
      const subscriber = await rig.client(version, "s", durable(version));
      await subscriber.subscribe("t", 2);
      const publisher = await rig.client(version, "p");
      publisher.publish("t", "x", 2, { messageId: 9 });
      expect(await subscriber.take()).to.deep.equal([]);
      rig.store.settle();
      const { messageId } = await subscriber.next("publish");
      subscriber.send({ cmd: "pubrec", messageId: messageId as number });
      expect(await subscriber.take()).to.deep.equal([]);
      rig.store.settle();
      await subscriber.next("pubrel");
      // A crash now: the PUBLISH must not be repeated [MQTT-4.3.3-6], only its PUBREL.
      const after = new Rig({ store: rig.store.crash() });
      const again = await after.client(version, "s", durable(version));
      const got = await again.take();
      expect(got.map((packet) => [packet.cmd, packet.messageId])).to.deep.equal([["pubrel", messageId]]);
      again.send({ cmd: "pubcomp", messageId: messageId as number });
      await turns();
      after.advance(100);
      expect(after.broker.stats().queued).to.equal(0);
      expect([...after.store.entries("qos2out")]).to.deep.equal([]);
      await after.close();
    });

    it("the window holds back, and live messages do not overtake what waits", async () => {
      const rig = new Rig({ limits: { maxInflight: 2 } });
      const publisher = await prepared(rig, version);
      for (let at = 1; at <= 6; at += 1) publisher.publish("t", String(at), 1);
      await turns();
      const again = await rig.client(version, "s", durable(version));
      const order: string[] = [];
      for (let round = 0; round < 12 && order.length < 8; round += 1) {
        const got = await again.take();
        expect(got.length).to.be.at.most(2);
        if (round < 2) publisher.publish("t", `live${round}`, 1);
        order.push(...publishes(got));
        for (const packet of got) again.send({ cmd: "puback", messageId: packet.messageId as number });
      }
      expect(order).to.deep.equal(["1", "2", "3", "4", "5", "6", "live0", "live1"]);
      await turns();
      rig.advance(100);
      expect(rig.broker.stats().queued).to.equal(0);
      await rig.close();
    });

    for (const whenFull of ["drop-oldest", "drop-newest"] as const) {
      it(`a full queue: ${whenFull}, counted, never refusing the publisher`, async () => {
        const rig = new Rig({ limits: { session: { maxMessages: 3, maxBytes: 1000, whenFull, queueQos0: false } } });
        const publisher = await prepared(rig, version);
        for (let at = 1; at <= 5; at += 1) {
          publisher.publish("t", String(at), 1);
          expect((await publisher.next("puback")).reasonCode ?? 0).to.equal(0);
        }
        expect(rig.dropped("queue-full")).to.equal(2);
        const again = await rig.client(version, "s", durable(version));
        expect(publishes(await again.take())).to.deep.equal(
          whenFull === "drop-oldest" ? ["3", "4", "5"] : ["1", "2", "3"],
        );
        await rig.close();
      });
    }

    it("QoS 1 behind a full outbox waits, and follows as soon as there is room", async () => {
      for (const more of [{}, durable(version)]) {
        const rig = new Rig({ limits: { outboxBytes: 5000 } });
        const subscriber = await rig.client(version, "s", more);
        await subscriber.subscribe("t", 1);
        const publisher = await rig.client(version, "p");
        const burst = Array.from({ length: 20 }, () => publishPacket("x".repeat(1000), 0));
        const waits = [publishPacket("one", 1), publishPacket("two", 1)];
        // One chunk: the outbox is full before anything of it was written.
        publisher.raw(
          Buffer.concat([...burst, ...waits].map((packet) => generate(packet, { protocolVersion: version }))),
        );
        const got = publishes(await subscriber.take()).map((payload) => payload.slice(0, 5));
        expect(got.slice(-2)).to.deep.equal(["one", "two"]);
        expect(rig.dropped("outbox-full")).to.be.greaterThan(10);
        await rig.close();
      }
    });

    it("a slow durable subscriber gets QoS 1 in order, none lost", async () => {
      const rig = new Rig({ limits: { outboxBytes: 5000, receiveMaximum: 1000 } });
      const subscriber = await rig.client(version, "s", durable(version));
      await subscriber.subscribe("t", 1);
      const publisher = await rig.client(version, "p");
      subscriber.stall();
      const sent: string[] = [];
      for (let at = 0; at < 300; at += 1) {
        sent.push(`${at}-${"x".repeat(1000)}`);
        publisher.publish("t", sent[at] ?? "", 1);
        if (at % 20 === 0) await turns(3);
        if (at === 150) subscriber.resume();
      }
      const got: string[] = [];
      for (let round = 0; round < 60 && got.length < 300; round += 1) {
        const packets = await subscriber.take();
        got.push(...publishes(packets));
        for (const packet of packets) subscriber.send({ cmd: "puback", messageId: packet.messageId as number });
      }
      expect(got.map((payload) => Number.parseInt(payload, 10))).to.deep.equal(sent.map((_payload, at) => at));
      await rig.close();
    });

    it("a full queue drops nothing that is in flight", async () => {
      const limits = {
        maxInflight: 2,
        session: { maxMessages: 4, maxBytes: 1000, whenFull: "drop-oldest", queueQos0: false },
      } as const;
      const rig = new Rig({ limits });
      const subscriber = await rig.client(version, "s", durable(version));
      await subscriber.subscribe("t", 1);
      const publisher = await rig.client(version, "p");
      for (let at = 1; at <= 7; at += 1) publisher.publish("t", String(at), 1);
      const order: string[] = [];
      for (let round = 0; round < 4; round += 1) {
        const got = await subscriber.take();
        order.push(...publishes(got));
        for (const packet of got) subscriber.send({ cmd: "puback", messageId: packet.messageId as number });
      }
      expect(order).to.deep.equal(["1", "2", "6", "7"]);
      await rig.close();
    });
  });
}

describe("sessions, MQTT 5 only", () => {
  it("Receive Maximum of the client bounds the window [MQTT-3.3.4-9]", async () => {
    const rig = new Rig();
    const subscriber = await rig.client(5, "s", { properties: { receiveMaximum: 2 } });
    await subscriber.subscribe("t", 1);
    const publisher = await rig.client(5, "p");
    for (let at = 1; at <= 4; at += 1) publisher.publish("t", String(at), 1);
    const first = await subscriber.take();
    expect(publishes(first)).to.deep.equal(["1", "2"]);
    for (const packet of first) subscriber.send({ cmd: "puback", messageId: packet.messageId as number });
    expect(publishes(await subscriber.take())).to.deep.equal(["3", "4"]);
    await rig.close();
  });

  it("message expiry: what waited is sent with what is left, or not at all [MQTT-3.3.2-5, -6]", async () => {
    const rig = new Rig();
    const publisher = await prepared(rig, 5);
    publisher.publish("t", "short", 1, { properties: { messageExpiryInterval: 5 } });
    publisher.publish("t", "long", 1, { properties: { messageExpiryInterval: 100 } });
    await turns();
    rig.store.timeMs += 10_000;
    const again = await rig.client(5, "s", durable(5));
    const got = await again.next("publish");
    expect([text(got), got.properties?.messageExpiryInterval]).to.deep.equal(["long", 90]);
    expect(rig.dropped("expired")).to.equal(1);
    await rig.close();
  });

  it("a PUBREC of 0x80 and above discards the message [MQTT-4.3.3-4]", async () => {
    const rig = new Rig();
    const subscriber = await rig.client(5, "s", durable(5));
    await subscriber.subscribe("t", 2);
    const publisher = await rig.client(5, "p");
    publisher.publish("t", "x", 2);
    const { messageId } = await subscriber.next("publish");
    subscriber.send({ cmd: "pubrec", messageId: messageId as number, reasonCode: 0x97 });
    await turns();
    rig.advance(100);
    expect(rig.broker.stats().queued).to.equal(0);
    await rig.close();
  });

  it("more than the client's Maximum Packet Size is not sent [MQTT-3.1.2-24, -25]", async () => {
    const rig = new Rig();
    const subscriber = await rig.client(5, "s", { properties: { maximumPacketSize: 50 } });
    await subscriber.subscribe("t", 1);
    const publisher = await rig.client(5, "p");
    for (const qos of [0, 1] as const) publisher.publish("t", "x".repeat(100), qos);
    publisher.publish("t", "small", 1);
    expect(publishes(await subscriber.take())).to.deep.equal(["small"]);
    expect(rig.dropped("too-large")).to.equal(2);
    await rig.close();
  });
});
