import { chapter, durable } from "./support.ts";

chapter("the Will and the end of the server", (world) => {
  it("[3.1.2.5] [MQTT-3.1.2-8] of a client that is connected when the server stops is published, then or after the restart", async () => {
    await world().asleep("s", ["will", 1]);
    await world().join("a", { will: { topic: "will", payload: "gone", qos: 1 } });
    await world().restart();
    world().rig.advance(1000);
    await (await world().join("s", durable, true)).receives("will", "gone", { qos: 1 });
  });

  it("[3.1.2.5] [MQTT-3.1.2-17] a retained one is retained after the restart", async () => {
    await world().join("a", { will: { topic: "will", payload: "gone", qos: 1, retain: true } });
    await world().restart();
    world().rig.advance(1000);
    await (await world().subscriber("later", ["will", 1])).receives("will", "gone", { qos: 1, retain: true });
  });
});
