import { expect } from "chai";
import {
  chapter,
  complete,
  durable,
  puback,
  publish,
  published,
  pubrec,
  pubrel,
  type Qos,
  subscribed,
  unsuback,
  unsubscribe,
  type Wire,
} from "./support.ts";

chapter("Clean Session 0", (world) => {
  /** The session of "s" with this subscription, its client gone. */
  const asleep = (filter: string, qos: Qos): Promise<void> => world().asleep("s", [filter, qos]);
  const awake = (): Promise<Wire> => world().join("s", durable, true);

  it("[MQTT-3.1.2-4] [MQTT-3.1.4-3] the subscriptions are there when the client comes back", async () => {
    await asleep("t", 1);
    const wire = await awake();
    await published(await world().join("p"), "t", "p");
    await wire.receives("t", "p", { qos: 1 });
  });

  it("[MQTT-3.1.2-5] [MQTT-4.5.0-1] QoS 1 and 2 are stored while it is away, QoS 0 may be", async () => {
    await asleep("#", 2);
    const publisher = await world().join("p");
    for (const qos of [0, 1, 2] as const) await complete(publisher, `t/${qos}`, `${qos}`, qos);
    const seen = await (await awake()).deliveries();
    expect(seen.map(({ topic, payload, qos }) => [topic, payload, qos].join(" ")).join()).to.be.oneOf([
      "t/1 1 1,t/2 2 2",
      "t/0 0 0,t/1 1 1,t/2 2 2",
    ]);
    expect(seen.every(({ dup, retain }) => !dup && !retain)).to.equal(true);
  });

  it("[MQTT-3.1.2-5] with the QoS that was granted", async () => {
    await asleep("t", 1);
    await complete(await world().join("p"), "t", "p", 2);
    await (await awake()).receives("t", "p", { qos: 1 });
  });

  it("[MQTT-3.1.2-5] [MQTT-4.6.0-6] 300 of them, in their order", async () => {
    await asleep("t", 1);
    const publisher = await world().join("p");
    for (let count = 0; count < 300; count += 1) await published(publisher, "t", `${count}`);
    const wire = await awake();
    for (let count = 0; count < 300; count += 1) {
      wire.send(puback(await wire.receives("t", `${count}`, { qos: 1 })));
    }
    await wire.lives();
  });

  it("[MQTT-3.1.2-4] [MQTT-4.1.0-1] a subscription that was deleted is not there again", async () => {
    await asleep("t", 1);
    const wire = await awake();
    wire.send(unsubscribe(1, "t"));
    await wire.gets(unsuback(1));
    await wire.drop();
    await published(await world().join("p"), "t", "p");
    await (await awake()).quiet();
  });

  it("[MQTT-4.1.0-1] [MQTT-3.1.2-4] subscriptions and waiting messages outlive a restart of the server", async () => {
    await asleep("t/#", 2);
    const publisher = await world().join("p");
    await complete(publisher, "t/1", "one", 1);
    await complete(publisher, "t/2", "two", 2);
    await world().restart();
    const wire = await awake();
    await wire.receives("t/1", "one", { qos: 1 });
    await wire.receives("t/2", "two", { qos: 2 });
    await published(await world().join("p"), "t/3", "three");
    await wire.receives("t/3", "three", { qos: 1 });
  });

  it("[MQTT-3.1.2-5] what is published between a restart of the server and the client's return is stored", async () => {
    await asleep("t", 1);
    await world().restart();
    await published(await world().join("p"), "t", "p");
    await (await awake()).receives("t", "p", { qos: 1 });
  });
});

chapter("Clean Session 1", (world) => {
  it("[MQTT-3.1.2-6] [MQTT-3.1.4-3] throws away subscriptions and waiting messages, for good", async () => {
    await world().asleep("s", ["t", 1]);
    const publisher = await world().join("p");
    await published(publisher, "t", "waits");
    const clean = await world().join("s");
    await published(publisher, "t", "next");
    await clean.quiet();
    await clean.leave();
    await (await world().join("s", durable, false)).quiet();
  });

  it("[MQTT-3.1.2-6] throws away what was in flight", async () => {
    const wire = await world().join("s", durable);
    await subscribed(wire, ["t", 2]);
    const publisher = await world().join("p");
    await complete(publisher, "t", "1", 1);
    await complete(publisher, "t", "2", 2);
    await wire.receives("t", "1", { qos: 1 });
    wire.send(pubrec(await wire.receives("t", "2", { qos: 2 })));
    await wire.take();
    await wire.drop();
    await (await world().join("s")).quiet();
  });

  it("[MQTT-3.1.2-6] lasts as long as the connection: nothing of it is used again", async () => {
    const wire = await world().subscriber("s", ["t", 2]);
    const publisher = await world().join("p");
    await complete(publisher, "t", "1", 2);
    await wire.receives("t", "1", { qos: 2 });
    await wire.drop();
    await complete(publisher, "t", "2", 2);
    await (await world().join("s", durable, false)).quiet();
  });

  it("[MQTT-3.1.2-6] is gone after a restart of the server", async () => {
    await world().subscriber("s", ["t", 1]);
    await world().restart();
    await world().join("s", durable, false);
  });
});

