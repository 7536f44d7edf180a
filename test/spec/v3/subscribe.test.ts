import { expect } from "chai";
import {
  chapter,
  complete,
  durable,
  field,
  hex,
  packet,
  publish,
  published,
  suback,
  subscribe,
  subscribed,
  uint16,
  unsuback,
  unsubscribe,
  violation,
  type Wire,
} from "./support.ts";

const codesOf = (frame: Buffer | undefined): number[] => [...(frame?.subarray(4) ?? [])];

chapter("SUBSCRIBE that is malformed", (world) => {
  it("[MQTT-3.8.3-3] without a filter ends the connection", () => violation(world(), packet(0x82, uint16(1))));
  it("[MQTT-3.8.3-3] with a filter but no QoS ends the connection", () =>
    violation(world(), packet(0x82, uint16(1), field("t"))));

  for (const qos of [3, 4, 7, 8, 0x10, 0x20, 0x40, 0x80, 0x81, 0xfc, 0xff]) {
    it(`[MQTT-3.8.3-4] with a QoS byte of ${qos.toString(16)} ends the connection`, () =>
      violation(world(), subscribe(1, ["t", qos])));
    it(`[MQTT-3.8.3-4] with a QoS byte of ${qos.toString(16)} after a good one makes no subscription`, async () => {
      await published(await world().join("p"), "good", "kept", { retain: true });
      const wire = await world().join("a", durable);
      wire.send(subscribe(1, ["good", 0], ["t", qos]));
      await wire.ends();
      expect(world().rig.broker.stats().subscriptions).to.equal(0);
    });
  }
});

chapter("SUBACK", (world) => {
  it("[MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-2.3.1-7] answers each SUBSCRIBE with its packet id", async () => {
    const wire = await world().join("a");
    wire.send(subscribe(0x1234, ["t", 0]), subscribe(0xffff, ["u", 0]), subscribe(1, ["v", 0]));
    await wire.gets(suback(0x1234, 0), suback(0xffff, 0), suback(1, 0));
    await wire.quiet();
  });

  it("[MQTT-3.9.3-1] [MQTT-3.8.4-5] [MQTT-3.8.4-4] has a return code for each filter, in their order", async () => {
    const wire = await world().join("a");
    wire.send(subscribe(7, ["a", 2], ["b", 0], ["c", 1], ["d/#", 2], ["+", 0]));
    await wire.gets(suback(7, 2, 0, 1, 2, 0));
  });

  it("[MQTT-3.9.3-1] [MQTT-3.8.4-4] and for a filter that is there more than once: the last counts", async () => {
    const wire = await world().join("a");
    wire.send(subscribe(7, ["t", 2], ["u", 1], ["t", 0]));
    await wire.gets(suback(7, 2, 1, 0));
    await published(await world().join("p"), "t", "p");
    await wire.gets(publish("t", "p"));
    await wire.quiet();
  });

  it("[MQTT-3.8.4-1] [MQTT-3.9.3-1] for 500 filters in one packet", async () => {
    const wire = await world().join("a");
    const wishes = Array.from({ length: 500 }, (_, at) => [`t/${at}`, at % 3] as const);
    wire.send(subscribe(7, ...wishes));
    await wire.gets(suback(7, ...wishes.map(([, qos]) => qos)));
  });
});

chapter(
  "SUBACK where not all is granted",
  (world) => {
    it("[MQTT-3.9.3-2] [MQTT-3.8.4-5] a subscription that fails has 0x80, the others their QoS", async () => {
      const wire = await world().join("a");
      wire.send(subscribe(7, ["a", 2], ["b", 1], ["c", 0]));
      await wire.gets(suback(7, 2, 1, 0x80));
      const publisher = await world().join("p");
      for (const topic of ["c", "b", "a"]) await published(publisher, topic, topic);
      expect((await wire.deliveries()).map(({ topic }) => topic)).to.deep.equal(["b", "a"]);
    });

    it("[MQTT-3.9.3-2] [MQTT-3.8.4-3] one that is replaced needs no room", async () => {
      const wire = await world().subscriber("a", ["a", 2], ["b", 1]);
      wire.send(subscribe(8, ["a", 0], ["c", 0], ["b", 2]));
      await wire.gets(suback(8, 0, 0x80, 2));
    });
  },
  { limits: { maxSubscriptions: 2 } },
);

chapter("a filter that is not valid", (world) => {
  for (const filter of [
    "",
    "a#",
    "#/a",
    "a/#/b",
    "a/b#",
    "##",
    "+a",
    "a+",
    "a/+b",
    "a/b+/c",
    "++",
    "#+",
    "+#",
    "a/#/",
  ]) {
    it(`[MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1] [MQTT-4.8.0-1] "${filter}": the connection ends, or it fails with 0x80`, async () => {
      const wire = await world().join("a");
      wire.send(subscribe(7, ["good", 1], [filter, 1]));
      const frames = await wire.take();
      if (wire.closed) expect(frames).to.deep.equal([]);
      else expect(frames.map(codesOf)).to.deep.equal([[1, 0x80]]);
      const publisher = await world().join("p");
      for (const topic of ["a", "a/b", "a/b/c", "ax", "x"]) await published(publisher, topic, "p");
      if (!wire.closed) await wire.quiet();
    });
  }
});

