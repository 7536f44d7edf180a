import { expect } from "chai";
import {
  chapter,
  durable,
  hex,
  puback,
  pubcomp,
  publish,
  published,
  publishedExactlyOnce,
  pubrec,
  pubrel,
  subscribed,
  type Wire,
} from "./support.ts";

chapter("QoS 1, the server as receiver", (world) => {
  let watcher: Wire;
  beforeEach(async () => {
    watcher = await world().subscriber("watcher", ["#", 1]);
  });

  it("[MQTT-4.3.2-2] [MQTT-2.3.1-6] answers with the PUBACK of the id", async () => {
    const wire = await world().join("a");
    wire.send(publish("t", "p", { qos: 1, id: 0xbeef }));
    await wire.gets(puback(0xbeef));
    await watcher.receives("t", "p", { qos: 1 });
  });

  for (const dup of [false, true]) {
    it(`[MQTT-4.3.2-2] after the PUBACK the same id is a new message, DUP ${dup ? 1 : 0}`, async () => {
      const wire = await world().join("a");
      wire.send(publish("t", "1", { qos: 1, id: 4 }));
      await wire.gets(puback(4));
      wire.send(publish("t", "2", { qos: 1, id: 4, dup }));
      await wire.gets(puback(4));
      await watcher.receives("t", "1", { qos: 1 });
      await watcher.receives("t", "2", { qos: 1 });
    });
  }

  it("[MQTT-4.3.2-2] a message that is sent again after a reconnect is answered", async () => {
    const wire = await world().join("a", durable);
    wire.send(publish("t", "p", { qos: 1, id: 4 }));
    await wire.drop();
    const again = await world().join("a", durable, true);
    again.send(publish("t", "p", { qos: 1, id: 4, dup: true }));
    await again.gets(puback(4));
  });
});

chapter("QoS 1, the server as sender", (world) => {
  it("[MQTT-4.3.2-1] sends DUP 0 with an id, and does not send again on the same connection after PUBACK", async () => {
    const wire = await world().subscriber("a", ["t", 1]);
    await published(await world().join("p"), "t", "p");
    wire.send(puback(await wire.receives("t", "p", { qos: 1, dup: false })));
    world().rig.advance(3_600_000);
    await wire.quiet();
  });

  it("[MQTT-4.3.2-1] [MQTT-4.4.0-1] is unacknowledged until PUBACK: comes again on each reconnect, then no more", async () => {
    let wire = await world().join("a", durable);
    await subscribed(wire, ["t", 1]);
    await published(await world().join("p"), "t", "p");
    const id = await wire.receives("t", "p", { qos: 1 });
    for (let count = 0; count < 3; count += 1) {
      await wire.drop();
      wire = await world().join("a", durable, true);
      await wire.gets(publish("t", "p", { qos: 1, id, dup: true }));
    }
    wire.send(puback(id));
    await wire.lives();
    await wire.drop();
    await (await world().join("a", durable, true)).quiet();
  });

  it("[MQTT-4.3.2-1] a PUBACK of another id does not acknowledge it", async () => {
    const wire = await world().join("a", durable);
    await subscribed(wire, ["t", 1]);
    await published(await world().join("p"), "t", "p");
    const id = await wire.receives("t", "p", { qos: 1 });
    wire.send(puback(id === 9 ? 10 : 9));
    await wire.take();
    await wire.drop();
    await (await world().join("a", durable, true)).gets(publish("t", "p", { qos: 1, id, dup: true }));
  });

  it("[MQTT-2.3.1-4] an id is used again only after its PUBACK", async () => {
    const wire = await world().subscriber("a", ["t", 1]);
    const publisher = await world().join("p");
    const flying = new Set<number>();
    for (let count = 0; count < 150; count += 1) {
      await published(publisher, "t", "p");
      const id = await wire.receives("t", "p", { qos: 1 });
      expect(flying.has(id), `id ${id}`).to.equal(false);
      flying.add(id);
      if (count % 3 === 0) continue; // every third stays unacknowledged
      wire.send(puback(id));
      await wire.lives();
      flying.delete(id);
    }
  });
});

