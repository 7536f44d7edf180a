/** MQTT 3.1 (IBM, 2010): MQIsdp, level 3. Its statements have no numbers, so titles name the section. */
import { expect } from "chai";
import {
  type Connect,
  chapter,
  complete,
  connack,
  connect,
  field,
  hex,
  mqtt31,
  packet,
  pingreq,
  pingresp,
  puback,
  pubcomp,
  publish,
  published,
  pubrec,
  pubrel,
  refusedSilently,
  suback,
  subscribe,
  subscribed,
  unsuback,
  type Will,
  type Wire,
} from "./support.ts";

const kept: Connect = { ...mqtt31, clean: false };
const will: Will = { topic: "will", payload: "gone", qos: 1 };

chapter("MQTT 3.1: CONNECT", (world) => {
  it("[3.1 CONNECT] MQIsdp of level 3 is accepted with return code 0", async () => {
    const wire = world().open();
    wire.send(hex("100f 0006 4d5149736470 03 02 003c 0001 61"));
    await wire.gets(hex("20020000"));
    await wire.lives();
  });

  for (const level of [0, 1, 2, 5, 6, 9]) {
    it(`[3.1 CONNACK] an unacceptable protocol version gets return code 1: MQIsdp ${level}`, async () => {
      const wire = world().open();
      wire.send(connect("a", { name: "MQIsdp", level }));
      await wire.ends(connack(1));
    });
  }

  for (const length of [1, 2, 22, 23]) {
    it(`[3.1 CONNECT] a client id of ${length} characters is accepted`, async () => {
      await (await world().join("x".repeat(length), mqtt31)).lives();
    });
  }
  for (const length of [0, 24, 100]) {
    it(`[3.1 CONNECT] a client id of ${length} characters is rejected with return code 2`, async () => {
      const wire = world().open();
      wire.send(connect("x".repeat(length), mqtt31));
      await wire.ends(connack(2));
    });
  }
  it("[3.1 CONNECT] an empty client id is rejected with Clean Session 0 too", async () => {
    const wire = world().open();
    wire.send(connect("", kept));
    await wire.ends(connack(2));
  });

  for (const flags of [0x82, 0xc2]) {
    it(`[3.1 CONNECT] user name and password may be missing although the flags announce them (${flags.toString(16)})`, async () => {
      const wire = world().open();
      wire.send(connect("a", { ...mqtt31, flags }));
      await wire.gets(connack(0));
      await wire.lives();
    });
  }

  it("[3.1 CONNECT] a CONNECT that is cut short ends the connection", () =>
    refusedSilently(world(), packet(0x10, field("MQIsdp"), hex("03 02 003c 0005 61"))));

  it("[3.1 CONNECT] a second CONNECT ends the connection", async () => {
    const wire = await world().join("a", mqtt31);
    wire.send(connect("a", mqtt31));
    await wire.ends();
  });

  it("[3.1 CONNECT] a client of the same id takes over: the older connection ends", async () => {
    const first = await world().join("a", mqtt31);
    const second = await world().join("a", mqtt31);
    await first.ends();
    await second.lives();
  });

  it("[3.1 CONNECT] one and a half times the Keep Alive without a packet ends the connection, and the Will is published", async () => {
    const watcher = await world().subscriber("watcher", ["#", 2]);
    const wire = await world().join("a", { ...mqtt31, keepAlive: 10, will });
    world().rig.advance(14_000);
    await wire.lives();
    world().rig.advance(16_000);
    await wire.ends();
    await watcher.receives("will", "gone", { qos: 1 });
  });

  it("[3.1 CONNECT] the Will is published when the network fails, not after DISCONNECT", async () => {
    const watcher = await world().subscriber("watcher", ["#", 2]);
    await (await world().join("a", { ...mqtt31, will })).drop();
    await watcher.receives("will", "gone", { qos: 1 });
    await (await world().join("a", { ...mqtt31, will })).leave();
    await watcher.lives();
  });
});

chapter("MQTT 3.1: CONNACK", (world) => {
  it("[3.1 CONNACK] has no Session Present: its first byte is 0 although a session is there", async () => {
    const wire = await world().join("a", kept, false);
    await subscribed(wire, ["t", 1]);
    await wire.drop();
    await published(await world().join("p"), "t", "p");
    const again = await world().join("a", kept, false);
    await again.receives("t", "p", { qos: 1 });
  });

  it("[3.1 CONNECT] the clean session flag throws the session away", async () => {
    const wire = await world().join("a", kept);
    await subscribed(wire, ["t", 1]);
    await wire.drop();
    await world().join("a", mqtt31);
    await published(await world().join("p"), "t", "p");
    await (await world().join("a", kept)).quiet();
  });
});

