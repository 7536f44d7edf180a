import { expect } from "chai";
import { chapter, puback, pubcomp, publish, pubrec, pubrel, type Qos, type Wire } from "./support.ts";

const numbers = (count: number): string[] => Array.from({ length: count }, (_, at) => `${at}`);

/** Takes deliveries and answers them in their order until `count` have come, or no more do. */
async function consume(wire: Wire, count: number): Promise<string[]> {
  const payloads: string[] = [];
  for (let idle = 0; payloads.length < count && idle < 20; idle += 1) {
    for (const { payload, qos, id } of await wire.deliveries()) {
      payloads.push(payload);
      idle = 0;
      if (qos === 1) wire.send(puback(id));
      if (qos === 2) wire.send(pubrec(id), pubcomp(id));
    }
  }
  return payloads;
}

/** Answers the PUBRECs, of which there must be `count`, in their order. */
async function release(publisher: Wire, count: number): Promise<void> {
  const received = (await publisher.take()).filter((frame) => frame[0] === 0x50);
  expect(received).to.have.lengthOf(count);
  publisher.send(...received.map((frame) => pubrel(frame.readUInt16BE(2))));
  await publisher.take();
}

chapter("message order", (world) => {
  for (const qos of [0, 1, 2] as const) {
    it(`[MQTT-4.6.0-5] [MQTT-4.6.0-6] of one publisher and topic is kept, QoS ${qos}`, async () => {
      const subscribers = [
        await world().subscriber("one", ["t", qos]),
        await world().subscriber("two", ["#", qos]),
        await world().subscriber("three", ["+", 0]),
      ];
      const publisher = await world().join("p");
      const payloads = numbers(80);
      payloads.forEach((payload, at) => {
        publisher.send(publish("t", payload, { qos, id: at + 1 }));
      });
      await release(publisher, qos === 2 ? payloads.length : 0);
      for (const wire of subscribers) expect(await consume(wire, payloads.length)).to.deep.equal(payloads);
    });
  }

  it("[MQTT-4.6.0-5] [MQTT-4.6.0-6] holds for each topic and QoS of several publishers", async () => {
    const wire = await world().subscriber("s", ["#", 2]);
    const publishers = [await world().join("p0"), await world().join("p1")];
    for (let at = 0; at < 60; at += 1) {
      for (const [number, publisher] of publishers.entries()) {
        const qos = (at % 3) as Qos;
        publisher.send(publish(`t${number}/${qos}`, `${at}`, { qos, id: at + 1 }));
      }
    }
    for (const publisher of publishers) await release(publisher, 20);
    const last = new Map<string, number>();
    for (const { topic, payload } of await wire.deliveries()) {
      expect(Number(payload), topic).to.be.greaterThan(last.get(topic) ?? -1);
      last.set(topic, Number(payload));
    }
    expect(last.size).to.equal(6);
  });

  it("[MQTT-4.6.0-2] [MQTT-4.6.0-3] the server acknowledges in the order of the PUBLISHes", async () => {
    await world().subscriber("watcher", ["#", 2]);
    const wire = await world().join("a");
    const ids = [5, 3, 9, 1, 7, 2];
    for (const id of ids) wire.send(publish("t", "p", { qos: 1, id }));
    await wire.gets(...ids.map(puback));
    for (const id of ids) wire.send(publish("t", "p", { qos: 2, id }));
    await wire.gets(...ids.map(pubrec));
  });

  it("[MQTT-4.6.0-4] [MQTT-4.6.0-6] the server sends PUBREL in the order of the PUBRECs", async () => {
    const wire = await world().subscriber("s", ["t", 2]);
    const publisher = await world().join("p");
    for (const id of [1, 2, 3, 4, 5]) publisher.send(publish("t", `${id}`, { qos: 2, id }));
    await release(publisher, 5);
    const ids = (await wire.deliveries()).map(({ id }) => id);
    expect(ids).to.have.lengthOf(5);
    const order = [3, 0, 4, 2, 1].map((at) => ids[at] ?? 0);
    wire.send(...order.map(pubrec));
    await wire.gets(...order.map(pubrel));
  });
});
