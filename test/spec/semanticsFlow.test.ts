/** QoS 1 and 2 under flow control, expiry and take-over (sections 3.3.2.3.3, 4.3, 4.4 and 4.9). */
import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import { durable, Rig, type TestClient, text, turns, versions } from "../helpers/brokerRig.ts";
import { MemoryStore } from "../helpers/memoryStore.ts";

const seen = (packets: Packet[]): string[] =>
  packets.map((packet) => {
    if (packet.cmd === "publish") return `${text(packet)}${packet.dup ? " dup" : ""}`;
    return `${packet.cmd} ${packet.messageId}`;
  });
const idOf = (packet: { messageId?: number | undefined } | undefined): number => packet?.messageId ?? 0;
const keeps = (receiveMaximum: number) => ({
  clean: false,
  properties: { sessionExpiryInterval: 1000, receiveMaximum },
});

for (const version of versions) {
  describe(`flow, MQTT ${version}`, () => {
    let rig: Rig;
    let publisher: TestClient;
    beforeEach(async () => {
      rig = new Rig();
      publisher = await rig.client(version, "p");
    });
    afterEach(() => rig.close());

    it("take-over goes on with what was in flight, under the same ids, with DUP [MQTT-4.4.0-1], [MQTT-3.3.1-1]", async () => {
      const first = await rig.client(version, "s", durable(version));
      await first.subscribe("t", 2);
      for (const [at, qos] of [1, 2, 2].entries())
        publisher.publish("t", `m${at}`, qos as 1 | 2, { messageId: at + 1 });
      const sent = (await first.take()) as Array<{ messageId: number }>;
      first.send({ cmd: "pubrec", messageId: idOf(sent[1]) });
      await first.next("pubrel");
      const second = await rig.client(version, "s", durable(version));
      const again = await second.take();
      expect(seen(again)).to.deep.equal([`pubrel ${idOf(sent[1])}`, "m0 dup", "m2 dup"]);
      expect([idOf(again[1]), idOf(again[2])]).to.deep.equal([idOf(sent[0]), idOf(sent[2])]);
      await first.gone();
    });

    it("a durable session gets ids of its own, no DUP and no RETAIN, whatever the PUBLISH came with, and so does one of the other version", async () => {
      const other = version === 5 ? 4 : 5;
      const subscribers = [
        await rig.client(version, "same", durable(version)),
        await rig.client(version, "more", durable(version)),
        await rig.client(other, "other", durable(other)),
      ];
      for (const [at, subscriber] of subscribers.entries()) await subscriber.subscribe("t", at === 1 ? 2 : 1);
      const came = [{}, {}, { dup: true }, { retain: true }, {}];
      for (const [at, more] of came.entries()) publisher.publish("t", `m${at}`, 1, { messageId: 900 - at, ...more });
      publisher.publish("t", "twice", 2, { messageId: 77 });
      await publisher.next("pubrec");
      for (const [at, subscriber] of subscribers.entries()) {
        const packets = (await subscriber.take()) as Array<
          Packet & { messageId: number; qos: number; retain: boolean }
        >;
        expect(seen(packets)).to.deep.equal(["m0", "m1", "m2", "m3", "m4", "twice"]);
        expect(packets.map(({ messageId }) => messageId)).to.deep.equal([2, 3, 4, 5, 6, 7]);
        expect(packets.map(({ qos }) => qos)).to.deep.equal([1, 1, 1, 1, 1, at === 1 ? 2 : 1]);
        expect(packets.some(({ retain }) => retain)).to.equal(false);
      }
    });

    it("nothing is sent again but after a new connection", async () => {
      const subscriber = await rig.client(version, "s", durable(version));
      await subscriber.subscribe("t", 1);
      publisher.publish("t", "x", 1);
      await subscriber.next("publish");
      rig.advance(600_000);
      await subscriber.subscribe("t", 1);
      expect(await subscriber.take()).to.deep.equal([]);
    });

    it("PUBREC for an id that is not in flight, PUBREL for one that is not held", async () => {
      const client = await rig.client(version, "a");
      client.send({ cmd: "pubrec", messageId: 77 });
      expect((await client.next("pubrel")).reasonCode ?? 0).to.equal(version === 5 ? 0x92 : 0);
      client.send({ cmd: "pubrel", messageId: 78 });
      expect((await client.next("pubcomp")).reasonCode ?? 0).to.equal(version === 5 ? 0x92 : 0);
    });

    it("a QoS 2 id that is not released is delivered once, with DUP or without [MQTT-4.3.3-10]", async () => {
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("t", 0);
      for (const dup of [false, true, false]) publisher.publish("t", "x", 2, { messageId: 5, dup });
      expect(seen(await publisher.take())).to.deep.equal(["pubrec 5", "pubrec 5", "pubrec 5"]);
      publisher.send({ cmd: "pubrel", messageId: 5 });
      await publisher.next("pubcomp");
      publisher.publish("t", "y", 2, { messageId: 5 });
      expect(seen(await subscriber.take())).to.deep.equal(["x", "y"]);
    });

    it("DUP of the publisher is not handed on [MQTT-3.3.1-3]", async () => {
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("t", 1);
      publisher.publish("t", "x", 1, { dup: true });
      expect(seen(await subscriber.take())).to.deep.equal(["x"]);
    });

    it("a session of the other version is resumed with its subscriptions and its queue", async () => {
      const first = await rig.client(version, "s", durable(version));
      await first.subscribe("t", 1);
      first.drop();
      await turns();
      publisher.publish("t", "x", 1);
      await publisher.next("puback");
      const other = version === 4 ? 5 : 4;
      const second = rig.open(other);
      second.send({
        ...{ cmd: "connect", protocolId: "MQTT", protocolVersion: other, clientId: "s", keepalive: 0 },
        ...durable(other),
      } as Packet);
      expect((await second.connack()).sessionPresent).to.equal(true);
      expect(seen(await second.take())).to.deep.equal(["x"]);
    });

    it("UNSUBSCRIBE ends new deliveries; what was begun is completed [MQTT-3.10.4-2, -3]", async () => {
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("t", 2);
      publisher.publish("t", "begun", 2);
      const { messageId } = await subscriber.next("publish");
      subscriber.send({ cmd: "unsubscribe", messageId: 9, unsubscriptions: ["t"] });
      await subscriber.next("unsuback");
      publisher.publish("t", "late", 1, { messageId: 2 });
      subscriber.send({ cmd: "pubrec", messageId: idOf({ messageId }) });
      expect(seen(await subscriber.take())).to.deep.equal([`pubrel ${messageId}`]);
    });
  });
}