chapter("a subscription that is there already", (world) => {
  let publisher: Wire;
  beforeEach(async () => {
    publisher = await world().join("publisher");
  });

  it("[MQTT-3.8.4-3] is replaced: one copy, with the new QoS", async () => {
    const wire = await world().subscriber("a", ["t", 2]);
    for (const qos of [0, 1, 2, 0] as const) {
      await subscribed(wire, ["t", qos]);
      await complete(publisher, "t", "p", 2);
      await wire.receives("t", "p", { qos });
      await wire.quiet();
    }
    expect(world().rig.broker.stats().subscriptions).to.equal(1);
  });

  it("[MQTT-3.8.4-3] the flow of messages is not interrupted", async () => {
    const wire = await world().subscriber("a", ["t/#", 1]);
    publisher.send(publish("t/1", "1"));
    wire.send(subscribe(5, ["t/#", 0]));
    publisher.send(publish("t/2", "2"));
    wire.send(subscribe(6, ["t/#", 1]));
    publisher.send(publish("t/3", "3"));
    expect((await wire.deliveries()).map(({ payload }) => payload)).to.deep.equal(["1", "2", "3"]);
  });

  it("[MQTT-3.8.4-3] a filter that differs in one character is another subscription", async () => {
    const wire = await world().subscriber("a", ["t", 0], ["T", 0], ["t/", 0], ["/t", 0]);
    wire.send(unsubscribe(3, "t"));
    await wire.gets(unsuback(3));
    expect(world().rig.broker.stats().subscriptions).to.equal(3);
  });
});

chapter("wildcards in filters", (world) => {
  it("[MQTT-3.8.3-2] are supported: + and # are granted, and match", async () => {
    const wire = await world().subscriber("a", ["sport/+/player1", 1], ["news/#", 2]);
    const publisher = await world().join("p");
    await published(publisher, "sport/tennis/player1", "1");
    await wire.receives("sport/tennis/player1", "1", { qos: 1 });
    await published(publisher, "news/a/b/c", "2");
    await wire.receives("news/a/b/c", "2", { qos: 1 });
  });
});

chapter("UNSUBSCRIBE", (world) => {
  let publisher: Wire;
  beforeEach(async () => {
    publisher = await world().join("publisher");
  });

  it("[MQTT-3.10.3-2] without a filter ends the connection", () => violation(world(), packet(0xa2, uint16(1))));
  it("[MQTT-3.10.3-1] with a filter that is cut short ends the connection, and deletes nothing", async () => {
    const wire = await world().join("a", durable);
    await subscribed(wire, ["t", 1]);
    wire.send(packet(0xa2, uint16(1), field("t"), hex("000574")));
    await wire.ends();
    expect(world().rig.broker.stats().subscriptions).to.equal(1);
  });

  it("[MQTT-3.10.4-4] [MQTT-2.3.1-7] is answered with UNSUBACK of its packet id", async () => {
    const wire = await world().subscriber("a", ["t", 0]);
    wire.send(unsubscribe(0xabcd, "t"));
    await wire.gets(hex("b002 abcd"));
  });

  it("[MQTT-3.10.4-5] and so where nothing was deleted", async () => {
    const wire = await world().join("a");
    wire.send(unsubscribe(4, "never"), unsubscribe(5, "never", "nor/this"));
    await wire.gets(unsuback(4), unsuback(5));
  });

  it("[MQTT-3.10.4-6] with several filters has one UNSUBACK, and all are deleted", async () => {
    const wire = await world().subscriber("a", ["a", 0], ["b", 0], ["c", 0]);
    wire.send(unsubscribe(4, "a", "never", "c", "a"));
    await wire.gets(unsuback(4));
    for (const topic of ["a", "b", "c"]) publisher.send(publish(topic, topic));
    await wire.gets(publish("b", "b"));
    await wire.quiet();
  });

  it("[MQTT-3.10.4-2] no new message comes after it", async () => {
    const wire = await world().subscriber("a", ["TopicA", 2], ["TopicA/B", 2], ["Topic/C", 2]);
    wire.send(unsubscribe(4, "TopicA"));
    await wire.gets(unsuback(4));
    for (const topic of ["TopicA", "TopicA/B", "Topic/C"]) await published(publisher, topic, "");
    expect((await wire.deliveries()).map(({ topic }) => topic)).to.deep.equal(["TopicA/B", "Topic/C"]);
  });

  it("[MQTT-3.10.4-2] nor to the session when it comes back", async () => {
    const wire = await world().join("a", durable);
    await subscribed(wire, ["t", 1]);
    wire.send(unsubscribe(4, "t"));
    await wire.gets(unsuback(4));
    await wire.drop();
    await published(publisher, "t", "p");
    await (await world().join("a", durable, true)).quiet();
  });

  it("[MQTT-3.10.4-1] deletes the filter that is the same in each character, whatever it would match", async () => {
    const wire = await world().subscriber("a", ["a/+", 0]);
    wire.send(
      unsubscribe(1, "a/b"),
      unsubscribe(2, "#"),
      unsubscribe(3, "+/+"),
      unsubscribe(4, "a/#"),
      unsubscribe(5, "A/+"),
    );
    await wire.gets(unsuback(1), unsuback(2), unsuback(3), unsuback(4), unsuback(5));
    publisher.send(publish("a/b", "p"));
    await wire.gets(publish("a/b", "p"));
    wire.send(unsubscribe(6, "a/+"));
    await wire.gets(unsuback(6));
    publisher.send(publish("a/b", "p"));
    await wire.quiet();
  });

  it("[MQTT-3.10.4-1] is the client's own: others stay subscribed", async () => {
    const [one, two] = [await world().subscriber("a", ["t", 0]), await world().subscriber("b", ["t", 0])];
    one.send(unsubscribe(1, "t"));
    await one.gets(unsuback(1));
    publisher.send(publish("t", "p"));
    await two.gets(publish("t", "p"));
    await one.quiet();
  });
});
