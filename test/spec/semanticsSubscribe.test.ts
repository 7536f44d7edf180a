/** Replacing subscriptions, their options and retained messages (sections 3.8, 3.3.1.3). */
import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import { durable, Rig, type TestClient, text, turns, versions } from "../helpers/brokerRig.ts";
import { MemoryStore } from "../helpers/memoryStore.ts";

const payloads = (packets: Packet[]): string[] =>
  packets.flatMap((packet) => (packet.cmd === "publish" ? [text(packet)] : []));
const identifiers = (packet: { properties?: { subscriptionIdentifier?: number | number[] } }): number[] =>
  [packet.properties?.subscriptionIdentifier ?? []].flat();

for (const version of versions) {
  describe(`subscriptions, MQTT ${version}`, () => {
    let rig: Rig;
    let publisher: TestClient;
    beforeEach(async () => {
      rig = new Rig();
      publisher = await rig.client(version, "p");
    });
    afterEach(() => rig.close());

    it("the same filter again replaces the QoS, and brings retained messages again [MQTT-3.8.4-3]", async () => {
      publisher.publish("t", "kept", 1, { retain: true });
      await publisher.next("puback");
      for (const more of [{}, durable(version)]) {
        const client = await rig.client(version, "a", more);
        await client.subscribe("t", 1);
        await client.next("publish");
        await client.subscribe("t", 0);
        expect(payloads(await client.take())).to.deep.equal(["kept"]);
        publisher.publish("t", "live", 1);
        const got = await client.next("publish");
        expect([text(got), got.qos]).to.deep.equal(["live", 0]);
        expect(rig.broker.stats().subscriptions).to.equal(1);
        client.drop();
        await turns();
        const clean = await rig.client(version, "a");
        clean.drop();
        await turns();
      }
    });

    it("SUBACK and UNSUBACK hold one code for each filter, in order [MQTT-3.8.4-6], [MQTT-3.11.3-1]", async () => {
      const client = await rig.client(version, "a");
      const subscriptions = ([2, 0, 1] as const).map((qos) => ({
        topic: `t${qos}`,
        qos,
        nl: false,
        rap: false,
        rh: 0,
      }));
      client.send({ cmd: "subscribe", messageId: 7, subscriptions });
      const suback = await client.next("suback");
      expect([suback.messageId, suback.granted]).to.deep.equal([7, [2, 0, 1]]);
      client.send({ cmd: "unsubscribe", messageId: 8, unsubscriptions: ["none", "t0"] });
      const unsuback = await client.next("unsuback");
      expect(unsuback.messageId).to.equal(8);
      if (version === 5) expect((unsuback as { granted?: number[] }).granted).to.deep.equal([0x11, 0]);
      publisher.publish("t0", "x");
      expect(payloads(await client.take())).to.deep.equal([]);
    });

    it("a store that takes no subscription leaves those there were as they were", async () => {
      const client = await rig.client(version, "a", durable(version));
      await client.subscribe("t", 1);
      const commit = rig.store.commit.bind(rig.store);
      rig.store.commit = () => {
        throw new Error("no room");
      };
      expect(await client.subscribe("t", 0)).to.deep.equal([version === 5 ? 0x83 : 0x80]);
      expect(await client.subscribe("new", 0)).to.deep.equal([version === 5 ? 0x83 : 0x80]);
      rig.store.commit = commit;
      publisher.publish("t", "x", 1);
      expect((await client.next("publish")).qos).to.equal(1);
      expect(rig.broker.stats().subscriptions).to.equal(1);
    });

    it("no retained message begins after UNSUBSCRIBE [MQTT-3.10.4-2]", async () => {
      const small = new Rig({ limits: { maxInflight: 1 } });
      const other = await small.client(version, "p");
      for (let at = 0; at < 5; at += 1) other.publish(`r/${at}`, String(at), 1, { retain: true });
      const client = await small.client(version, "a");
      await client.subscribe("r/+", 1);
      const { messageId } = await client.next("publish");
      client.send({ cmd: "unsubscribe", messageId: 3, unsubscriptions: ["r/+"] });
      await client.next("unsuback");
      client.send({ cmd: "puback", messageId: messageId as number });
      expect(payloads(await client.take())).to.deep.equal([]);
      await small.close();
    });

    it("an empty retained payload removes the value, and goes to subscribers like any other [MQTT-3.3.1-6, -7]", async () => {
      const client = await rig.client(version, "a");
      await client.subscribe("t", 0);
      publisher.publish("t", "v", 0, { retain: true });
      publisher.publish("t", "", 0, { retain: true });
      expect(payloads(await client.take())).to.deep.equal(["v", ""]);
      const late = await rig.client(version, "b");
      await late.subscribe("t", 0);
      expect(payloads(await late.take())).to.deep.equal([]);
    });

    it("a message with RETAIN 0 leaves the retained one alone", async () => {
      publisher.publish("t", "kept", 1, { retain: true });
      publisher.publish("t", "passing", 1);
      publisher.publish("t", "", 1);
      await publisher.take();
      const late = await rig.client(version, "b");
      await late.subscribe("t", 0);
      expect(payloads(await late.take())).to.deep.equal(["kept"]);
    });
  });
}

