/** Last wills against take-over, clean start, session end, delays and restarts (MQTT 5 sections 3.1.2.5 and 3.1.3.2). */
import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import { connectPacket, durable, Rig, type TestClient, text, turns, versions } from "../helpers/brokerRig.ts";
import { MemoryStore } from "../helpers/memoryStore.ts";

const payloads = (packets: Packet[]): string[] =>
  packets.flatMap((packet) => (packet.cmd === "publish" ? [text(packet)] : []));

const will = (payload = "gone", more: object = {}) => ({
  ...{ topic: "will", payload: Buffer.from(payload), qos: 1 as const, retain: false },
  ...more,
});
const delayed = (seconds: number, payload = "gone") => will(payload, { properties: { willDelayInterval: seconds } });
const keeps = (seconds: number) => ({ clean: false, properties: { sessionExpiryInterval: seconds } });

async function watcher(rig: Rig): Promise<TestClient> {
  const client = await rig.client(5, "w");
  await client.subscribe("will", 1);
  return client;
}

for (const version of versions) {
  describe(`wills, MQTT ${version}`, () => {
    it("take-over publishes the older connection's [MQTT-3.1.4-3], for clean and kept sessions", async () => {
      const rig = new Rig();
      const watch = await watcher(rig);
      for (const more of [{ clean: true }, durable(version)]) {
        const first = await rig.client(version, "a", { ...more, will: will("first") });
        await rig.client(version, "a", more);
        await first.gone();
        expect(payloads(await watch.take())).to.deep.equal(["first"]);
        await rig.client(version, "a"); // without a will: the next round's take-over brings none of it
        expect(payloads(await watch.take())).to.deep.equal([]);
      }
      await rig.close();
    });

    it("after a stop they are published by the next start, once [MQTT-3.1.2-8]", async () => {
      const rig = new Rig();
      const keeper = await rig.client(version, "k", durable(version));
      await keeper.subscribe("will", 1);
      await rig.client(version, "a", { will: will("stopped", { retain: true }) });
      await rig.client(version, "b", { will: will("polite") }).then((client) => client.send({ cmd: "disconnect" }));
      await turns();
      await rig.close();
      rig.store.settle();
      const next = new Rig({ store: rig.store.crash() });
      await next.broker.ready;
      next.advance(1000);
      await turns();
      expect(next.broker.stats().queued).to.equal(1);
      const late = await next.client(version, "late");
      await late.subscribe("will", 1);
      expect(payloads(await late.take())).to.deep.equal(["stopped"]);
      const again = await next.client(version, "k", durable(version));
      expect(payloads(await again.take())).to.deep.equal(["stopped"]);
      expect([...next.store.entries("will")]).to.deep.equal([]);
      await next.close();
    });

    it("after a crash the clients that were connected count as gone", async () => {
      const rig = new Rig({ store: new MemoryStore({ hold: true }) });
      for (const [id, more] of [["a", {}] as const, ["b", durable(version)] as const]) {
        await rig.client(version, id, { ...more, will: will(id) });
      }
      rig.store.settle();
      const next = new Rig({ store: rig.store.crash() });
      const watch = await watcher(next);
      const early = await next.client(version, "b", durable(version)); // before the first tick: its delay of 0 was over
      expect(payloads(await watch.take())).to.deep.equal(["b"]);
      next.advance(1000);
      expect(payloads(await watch.take())).to.deep.equal(["a"]);
      expect(early.closed).to.equal(false);
      await next.close();
      await rig.close();
    });
  });
}

