import {
  chapter,
  connack,
  connect,
  disconnect,
  durable,
  hex,
  publish,
  published,
  type Wire,
  type World,
} from "./support.ts";

const will = { topic: "will", payload: "gone" };
const message = publish("will", "gone");

chapter("the Will Message is published", (world) => {
  let watcher: Wire;
  beforeEach(async () => {
    watcher = await world().subscriber("watcher", ["#", 2]);
  });

  const ends: ReadonlyArray<readonly [string, (wire: Wire, world: World) => Promise<void> | void]> = [
    ["the network fails", (wire) => wire.drop()],
    ["nothing came within the Keep Alive", (_, { rig }) => rig.advance(16_000)],
    ["the client broke the protocol", (wire) => wire.send(hex("f000"))],
    ["another connection took its client id", async (_, world) => void (await world.join("a"))],
    ["the server closes it for a reason of its own", (_, { rig }) => void rig.broker.disconnect("a")],
  ];
  for (const [when, end] of ends) {
    it(`[MQTT-3.1.2-8] once, when ${when}`, async () => {
      const wire = await world().join("a", { keepAlive: 10, will });
      await watcher.quiet();
      await end(wire, world());
      await wire.ends();
      await watcher.gets(message);
      await watcher.lives();
    });
  }

  it("[MQTT-3.1.2-8] of a session that is kept as well", async () => {
    await (await world().join("a", { ...durable, will })).drop();
    await watcher.gets(message);
  });

  it("[MQTT-3.1.2-8] [MQTT-3.1.3-10] with an empty payload", async () => {
    await (await world().join("a", { will: { topic: "w" } })).drop();
    await watcher.gets(publish("w", ""));
  });

  it("[MQTT-3.1.2-9] with its QoS", async () => {
    await (await world().join("a", { will: { ...will, qos: 1 } })).drop();
    await watcher.receives("will", "gone", { qos: 1 });
    await (await world().join("b", { will: { ...will, qos: 2 } })).drop();
    await watcher.receives("will", "gone", { qos: 2 });
  });

  it("[MQTT-3.1.2-16] not retained when Will Retain is 0", async () => {
    await (await world().join("a", { will })).drop();
    await watcher.gets(message);
    await (await world().subscriber("later", ["#", 2])).quiet();
  });

  it("[MQTT-3.1.2-16] and leaves what was retained before", async () => {
    await published(await world().join("p"), "will", "kept", { retain: true });
    await (await world().join("a", { will })).drop();
    await (await world().subscriber("later", ["will", 0])).gets(publish("will", "kept", { retain: true }));
  });

  for (const qos of [0, 1, 2] as const) {
    it(`[MQTT-3.1.2-17] [MQTT-3.1.2-9] retained when Will Retain is 1, QoS ${qos}`, async () => {
      await (await world().join("a", { will: { ...will, qos, retain: true } })).drop();
      await watcher.receives("will", "gone", { qos });
      await (await world().subscriber("later", ["#", 2])).receives("will", "gone", {
        ...{ qos, retain: true },
      });
    });
  }

  it("[MQTT-3.1.2-17] an empty retained Will removes what was retained [MQTT-3.3.1-11]", async () => {
    await published(await world().join("p"), "will", "kept", { retain: true });
    await (await world().join("a", { will: { topic: "will", retain: true } })).drop();
    await watcher.take();
    await (await world().subscriber("later", ["#", 2])).quiet();
  });

  it("[MQTT-3.1.2-5] [MQTT-4.5.0-1] to a session that is away, when it comes back", async () => {
    const sleeper = await world().join("s", durable);
    sleeper.send(hex("8209 0001 0004 77696c6c 01"));
    await sleeper.gets(hex("9003000101"));
    await sleeper.drop();
    await (await world().join("a", { will: { ...will, qos: 1 } })).drop();
    await watcher.take();
    const back = await world().join("s", durable, true);
    await back.receives("will", "gone", { qos: 1 });
  });
});

chapter("the Will Message is not published", (world) => {
  let watcher: Wire;
  beforeEach(async () => {
    watcher = await world().subscriber("watcher", ["#", 2]);
  });

  it("[MQTT-3.14.4-3] [MQTT-3.1.2-8] [MQTT-3.1.2-10] after DISCONNECT", async () => {
    await (await world().join("a", { will: { ...will, retain: true } })).leave();
    await watcher.lives();
    await (await world().subscriber("later", ["#", 2])).quiet();
  });

  it("[MQTT-3.14.4-3] after DISCONNECT and the end of the stream in one", async () => {
    const wire = await world().join("a", { will });
    wire.send(disconnect);
    await wire.drop();
    await watcher.quiet();
  });

  it("[MQTT-3.1.2-12] when there was none", async () => {
    await (await world().join("a")).drop();
    await watcher.lives();
  });

  it("[MQTT-3.1.2-10] a second time, when its session goes on without one", async () => {
    await (await world().join("a", { ...durable, will })).drop();
    await watcher.gets(message);
    await (await world().join("a", durable, true)).drop();
    await watcher.lives();
  });

  it("[MQTT-3.1.2-10] after DISCONNECT, when its session goes on without one", async () => {
    await (await world().join("a", { ...durable, will })).leave();
    await (await world().join("a", durable, true)).drop();
    await watcher.lives();
  });

  it("[MQTT-3.1.2-8] of a CONNECT that was refused", async () => {
    const wire = world().open();
    wire.send(connect("", { ...durable, will }));
    await wire.ends(connack(2));
    await watcher.lives();
  });

  it("[MQTT-3.1.2-8] [MQTT-3.1.2-12] but the one of the newer connection, after it took the client id", async () => {
    await world().join("a", { will });
    const second = await world().join("a", { will: { topic: "second", payload: "s" } });
    await watcher.gets(message);
    await second.drop();
    await watcher.gets(publish("second", "s"));
    await watcher.lives();
  });
});
