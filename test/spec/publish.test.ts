import { expect } from "chai";
import { durable, Rig, text, turns, versions } from "../helpers/brokerRig.ts";
import { MemoryStore } from "../helpers/memoryStore.ts";
import { until } from "../helpers/wait.ts";

for (const version of versions) {
  describe(`PUBLISH, MQTT ${version}`, () => {
    let rig: Rig;
    beforeEach(() => {
      rig = new Rig({ store: new MemoryStore({ hold: true }) });
    });
    afterEach(() => rig.close());

    it("delivers each QoS at the lower of published and granted [MQTT-3.8.4-8]", async () => {
      const publisher = await rig.client(version, "p");
      for (const granted of [0, 1, 2] as const) {
        const subscriber = await rig.client(version, `s${granted}`);
        expect(await subscriber.subscribe("t/+", granted)).to.deep.equal([granted]);
        for (const qos of [0, 1, 2] as const) {
          publisher.publish("t/x", `q${qos}`, qos, { messageId: 10 + qos });
          const got = await subscriber.next("publish");
          expect([got.topic, text(got), got.qos, got.retain, got.dup]).to.deep.equal([
            ...["t/x", `q${qos}`, Math.min(qos, granted), false, false],
          ]);
          if (qos === 2) publisher.send({ cmd: "pubrel", messageId: 12 });
        }
        await turns();
      }
    });

    it("keeps the order of one publisher across the lanes [MQTT-4.6.0-6]", async () => {
      const publisher = await rig.client(version, "p");
      const subscriber = await rig.client(version, "s");
      const other = await rig.client(version === 4 ? 5 : 4, "o");
      await subscriber.subscribe("#");
      await other.subscribe("#");
      const sent: string[] = [];
      for (let at = 0; at < 300; at += 1) {
        sent.push(String(at));
        publisher.publish(`t/${at % 3}`, String(at), 0);
      }
      const got = (await subscriber.take()).map((packet) => text(packet as never));
      expect(got).to.deep.equal(sent);
      expect((await other.take()).map((packet) => text(packet as never))).to.deep.equal(sent);
    });

    it("QoS 1 that nothing durable takes is acknowledged at once", async () => {
      const publisher = await rig.client(version, "p");
      publisher.publish("t", "x", 1, { messageId: 7 });
      expect((await publisher.next("puback")).messageId).to.equal(7);
    });

    it("QoS 1 for a durable session is acknowledged once its group is, and nothing overtakes it", async () => {
      const subscriber = await rig.client(version, "s", durable(version));
      await subscriber.subscribe("kept", 1);
      rig.store.settle();
      const publisher = await rig.client(version, "p");
      publisher.publish("kept", "x", 1, { messageId: 1 });
      publisher.publish("free", "x", 1, { messageId: 2 }); // would be ready at once
      publisher.publish("free", "x", 2, { messageId: 3 });
      expect(await publisher.take()).to.deep.equal([]);
      expect(text(await subscriber.next("publish"))).to.equal("x"); // QoS 1 goes out before the disk has it
      rig.store.settle();
      const acks = (await publisher.take()).map((packet) => `${packet.cmd} ${packet.messageId}`);
      expect(acks).to.deep.equal(["puback 1", "puback 2", "pubrec 3"]);
      publisher.publish("free", "x", 1, { messageId: 4 });
      expect((await publisher.next("puback")).messageId).to.equal(4);
    });

    it("a retained QoS 1 value is acknowledged once durable", async () => {
      const publisher = await rig.client(version, "p");
      publisher.publish("t", "x", 1, { messageId: 1, retain: true });
      expect(await publisher.take()).to.deep.equal([]);
      rig.store.settle();
      await publisher.next("puback");
    });

    it("QoS 2 of a durable publisher: PUBREC, then PUBCOMP, each after its own group [MQTT-4.3.3]", async () => {
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("t", 0);
      const publisher = await rig.client(version, "p", durable(version));
      rig.store.settle();
      publisher.publish("t", "x", 2, { messageId: 5 });
      publisher.publish("t", "x", 2, { messageId: 5, dup: true }); // sent again: not delivered again
      expect(await publisher.take()).to.deep.equal([]);
      expect(await subscriber.take()).to.have.length(1);
      rig.store.settle();
      expect((await publisher.take()).map(({ cmd }) => cmd)).to.deep.equal(["pubrec", "pubrec"]);
      publisher.send({ cmd: "pubrel", messageId: 5 });
      expect(await publisher.take()).to.deep.equal([]);
      rig.store.settle();
      await publisher.next("pubcomp");
      expect([...rig.store.entries("qos2in")]).to.deep.equal([]);
    });

    it("a QoS 2 id held by a durable publisher survives a crash of the gateway", async () => {
      const publisher = await rig.client(version, "p", durable(version));
      publisher.publish("t", "x", 2, { messageId: 5 });
      await turns();
      rig.store.settle();
      await publisher.next("pubrec");
      const after = new Rig({ store: rig.store.crash() });
      const subscriber = await after.client(version, "s");
      await subscriber.subscribe("t", 0);
      const again = await after.client(version, "p", durable(version));
      again.publish("t", "x", 2, { messageId: 5, dup: true });
      await again.next("pubrec");
      expect(await subscriber.take()).to.deep.equal([]);
      await after.close();
    });

    it("QoS 2 to a clean session runs PUBLISH, PUBREC, PUBREL, PUBCOMP without the disk", async () => {
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("t", 2);
      const publisher = await rig.client(version, "p");
      publisher.publish("t", "x", 2, { messageId: 5 });
      const { messageId } = await subscriber.next("publish");
      subscriber.send({ cmd: "pubrec", messageId: messageId as number });
      expect((await subscriber.next("pubrel")).messageId).to.equal(messageId);
      subscriber.send({ cmd: "pubcomp", messageId: messageId as number });
      await turns();
      expect([...rig.broker.clients()].find(({ clientId }) => clientId === "s")?.queued).to.equal(0);
    });

    it("a full store refuses QoS 1 whole: 0x97 in MQTT 5, the end of the connection in 3.1.1", async () => {
      const subscriber = await rig.client(version, "s", durable(version));
      await subscriber.subscribe("t", 1);
      const publisher = await rig.client(version, "p");
      rig.store.verdict = "full";
      publisher.publish("t", "x", 1, { messageId: 1, retain: true });
      if (version === 5) expect((await publisher.next("puback")).reasonCode).to.equal(0x97);
      else await publisher.gone();
      expect(await subscriber.take()).to.deep.equal([]);
      expect(rig.broker.stats()).to.include({ retained: 0, queued: 0 });
    });

    it("a full store lets QoS 0 go on, and counts the copy it drops", async () => {
      const forward = {
        kind: "stored",
        uplink: "u",
        lane: 1,
        rule: 1,
        ttlMs: undefined,
        whenFull: "reject-newest",
      } as const;
      const full = new Rig({ forwards: () => [forward] });
      full.store.verdict = ({ rejectNewest }) => (rejectNewest.length > 0 ? "full" : "ok");
      const subscriber = await full.client(version, "s");
      await subscriber.subscribe("t", 0);
      const publisher = await full.client(version, "p");
      publisher.publish("t", "x", 0);
      expect(text(await subscriber.next("publish"))).to.equal("x");
      expect(full.dropped("uplink-full")).to.equal(1);
      await full.close();
    });

    it("a failed store acknowledges nothing that is not stored", async () => {
      const subscriber = await rig.client(version, "s", durable(version));
      await subscriber.subscribe("t", 1);
      rig.store.settle();
      const publisher = await rig.client(version, "p");
      publisher.publish("t", "x", 1, { messageId: 1 });
      await turns();
      rig.store.fail();
      await publisher.gone();
      expect((await publisher.take()).filter(({ cmd }) => cmd === "puback")).to.deep.equal([]);
    });

    it("topics that start with $ are not a client's to write", async () => {
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("$SYS/#", 0);
      await subscriber.take();
      const publisher = await rig.client(version, "p");
      publisher.publish("$SYS/broker/version", "mine", 1, { messageId: 1 });
      const ack = await publisher.next("puback");
      expect(ack.reasonCode ?? 0).to.equal(version === 5 ? 0x87 : 0);
      expect(rig.dropped("sys-topic")).to.equal(1);
      expect(await subscriber.take()).to.deep.equal([]);
    });

    it("malformed input ends that connection only", async () => {
      const healthy = await rig.client(version, "h");
      const broken = await rig.client(version, "b");
      broken.raw(Buffer.from([0x36, 0x05, 0, 1, 0x74, 0, 1])); // QoS 3 [MQTT-3.3.1-4]
      await broken.gone();
      if (version === 5) expect((await broken.next("disconnect")).reasonCode).to.equal(0x81); // [MQTT-4.13.1-1]
      healthy.send({ cmd: "pingreq" });
      await healthy.next("pingresp");
    });

    it("a packet above maxPacketSize ends the connection", async () => {
      const small = new Rig({ limits: { maxPacketSize: 100 } });
      const client = await small.client(version, "a");
      client.publish("t", "x".repeat(200));
      await client.gone();
      if (version === 5) expect((await client.next("disconnect")).reasonCode).to.equal(0x95);
      await small.close();
    });

    it("a client that asks and never reads the answers is not read either, until it does", async function () {
      this.timeout(90_000);
      const small = new Rig({ limits: { outboxBytes: 1000 } });
      const client = await small.client(version, "a");
      client.stall();
      const pings = Buffer.alloc(75_000, Buffer.from([0xc0, 0]));
      for (let round = 0; round < 6; round += 1) client.raw(pings);
      await turns(60);
      const { value } = small.meter.counter("tidegate_mqtt_bytes_total", "", { direction: "in" });
      expect(value).to.be.lessThan(400_000);
      client.resume();
      await until("all were answered", () => client.received.length === 225_000, 60_000);
      await small.close();
    });

    it("too many unacknowledged: 0x93 in MQTT 5, a pause in 3.1.1", async () => {
      const strict = new Rig({ store: new MemoryStore({ hold: true }), limits: { receiveMaximum: 3 } });
      const client = await strict.client(version, "p");
      for (let id = 1; id <= 5; id += 1) client.publish("t", "x", 1, { messageId: id, retain: true });
      if (version === 5) {
        expect((await client.next("disconnect")).reasonCode).to.equal(0x93);
      } else {
        expect(await client.take()).to.deep.equal([]);
        expect(strict.broker.stats().received).to.equal(3);
        strict.store.settle();
        await turns();
        strict.store.settle();
        expect((await client.take()).map(({ messageId }) => messageId)).to.deep.equal([1, 2, 3, 4, 5]);
        expect(client.closed).to.equal(false);
      }
      await strict.close();
    });
  });
}

