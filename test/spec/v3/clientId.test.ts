import { expect } from "chai";
import {
  chapter,
  connack,
  connect,
  durable,
  pingresp,
  publish,
  published,
  refusedSilently,
  subscribed,
  type Wire,
} from "./support.ts";

const allowed = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

chapter("the client id", (world) => {
  for (let length = 1; length <= 23; length += 1) {
    it(`[MQTT-3.1.3-5] of ${length} allowed characters is accepted`, async () => {
      for (let from = 0; from < allowed.length; from += length) {
        const wire = await world().join(allowed.repeat(2).slice(from, from + length));
        await wire.leave();
      }
    });
  }

  it("[MQTT-3.1.3-9] is refused with return code 2 where it is too long for the server, and the connection ends", async () => {
    const wire = world().open();
    wire.send(connect("x".repeat(65_535)));
    await wire.ends(connack(2));
  });

  it("[MQTT-3.1.3-6] an empty one with Clean Session 1 is accepted, each for itself", async () => {
    const wires = [await world().join(""), await world().join(""), await world().join("")];
    for (const wire of wires) await wire.lives();
    const ids = [...world().rig.broker.clients()].map(({ clientId }) => clientId);
    expect(new Set(ids).size).to.equal(3);
    expect(ids).not.to.include("");
  });

  it("[MQTT-3.1.3-6] an empty one has a session of its own", async () => {
    const [one, two] = [await world().join(""), await world().join("")];
    await subscribed(one, ["t", 0]);
    two.send(publish("t", "p"));
    await one.gets(publish("t", "p"));
    await two.lives();
  });

  it("[MQTT-3.1.3-8] [MQTT-3.1.3-7] an empty one with Clean Session 0 gets return code 2, and the end", async () => {
    const wire = world().open();
    wire.send(connect("", durable));
    await wire.ends(connack(2));
    expect(world().rig.broker.stats().sessions).to.equal(0);
  });

  it("[MQTT-3.1.3-3] is the first field of the payload", async () => {
    await world().join("first", { will: { topic: "second", payload: "third" }, username: "fourth", password: "fifth" });
    expect([...world().rig.broker.clients()].map(({ clientId }) => clientId)).to.deep.equal(["first"]);
  });

  it("[MQTT-3.1.3-2] tells sessions apart, upper and lower case too", async () => {
    await (await world().join("a", durable)).drop();
    await world().join("A", durable, false);
    await world().join("a ", durable, false);
    await world().join("a", durable, true);
  });

  it("[MQTT-3.1.3-2] [MQTT-3.1.3-4] may be of any UTF-8 that the server takes, and is told apart by its bytes", async () => {
    await (await world().join("k\u00e9", durable)).drop();
    await world().join("ke\u0301", durable, false);
    await world().join("k\u00e9", durable, true);
  });

  it("[MQTT-3.1.3-4] [MQTT-1.5.3-1] ends the connection when it is not UTF-8", () =>
    refusedSilently(world(), connect(Buffer.from([0x61, 0xff]))));
  it("[MQTT-3.1.3-10] [MQTT-1.5.3-1] so does a Will topic", () =>
    refusedSilently(world(), connect("a", { will: { topic: Buffer.from([0x61, 0xff]) } })));
  it("[MQTT-3.1.3-11] [MQTT-1.5.3-1] and a user name", () =>
    refusedSilently(world(), connect("a", { username: Buffer.from([0x61, 0xff]) })));

  it("[MQTT-3.1.3-10] [MQTT-3.1.3-11] Will topic and user name may be of any UTF-8", async () => {
    const watcher = await world().subscriber("watcher", ["#", 0]);
    await (await world().join("a", { username: "\u00fc\u{1f600}", will: { topic: "\u6c34/\u{1f4a7}" } })).drop();
    await watcher.gets(publish("\u6c34/\u{1f4a7}", ""));
  });

  for (const topic of ["", "a/#", "+", "a/+/b"]) {
    it(`[MQTT-3.1.3-10] [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-4.8.0-1] a Will topic that is no topic name (${topic}) is refused`, () =>
      refusedSilently(world(), connect("a", { will: { topic } })));
  }
});

chapter("a client id that is connected already", (world) => {
  it("[MQTT-3.1.4-2] the older connection ends without a word, the newer one is served", async () => {
    const first = await world().join("a");
    const second = await world().join("a");
    await first.ends();
    await second.lives();
    expect(world().rig.broker.stats().connections).to.equal(1);
  });

  it("[MQTT-3.1.4-2] [MQTT-3.1.2-4] the newer one goes on with the session", async () => {
    const first = await world().join("a", durable);
    await subscribed(first, ["t", 1]);
    const second = await world().join("a", durable, true);
    await first.ends();
    await published(await world().join("p"), "t", "p");
    await second.receives("t", "p", { qos: 1 });
  });

  it("[MQTT-3.1.4-2] [MQTT-3.1.4-3] [MQTT-3.1.2-6] with Clean Session 1 the session of the older one is thrown away", async () => {
    const first = await world().join("a", durable);
    await subscribed(first, ["t", 1]);
    const second = await world().join("a", {}, false);
    await first.ends();
    await published(await world().join("p"), "t", "p");
    await second.quiet();
  });

  it("[MQTT-3.1.4-2] what the older one sends after that is not processed", async () => {
    const watcher = await world().subscriber("watcher", ["#", 0]);
    const first = await world().join("a");
    const second = await world().join("a");
    first.send(publish("t", "p"));
    await watcher.lives();
    await second.lives();
  });
});

chapter("Keep Alive", (world) => {
  const elapse = async (wire: Wire, seconds: number): Promise<void> => {
    for (let second = 0; second < seconds; second += 1) world().rig.advance(1000);
    await wire.take();
  };

  it("[MQTT-3.1.2-24] the connection ends when nothing came for one and a half times it, and not before", async () => {
    const wire = await world().join("a", { keepAlive: 10 });
    await elapse(wire, 14);
    expect(wire.closed).to.equal(false);
    await elapse(wire, 2);
    await wire.ends();
  });

  it("[MQTT-3.1.2-24] each packet starts it anew [MQTT-3.1.2-23]", async () => {
    const wire = await world().join("a", { keepAlive: 10 });
    for (const bytes of [Buffer.from("c000", "hex"), publish("t", "p"), publish("t", "p", { qos: 1 })]) {
      await elapse(wire, 14);
      expect(wire.closed).to.equal(false);
      wire.send(bytes);
      await wire.take();
    }
    await elapse(wire, 14);
    expect(wire.closed).to.equal(false);
    await elapse(wire, 2);
    await wire.ends();
  });

  it("[MQTT-3.1.2-24] what the server sends does not", async () => {
    const wire = await world().join("a", { keepAlive: 10 });
    await subscribed(wire, ["t", 0]);
    await elapse(wire, 10);
    (await world().join("p")).send(publish("t", "p"));
    await wire.gets(publish("t", "p"));
    await elapse(wire, 6);
    await wire.ends();
  });

  it("[MQTT-3.1.2-24] of 65535 seconds is kept", async () => {
    const wire = await world().join("a", { keepAlive: 65_535 });
    world().rig.advance(98_000_000);
    wire.send(Buffer.from("c000", "hex"));
    await wire.gets(pingresp);
    world().rig.advance(98_310_000);
    await wire.ends();
  });

  it("[3.1.2.10] of 0 means none: a client may be silent for ever", async () => {
    const wire = await world().join("a", { keepAlive: 0 });
    world().rig.advance(2 * 24 * 3600 * 1000); // longer than one and a half times the longest; each second of it is looked at
    await wire.lives();
  });
});
