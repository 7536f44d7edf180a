import { expect } from "chai";
import {
  chapter,
  complete,
  durable,
  puback,
  publish,
  published,
  type Qos,
  suback,
  subscribe,
  unsuback,
  unsubscribe,
  type Wire,
} from "./support.ts";

const all: readonly Qos[] = [0, 1, 2];

const retain = (wire: Wire, topic: string, payload: string, qos: Qos = 1): Promise<void> =>
  complete(wire, topic, payload, qos, { retain: true });

chapter("retained messages are stored", (world) => {
  let publisher: Wire;
  beforeEach(async () => {
    publisher = await world().join("publisher");
  });

  for (const qos of all) {
    for (const granted of all) {
      it(`[MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-8] [MQTT-3.8.4-6] QoS ${qos}, for a subscriber of QoS ${granted}`, async () => {
        await retain(publisher, "t", "p", qos);
        const later = await world().subscriber("later", ["t", granted]);
        await later.receives("t", "p", { qos: Math.min(qos, granted) as Qos, retain: true });
        await later.quiet();
      });
    }
  }

  it("[MQTT-3.3.1-6] the last of each topic that matches, and no other", async () => {
    for (const topic of ["a/1", "a/2", "b/1", "a", "a/1/x"]) {
      await retain(publisher, topic, "old");
      await retain(publisher, topic, `new ${topic}`);
    }
    const later = await world().subscriber("later", ["a/+", 1]);
    const seen = await later.deliveries();
    expect(seen.map(({ payload }) => payload).sort()).to.deep.equal(["new a/1", "new a/2"]);
    expect(seen.every(({ retain }) => retain)).to.equal(true);
  });

  it("[MQTT-3.3.1-5] each subscriber gets it, at any time", async () => {
    await retain(publisher, "t", "p");
    await publisher.leave();
    for (const name of ["a", "b", "c"]) {
      world().rig.advance(3_600_000);
      await (await world().subscriber(name, ["t", 0])).gets(publish("t", "p", { retain: true }));
    }
  });

  it("[MQTT-3.3.1-5] over a restart of the server", async () => {
    await retain(publisher, "t", "p", 2);
    await world().restart();
    const later = await world().subscriber("later", ["#", 2]);
    await later.receives("t", "p", { qos: 2, retain: true });
  });

  it("[MQTT-3.1.2-7] the end of the publisher's session does not remove them", async () => {
    await retain(publisher, "t", "p");
    await publisher.leave();
    const other = await world().join("other", durable);
    await retain(other, "u", "p");
    await other.drop();
    await world().join("other", {}, false);
    const later = await world().subscriber("later", ["+", 0]);
    expect((await later.deliveries()).map(({ topic }) => topic).sort()).to.deep.equal(["t", "u"]);
  });

  it("[MQTT-3.3.1-7] QoS 0 discards the one before: later subscribers get the new one or none, never the old one", async () => {
    await retain(publisher, "t", "old", 2);
    await retain(publisher, "t", "new", 0);
    const seen = await (await world().subscriber("later", ["t", 2])).deliveries();
    expect(seen.map(({ payload }) => payload).join()).to.be.oneOf(["new", ""]);
  });

  it("[MQTT-3.3.1-5] a later one replaces it with its QoS", async () => {
    await retain(publisher, "t", "old", 2);
    await retain(publisher, "t", "new", 1);
    await (await world().subscriber("later", ["t", 2])).receives("t", "new", { qos: 1, retain: true });
  });
});

chapter("the RETAIN flag", (world) => {
  let publisher: Wire;
  beforeEach(async () => {
    publisher = await world().join("publisher");
  });

  for (const qos of all) {
    it(`[MQTT-3.3.1-9] is 0 for an established subscription, QoS ${qos}`, async () => {
      const watcher = await world().subscriber("watcher", ["t", 2]);
      await retain(publisher, "t", "p", qos);
      await watcher.receives("t", "p", { qos, retain: false });
      await watcher.quiet();
    });
  }

  it("[MQTT-3.3.1-9] is 0 for a session that was away", async () => {
    await world().asleep("s", ["t", 1]);
    await retain(publisher, "t", "p");
    await (await world().join("s", durable, true)).receives("t", "p", { qos: 1, retain: false });
  });

  it("[MQTT-3.3.1-6] a session that comes back makes no new subscription: nothing retained comes", async () => {
    await retain(publisher, "t", "p");
    const sleeper = await world().join("s", durable);
    sleeper.send(subscribe(1, ["t", 0]));
    await sleeper.gets(suback(1, 0), publish("t", "p", { retain: true }));
    await sleeper.drop();
    await (await world().join("s", durable, true)).quiet();
  });

  it("[MQTT-3.3.1-12] 0: the message is not stored", async () => {
    await published(publisher, "t", "p");
    await (await world().subscriber("later", ["t", 1])).quiet();
  });

  for (const payload of ["other", ""]) {
    it(`[MQTT-3.3.1-12] 0: what is retained stays, payload "${payload}"`, async () => {
      await retain(publisher, "t", "kept");
      await published(publisher, "t", payload);
      await (await world().subscriber("later", ["t", 0])).gets(publish("t", "kept", { retain: true }));
    });
  }
});

