import { expect } from "chai";
import {
  chapter,
  disconnect,
  durable,
  hex,
  pingreq,
  pingresp,
  publish,
  published,
  subscribe,
  subscribed,
  violation,
} from "./support.ts";

chapter("PINGREQ", (world) => {
  it("[MQTT-3.12.4-1] is answered with PINGRESP", async () => {
    const wire = await world().join("a");
    wire.send(hex("c000"));
    await wire.gets(hex("d000"));
  });

  it("[MQTT-3.12.4-1] each of many, in one write", async () => {
    const wire = await world().join("a");
    wire.send(...Array.from({ length: 50 }, () => pingreq));
    await wire.gets(...Array.from({ length: 50 }, () => pingresp));
    await wire.quiet();
  });

  it("[MQTT-3.12.4-1] in two pieces", async () => {
    const wire = await world().join("a");
    wire.send(hex("c0"));
    await wire.quiet();
    wire.send(hex("00"));
    await wire.gets(pingresp);
  });
});

chapter("DISCONNECT", (world) => {
  it("[MQTT-3.14.4-3] the server ends the connection, without an answer", async () => {
    const wire = await world().join("a");
    wire.send(disconnect);
    await wire.ends();
    expect(world().rig.broker.stats().connections).to.equal(0);
  });

  for (const flags of [1, 2, 4, 8, 15]) {
    it(`[MQTT-3.14.1-1] with reserved bits ${flags} is a violation, so the Will is published`, () =>
      violation(world(), Buffer.from([0xe0 | flags, 0])));
  }

  it("[MQTT-3.14.4-1] [MQTT-3.14.4-2] what a client sends after it is not processed", async () => {
    const watcher = await world().subscriber("watcher", ["#", 0]);
    const wire = await world().join("a");
    wire.send(disconnect, publish("t", "p", { retain: true }), subscribe(1, ["#", 0]), pingreq);
    await wire.ends();
    await watcher.lives();
    await (await world().subscriber("later", ["#", 0])).quiet();
  });

  it("[MQTT-3.1.2-4] keeps the session with Clean Session 0", async () => {
    const wire = await world().join("a", durable);
    await subscribed(wire, ["t", 1]);
    await wire.leave();
    await published(await world().join("p"), "t", "p");
    await (await world().join("a", durable, true)).receives("t", "p", { qos: 1 });
  });

  it("[MQTT-3.1.2-6] ends the session with Clean Session 1", async () => {
    await (await world().subscriber("a", ["t", 1])).leave();
    expect(world().rig.broker.stats()).to.include({ sessions: 0, subscriptions: 0 });
    await world().join("a", durable, false);
  });

  it("[MQTT-3.14.4-3] what was sent before it is processed", async () => {
    const watcher = await world().subscriber("watcher", ["#", 0]);
    const wire = await world().join("a");
    wire.send(publish("t", "1"), publish("t", "2"), disconnect);
    await wire.ends();
    await watcher.gets(publish("t", "1"), publish("t", "2"));
  });
});
