import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect as dial, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import {
  chapter,
  complete,
  connack,
  connect,
  durable,
  hex,
  pubcomp,
  publish,
  published,
  pubrec,
  pubrel,
  suback,
  subscribe,
  subscribed,
  violation,
  Wire,
  World,
} from "./support.ts";

chapter("a violation", (world) => {
  it("[MQTT-4.8.0-1] ends the connection it came on, and no other", async () => {
    const bystander = await world().subscriber("bystander", ["t", 1]);
    await violation(world(), hex("f000"));
    await bystander.lives();
    await published(await world().join("p"), "t", "p");
    await bystander.receives("t", "p", { qos: 1 });
  });

  it("[MQTT-4.8.0-1] what came before it is processed, what comes after it is not", async () => {
    const watcher = await world().subscriber("watcher", ["#", 0]);
    const wire = await world().join("a");
    wire.send(publish("t", "before"), hex("f000"), publish("t", "after"), subscribe(1, ["t", 0]));
    await wire.ends();
    await watcher.gets(publish("t", "before"));
    await watcher.lives();
  });

  it("[MQTT-4.8.0-1] [MQTT-4.1.0-1] leaves the client's session as it was", async () => {
    const wire = await world().join("s", durable);
    await subscribed(wire, ["t", 1]);
    wire.send(publish("a/#", "p"));
    await wire.ends();
    await published(await world().join("p"), "t", "p");
    await (await world().join("s", durable, true)).receives("t", "p", { qos: 1 });
  });

  it("[MQTT-4.8.0-1] random bytes are not answered, and harm nobody", async () => {
    const bystander = await world().subscriber("bystander", ["#", 0]);
    let seed = 311;
    const random = (): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff;
      return (seed >> 16) & 0xff;
    };
    for (let count = 0; count < 50; count += 1) {
      const wire = await world().join("faulty");
      wire.send(Buffer.from([0xf0 | random(), ...Array.from({ length: 40 }, random)]));
      expect(await wire.take()).to.deep.equal([]); // it may wait for what its length announces
      await wire.drop();
    }
    await bystander.lives();
  });
});

chapter("a transient error", (world) => {
  for (const verdict of ["full", "failed"] as const) {
    for (const qos of [1, 2] as const) {
      it(`[MQTT-4.8.0-2] the store is ${verdict}: a QoS ${qos} message for a session ends the connection without an answer, and no other`, async () => {
        await world().asleep("s", ["t", 2]);
        const bystander = await world().subscriber("bystander", ["other", 1]);
        const wire = await world().join("a");
        world().rig.store.verdict = verdict;
        wire.send(publish("t", "p", { qos, id: 5 }));
        await wire.ends();
        world().rig.store.verdict = "ok";
        await bystander.lives();
        await (await world().join("s", durable, true)).quiet();
      });
    }
  }

  it("[MQTT-4.8.0-2] afterwards the client can send the message again", async () => {
    await world().asleep("s", ["t", 2]);
    const wire = await world().join("a", durable);
    world().rig.store.verdict = "full";
    wire.send(publish("t", "p", { qos: 2, id: 5 }));
    await wire.ends();
    world().rig.store.verdict = "ok";
    const again = await world().join("a", durable, true);
    await complete(again, "t", "p", 2, { id: 5, dup: true });
    await (await world().join("s", durable, true)).receives("t", "p", { qos: 2 });
  });
});

chapter("acknowledgements and the store", (world) => {
  it("[MQTT-4.3.2-2] [MQTT-4.3.3-2] no PUBACK and no PUBREC before the message is in the server's keeping", async () => {
    await world().asleep("s", ["t", 2]);
    const wire = await world().join("a");
    world().rig.store.hold = true;
    wire.send(publish("t", "1", { qos: 1, id: 1 }), publish("t", "2", { qos: 2, id: 2 }));
    await wire.quiet();
    world().rig.store.settle();
    await wire.gets(hex("40020001"), pubrec(2));
    world().rig.store.hold = false;
  });

  it("[MQTT-4.3.2-2] [MQTT-4.1.0-1] what was acknowledged is there after a crash of the server", async () => {
    await world().asleep("s", ["t", 2]);
    const wire = await world().join("a");
    await published(wire, "t", "acknowledged");
    world().rig.store.hold = true;
    wire.send(publish("t", "not yet", { qos: 1, id: 9 }));
    await wire.quiet();
    const store = world().rig.store.crash();
    store.hold = false;
    const next = new World({ store });
    const back = await next.join("s", durable, true);
    await back.receives("t", "acknowledged", { qos: 1 });
    await back.quiet();
    await next.close();
    world().rig.store.hold = false;
  });
});

chapter("the transport", (world) => {
  const exchange = async (socket: Socket): Promise<void> => {
    const wire = new Wire(socket);
    await once(socket, "connect");
    wire.send(connect("a"));
    await wire.gets(connack(0));
    wire.send(subscribe(1, ["t", 0]));
    await wire.gets(suback(1, 0));
    wire.send(publish("u", "p", { qos: 2, id: 3 }));
    await wire.gets(pubrec(3));
    wire.send(pubrel(3), publish("t", "p"));
    await wire.gets(pubcomp(3), publish("t", "p"));
    await wire.leave();
  };

  it("[MQTT-7.1.1-1] [MQTT-7.1.2-1] [MQTT-7.0.0-2] TCP carries it", async () => {
    const { port } = await world().rig.broker.listen({ url: "mqtt://127.0.0.1:0" });
    await exchange(dial(port, "127.0.0.1"));
  });

  it("[MQTT-7.1.1-1] a unix socket carries it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tidegate-spec-"));
    try {
      await world().rig.broker.listen({ url: `unix://${join(folder, "mqtt.sock")}` });
      await exchange(dial(join(folder, "mqtt.sock")));
    } finally {
      await world().rig.close();
      await rm(folder, { recursive: true });
    }
  });
});
