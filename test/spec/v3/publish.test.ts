import { expect } from "chai";
import {
  chapter,
  complete,
  durable,
  hex,
  packet,
  pingreq,
  pingresp,
  puback,
  publish,
  published,
  pubrec,
  type Qos,
  suback,
  subscribe,
  subscribed,
  violation,
  type Wire,
} from "./support.ts";

const all: readonly Qos[] = [0, 1, 2];

chapter("DUP", (world) => {
  it("[MQTT-3.3.1-2] 1 with QoS 0 ends the connection", () => violation(world(), publish("t", "p", { dup: true })));
  it("[MQTT-3.3.1-2] 1 with QoS 0 and RETAIN ends the connection, and nothing is retained", async () => {
    await violation(world(), publish("t", "p", { dup: true, retain: true }));
    await (await world().subscriber("later", ["t", 0])).quiet();
  });

  for (const qos of [1, 2] as const) {
    it(`[MQTT-3.3.1-3] of a PUBLISH of QoS ${qos} is not handed on`, async () => {
      const watcher = await world().subscriber("watcher", ["#", 2]);
      const lesser = await world().subscriber("lesser", ["#", 0]);
      const wire = await world().join("a");
      await complete(wire, "t", "p", qos, { dup: true });
      await watcher.receives("t", "p", { qos, dup: false });
      await lesser.gets(publish("t", "p"));
    });

    it(`[MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-4.4.0-1] is 1 when QoS ${qos} is sent again, whatever the publisher's was`, async () => {
      const wire = await world().join("a", durable);
      await subscribed(wire, ["t", 2]);
      await complete(await world().join("p"), "t", "p", qos);
      const id = await wire.receives("t", "p", { qos, dup: false });
      await wire.drop();
      const again = await world().join("a", durable, true);
      await again.gets(publish("t", "p", { qos, id, dup: true }));
    });
  }
});

chapter("QoS of PUBLISH", (world) => {
  for (const first of [0x36, 0x37, 0x3e, 0x3f]) {
    it(`[MQTT-3.3.1-4] 3 ends the connection (${first.toString(16)})`, () =>
      violation(world(), packet(first, hex("0001 74 0001 70"))));
  }

  for (const sent of all) {
    for (const granted of all) {
      const qos = Math.min(sent, granted) as Qos;
      it(`[MQTT-3.8.4-6] [MQTT-4.3.1-1] sent with ${sent}, subscribed with ${granted}: delivered once with ${qos}`, async () => {
        const watcher = await world().subscriber("watcher", ["t", granted]);
        await complete(await world().join("p"), "t", "p", sent);
        await watcher.receives("t", "p", { qos });
        await watcher.quiet();
      });
    }
  }

  it("[MQTT-3.3.4-1] decides the answer: none, PUBACK, PUBREC", async () => {
    const wire = await world().join("a");
    wire.send(publish("t", "0"), publish("t", "1", { qos: 1, id: 5 }), publish("t", "2", { qos: 2, id: 6 }));
    await wire.gets(puback(5), pubrec(6));
    await wire.quiet();
  });

  it("[MQTT-3.3.4-1] and the same where somebody subscribed", async () => {
    await world().subscriber("watcher", ["#", 2]);
    const wire = await world().join("a");
    wire.send(publish("t", "1", { qos: 1, id: 5 }), publish("t", "2", { qos: 2, id: 6 }), publish("t", "0"));
    await wire.gets(puback(5), pubrec(6));
    await wire.quiet();
  });

  it("[3.3.3] an empty payload is a message", async () => {
    const watcher = await world().subscriber("watcher", ["t", 2]);
    const wire = await world().join("a");
    for (const qos of all) {
      await complete(wire, "t", "", qos);
      await watcher.receives("t", "", { qos });
    }
  });

  it("[3.3.5] a publisher that subscribed gets its own messages", async () => {
    const wire = await world().subscriber("a", ["t", 0]);
    wire.send(publish("t", "p"));
    await wire.gets(publish("t", "p"));
  });
});

chapter("the topic name of PUBLISH", (world) => {
  for (const topic of ["#", "+", "a/#", "a/+", "a/+/b", "a#", "a+b", "+a", "/#"]) {
    for (const qos of all) {
      it(`[MQTT-3.3.2-2] [MQTT-4.7.1-1] ${topic} with QoS ${qos} ends the connection`, () =>
        violation(world(), publish(topic, "p", { qos })));
    }
  }
  for (const qos of all) {
    it(`[MQTT-4.7.3-1] [MQTT-3.3.2-1] an empty one with QoS ${qos} ends the connection`, () =>
      violation(world(), publish("", "p", { qos })));
  }

  it("[MQTT-3.3.2-1] is the first field, before the packet id", async () => {
    const watcher = await world().subscriber("watcher", ["ab", 0]);
    const wire = await world().join("a");
    wire.send(hex("3207 0002 6162 1234 70"));
    await wire.gets(hex("4002 1234"));
    await watcher.gets(hex("3005 0002 6162 70"));
  });

  it("[MQTT-3.3.2-3] of what is delivered is the publisher's, and matches the filter", async () => {
    const watcher = await world().subscriber("watcher", ["a/+/c", 0]);
    const wire = await world().join("p");
    wire.send(publish("a/b/d", "no"), publish("a/b/c", "yes"), publish("a/c", "no"), publish("a//c", "yes"));
    await watcher.gets(publish("a/b/c", "yes"), publish("a//c", "yes"));
    await watcher.quiet();
  });
});