describe("PUBLISH, MQTT 5 only", () => {
  it("topic aliases of the client [MQTT-3.3.2-12], 0x94 beyond the maximum", async () => {
    const rig = new Rig();
    const subscriber = await rig.client(5, "s");
    await subscriber.subscribe("a/b", 0);
    const publisher = await rig.client(5, "p");
    publisher.publish("a/b", "1", 0, { properties: { topicAlias: 3 } });
    publisher.publish("", "2", 0, { properties: { topicAlias: 3 } });
    expect((await subscriber.take()).map((packet) => text(packet as never))).to.deep.equal(["1", "2"]);
    publisher.publish("a/b", "3", 0, { properties: { topicAlias: 17 } });
    expect((await publisher.next("disconnect")).reasonCode).to.equal(0x94);
    await rig.close();
  });

  it("properties reach MQTT 5 subscribers unchanged and in order [MQTT-3.3.2-17, -18]", async () => {
    const rig = new Rig();
    const subscriber = await rig.client(5, "s");
    await subscriber.subscribe("t", 1);
    const publisher = await rig.client(5, "p");
    const properties = {
      contentType: "text/plain",
      responseTopic: "r",
      correlationData: Buffer.from([1]),
      userProperties: { a: ["1", "2"] },
    };
    publisher.publish("t", "x", 1, { properties });
    const { properties: got } = await subscriber.next("publish");
    expect(JSON.parse(JSON.stringify(got))).to.deep.include(JSON.parse(JSON.stringify(properties)));
    await rig.close();
  });
});
