import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import { durable, Rig, text, turns, versions } from "../helpers/brokerRig.ts";

const topics = (packets: Packet[]): string[] =>
  packets.flatMap((packet) => (packet.cmd === "publish" ? [packet.topic] : []));
const payloads = (packets: Packet[]): string[] =>
  packets.flatMap((packet) => (packet.cmd === "publish" ? [text(packet)] : []));

for (const version of versions) {
  describe(`SUBSCRIBE, MQTT ${version}`, () => {
    let rig: Rig;
    beforeEach(() => {
      rig = new Rig();
    });
    afterEach(() => rig.close());

    it("one copy for overlapping filters, at the highest QoS; none after UNSUBSCRIBE", async () => {
      const client = await rig.client(version, "a");
      await client.subscribe("a/#", 0);
      await client.subscribe("a/+", 1);
      client.publish("a/b", "x", 1);
      const got = (await client.take()).filter(({ cmd }) => cmd === "publish");
      expect(got.map((packet) => (packet.cmd === "publish" ? packet.qos : -1))).to.deep.equal([1]);
      client.send({ cmd: "unsubscribe", messageId: 5, unsubscriptions: ["a/#", "a/+"] });
      await client.next("unsuback");
      client.publish("a/b", "y", 0);
      expect(topics(await client.take())).to.deep.equal([]);
    });

    it("wildcards do not match $ topics [MQTT-4.7.2-1], $SYS/# does", async () => {
      const all = await rig.client(version, "all");
      await all.subscribe("#");
      const sys = await rig.client(version, "sys");
      await sys.subscribe("$SYS/#");
      rig.advance(1000);
      expect(topics(await all.take())).to.deep.equal([]);
      expect(topics(await sys.take())).to.include.members(["$SYS/broker/version", "$SYS/broker/clients/connected"]);
    });

    it("refuses filters above the limits, one by one", async () => {
      const small = new Rig({ limits: { maxSubscriptions: 2, maxTopicLevels: 3 } });
      const client = await small.client(version, "a");
      const subscriptions = ["a", "a/b/c/d", "b", "c"].map((topic) => ({
        topic,
        qos: 0 as const,
        nl: false,
        rap: false,
        rh: 0,
      }));
      client.send({ cmd: "subscribe", messageId: 1, subscriptions });
      const { granted } = await client.next("suback");
      expect(granted).to.deep.equal(version === 5 ? [0, 0x8f, 0, 0x97] : [0, 0x80, 0, 0x80]);
      await small.close();
    });

    it("retained: sent on subscribe with RETAIN, replaced, removed by an empty payload [MQTT-3.3.1-5..8]", async () => {
      const publisher = await rig.client(version, "p");
      publisher.publish("r/1", "old", 1, { retain: true });
      publisher.publish("r/1", "new", 0, { retain: true });
      publisher.publish("r/2", "two", 1, { retain: true });
      await turns();
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("r/+", 1);
      const got = await subscriber.take();
      expect(payloads(got)).to.have.members(["new", "two"]);
      expect(got.every((packet) => packet.cmd === "publish" && packet.retain)).to.equal(true);
      publisher.publish("r/1", "live", 0, { retain: true });
      expect((await subscriber.next("publish")).retain).to.equal(false); // [MQTT-3.3.1-9] of 3.1.1
      publisher.publish("r/1", "", 1, { retain: true });
      await turns();
      const late = await rig.client(version, "late");
      await late.subscribe("r/#");
      expect(payloads(await late.take())).to.deep.equal(["two"]);
    });

    it("retained values survive a crash; QoS 0 ones a second later", async () => {
      const publisher = await rig.client(version, "p");
      publisher.publish("r/1", "one", 1, { retain: true });
      publisher.publish("r/0", "zero", 0, { retain: true });
      publisher.publish("r/gone", "x", 1, { retain: true, messageId: 2 });
      publisher.publish("r/gone", "", 0, { retain: true });
      await turns();
      rig.advance(1000);
      await turns();
      const after = new Rig({ store: rig.store.crash() });
      await after.broker.ready;
      const subscriber = await after.client(version, "s", durable(version));
      await subscriber.subscribe("r/+", 1);
      const got = await subscriber.take();
      expect(payloads(got)).to.have.members(["one", "zero"]);
      await after.close();
    });

    it("retained within its limits, the excess delivered but not kept, counted", async () => {
      const small = new Rig({ limits: { retained: { maxMessages: 1, maxBytes: 1000 } } });
      const client = await small.client(version, "a");
      await client.subscribe("#");
      client.publish("a", "1", 0, { retain: true });
      client.publish("b", "2", 0, { retain: true });
      expect(payloads(await client.take())).to.deep.equal(["1", "2"]);
      expect(small.broker.stats().retained).to.equal(1);
      expect(small.dropped("retained-full")).to.equal(1);
      await small.close();
    });

    it("a hundred retained messages reach a window of ten at QoS 1", async () => {
      const small = new Rig({ limits: { maxInflight: 10 } });
      const publisher = await small.client(version, "p");
      for (let at = 0; at < 100; at += 1) publisher.publish(`r/${at}`, "x", 1, { retain: true });
      await turns();
      for (const more of [{}, durable(version)]) {
        const subscriber = await small.client(version, "s", more);
        await subscriber.subscribe("r/#", 1);
        const seen = new Set<string>();
        for (let round = 0; round < 40 && seen.size < 100; round += 1) {
          for (const packet of await subscriber.take()) {
            if (packet.cmd !== "publish") continue;
            seen.add(packet.topic);
            subscriber.send({ cmd: "puback", messageId: packet.messageId as number });
          }
        }
        expect(seen.size).to.equal(100);
      }
      await small.close();
    });

    it("a slow subscriber loses QoS 0, counted, and costs nobody else", async () => {
      const small = new Rig({ limits: { outboxBytes: 20_000 } });
      const slow = await small.client(version, "slow");
      const quick = await small.client(version, "quick");
      await slow.subscribe("#");
      await quick.subscribe("#");
      slow.stall();
      const publisher = await small.client(version, "p");
      for (let at = 0; at < 400; at += 1) {
        publisher.publish("t", "x".repeat(1000));
        if (at % 10 === 9) await turns(4);
      }
      expect(topics(await quick.take())).to.have.length(400);
      expect(small.dropped("outbox-full")).to.be.greaterThan(50);
      slow.resume();
      await turns(50);
      expect(topics(slow.received.splice(0))).to.have.length(400 - small.dropped("outbox-full"));
      publisher.publish("t", "again");
      expect(payloads(await slow.take())).to.deep.equal(["again"]);
      await small.close();
    });

    it("a shared subscription gives each message to one member in turn", async () => {
      const members = await Promise.all(["m1", "m2"].map((id) => rig.client(version, id)));
      for (const member of members) await member.subscribe("$share/g/t/+", 1);
      const publisher = await rig.client(version, "p");
      for (let at = 0; at < 6; at += 1) publisher.publish("t/x", String(at), 1);
      const got = await Promise.all(members.map((member) => member.take()));
      expect(got.map((packets) => payloads(packets).length)).to.deep.equal([3, 3]);
      members[0]?.drop();
      await turns();
      publisher.publish("t/x", "last", 1);
      const rest = payloads((await members[1]?.take()) ?? []);
      expect(rest, "and what the other had not acknowledged").to.deep.equal(["0", "2", "4", "last"]);
    });

    it("wills: on a lost connection, not after DISCONNECT [MQTT-3.1.2-8, -10]", async () => {
      const watcher = await rig.client(version, "w");
      await watcher.subscribe("will/#", 1);
      const will = { topic: "will/a", payload: Buffer.from("gone"), qos: 1 as const, retain: true };
      const polite = await rig.client(version, "a", { will });
      polite.send({ cmd: "disconnect", reasonCode: 0 });
      await polite.gone();
      expect(payloads(await watcher.take())).to.deep.equal([]);
      for (const end of ["drop", "malformed", "keepalive", "takeover"]) {
        const client = await rig.client(version, "a", { will, keepalive: 10 });
        if (end === "drop") client.drop();
        else if (end === "malformed") client.raw(Buffer.from([0, 0]));
        else if (end === "keepalive") rig.advance(16_000);
        else await rig.client(version, "a");
        expect(payloads(await watcher.take()), end).to.deep.equal(["gone"]);
      }
      expect(rig.broker.stats().retained).to.be.greaterThan(0);
    });
  });
}