chapter("overlapping subscriptions", (world) => {
  it("[MQTT-3.3.5-1] one copy with the highest QoS, or one for each subscription with its own", async () => {
    const watcher = await world().subscriber("watcher", ["TopicA/#", 2], ["TopicA/+", 1], ["TopicA/C", 0]);
    await complete(await world().join("p"), "TopicA/C", "p", 2);
    const copies = await watcher.deliveries();
    expect(
      copies
        .map(({ qos }) => qos)
        .sort()
        .join(),
    ).to.be.oneOf(["2", "0,1,2"]);
    for (const copy of copies) expect(copy).to.include({ topic: "TopicA/C", payload: "p", retain: false, dup: false });
  });

  it("[MQTT-3.3.5-1] whatever the order they were made in", async () => {
    const watcher = await world().subscriber("watcher", ["t", 0], ["+", 2]);
    await complete(await world().join("p"), "t", "p", 2);
    const copies = await watcher.deliveries();
    expect(
      copies
        .map(({ qos }) => qos)
        .sort()
        .join(),
    ).to.be.oneOf(["2", "0,2"]);
  });

  it("[MQTT-3.3.5-1] of a session that is away", async () => {
    await world().asleep("s", ["t", 1], ["+", 2]);
    await complete(await world().join("p"), "t", "p", 2);
    const copies = await (await world().join("s", durable, true)).deliveries();
    expect(
      copies
        .map(({ qos }) => qos)
        .sort()
        .join(),
    ).to.be.oneOf(["2", "1,2"]);
  });
});

chapter("a PUBLISH that the server does not authorize", (world) => {
  for (const qos of all) {
    it(`[MQTT-3.3.5-2] to the server's own topics, QoS ${qos}: acknowledged as usual, or the connection ends`, async () => {
      const watcher = await world().subscriber("watcher", ["$SYS/broker/version", 0]);
      const before = (await watcher.deliveries()).map(({ payload }) => payload);
      const wire = await world().join("a");
      wire.send(publish("$SYS/broker/version", "mine", { qos, retain: true }), pingreq);
      const answers = (await wire.take()).map((frame) => frame.toString("hex"));
      const usual = [[], [puback(1)], [pubrec(1)]][qos] ?? [];
      if (!wire.closed) expect(answers).to.have.members([...usual, pingresp].map((bytes) => bytes.toString("hex")));
      else expect(answers).to.deep.equal([]);
      expect(before).not.to.include("mine");
    });
  }
});

chapter("a publisher and its subscribers, the basic exchange", (world) => {
  it("[MQTT-4.5.0-1] [MQTT-7.0.0-2] a message of each QoS arrives at QoS 2 subscribers, without any extension", async () => {
    const wire = await world().subscriber("myclientid", ["TopicA", 2]);
    const publisher = await world().join("publisher");
    for (const qos of all) {
      await complete(publisher, "TopicA", `qos ${qos}`, qos);
      await wire.receives("TopicA", `qos ${qos}`, { qos });
    }
    await wire.quiet();
  });

  it("[MQTT-4.5.0-1] goes to every client that matches, and to no other", async () => {
    const matching: Wire[] = [];
    for (const [at, filter] of ["a/b", "a/+", "#", "+/b", "a/b/#"].entries()) {
      matching.push(await world().subscriber(`m${at}`, [filter, 1]));
    }
    const others: Wire[] = [];
    for (const [at, filter] of ["a", "a/c", "/a/b", "a/b/+", "b/#"].entries()) {
      others.push(await world().subscriber(`o${at}`, [filter, 1]));
    }
    await published(await world().join("p"), "a/b", "p");
    for (const wire of matching) await wire.receives("a/b", "p", { qos: 1 });
    for (const wire of [...matching, ...others]) await wire.quiet();
  });

  it("[3.8.4] a SUBSCRIBE of a publisher in the same write is in force for what follows it", async () => {
    const wire = await world().join("a");
    wire.send(subscribe(1, ["t", 0]), publish("t", "p"));
    await wire.gets(suback(1, 0), publish("t", "p"));
  });
});