describe("flow, MQTT 5 only", () => {
  let rig: Rig;
  let publisher: TestClient;
  beforeEach(async () => {
    rig = new Rig();
    publisher = await rig.client(5, "p");
  });
  afterEach(() => rig.close());

  it("what is sent again counts against the new connection's Receive Maximum [MQTT-3.3.4-9]", async () => {
    const first = await rig.client(5, "s", keeps(10));
    await first.subscribe("t", 1);
    for (let at = 0; at < 4; at += 1) publisher.publish("t", `m${at}`, 1);
    expect(await first.take()).to.have.length(4);
    const second = await rig.client(5, "s", keeps(2));
    const got = await second.take();
    expect(seen(got)).to.deep.equal(["m0 dup", "m1 dup"]);
    second.send({ cmd: "puback", messageId: idOf(got[0]) });
    expect(seen(await second.take())).to.deep.equal(["m2 dup"]);
  });

  it("only PUBACK, PUBCOMP and a PUBREC of 0x80 and above give a place back (section 4.9)", async () => {
    for (const more of [{ properties: { receiveMaximum: 1 } }, keeps(1)]) {
      const subscriber = await rig.client(5, "s", { ...more });
      await subscriber.subscribe("t", 2);
      for (let at = 0; at < 3; at += 1) {
        publisher.publish("t", `m${at}`, 2, { messageId: at + 1 });
        publisher.send({ cmd: "pubrel", messageId: at + 1 });
      }
      const first = await subscriber.next("publish");
      subscriber.send({ cmd: "pubrec", messageId: idOf(first) });
      expect(seen(await subscriber.take())).to.deep.equal([`pubrel ${idOf(first)}`]);
      subscriber.send({ cmd: "puback", messageId: 4321 });
      subscriber.send({ cmd: "pingreq" });
      expect((await subscriber.take()).map(({ cmd }) => cmd)).to.deep.equal(["pingresp"]);
      subscriber.send({ cmd: "pubcomp", messageId: idOf(first) });
      const second = await subscriber.next("publish");
      expect(text(second)).to.equal("m1");
      subscriber.send({ cmd: "pubrec", messageId: idOf(second), reasonCode: 0x83 });
      expect(text(await subscriber.next("publish"))).to.equal("m2");
      subscriber.drop();
      await turns();
    }
  });

  it("QoS 0 needs no place (section 4.9)", async () => {
    const subscriber = await rig.client(5, "s", { properties: { receiveMaximum: 1 } });
    await subscriber.subscribe("t", 1);
    for (const [payload, qos] of [
      ["one", 1],
      ["two", 1],
      ["zero", 0],
    ] as const)
      publisher.publish("t", payload, qos);
    expect(seen(await subscriber.take())).to.deep.equal(["one", "zero"]);
  });

  it("expiry goes on while flow control holds a message back [MQTT-3.3.2-5, -6]", async () => {
    for (const more of [{ properties: { receiveMaximum: 1 } }, keeps(1)]) {
      const subscriber = await rig.client(5, "s", { ...more });
      await subscriber.subscribe("t", 1);
      publisher.publish("t", "first", 1);
      publisher.publish("t", "short", 1, { properties: { messageExpiryInterval: 2 } });
      publisher.publish("t", "long", 1, { properties: { messageExpiryInterval: 60 } });
      await turns(); // all three are with the broker
      const first = await subscriber.next("publish");
      rig.advance(5000);
      subscriber.send({ cmd: "puback", messageId: idOf(first) });
      const next = await subscriber.next("publish");
      expect([text(next), next.properties?.messageExpiryInterval]).to.deep.equal(["long", 55]);
      subscriber.drop();
      await turns();
    }
  });

  it("a message too large for the client takes no place, and another subscriber gets it [MQTT-3.1.2-25]", async () => {
    for (const more of [{}, durable(5)]) {
      const properties = {
        receiveMaximum: 1,
        maximumPacketSize: 60,
        sessionExpiryInterval: more === durable(5) ? 99 : 0,
      };
      const small = await rig.client(5, "small", { ...more, properties });
      const large = await rig.client(5, "large");
      for (const client of [small, large]) await client.subscribe("t", 1);
      for (const payload of ["x".repeat(100), "y".repeat(100), "fits"]) publisher.publish("t", payload, 1);
      expect(seen(await small.take())).to.deep.equal(["fits"]);
      expect(seen(await large.take())).to.have.length(3);
      for (const client of [small, large]) client.drop();
      await turns();
    }
  });

  it("what was sent and not answered is sent again even when it expired meanwhile; what only waited is not", async () => {
    const first = await rig.client(5, "s", keeps(1));
    await first.subscribe("t", 1);
    for (const payload of ["sent", "waited"]) {
      publisher.publish("t", payload, 1, { properties: { messageExpiryInterval: 2 } });
    }
    await first.next("publish");
    first.drop();
    await turns();
    rig.advance(5000);
    const second = await rig.client(5, "s", keeps(10));
    const got = await second.take();
    expect(seen(got)).to.deep.equal(["sent dup"]);
    expect(got[0]?.cmd === "publish" && got[0].properties?.messageExpiryInterval).to.equal(0);
    expect(rig.dropped("expired")).to.equal(1);
  });

  it("after a crash it is not known what was sent, so what expired is not", async () => {
    const first = await rig.client(5, "s", keeps(1));
    await first.subscribe("t", 1);
    publisher.publish("t", "x", 1, { properties: { messageExpiryInterval: 2 } });
    await first.next("publish");
    const next = new Rig({ store: rig.store.crash() });
    next.store.timeMs += 5000;
    const second = await next.client(5, "s", keeps(1));
    expect(await second.take()).to.deep.equal([]);
    await next.close();
  });

  it("our Receive Maximum: QoS 2 counts until PUBCOMP, and resumed ids count when they come again [MQTT-3.3.4-7]", async () => {
    const strict = new Rig({ limits: { receiveMaximum: 2 }, store: new MemoryStore() });
    const first = await strict.client(5, "a", keeps(9));
    for (const messageId of [1, 2]) first.publish("t", "x", 2, { messageId });
    for (const messageId of [1, 2]) expect(idOf(await first.next("pubrec"))).to.equal(messageId);
    first.drop();
    await turns();
    const second = await strict.client(5, "a", keeps(9));
    for (const messageId of [1, 2]) second.publish("t", "x", 2, { messageId, dup: true });
    await turns();
    expect(second.closed).to.equal(false);
    second.send({ cmd: "pubrel", messageId: 1 });
    await second.next("pubcomp");
    second.publish("t", "x", 1, { messageId: 3 });
    await second.next("puback");
    second.publish("t", "x", 2, { messageId: 4 });
    await second.next("pubrec");
    second.publish("t", "x", 2, { messageId: 5 });
    expect((await second.next("disconnect")).reasonCode).to.equal(0x93);
    await strict.close();
  });

  it("a session that ends with its connection is not there for the next [MQTT-3.1.2-23]", async () => {
    const first = await rig.client(5, "s", keeps(9));
    await first.subscribe("t", 1);
    first.send({ cmd: "disconnect", reasonCode: 0, properties: { sessionExpiryInterval: 0 } });
    await first.gone();
    const second = rig.open(5);
    second.send({ cmd: "connect", clientId: "s", keepalive: 0, protocolId: "MQTT", protocolVersion: 5, clean: false });
    expect((await second.connack()).sessionPresent).to.equal(false);
    second.drop();
    await turns();
    const third = rig.open(5);
    third.send({ cmd: "connect", clientId: "s", keepalive: 0, protocolId: "MQTT", protocolVersion: 5, clean: false });
    expect((await third.connack()).sessionPresent).to.equal(false);
  });

  it("a Session Expiry that DISCONNECT gives counts from then", async () => {
    const client = await rig.client(5, "s", keeps(9));
    client.send({ cmd: "disconnect", reasonCode: 0, properties: { sessionExpiryInterval: 5 } });
    await client.gone();
    rig.advance(4500);
    expect(rig.broker.stats().sessions).to.equal(2);
    rig.advance(750);
    expect(rig.broker.stats().sessions).to.equal(1);
  });
});
