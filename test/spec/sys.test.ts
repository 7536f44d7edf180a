// $SYS/broker/... as Mosquitto 2.0.11 publishes it: the names are a copy of what `mosquitto_sub -t '$SYS/#'` lists there.
import { expect } from "chai";
import { durable, Rig, type TestClient, text, turns, versions } from "../helpers/brokerRig.ts";

const spans = ["1min", "5min", "15min"];
const loads = ["messages/received", "messages/sent", "publish/dropped", "publish/received", "publish/sent"]
  .concat("bytes/received", "bytes/sent", "sockets", "connections")
  .flatMap((name) => spans.map((span) => `load/${name}/${span}`));
const names = [
  ...["bytes/received", "bytes/sent", "clients/active", "clients/connected", "clients/disconnected", "clients/expired"],
  ...["clients/inactive", "clients/maximum", "clients/total", "heap/current", "heap/maximum", "messages/received"],
  ...["messages/sent", "messages/stored", "publish/bytes/received", "publish/bytes/sent", "publish/messages/dropped"],
  ...["publish/messages/received", "publish/messages/sent", "retained messages/count", "shared_subscriptions/count"],
  ...["store/messages/bytes", "store/messages/count", "subscriptions/count", "uptime", "version", ...loads],
].sort();

describe("$SYS", () => {
  let rig: Rig;
  let watcher: TestClient;
  const seen = new Map<string, string>();
  beforeEach(async () => {
    rig = new Rig();
    seen.clear();
    rig.advance(1000); // the first values are there before anybody watches
    watcher = await rig.client(5, "watcher");
    await watcher.subscribe("$SYS/#");
    await look();
  });
  afterEach(() => rig.close());

  async function look(): Promise<void> {
    for (const packet of await watcher.take()) {
      if (packet.cmd === "publish") seen.set(packet.topic.replace("$SYS/broker/", ""), text(packet));
    }
  }

  /** What was published 10 s later. */
  async function later(): Promise<(name: string) => string> {
    rig.advance(10_000);
    await look();
    return (name) => seen.get(name) ?? "never";
  }

  it("has the names of Mosquitto, retained, and publishes what has changed", async () => {
    expect([...seen.keys()].sort()).to.deep.equal(names);
    expect(seen.get("version")).to.match(/^tidegate version /);
    expect(Number(seen.get("heap/current"))).to.be.above(1e6);
    seen.clear();
    const value = await later();
    expect(value("uptime")).to.equal("10 seconds");
    expect(value("version"), "unchanged").to.equal("never");
  });

  it("clients: connected, disconnected, in all, at most, expired", async () => {
    const one = await rig.client(5, "one", durable(5));
    const two = await rig.client(4, "two");
    let value = await later();
    expect(["connected", "active", "total", "maximum"].map((name) => value(`clients/${name}`))).to.deep.equal(
      new Array(4).fill("3"),
    );
    one.drop();
    two.drop();
    await Promise.all([one.gone(), two.gone()]);
    value = await later();
    expect(value("clients/connected")).to.equal("1");
    expect([value("clients/disconnected"), value("clients/inactive")]).to.deep.equal(["1", "1"]);
    expect([value("clients/total"), value("clients/maximum")]).to.deep.equal(["2", "3"]);
    rig.advance(3_600_000);
    value = await later();
    expect([value("clients/expired"), value("clients/disconnected")]).to.deep.equal(["1", "0"]);
  });

  it("messages are packets of every kind, publish/ only PUBLISH; bytes of payloads", async () => {
    const value = await later();
    const now = (name: string): number => Number(value(name));
    const packets = [now("messages/received"), now("messages/sent"), now("publish/messages/received")];
    const payload = [now("publish/bytes/received"), now("publish/bytes/sent")];
    const client = await rig.client(5, "c"); // CONNECT, CONNACK
    await client.subscribe("t", 1); // SUBSCRIBE, SUBACK
    client.publish("t", "12345", 1); // PUBLISH, PUBACK, and PUBLISH back
    const { messageId = 0 } = await client.next("publish");
    client.send({ cmd: "puback", messageId });
    client.publish("t", "12", 0); // the fast lane from the second on
    client.publish("t", "123", 0);
    client.send({ cmd: "pingreq" });
    await client.next("pingresp");
    rig.advance(10_000);
    const sentMeanwhile = await watcher.take();
    const sys = sentMeanwhile.filter(({ cmd }) => cmd === "publish");
    for (const packet of sys)
      if (packet.cmd === "publish") seen.set(packet.topic.replace("$SYS/broker/", ""), text(packet));
    expect(now("messages/received") - (packets[0] ?? 0), "C S P A P P R").to.equal(7);
    expect(now("publish/messages/received") - (packets[2] ?? 0)).to.equal(3);
    expect(now("publish/bytes/received") - (payload[0] ?? 0)).to.equal(10);
    const publishes = now("publish/messages/sent");
    const others = now("messages/sent") - publishes;
    expect(others, "2 CONNACK, 2 SUBACK, PUBACK, PINGRESP").to.equal(6);
    expect(now("publish/bytes/sent")).to.be.above(payload[1] ?? 0);
    expect(now("bytes/received")).to.equal(Number(seen.get("bytes/received")));
  });

  it("subscriptions, shared ones, retained, stored", async () => {
    const plain = Number((await later())("subscriptions/count"));
    const retained = Number(seen.get("retained messages/count"));
    const client = await rig.client(5, "c", durable(5));
    await client.subscribe("$share/g/t", 1);
    await client.subscribe("a/#", 1);
    client.drop();
    await client.gone();
    const publisher = await rig.client(5, "p");
    publisher.publish("t", "waits for the group", 1);
    publisher.publish("a/b", "waits for one, retained", 1, { retain: true, messageId: 2 });
    await turns();
    const value = await later();
    expect(Number(value("subscriptions/count"))).to.equal(plain + 1);
    expect(value("shared_subscriptions/count")).to.equal("1");
    expect(Number(value("retained messages/count"))).to.equal(retained + 1);
    expect(Number(value("store/messages/count"))).to.equal(retained + 3);
    expect(value("messages/stored")).to.equal(value("store/messages/count"));
    expect(Number(value("store/messages/bytes"))).to.be.above(40);
  });

  it("load/: what there was in a minute, averaged exponentially over 1, 5 and 15", async () => {
    const value = await later();
    const start = spans.map((span) => Number(value(`load/connections/${span}`)));
    for (let at = 0; at < 6; at += 1) await rig.client(5, `c${at}`);
    await later();
    spans.forEach((span, at) => {
      const kept = Math.exp(-10 / (60 * [1, 5, 15][at]!));
      const expected = 36 + kept * ((start[at] ?? 0) - 36); // six in 10 s are 36 in a minute
      expect(Number(value(`load/connections/${span}`)), span).to.be.closeTo(expected, 0.02);
    });
    const peak = Number(value("load/connections/1min"));
    for (let at = 0; at < 6; at += 1) await later();
    expect(Number(value("load/connections/1min"))).to.be.closeTo(peak * Math.exp(-1), 0.1);
    expect(value("load/publish/dropped/1min")).to.equal("0.00");
  });

  for (const version of versions) {
    it(`a client publishes to no topic that begins with $, MQTT ${version}`, async () => {
      const all = await rig.client(version, "all");
      for (const filter of ["$SYS/#", "$x/#", "$share/g/$x/#"]) await all.subscribe(filter);
      await all.take();
      const client = await rig.client(version, "c");
      for (const topic of ["$SYS/broker/version", "$x/y", "$share/g/t"]) {
        client.publish(topic, "mine", 0);
        client.publish(topic, "mine", 1);
        expect((await client.next("puback")).reasonCode ?? 0, topic).to.equal(version === 5 ? 0x87 : 0);
      }
      expect(await all.take()).to.deep.equal([]);
      expect(rig.dropped("sys-topic")).to.equal(6);
    });
  }
});
