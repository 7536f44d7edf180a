/** Session state over a restart of the server, on the same store. */
import { expect } from "chai";
import {
  chapter,
  complete,
  durable,
  puback,
  pubcomp,
  publish,
  pubrec,
  pubrel,
  type Qos,
  subscribed,
  unsuback,
  unsubscribe,
  type Wire,
} from "./support.ts";

chapter("a session over a restart of the server", (world) => {
  let wire: Wire;
  beforeEach(async () => {
    wire = await world().join("s", durable);
    await subscribed(wire, ["t", 2]);
  });
  const send = async (payload: string, qos: Qos): Promise<void> => complete(await world().join("p"), "t", payload, qos);
  const back = async (): Promise<Wire> => {
    await world().restart();
    return world().join("s", durable, true);
  };

  it("[MQTT-4.1.0-1] [MQTT-4.4.0-1] a QoS 1 message in flight comes again with its id and DUP", async () => {
    await send("p", 1);
    const id = await wire.receives("t", "p", { qos: 1 });
    await wire.drop();
    await (await back()).gets(publish("t", "p", { qos: 1, id, dup: true }));
  });

  it("[MQTT-4.1.0-1] [MQTT-2.3.1-4] what is new after it has other ids than what is in flight", async () => {
    await send("1", 1);
    await send("2", 2);
    const ids = [await wire.receives("t", "1", { qos: 1 }), await wire.receives("t", "2", { qos: 2 })];
    await wire.drop();
    const again = await back();
    await again.take();
    for (const qos of [1, 2, 1, 2] as const) {
      await send("new", qos);
      ids.push(await again.receives("t", "new", { qos }));
    }
    expect(new Set(ids).size).to.equal(6);
  });

  it("[MQTT-4.3.2-1] [MQTT-4.3.3-1] what was acknowledged does not come again", async () => {
    await send("1", 1);
    wire.send(puback(await wire.receives("t", "1", { qos: 1 })));
    await send("2", 2);
    const id = await wire.receives("t", "2", { qos: 2 });
    wire.send(pubrec(id));
    await wire.gets(pubrel(id));
    wire.send(pubcomp(id));
    await wire.lives();
    await wire.leave();
    await (await back()).quiet();
  });

  it("[MQTT-4.1.0-1] [MQTT-3.10.4-2] a subscription that was deleted stays deleted", async () => {
    wire.send(unsubscribe(1, "t"));
    await wire.gets(unsuback(1));
    await wire.drop();
    const again = await back();
    await send("p", 1);
    await again.quiet();
  });

  it("[MQTT-4.1.0-1] [MQTT-3.8.4-3] a subscription that was replaced has its last QoS", async () => {
    await subscribed(wire, ["t", 0]);
    await wire.drop();
    const again = await back();
    await send("p", 2);
    await again.gets(publish("t", "p"));
    await again.quiet();
  });

  it("[MQTT-3.1.2-6] a session that Clean Session 1 threw away is not there again", async () => {
    await wire.drop();
    await (await world().join("s")).leave();
    await world().restart();
    await world().join("s", durable, false);
    expect(world().rig.broker.stats().subscriptions).to.equal(0);
  });

  it("[MQTT-4.6.0-6] [MQTT-4.1.0-1] messages in flight and waiting keep their order", async () => {
    for (const payload of ["0", "1", "2"]) await send(payload, 1);
    await wire.take();
    await wire.drop();
    for (const payload of ["3", "4"]) await send(payload, 2);
    const again = await back();
    await send("5", 1);
    expect((await again.deliveries()).map(({ payload }) => payload)).to.deep.equal(["0", "1", "2", "3", "4", "5"]);
  });

  it("[MQTT-4.3.3-2] [MQTT-4.1.0-1] after PUBCOMP a QoS 2 id of the client is new", async () => {
    await complete(wire, "u", "1", 2, { id: 6 });
    await wire.drop();
    const again = await back();
    const watcher = await world().subscriber("watcher", ["u", 0]);
    await complete(again, "u", "2", 2, { id: 6 });
    await watcher.gets(publish("u", "2"));
  });

  it("[MQTT-4.1.0-1] several restarts change nothing", async () => {
    await send("p", 2);
    const id = await wire.receives("t", "p", { qos: 2 });
    await wire.drop();
    for (let count = 0; count < 3; count += 1) await world().restart();
    await (await back()).gets(publish("t", "p", { qos: 2, id, dup: true }));
  });

  it("[MQTT-4.1.0-1] it is enough that the client never left: a restart while it is connected", async () => {
    await send("p", 1);
    await wire.receives("t", "p", { qos: 1 });
    const again = await back();
    const [first] = await again.deliveries();
    expect(first).to.include({ payload: "p", qos: 1, dup: true });
  });
});
