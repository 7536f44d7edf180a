/** What the text of MQTT 3.1.1 demands or allows without a number. */
import { expect } from "chai";
import { testUser } from "../../helpers/testUsers.ts";
import {
  chapter,
  complete,
  connack,
  connect,
  durable,
  hex,
  pingreq,
  pingresp,
  puback,
  pubcomp,
  publish,
  published,
  pubrec,
  pubrel,
  suback,
  subscribe,
} from "./support.ts";

const binary = Buffer.from([0, 0xff, 0xc0, 0x80, 0]);

chapter("fields of bytes", (world) => {
  for (const [name, payload] of [
    ["no bytes", Buffer.alloc(0)],
    ["bytes that are no text", binary],
    ["65535 bytes", Buffer.alloc(65_535, 0xa5)],
  ] as const) {
    it(`[3.1.3.3] a Will message of ${name} is published as it is`, async () => {
      const watcher = await world().subscriber("watcher", ["w", 0]);
      await (await world().join("a", { will: { topic: "w", payload } })).drop();
      await watcher.gets(publish("w", payload));
    });
  }

  it("[3.3.3] so is a payload, retained or not", async () => {
    const watcher = await world().subscriber("watcher", ["t", 1]);
    const wire = await world().join("a");
    wire.send(publish("t", binary, { qos: 1, id: 3, retain: true }));
    await wire.gets(puback(3));
    await watcher.receives("t", binary, { qos: 1 });
    await (await world().subscriber("later", ["t", 0])).gets(publish("t", binary, { retain: true }));
  });
});

const named = ["\u00fc", "u"].map((name) => testUser(name, "p"));
const seen: Array<{ name: string | undefined; password: string }> = [];
chapter(
  "credentials of bytes",
  (world) => {
    it("[3.1.3.5] a password is 0 to 65535 bytes of any value", async () => {
      for (const password of [Buffer.alloc(0), binary, Buffer.alloc(65_535, 0xff)]) {
        await (await world().join("a", { username: "\u00fc", password })).leave();
        expect(seen.pop()).to.deep.equal({ name: "\u00fc", password: password.toString("hex") });
      }
    });

    it("[3.1.3.5] none is not the same as an empty one", async () => {
      await (await world().join("a", { username: "u", password: "" })).leave();
      const wire = world().open();
      wire.send(connect("a", { username: "u" }));
      await wire.ends(connack(4));
    });
  },
  {
    anonymous: false,
    users: named,
    verify: (kept, password, settled) => {
      const name = named.find((user) => user.scrypt === kept)?.name;
      seen.push({ name, password: Buffer.from(password).toString("hex") });
      settled(true);
    },
  },
);

chapter("more in flight than a client usually has", (world) => {
  it("[4.3.3] [MQTT-4.3.3-2] 300 QoS 2 messages before the first PUBREL have 300 PUBRECs, and then PUBCOMPs", async () => {
    const wire = await world().join("a");
    const ids = Array.from({ length: 300 }, (_, at) => at + 1);
    wire.send(...ids.map((id) => publish("t", "p", { qos: 2, id })));
    await wire.gets(...ids.map(pubrec));
    wire.send(...ids.map(pubrel));
    await wire.gets(...ids.map(pubcomp));
  });

  it("[3.12.4] [MQTT-3.12.4-1] a client that has begun many QoS 2 messages still has its PINGREQ answered", async () => {
    const wire = await world().join("a");
    const ids = Array.from({ length: 150 }, (_, at) => at + 1);
    wire.send(...ids.map((id) => publish("t", "p", { qos: 2, id })), pingreq);
    const types = (await wire.take()).map((frame) => frame[0]);
    expect(types.filter((type) => type === 0x50)).to.have.lengthOf(150);
    expect(types).to.include(0xd0);
  });

  it("[4.3.2] 500 QoS 1 messages in one write have 500 PUBACKs", async () => {
    const wire = await world().join("a");
    const ids = Array.from({ length: 500 }, (_, at) => at + 1);
    wire.send(...ids.map((id) => publish("t", "p", { qos: 1, id })));
    await wire.gets(...ids.map(puback));
  });

  it("[3.12.4] a subscriber that acknowledges nothing still has its PINGREQ answered", async () => {
    const wire = await world().subscriber("a", ["t", 1]);
    const publisher = await world().join("p");
    for (let count = 0; count < 200; count += 1) await published(publisher, "t", "p");
    await wire.take();
    wire.send(pingreq);
    await wire.gets(pingresp);
  });
});

chapter(
  "topics of many levels, where the server is set to take them",
  (world) => {
    for (const levels of [129, 1000, 65_536]) {
      it(`[4.7.3] a topic of ${levels} levels is delivered`, async () => {
        const topic = "/".repeat(levels - 1);
        const wire = await world().subscriber("s", ["#", 0]);
        (await world().join("p")).send(publish(topic, "p"));
        await wire.gets(publish(topic, "p"));
      });
    }
    it("[4.7.3] a filter of 1000 levels matches", async () => {
      const wire = await world().subscriber("s", ["+/".repeat(999), 0]);
      (await world().join("p")).send(publish("a/".repeat(999), "p"));
      await wire.gets(publish("a/".repeat(999), "p"));
    });
  },
  { limits: { maxTopicLevels: 65_536 } },
);

chapter("CONNECT and what follows at once", (world) => {
  it("[3.1.4] a session's client may publish and subscribe before it has read CONNACK", async () => {
    const wire = world().open();
    wire.send(connect("a", durable), subscribe(1, ["t", 2]), publish("t", "p", { qos: 1, id: 4 }));
    await wire.gets(connack(0), suback(1, 2));
    const frames = (await wire.take()).map((frame) => frame[0]);
    expect(frames).to.have.members([0x40, 0x32]);
  });

  it("[3.1.4] a client that opens a connection and says nothing is ended in the end", async () => {
    const wire = world().open();
    world().rig.advance(600_000);
    await wire.ends();
  });

  it("[3.1.4] a client that begins a CONNECT and does not end it is ended in the end", async () => {
    const wire = world().open();
    wire.send(connect("a").subarray(0, 9));
    await wire.quiet();
    world().rig.advance(600_000);
    await wire.ends();
  });

  it("[2.3.1] SUBSCRIBE, PUBLISH of QoS 1 and 2 of one id do not disturb each other", async () => {
    const watcher = await world().subscriber("watcher", ["t", 0]);
    const wire = await world().join("a");
    await complete(wire, "t", "1", 2, { id: 7 });
    wire.send(subscribe(7, ["u", 1]), publish("t", "2", { qos: 1, id: 7 }));
    await wire.gets(suback(7, 1), hex("40020007"));
    await watcher.gets(publish("t", "1"), publish("t", "2"));
  });
});