chapter("an empty retained message", (world) => {
  for (const qos of all) {
    it(`[MQTT-3.3.1-10] [MQTT-3.3.1-9] of QoS ${qos} is delivered as usual, and removes the one that was there`, async () => {
      const publisher = await world().join("publisher");
      await retain(publisher, "t", "kept");
      const watcher = await world().subscriber("watcher", ["t", 2]);
      await watcher.receives("t", "kept", { qos: 1, retain: true });
      await retain(publisher, "t", "", qos);
      await watcher.receives("t", "", { qos, retain: false });
      await (await world().subscriber("later", ["t", 2])).quiet();
    });
  }

  it("[MQTT-3.3.1-11] is not stored", async () => {
    const publisher = await world().join("publisher");
    await retain(publisher, "t", "");
    await (await world().subscriber("later", ["t", 2])).quiet();
    expect(world().rig.broker.stats().retained).to.equal(0);
  });

  it("[MQTT-3.3.1-10] removes it over a restart of the server", async () => {
    const publisher = await world().join("publisher");
    await retain(publisher, "t", "kept");
    await retain(publisher, "t", "");
    await world().restart();
    await (await world().subscriber("later", ["t", 2])).quiet();
  });

  it("[MQTT-3.3.1-10] removes that of its topic only", async () => {
    const publisher = await world().join("publisher");
    for (const topic of ["t", "t/u", "T"]) await retain(publisher, topic, topic);
    await retain(publisher, "t", "");
    const later = await world().subscriber("later", ["#", 0]);
    expect((await later.deliveries()).map(({ topic }) => topic).sort()).to.deep.equal(["T", "t/u"]);
  });

  it("[MQTT-3.3.1-10] [MQTT-3.3.1-6] three of each QoS, then removed: TopicA/B, Topic/C and TopicA/C", async () => {
    const topics: ReadonlyArray<readonly [string, Qos]> = [
      ["TopicA/B", 0],
      ["Topic/C", 1],
      ["TopicA/C", 2],
    ];
    const publisher = await world().join("publisher");
    for (const [topic, qos] of topics) await retain(publisher, topic, `qos ${qos}`, qos);
    expect(await (await world().subscriber("first", ["+/+", 2])).deliveries()).to.have.lengthOf(3);
    for (const [topic, qos] of topics) await retain(publisher, topic, "", qos);
    await (await world().subscriber("second", ["+/+", 2])).quiet();
  });
});

chapter("retained messages and SUBSCRIBE", (world) => {
  it("[MQTT-3.8.4-3] [MQTT-3.3.1-6] come again when a subscription is replaced", async () => {
    await retain(await world().join("publisher"), "t", "p");
    const wire = await world().subscriber("a", ["t", 1]);
    const id = await wire.receives("t", "p", { qos: 1, retain: true });
    wire.send(puback(id), subscribe(2, ["t", 0]));
    await wire.gets(suback(2, 0), publish("t", "p", { retain: true }));
    await wire.quiet();
  });

  it("[MQTT-3.3.1-6] come again after UNSUBSCRIBE and SUBSCRIBE", async () => {
    await retain(await world().join("publisher"), "t", "p");
    const wire = await world().subscriber("a", ["t", 0]);
    await wire.gets(publish("t", "p", { retain: true }));
    wire.send(unsubscribe(1, "t"), subscribe(2, ["t", 0]));
    await wire.gets(unsuback(1), suback(2, 0), publish("t", "p", { retain: true }));
  });

  it("[MQTT-3.3.1-8] [MQTT-3.8.4-4] come for each filter of one SUBSCRIBE with that filter's QoS", async () => {
    const publisher = await world().join("publisher");
    for (const topic of ["a", "b"]) await retain(publisher, topic, topic, 2);
    const wire = await world().subscriber("s", ["a", 1], ["b", 0]);
    const seen = (await wire.deliveries()).map(({ topic, qos, retain }) => ({ topic, qos, retain }));
    expect(seen).to.have.deep.members([
      { topic: "a", qos: 1, retain: true },
      { topic: "b", qos: 0, retain: true },
    ]);
  });

  it("[MQTT-4.7.2-1] those of topics with $ do not come for # and +", async () => {
    const publisher = await world().join("publisher");
    await retain(publisher, "$mine/a", "p");
    await retain(publisher, "open/a", "p");
    for (const [at, filter] of ["#", "+/a", "+/#"].entries()) {
      const wire = await world().subscriber(`s${at}`, [filter, 0]);
      await wire.gets(publish("open/a", "p", { retain: true }));
      await wire.quiet();
    }
  });
});
