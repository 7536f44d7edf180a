import { expect } from "chai";
import { connectPacket, durable, Rig, turns, versions } from "../helpers/brokerRig.ts";

for (const version of versions) {
  describe(`CONNECT, MQTT ${version}`, () => {
    let rig: Rig;
    beforeEach(() => {
      rig = new Rig();
    });
    afterEach(() => rig.close());

    it("accepts, and answers PINGREQ [MQTT-3.12.4-1]", async () => {
      const client = await rig.client(version, "a");
      client.send({ cmd: "pingreq" });
      await client.next("pingresp");
      expect(rig.broker.stats().connections).to.equal(1);
    });

    it("closes when the first packet is not CONNECT [MQTT-3.1.0-1]", async () => {
      const client = rig.open(version);
      client.send({ cmd: "pingreq" });
      await client.gone();
      expect(rig.broker.stats().connections).to.equal(0);
    });

    it("closes on a second CONNECT [MQTT-3.1.0-2]", async () => {
      const client = await rig.client(version, "a");
      client.send(connectPacket(version, "a"));
      await client.gone();
    });

    it("closes when no CONNECT comes in time", async () => {
      const client = rig.open(version);
      rig.advance(11_000);
      await client.gone();
    });

    it("closes after one and a half times the Keep Alive [MQTT-3.1.2-22]", async () => {
      const client = await rig.client(version, "a", { keepalive: 10 });
      rig.advance(14_000);
      await turns();
      expect(client.closed).to.equal(false);
      rig.advance(2000);
      await client.gone();
      if (version === 5) expect((await client.next("disconnect")).reasonCode).to.equal(0x8d);
    });

    it("takes the session over and tells the older connection [MQTT-3.1.4-3]", async () => {
      const first = await rig.client(version, "a");
      const second = await rig.client(version, "a");
      await first.gone();
      if (version === 5) expect((await first.next("disconnect")).reasonCode).to.equal(0x8e);
      second.send({ cmd: "pingreq" });
      await second.next("pingresp");
      expect(rig.broker.stats()).to.include({ connections: 1, sessions: 1 });
    });

    it("makes an id for an empty one", async () => {
      const client = rig.open(version);
      client.send(connectPacket(version, ""));
      const { code, properties } = await client.connack();
      expect(code).to.equal(0);
      if (version === 5) expect(properties["assignedClientIdentifier"]).to.match(/^auto-/); // [MQTT-3.2.2-16]
    });

    it("refuses ids beyond 256 bytes", async () => {
      const client = rig.open(version);
      client.send(connectPacket(version, "x".repeat(257)));
      expect((await client.connack()).code).to.equal(version === 5 ? 0x85 : 2);
      await client.gone();
    });

    it("refuses what is above maxConnections and maxSessions, but no clean session for what others keep", async () => {
      const small = new Rig({ limits: { maxConnections: 2, maxSessions: 1 } });
      const first = await small.client(version, "a", durable(version));
      const second = small.open(version);
      second.send(connectPacket(version, "b", durable(version)));
      expect((await second.connack()).code).to.equal(version === 5 ? 0x97 : 3);
      await second.gone();
      const clean = await small.client(version, "c");
      clean.send({ cmd: "disconnect", reasonCode: 0 });
      await clean.gone();
      const waiting = small.open(version);
      await small.open(version).gone();
      expect(first.closed || waiting.closed).to.equal(false);
      await small.close();
    });

    it("says whether a session was there [MQTT-3.2.2-2], and forgets it on a clean start [MQTT-3.1.2-4]", async () => {
      const present = async (more: object): Promise<boolean> => {
        const client = rig.open(version);
        client.send(connectPacket(version, "a", more));
        const { sessionPresent } = await client.connack();
        client.send({ cmd: "disconnect", reasonCode: 0 });
        await client.gone();
        return sessionPresent;
      };
      expect(await present(durable(version))).to.equal(false);
      expect(await present(durable(version))).to.equal(true);
      expect(await present({ clean: true })).to.equal(false);
      expect(await present(durable(version))).to.equal(false);
    });
  });
}

describe("CONNECT, one version only", () => {
  let rig: Rig;
  beforeEach(() => {
    rig = new Rig();
  });
  afterEach(() => rig.close());

  it("answers an unknown protocol level with return code 1 [MQTT-3.1.2-2]", async () => {
    const client = rig.open(4);
    client.raw(Buffer.from("100d00044d5154540302003c000161", "hex"));
    expect((await client.connack()).code).to.equal(1);
    await client.gone();
  });

  it("3.1.1: refuses an empty id without Clean Session [MQTT-3.1.3-8]", async () => {
    const client = rig.open(4);
    client.raw(Buffer.from("100c00044d5154540400003c0000", "hex"));
    expect((await client.connack()).code).to.equal(2);
  });

  it("5: announces its limits, and the Server Keep Alive when it must [MQTT-3.2.2-21]", async () => {
    const small = new Rig({ limits: { maxKeepAliveSeconds: 60, receiveMaximum: 7, sessionExpiryMaxMs: 5000 } });
    const client = small.open(5);
    client.send(connectPacket(5, "a", { keepalive: 100, properties: { sessionExpiryInterval: 0xffffffff } }));
    const { properties } = await client.connack();
    expect(properties).to.include({
      serverKeepAlive: 60,
      receiveMaximum: 7,
      sessionExpiryInterval: 5,
      topicAliasMaximum: 16,
    });
    await small.close();
  });

  it("5: refuses extended authentication with 0x8C", async () => {
    const client = rig.open(5);
    client.send(connectPacket(5, "a", { properties: { authenticationMethod: "SCRAM" } }));
    expect((await client.connack()).code).to.equal(0x8c);
  });

  it("5: ends the session when its expiry has passed", async () => {
    const client = await rig.client(5, "a", { properties: { sessionExpiryInterval: 10 } });
    await client.subscribe("t", 1);
    client.send({ cmd: "disconnect", reasonCode: 0 });
    await client.gone();
    expect(rig.broker.stats().sessions).to.equal(1);
    rig.advance(12_000);
    expect(rig.broker.stats()).to.include({ sessions: 0, subscriptions: 0 });
    expect([...rig.store.entries("session")]).to.deep.equal([]);
  });

  it("5: a session expiry in DISCONNECT after none in CONNECT is a protocol error [MQTT-3.14.2-2]", async () => {
    const client = await rig.client(5, "a");
    client.send({ cmd: "disconnect", reasonCode: 0, properties: { sessionExpiryInterval: 5 } });
    expect((await client.next("disconnect")).reasonCode).to.equal(0x82);
  });
});