chapter(
  "MQTT 3.1: credentials",
  (world) => {
    for (const options of [{}, { username: "u" }, { username: "u", password: "no" }]) {
      it(`[3.1 CONNACK] ${JSON.stringify(options)} gets return code 4 or 5`, async () => {
        const wire = world().open();
        wire.send(connect("a", { ...mqtt31, ...options }));
        const frames = (await wire.take()).map((frame) => frame.toString("hex"));
        expect(frames.join()).to.be.oneOf(["20020004", "20020005"]);
        await wire.ends();
      });
    }
    it("[3.1 CONNACK] the right ones get return code 0", async () => {
      await world().join("a", { ...mqtt31, username: "u", password: "p" });
    });
  },
  { anonymous: false, authenticate: (name, word) => name === "u" && Buffer.from(word ?? []).toString() === "p" },
);

chapter("MQTT 3.1: after CONNECT", (world) => {
  let wire: Wire;
  beforeEach(async () => {
    wire = await world().join("a", mqtt31);
  });

  it("[3.1 SUBSCRIBE] [3.1 SUBACK] is answered with its id and the QoS granted, in their order", async () => {
    wire.send(subscribe(10, ["a/b", 1], ["c/d", 2], ["e", 0]));
    await wire.gets(suback(10, 1, 2, 0));
  });

  it("[3.1 SUBSCRIBE] with DUP, as it is when it is sent again, is answered", async () => {
    wire.send(packet(0x8a, hex("000a"), field("t"), hex("01")));
    await wire.gets(suback(10, 1));
    await published(await world().join("p"), "t", "p");
    await wire.receives("t", "p", { qos: 1 });
  });

  it("[3.1 UNSUBSCRIBE] with and without DUP is answered with its id", async () => {
    await subscribed(wire, ["t", 1], ["u", 1]);
    wire.send(packet(0xa2, hex("000b"), field("t")), packet(0xaa, hex("000b"), field("u")));
    await wire.gets(unsuback(11), unsuback(11));
    await published(await world().join("p"), "u", "p");
    await wire.quiet();
  });

  it("[3.1 PUBREL] with DUP, as it is when it is sent again, is answered with PUBCOMP, and the message delivered once", async () => {
    const watcher = await world().subscriber("watcher", ["#", 0]);
    wire.send(publish("t", "p", { qos: 2, id: 4 }));
    await wire.gets(pubrec(4));
    wire.send(pubrel(4), packet(0x6a, hex("0004")));
    await wire.gets(pubcomp(4), pubcomp(4));
    await watcher.gets(publish("t", "p"));
    await watcher.lives();
  });

  it("[3.1 PUBREL] the server's has QoS 1 in its flags", async () => {
    await subscribed(wire, ["t", 2]);
    await complete(await world().join("p"), "t", "p", 2);
    const id = await wire.receives("t", "p", { qos: 2 });
    wire.send(pubrec(id));
    await wire.gets(pubrel(id));
    wire.send(pubcomp(id));
    await wire.lives();
  });

  it("[3.1 PUBLISH] each QoS is answered as it must be", async () => {
    wire.send(publish("t", "0"), publish("t", "1", { qos: 1, id: 5 }), publish("t", "2", { qos: 2, id: 6 }));
    await wire.gets(puback(5), pubrec(6));
  });

  it("[3.1 PUBLISH] is delivered to clients of 3.1.1, and theirs to it", async () => {
    const other = await world().subscriber("other", ["x", 0]);
    await subscribed(wire, ["y", 0]);
    wire.send(publish("x", "from 3.1"));
    await other.gets(publish("x", "from 3.1"));
    other.send(publish("y", "from 3.1.1"));
    await wire.gets(publish("y", "from 3.1.1"));
  });

  it("[3.1 PUBLISH] a retained message comes with RETAIN for a new subscription, and an empty one removes it", async () => {
    await complete(wire, "t", "p", 1, { retain: true });
    wire.send(subscribe(1, ["t", 0]));
    await wire.gets(suback(1, 0), publish("t", "p", { retain: true }));
    wire.send(publish("t", "", { retain: true }));
    await wire.gets(publish("t", ""));
    await (await world().subscriber("later", ["t", 0])).quiet();
  });

  it("[3.1 PUBLISH] wildcards in a topic name, and QoS 3, end the connection", async () => {
    wire.send(publish("a/+", "p"));
    await wire.ends();
    const next = await world().join("a", mqtt31);
    next.send(hex("36050001740001"));
    await next.ends();
  });

  it("[3.1 PUBLISH] comes again with DUP and its id after a reconnect", async () => {
    const first = await world().join("s", kept);
    await subscribed(first, ["t", 1]);
    await published(await world().join("p"), "t", "p");
    const id = await first.receives("t", "p", { qos: 1 });
    await first.drop();
    await (await world().join("s", kept)).gets(publish("t", "p", { qos: 1, id, dup: true }));
  });

  it("[3.1 message id] 0 is not valid: it ends the connection", async () => {
    wire.send(subscribe(0, ["t", 1]));
    await wire.ends();
  });

  it("[3.1 PINGREQ] [3.1 DISCONNECT] PINGRESP, and the end", async () => {
    wire.send(pingreq);
    await wire.gets(pingresp);
    wire.send(hex("e000"));
    await wire.ends();
  });
});