describe("SUBSCRIBE, MQTT 5 only", () => {
  let rig: Rig;
  beforeEach(() => {
    rig = new Rig();
  });
  afterEach(() => rig.close());

  it("No Local [MQTT-3.8.3-3], also beside an ordinary subscription", async () => {
    const client = await rig.client(5, "a");
    await client.subscribe("n/#", 0, { nl: true });
    const other = await rig.client(5, "b");
    client.publish("n/1", "mine");
    other.publish("n/1", "theirs");
    expect(payloads(await client.take())).to.deep.equal(["theirs"]);
    await client.subscribe("n/1", 0);
    client.publish("n/1", "mine");
    expect(payloads(await client.take())).to.deep.equal(["mine"]);
  });

  it("Retain As Published and Retain Handling [MQTT-3.3.1-10..13]", async () => {
    const publisher = await rig.client(5, "p");
    publisher.publish("r", "v", 0, { retain: true });
    await turns();
    const client = await rig.client(5, "a");
    await client.subscribe("r", 0, { rh: 2, rap: true });
    expect(payloads(await client.take())).to.deep.equal([]);
    await client.subscribe("r", 0, { rh: 1, rap: true });
    expect(payloads(await client.take())).to.deep.equal([]); // not new
    await client.subscribe("r", 0, { rh: 0, rap: true });
    expect(payloads(await client.take())).to.deep.equal(["v"]);
    publisher.publish("r", "w", 0, { retain: true });
    expect((await client.next("publish")).retain).to.equal(true);
  });

  it("subscription identifiers of all that matched [MQTT-3.3.4-3, -4], also after an outage", async () => {
    const client = await rig.client(5, "a", durable(5));
    await client.subscribe("t/#", 1, { id: 7 });
    await client.subscribe("t/+", 1, { id: 300 });
    const publisher = await rig.client(5, "p");
    const identifiers = (packet: { properties?: { subscriptionIdentifier?: number | number[] } }): number[] =>
      [packet.properties?.subscriptionIdentifier ?? []].flat().sort((a, b) => a - b);
    publisher.publish("t/x", "0", 0);
    expect(identifiers(await client.next("publish"))).to.deep.equal([7, 300]);
    publisher.publish("t/x", "1", 1);
    expect(identifiers(await client.next("publish"))).to.deep.equal([7, 300]);
    client.drop();
    await turns();
    const again = await rig.client(5, "a", durable(5));
    expect(identifiers(await again.next("publish"))).to.deep.equal([7, 300]);
  });

  it("Will Delay: sent when it is over, not when the client is back before", async () => {
    const watcher = await rig.client(5, "w");
    await watcher.subscribe("will");
    const will = {
      topic: "will",
      payload: Buffer.from("gone"),
      qos: 0 as const,
      retain: false,
      properties: { willDelayInterval: 10 },
    };
    const first = await rig.client(5, "a", { ...durable(5), will });
    first.drop();
    await turns();
    rig.advance(5000);
    const second = await rig.client(5, "a", { ...durable(5), will });
    rig.advance(20_000);
    expect(payloads(await watcher.take())).to.deep.equal([]); // [MQTT-3.1.3-9]
    second.send({ cmd: "disconnect", reasonCode: 4 });
    await second.gone();
    rig.advance(11_000);
    expect(payloads(await watcher.take())).to.deep.equal(["gone"]);
  });
});
