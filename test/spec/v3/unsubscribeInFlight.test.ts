import {
  chapter,
  complete,
  durable,
  puback,
  pubcomp,
  publish,
  pubrec,
  pubrel,
  subscribed,
  unsuback,
  unsubscribe,
  type Wire,
} from "./support.ts";

chapter("UNSUBSCRIBE while messages are in flight", (world) => {
  let wire: Wire;
  beforeEach(async () => {
    wire = await world().join("a", durable);
    await subscribed(wire, ["t", 2]);
  });

  it("[MQTT-3.10.4-3] what was begun with QoS 1 is acknowledged, or comes again", async () => {
    await complete(await world().join("p"), "t", "p", 1);
    const id = await wire.receives("t", "p", { qos: 1 });
    wire.send(unsubscribe(9, "t"));
    await wire.gets(unsuback(9));
    await wire.drop();
    const again = await world().join("a", durable, true);
    await again.gets(publish("t", "p", { qos: 1, id, dup: true }));
    again.send(puback(id));
    await again.lives();
  });

  it("[MQTT-3.10.4-3] what was begun with QoS 2 is completed", async () => {
    await complete(await world().join("p"), "t", "p", 2);
    const id = await wire.receives("t", "p", { qos: 2 });
    wire.send(unsubscribe(9, "t"));
    await wire.gets(unsuback(9));
    wire.send(pubrec(id));
    await wire.gets(pubrel(id));
    wire.send(pubcomp(id));
    await wire.lives();
  });

  it("[MQTT-3.10.4-3] what was begun with QoS 2 is completed over a reconnect", async () => {
    await complete(await world().join("p"), "t", "p", 2);
    const id = await wire.receives("t", "p", { qos: 2 });
    wire.send(unsubscribe(9, "t"), pubrec(id));
    await wire.gets(unsuback(9), pubrel(id));
    await wire.drop();
    const again = await world().join("a", durable, true);
    await again.gets(pubrel(id));
    again.send(pubcomp(id));
    await again.lives();
  });
});