chapter("QoS 2, the server as receiver", (world) => {
  let watcher: Wire;
  beforeEach(async () => {
    watcher = await world().subscriber("watcher", ["#", 0]);
  });

  it("[MQTT-4.3.3-2] [MQTT-2.3.1-6] PUBREC of the id, PUBCOMP of the id", async () => {
    const wire = await world().join("a");
    wire.send(publish("t", "p", { qos: 2, id: 0xcafe }));
    await wire.gets(pubrec(0xcafe));
    wire.send(pubrel(0xcafe));
    await wire.gets(pubcomp(0xcafe));
    await watcher.gets(publish("t", "p"));
    await watcher.lives();
  });

  for (const dup of [false, true]) {
    it(`[MQTT-4.3.3-2] until PUBREL the same id is the same message, DUP ${dup ? 1 : 0}: PUBREC, and no second delivery`, async () => {
      const wire = await world().join("a");
      wire.send(publish("t", "p", { qos: 2, id: 4 }));
      await wire.gets(pubrec(4));
      for (let count = 0; count < 3; count += 1) {
        wire.send(publish("t", "p", { qos: 2, id: 4, dup }));
        await wire.gets(pubrec(4));
      }
      wire.send(pubrel(4));
      await wire.gets(pubcomp(4));
      await watcher.gets(publish("t", "p"));
      await watcher.lives();
    });

    it(`[MQTT-4.3.3-2] after PUBCOMP the same id is a new message, DUP ${dup ? 1 : 0}`, async () => {
      const wire = await world().join("a");
      for (const payload of ["1", "2"]) {
        wire.send(publish("t", payload, { qos: 2, id: 4, dup }));
        await wire.gets(pubrec(4));
        wire.send(pubrel(4));
        await wire.gets(pubcomp(4));
        await watcher.gets(publish("t", payload));
      }
    });
  }

  it("[MQTT-4.3.3-2] each PUBREL is answered, one that comes again too", async () => {
    const wire = await world().join("a");
    wire.send(publish("t", "p", { qos: 2, id: 4 }), pubrel(4), pubrel(4));
    await wire.gets(pubrec(4), pubcomp(4), pubcomp(4));
    await watcher.gets(publish("t", "p"));
  });

  it("[MQTT-4.3.3-2] PUBREL of an id that the server does not know (any more) is answered", async () => {
    const wire = await world().join("a");
    wire.send(pubrel(1234));
    await wire.gets(pubcomp(1234));
    await wire.lives();
  });

  it("[MQTT-4.3.3-2] ids are each client's own", async () => {
    const [one, two] = [await world().join("a"), await world().join("b")];
    for (const wire of [one, two]) {
      wire.send(publish("t", "p", { qos: 2, id: 4 }));
      await wire.gets(pubrec(4));
    }
    for (const wire of [one, two]) {
      wire.send(pubrel(4));
      await wire.gets(pubcomp(4));
    }
    await watcher.gets(publish("t", "p"), publish("t", "p"));
  });

  it("[MQTT-4.3.3-2] several at once, released in another order", async () => {
    const wire = await world().join("a");
    for (const id of [1, 2, 3]) wire.send(publish("t", `${id}`, { qos: 2, id }));
    await wire.gets(pubrec(1), pubrec(2), pubrec(3));
    for (const id of [2, 3, 1]) wire.send(pubrel(id));
    await wire.gets(pubcomp(2), pubcomp(3), pubcomp(1));
    // Delivered when they came or when they were released: a server may do either.
    const payloads = (await watcher.deliveries()).map(({ payload }) => payload);
    expect(payloads.join()).to.be.oneOf(["1,2,3", "2,3,1"]);
  });

  it("[MQTT-4.3.3-2] [MQTT-4.1.0-1] [MQTT-3.1.2-4] a reconnect between PUBREC and PUBREL does not make it a new message", async () => {
    const wire = await world().join("a", durable);
    wire.send(publish("t", "p", { qos: 2, id: 4 }));
    await wire.gets(pubrec(4));
    await wire.drop();
    const again = await world().join("a", durable, true);
    again.send(publish("t", "p", { qos: 2, id: 4, dup: true }));
    await again.gets(pubrec(4));
    again.send(pubrel(4));
    await again.gets(pubcomp(4));
    await watcher.gets(publish("t", "p"));
    await watcher.lives();
  });

  it("[MQTT-3.1.2-6] [MQTT-4.3.3-2] with Clean Session 1 it is a new message after a reconnect", async () => {
    const wire = await world().join("a");
    wire.send(publish("t", "first", { qos: 2, id: 4 }));
    await wire.gets(pubrec(4));
    await wire.drop();
    await watcher.take();
    await publishedExactlyOnce(await world().join("a"), "t", "second", { id: 4, dup: true });
    await watcher.gets(publish("t", "second"));
  });

  it("[MQTT-4.1.0-1] [MQTT-4.3.3-2] nor does a restart of the server", async () => {
    const wire = await world().join("a", durable);
    wire.send(publish("t", "p", { qos: 2, id: 4 }));
    await wire.gets(pubrec(4));
    await wire.drop();
    await world().restart();
    watcher = await world().subscriber("watcher", ["#", 0]);
    const again = await world().join("a", durable, true);
    again.send(publish("t", "p", { qos: 2, id: 4, dup: true }), pubrel(4));
    await again.gets(pubrec(4), pubcomp(4));
    await watcher.lives();
  });
});