describe("subscriptions, MQTT 5 only", () => {
  let rig: Rig;
  let publisher: TestClient;
  beforeEach(async () => {
    rig = new Rig({ store: new MemoryStore() });
    publisher = await rig.client(5, "p");
  });
  afterEach(() => rig.close());

  it("the same filter again replaces every option: identifier, No Local, Retain As Published [MQTT-3.8.4-3]", async () => {
    for (const more of [{}, durable(5)]) {
      const client = await rig.client(5, "a", more);
      await client.subscribe("t", 1, { id: 5, nl: true, rap: true });
      client.publish("t", "mine", 1);
      publisher.publish("t", "1", 1, { retain: true });
      const first = await client.next("publish");
      expect([text(first), first.retain, identifiers(first)]).to.deep.equal(["1", true, [5]]);
      client.send({ cmd: "puback", messageId: first.messageId as number });
      await client.subscribe("t", 1, { rh: 2 });
      client.publish("t", "mine", 1);
      const second = await client.next("publish");
      expect([text(second), second.retain, identifiers(second)]).to.deep.equal(["mine", false, []]);
      client.drop();
      await turns();
    }
  });

  it("a replaced subscription is what a restart finds", async () => {
    const client = await rig.client(5, "a", durable(5));
    await client.subscribe("t", 2, { id: 5, nl: true, rap: true });
    await client.subscribe("t", 1);
    const next = new Rig({ store: rig.store.crash() });
    const again = await next.client(5, "a", durable(5));
    again.publish("t", "x", 2, { retain: true });
    const got = await again.next("publish");
    expect([got.qos, got.retain, identifiers(got)]).to.deep.equal([1, false, []]);
    await next.close();
  });

  it("Retain Handling 1 looks at whether the subscription is there, in a resumed session as well [MQTT-3.3.1-10]", async () => {
    publisher.publish("t", "kept", 1, { retain: true });
    const client = await rig.client(5, "a", durable(5));
    await client.subscribe("t", 0, { rh: 1 });
    expect(payloads(await client.take())).to.deep.equal(["kept"]);
    client.drop();
    await turns();
    const again = await rig.client(5, "a", durable(5));
    await again.subscribe("t", 0, { rh: 1 });
    expect(payloads(await again.take())).to.deep.equal([]);
    again.send({ cmd: "unsubscribe", messageId: 3, unsubscriptions: ["t"] });
    await again.next("unsuback");
    await again.subscribe("t", 0, { rh: 1 });
    expect(payloads(await again.take())).to.deep.equal(["kept"]);
  });

  it("No Local holds for what the client itself retained [MQTT-3.8.3-3], also after a restart", async () => {
    const client = await rig.client(5, "a");
    client.publish("r/mine", "mine", 1, { retain: true });
    publisher.publish("r/theirs", "theirs", 1, { retain: true });
    await client.next("puback");
    await publisher.next("puback");
    await client.subscribe("r/+", 1, { nl: true });
    expect(payloads(await client.take())).to.deep.equal(["theirs"]);
    const next = new Rig({ store: rig.store.crash() });
    await next.broker.ready;
    const again = await next.client(5, "a");
    await again.subscribe("r/+", 1, { nl: true });
    expect(payloads(await again.take())).to.deep.equal(["theirs"]);
    await next.close();
  });

  it("a retained message carries the identifier of the subscription that brought it, at every QoS", async () => {
    for (const qos of [0, 1, 2] as const) {
      publisher.publish("t", `q${qos}`, qos, { retain: true, messageId: qos + 1 });
      await turns();
      const client = await rig.client(5, `a${qos}`, durable(5));
      await client.subscribe("t", 0, { id: 1, rh: 2 });
      await client.subscribe("#", qos, { id: 2 });
      expect(identifiers(await client.next("publish"))).to.deep.equal([2]);
      client.drop();
      await turns();
    }
  });

  it("share names that are none end the connection [MQTT-4.8.2-1, -2]", async () => {
    for (const filter of ["$share//t", "$share/a", "$share/a/", "$share/a+/t", "$share/#/t", "$share/"]) {
      const client = await rig.client(5, "a");
      client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: filter, qos: 0 }] });
      expect((await client.next("disconnect")).reasonCode, filter).to.equal(0x8f);
    }
  });
});