chapter(
  "a session that is connected for longer than the server keeps those that are not",
  (world) => {
    for (const clean of [true, false]) {
      it(`[MQTT-4.1.0-2] [MQTT-4.1.0-1] lasts for as long as the connection does, Clean Session ${clean ? 1 : 0}`, async () => {
        const wire = await world().join("s", { clean });
        await subscribed(wire, ["t", 1]);
        world().rig.advance(3_600_000);
        await published(await world().join("p"), "t", "p");
        await wire.receives("t", "p", { qos: 1 });
      });
    }
  },
  { limits: { sessionExpiryMaxMs: 60_000 } },
);

chapter("what is sent again after a reconnect", (world) => {
  it("[MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-4.6.0-6] the PUBLISHes in the order they were sent first, with their ids", async () => {
    const wire = await world().join("s", durable);
    await subscribed(wire, ["t", 2]);
    const publisher = await world().join("p");
    const qosOf = (count: number): 1 | 2 => (count % 3 === 0 ? 2 : 1);
    const ids: number[] = [];
    for (let count = 0; count < 20; count += 1) {
      await complete(publisher, "t", `${count}`, qosOf(count));
      ids.push(await wire.receives("t", `${count}`, { qos: qosOf(count) }));
    }
    wire.send(puback(ids[4] ?? 0), puback(ids[7] ?? 0)); // those in the middle are done
    await wire.lives();
    await wire.drop();
    const again = await world().join("s", durable, true);
    const left = ids.map((id, count) => ({ id, count })).filter(({ count }) => count !== 4 && count !== 7);
    await again.gets(...left.map(({ id, count }) => publish("t", `${count}`, { qos: qosOf(count), id, dup: true })));
    await again.quiet();
  });

  it("[MQTT-4.4.0-1] before what waited, so the order of the topic is kept", async () => {
    const wire = await world().join("s", durable);
    await subscribed(wire, ["t", 1]);
    const publisher = await world().join("p");
    await published(publisher, "t", "first");
    await wire.receives("t", "first", { qos: 1 });
    await wire.drop();
    await published(publisher, "t", "second");
    const again = await world().join("s", durable, true);
    await again.receives("t", "first", { qos: 1, dup: true });
    await again.receives("t", "second", { qos: 1, dup: false });
  });

  it("[MQTT-4.4.0-1] both PUBREL and PUBLISH, each with its id", async () => {
    const wire = await world().join("s", durable);
    await subscribed(wire, ["t", 2]);
    const publisher = await world().join("p");
    const ids: number[] = [];
    for (const payload of ["1", "2", "3"]) {
      await complete(publisher, "t", payload, 2);
      ids.push(await wire.receives("t", payload, { qos: 2 }));
    }
    const [first = 0, second = 0, third = 0] = ids;
    wire.send(pubrec(second));
    await wire.gets(pubrel(second));
    await wire.drop();
    const again = await world().join("s", durable, true);
    const frames = (await again.take()).map((frame) => frame.toString("hex"));
    const expected = [
      publish("t", "1", { qos: 2, id: first, dup: true }),
      publish("t", "3", { qos: 2, id: third, dup: true }),
      pubrel(second),
    ];
    expect(frames).to.have.members(expected.map((bytes) => bytes.toString("hex")));
    const publishes = frames.filter((frame) => frame.startsWith("3"));
    expect(publishes).to.deep.equal(expected.slice(0, 2).map((bytes) => bytes.toString("hex")));
  });

  it("[MQTT-4.4.0-1] what the client published and was not acknowledged is taken again", async () => {
    const watcher = await world().subscriber("watcher", ["t", 0]);
    const wire = await world().join("s", durable);
    wire.send(publish("t", "p", { qos: 2, id: 9 }).subarray(0, 5));
    await wire.drop();
    const again = await world().join("s", durable, true);
    await complete(again, "t", "p", 2, { id: 9, dup: true });
    await watcher.gets(publish("t", "p"));
    await watcher.lives();
  });

  it("[MQTT-4.4.0-1] a client that does not answer gets both messages on its return", async () => {
    const wire = await world().join("myclientid2", durable);
    await subscribed(wire, ["TopicA/#", 2]);
    wire.send(publish("TopicA/B", "", { qos: 1, id: 1 }), publish("TopicA/C", "", { qos: 2, id: 2 }));
    await wire.take();
    await wire.leave();
    const again = await world().join("myclientid2", durable, true);
    expect((await again.deliveries()).map(({ topic }) => topic).sort()).to.deep.equal(["TopicA/B", "TopicA/C"]);
  });
});