chapter("QoS 2, the server as sender", (world) => {
  /** A session with a QoS 2 message sent to it. */
  const sent = async (): Promise<{ wire: Wire; id: number }> => {
    const wire = await world().join("a", durable);
    await subscribed(wire, ["t", 2]);
    const publisher = await world().join("p");
    await publishedExactlyOnce(publisher, "t", "p");
    return { wire, id: await wire.receives("t", "p", { qos: 2, dup: false }) };
  };
  const back = async (wire: Wire): Promise<Wire> => {
    await wire.drop();
    return world().join("a", durable, true);
  };

  it("[MQTT-4.3.3-1] [MQTT-2.3.1-6] PUBREL of the id on PUBREC, and nothing after PUBCOMP", async () => {
    const { wire, id } = await sent();
    wire.send(pubrec(id));
    await wire.gets(pubrel(id));
    wire.send(pubcomp(id));
    await wire.lives();
    await (await back(wire)).quiet();
  });

  it("[MQTT-3.6.1-1] [MQTT-2.2.2-1] its PUBREL has the flags 0010", async () => {
    const { wire, id } = await sent();
    wire.send(pubrec(id));
    const [frame] = await wire.take();
    expect(frame?.[0]).to.equal(0x62);
  });

  it("[MQTT-4.3.3-1] [MQTT-4.4.0-1] the PUBLISH comes again with its id and DUP 1 until PUBREC", async () => {
    const { wire, id } = await sent();
    const second = await back(wire);
    await second.gets(publish("t", "p", { qos: 2, id, dup: true }));
    const third = await back(second);
    await third.gets(publish("t", "p", { qos: 2, id, dup: true }));
    third.send(pubrec(id));
    await third.gets(pubrel(id));
  });

  it("[MQTT-4.3.3-1] [MQTT-4.4.0-1] after PUBREC the PUBREL comes again until PUBCOMP, and the PUBLISH does not", async () => {
    let { wire, id } = await sent();
    wire.send(pubrec(id));
    await wire.gets(pubrel(id));
    for (let count = 0; count < 3; count += 1) {
      wire = await back(wire);
      await wire.gets(pubrel(id));
      await wire.quiet();
    }
    wire.send(pubcomp(id));
    await wire.lives();
    await (await back(wire)).quiet();
  });

  it("[MQTT-4.3.3-1] a PUBREC that comes again gets its PUBREL again", async () => {
    const { wire, id } = await sent();
    wire.send(pubrec(id), pubrec(id));
    await wire.gets(pubrel(id), pubrel(id));
    wire.send(pubcomp(id));
    await wire.lives();
  });

  it("[MQTT-4.3.3-1] [MQTT-4.1.0-1] over a restart of the server: the PUBLISH before PUBREC", async () => {
    const { wire, id } = await sent();
    await wire.drop();
    await world().restart();
    await (await world().join("a", durable, true)).gets(publish("t", "p", { qos: 2, id, dup: true }));
  });

  it("[MQTT-4.3.3-1] [MQTT-4.1.0-1] over a restart of the server: the PUBREL after PUBREC", async () => {
    const { wire, id } = await sent();
    wire.send(pubrec(id));
    await wire.gets(pubrel(id));
    await wire.drop();
    await world().restart();
    const again = await world().join("a", durable, true);
    await again.gets(pubrel(id));
    await again.quiet();
  });

  it("[MQTT-2.3.1-4] [MQTT-4.3.3-1] the id is not used again before PUBCOMP", async () => {
    const { wire, id } = await sent();
    wire.send(pubrec(id));
    await wire.gets(pubrel(id));
    const publisher = await world().join("q");
    for (let count = 0; count < 80; count += 1) {
      await published(publisher, "t", "x");
      const other = await wire.receives("t", "x", { qos: 1 });
      expect(other).not.to.equal(id);
      wire.send(puback(other));
      await wire.lives();
    }
  });

  it("[4.3.3] acknowledgements of the wrong kind do not complete it", async () => {
    const { wire, id } = await sent();
    wire.send(hex("4002"), Buffer.from([id >> 8, id & 255]));
    await wire.take();
    const again = await back(wire);
    expect((await again.take()).map((frame) => frame.toString("hex"))).to.deep.equal([
      publish("t", "p", { qos: 2, id, dup: true }).toString("hex"),
    ]);
  });
});