describe("wills, MQTT 5 only", () => {
  let rig: Rig;
  let watch: TestClient;
  beforeEach(async () => {
    rig = new Rig();
    watch = await watcher(rig);
  });
  afterEach(() => rig.close());

  it("take-over within the delay sends none when the session goes on [MQTT-3.1.3-9]", async () => {
    await rig.client(5, "a", { ...keeps(100), will: delayed(5) });
    await rig.client(5, "a", keeps(100));
    rig.advance(10_000);
    expect(payloads(await watch.take())).to.deep.equal([]);
  });

  it("take-over with Clean Start ends the session, so the delayed will is sent", async () => {
    await rig.client(5, "a", { ...keeps(100), will: delayed(50) });
    await rig.client(5, "a", { ...keeps(100), clean: true });
    expect(payloads(await watch.take())).to.deep.equal(["gone"]);
  });

  it("Clean Start after the connection was lost, too; the new connection's own will stays", async () => {
    const first = await rig.client(5, "a", { ...keeps(100), will: delayed(50, "first") });
    first.drop();
    await turns();
    const second = await rig.client(5, "a", { clean: true, will: will("second") });
    expect(payloads(await watch.take())).to.deep.equal(["first"]);
    second.drop();
    expect(payloads(await watch.take())).to.deep.equal(["second"]);
  });

  it("the session's end comes before a longer delay", async () => {
    const client = await rig.client(5, "a", { ...keeps(5), will: delayed(60) });
    client.drop();
    await turns();
    rig.advance(4000);
    expect(payloads(await watch.take())).to.deep.equal([]);
    rig.advance(1250);
    expect(payloads(await watch.take())).to.deep.equal(["gone"]);
  });

  it("a delay without a session is none", async () => {
    const client = await rig.client(5, "a", { will: delayed(60) });
    client.drop();
    expect(payloads(await watch.take())).to.deep.equal(["gone"]);
  });

  it("a Session Expiry of 0 in DISCONNECT 0x04 ends session and delay", async () => {
    const client = await rig.client(5, "a", { ...keeps(100), will: delayed(60) });
    client.send({ cmd: "disconnect", reasonCode: 4, properties: { sessionExpiryInterval: 0 } });
    expect(payloads(await watch.take())).to.deep.equal(["gone"]);
  });

  it("only a DISCONNECT with 0x00 removes it [MQTT-3.14.4-3]", async () => {
    for (const reasonCode of [0x00, 0x04, 0x80, 0x81, 0x83, 0x97]) {
      const client = await rig.client(5, "a", { will: will() });
      client.send({ cmd: "disconnect", reasonCode });
      await client.gone();
      expect(payloads(await watch.take()), String(reasonCode)).to.deep.equal(reasonCode === 0 ? [] : ["gone"]);
    }
  });

  it("a protocol error in DISCONNECT sends it", async () => {
    const client = await rig.client(5, "a", { will: will() });
    client.send({ cmd: "disconnect", reasonCode: 0, properties: { sessionExpiryInterval: 5 } });
    expect((await client.next("disconnect")).reasonCode).to.equal(0x82);
    expect(payloads(await watch.take())).to.deep.equal(["gone"]);
  });

  it("goes out with all its properties, its expiry counted from when it is published", async () => {
    const properties = {
      willDelayInterval: 10,
      payloadFormatIndicator: true,
      messageExpiryInterval: 20,
      contentType: "text/plain",
      responseTopic: "r",
      correlationData: Buffer.from([0, 255]),
      userProperties: { b: ["1", "2"], a: "3" },
    };
    const client = await rig.client(5, "a", { ...keeps(100), will: will("gone", { properties }) });
    client.drop();
    await turns();
    rig.advance(15_000);
    const got = await watch.next("publish");
    const { willDelayInterval: _delay, ...rest } = properties;
    expect(JSON.parse(JSON.stringify(got.properties))).to.deep.equal(JSON.parse(JSON.stringify(rest)));
  });

  it("a delay goes on over a stop, and a client that is back in time keeps it unsent", async () => {
    for (const id of ["a", "b"]) await rig.client(5, id, { ...keeps(100), will: delayed(10, id) });
    (await rig.client(5, "w2")).drop();
    await turns();
    await rig.close();
    rig.store.settle();
    const next = new Rig({ store: rig.store.crash() });
    next.store.timeMs += 4000;
    const again = await watcher(next);
    await next.client(5, "b", keeps(100));
    next.advance(5000);
    expect(payloads(await again.take())).to.deep.equal([]);
    next.advance(1250);
    expect(payloads(await again.take())).to.deep.equal(["a"]);
    next.advance(20_000);
    expect(payloads(await again.take())).to.deep.equal([]);
    await next.close();
  });

  it("a session that is not there any more does not hold its will back", async () => {
    await rig.client(5, "a", { ...keeps(100), will: delayed(50) });
    rig.store.commit((txn) => txn.delete("session", "a")); // as a rotten record is found
    await turns();
    const next = new Rig({ store: rig.store.crash() });
    const again = await watcher(next);
    const client = next.open(5);
    client.send(connectPacket(5, "a", keeps(100)));
    expect((await client.connack()).sessionPresent).to.equal(false);
    expect(payloads(await again.take())).to.deep.equal(["gone"]);
    await next.close();
  });

  it("one that finds no room in the store is counted, and published all the same", async () => {
    rig.store.verdict = "full";
    const client = await rig.client(5, "a", { will: will("x", { qos: 0 }) });
    expect(rig.dropped("will-not-stored")).to.equal(1);
    expect([...rig.store.entries("will")]).to.deep.equal([]);
    client.drop();
    expect(payloads(await watch.take())).to.deep.equal(["x"]);
  });

  it("a will with a bad topic, flags or response topic is refused in the CONNACK", async () => {
    for (const bad of [{ topic: "a/#" }, { properties: { responseTopic: "r/+" } }]) {
      const client = rig.open(5);
      client.send(connectPacket(5, "x", { will: will("x", bad) }));
      expect((await client.connack()).code).to.be.at.least(0x80);
      await client.gone();
    }
  });
});
