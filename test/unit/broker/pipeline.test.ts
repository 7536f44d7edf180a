import { expect } from "chai";
import { generate, type Packet } from "mqtt-packet";
import type { Forward, Route } from "../../../src/base/contracts.ts";
import type { Message } from "../../../src/base/message.ts";
import { Rig, text, turns, versions } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";

const message = (topic: string, more: Partial<Message> = {}): Message => ({
  ...{ topic, payload: Buffer.from("x"), qos: 1, retain: false, source: "source:test" },
  ...more,
});

const stored = (uplink: string, whenFull: "drop-oldest" | "reject-newest" = "reject-newest"): Forward => ({
  ...{ kind: "stored", uplink, lane: 3, rule: 9, ttlMs: undefined, whenFull },
});

/** A route that copies to another topic. */
const copy = (name: string, to: (topic: string) => string, times = 1): Route => ({
  name,
  apply: (from) => Array.from({ length: times }, () => ({ ...from, topic: to(from.topic), source: `route:${name}` })),
});

describe("publish pipeline", () => {
  it("derives by routes, delivers the original and what came of it, in one commit", async () => {
    const rig = new Rig({
      routes: (topic) => (topic === "raw" ? [copy("r", () => "cooked")] : []),
      forwards: () => [stored("cloud")],
    });
    const seen: string[] = [];
    rig.broker.subscribe("#", ({ topic }) => {
      seen.push(topic);
      return undefined;
    });
    const result = rig.broker.publish(message("raw"));
    expect(result).to.deep.equal({ accepted: true, group: 1 });
    expect(seen).to.deep.equal(["raw", "cooked"]);
    expect(rig.store.commits).to.equal(1);
    expect([...rig.store.takers.values()].flat().map(({ lane, rule }) => [lane, rule])).to.deep.equal([
      [3, 9],
      [3, 9],
    ]);
    await rig.close();
  });

  it("refuses a source's QoS 0 reading that finds no room: its device would take the acknowledgement for a promise", async () => {
    const rig = new Rig({ forwards: () => [stored("cloud")] });
    rig.store.verdict = "full";
    const reading = message("a", { qos: 0, source: "source:boiler" });
    expect(rig.broker.publish(reading)).to.deep.equal({ accepted: false, reason: "full" });
    expect(rig.broker.publish({ ...reading, source: "mqtt:x" })).to.deep.equal({ accepted: true, group: 0 });
    await rig.close();
  });

  it("does not give an uplink back what it brought, but gives it to others", async () => {
    const rig = new Rig({ forwards: () => [stored("cloud"), { ...stored("second"), lane: 4 } as Forward] });
    rig.broker.publish(message("cmd/x", { source: "uplink:cloud" }));
    expect([...rig.store.takers.values()].flat().map(({ lane }) => lane)).to.deep.equal([4]);
    await rig.close();
    const alone = new Rig({ forwards: () => [stored("cloud")] });
    expect(alone.broker.publish(message("cmd/x", { source: "uplink:cloud" }))).to.deep.equal({
      accepted: true,
      group: 0,
    });
    await alone.close();
  });

  it("ends circles of routes, bounds depth and number, and counts", async () => {
    const circle = new Rig({
      routes: (topic) => (topic === "a" ? [copy("ab", () => "b")] : topic === "b" ? [copy("ba", () => "a")] : []),
    });
    const seen: string[] = [];
    circle.broker.subscribe("#", ({ topic }) => {
      seen.push(topic);
      return undefined;
    });
    circle.broker.publish(message("a"));
    expect(seen).to.deep.equal(["a", "b", "a"]);
    expect(circle.dropped("route-loop")).to.equal(1);
    const flood = new Rig({ routes: (topic) => (topic === "a" ? [copy("many", () => "b", 100)] : []) });
    let delivered = 0;
    flood.broker.subscribe("b", () => {
      delivered += 1;
    });
    flood.broker.publish(message("a"));
    expect([delivered, flood.dropped("route-limit")]).to.deep.equal([64, 36]);
    const deep = new Rig({
      routes: (topic) => [copy(`r${topic.length}`, (from) => `${from}x`)],
    });
    const chain: string[] = [];
    deep.broker.subscribe("#", ({ topic }) => {
      chain.push(topic);
      return undefined;
    });
    deep.broker.publish(message("t"));
    expect(chain).to.have.length(9); // the original and eight levels
    await Promise.all([circle.close(), flood.close(), deep.close()]);
  });

  it("refuses the whole of it when a reject-newest uplink of a derived message is full", async () => {
    const rig = new Rig({
      routes: (topic) => (topic === "raw" ? [copy("r", () => "cooked")] : []),
      forwards: (topic) => (topic === "cooked" ? [stored("cloud")] : []),
    });
    rig.store.verdict = ({ rejectNewest }) => (rejectNewest.includes("cloud") ? "full" : "ok");
    const seen: string[] = [];
    rig.broker.subscribe("#", ({ topic }) => {
      seen.push(topic);
      return undefined;
    });
    expect(rig.broker.publish(message("raw"))).to.deep.equal({ accepted: false, reason: "full" });
    expect([seen, rig.store.commits]).to.deep.equal([[], 0]);
    expect(rig.broker.publish(message("other"))).to.deep.equal({ accepted: true, group: 0 });
    expect(rig.broker.publish(message("a/+"))).to.deep.equal({ accepted: false, reason: "invalid" });
    await rig.close();
  });

  it("a QoS 0 reading that an uplink stores has a group to wait for", async () => {
    const rig = new Rig({ store: new MemoryStore({ hold: true }), forwards: () => [stored("cloud")] });
    const result = rig.broker.publish(message("t", { qos: 0 }));
    const told: boolean[] = [];
    if (result.accepted) rig.broker.whenDurable(result.group, (durable) => told.push(durable));
    await turns();
    expect(told).to.deep.equal([]);
    rig.store.settle();
    expect(told).to.deep.equal([true]);
    await rig.close();
  });

  it("live forwards get the message and nothing is stored; sys is never stored", async () => {
    const sent: string[] = [];
    const live: Forward = { kind: "live", uplink: "u", send: ({ topic }) => sent.push(topic) };
    const rig = new Rig({ forwards: (topic) => (topic.startsWith("$") ? [stored("cloud")] : [live]) });
    rig.broker.publish(message("t", { qos: 0 }));
    rig.broker.publish(message("$SYS/tidegate/x", { source: "sys", retain: true }));
    expect([sent, rig.store.commits, rig.broker.stats().retained]).to.deep.equal([["t"], 0, 1]);
    await rig.close();
  });

  for (const version of versions) {
    it(`what several messages of one chunk say is stored as it came, and acknowledged after the sync (MQTT ${version})`, async () => {
      for (const admitted of [0, 1000]) {
        const rig = new Rig({ store: new MemoryStore({ hold: true }), forwards: () => [stored("cloud")] });
        rig.store.admitted = admitted;
        const client = await rig.client(version, "dev");
        const sent = ["one", "", "x".repeat(300), "two", "three"];
        const packets = sent.map((payload, at) => ({
          topic: at < 3 ? "a/1" : "a/2",
          payload,
          qos: 1,
          messageId: at + 1,
        }));
        const rest = { cmd: "publish", retain: false, dup: false } as const;
        const chunk = Buffer.concat(
          packets.map((of) => generate({ ...rest, ...of } as Packet, { protocolVersion: version })),
        );
        for (const piece of [chunk.subarray(0, 30), chunk.subarray(30)]) client.raw(piece);
        expect(await client.take()).to.deep.equal([]);
        rig.store.settle();
        expect((await client.take()).map((packet) => [packet.cmd, packet.messageId])).to.deep.equal(
          [1, 2, 3, 4, 5].map((id) => ["puback", id]),
        );
        const kept = await Promise.all([...rig.store.takers.keys()].map((position) => rig.store.read(position)));
        expect(kept.map((one) => Buffer.from(one!.message.payload).toString())).to.deep.equal(sent);
        expect(kept.map((one) => [one!.message.topic, one!.message.qos, one!.message.source])).to.deep.equal(
          packets.map(({ topic }) => [topic, 1, "mqtt:dev"]),
        );
        await rig.close();
      }
    });
  }

  it("stops reading publishers above 4 MiB not yet durable, and goes on after the sync", async () => {
    const limits = { receiveMaximum: 1000 };
    const rig = new Rig({ store: new MemoryStore({ hold: true }), limits, forwards: () => [stored("cloud")] });
    const client = await rig.client(4, "p");
    const payload = "x".repeat(500_000);
    for (let id = 1; id <= 16; id += 1) client.publish("t", payload, 1, { messageId: id });
    await turns(100);
    expect(rig.broker.stats().received).to.be.within(9, 10);
    for (let round = 0; round < 4; round += 1) {
      rig.store.settle();
      await turns(100);
    }
    expect(rig.broker.stats().received).to.equal(16);
    await rig.close();
  });

  it("a handler may publish, and changed routing is asked again after refresh", async () => {
    let routed = false;
    const rig = new Rig({ routes: () => (routed ? [copy("r", () => "routed")] : []) });
    const subscriber = await rig.client(4, "s");
    await subscriber.subscribe("#", 0);
    const stop = rig.broker.subscribe("in", () => void rig.broker.publish(message("nested")));
    rig.broker.publish(message("in"));
    stop();
    rig.broker.publish(message("in"));
    routed = true;
    rig.broker.refresh();
    rig.broker.publish(message("in"));
    const got = (await subscriber.take()).map((packet) =>
      packet.cmd === "publish" ? `${packet.topic} ${text(packet)}` : "",
    );
    expect(got).to.have.members(["nested x", "in x", "in x", "in x", "routed x"]);
    await rig.close();
  });
});
