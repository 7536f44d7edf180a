// Topic aliases that we send (MQTT 5 section 3.3.2.3.4); those that clients send are in publish.test.ts.
import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import { durable, Rig, type TestClient, text, turns } from "../helpers/brokerRig.ts";

type Publish = Extract<Packet, { cmd: "publish" }>;

/** What a client makes of it: topic and alias as sent, the topic meant, and the payload. Fails where an alias was never told. */
class Reader {
  readonly #known = new Map<number, string>();

  read(packets: Packet[]): Array<[sent: string, alias: number | undefined, topic: string, payload: string]> {
    return packets.flatMap((packet) => (packet.cmd === "publish" ? [this.#one(packet)] : []));
  }

  #one(packet: Publish): [string, number | undefined, string, string] {
    const alias = packet.properties?.topicAlias;
    if (alias !== undefined && packet.topic !== "") this.#known.set(alias, packet.topic);
    const topic = packet.topic === "" ? this.#known.get(alias ?? 0) : packet.topic;
    if (topic === undefined) throw new Error(`alias ${alias} was not told`);
    return [packet.topic, alias, topic, text(packet)];
  }
}

const acknowledge = (client: TestClient, packets: Packet[]): void => {
  for (const packet of packets) {
    if (packet.cmd === "publish" && packet.qos === 1) client.send({ cmd: "puback", messageId: packet.messageId ?? 0 });
  }
};

describe("topic aliases towards the client", () => {
  let rig: Rig;
  beforeEach(() => {
    rig = new Rig({ limits: { topicAliasMaximum: 3 } });
  });
  afterEach(() => rig.close());

  const subscriber = async (
    topicAliasMaximum: number | undefined,
    more: { sessionExpiryInterval?: number; maximumPacketSize?: number; receiveMaximum?: number } = {},
    clientId = "s",
  ): Promise<TestClient> => {
    const properties = { ...more, ...(topicAliasMaximum === undefined ? {} : { topicAliasMaximum }) };
    const client = await rig.client(5, clientId, { clean: more.sessionExpiryInterval === undefined, properties });
    await client.subscribe("long/#", 2);
    return client;
  };

  for (const announced of [undefined, 0]) {
    it(`none for a client that announced ${announced} [MQTT-3.1.2-27]`, async () => {
      const client = await subscriber(announced);
      const publisher = await rig.client(5, "p");
      for (const qos of [0, 0, 1, 1, 2, 2] as const) {
        publisher.publish("long/topic", "x", qos, { messageId: 1 + qos });
        await turns();
      }
      const got = new Reader().read(await client.take());
      expect(got).to.have.length(5); // the second of QoS 2 has an id that is still held
      expect(got.every(([sent, alias]) => sent === "long/topic" && alias === undefined)).to.equal(true);
    });
  }

  for (const [announced, most] of [
    [2, 2],
    [10, 3],
  ] as const) {
    it(`announced ${announced}, ours 3: the first ${most} topics get one, told once, at any QoS [MQTT-3.1.2-26]`, async () => {
      for (const kind of ["clean", "durable"] as const) {
        const client = await subscriber(announced, kind === "durable" ? { sessionExpiryInterval: 99 } : {}, kind);
        const reader = new Reader();
        const publisher = await rig.client(5, "p");
        let id = 1;
        for (let round = 0; round < 3; round += 1) {
          for (let topic = 1; topic <= 5; topic += 1) {
            publisher.publish(`long/${topic}`.padEnd(9, "."), `${topic}`, (round % 3) as 0 | 1 | 2, {
              messageId: id++,
            });
          }
          const packets = await client.take();
          acknowledge(client, packets);
          const got = reader.read(packets);
          expect(got.map(([, , topic]) => topic)).to.deep.equal([1, 2, 3, 4, 5].map((n) => `long/${n}`.padEnd(9, ".")));
          expect(got.map(([, alias]) => alias ?? 0)).to.deep.equal([1, 2, 3, 4, 5].map((n) => (n <= most ? n : 0)));
          const bare = got.filter(([sent]) => sent === "").length;
          expect(bare, `round ${round}`).to.equal(round === 0 ? 0 : most);
        }
        client.send({ cmd: "unsubscribe", messageId: 9, unsubscriptions: ["long/#"] });
        await client.next("unsuback");
      }
    });
  }

  it("a short topic gets none: it would save nothing", async () => {
    const client = await subscriber(3);
    await client.subscribe("s/t", 0);
    const publisher = await rig.client(5, "p");
    publisher.publish("s/t", "x");
    expect(new Reader().read(await client.take())).to.deep.equal([["s/t", undefined, "s/t", "x"]]);
  });

  it("each connection begins anew: what is sent again says its topic", async () => {
    const client = await subscriber(3, { sessionExpiryInterval: 99, receiveMaximum: 1 });
    const publisher = await rig.client(5, "p");
    for (let at = 1; at <= 3; at += 1) publisher.publish("long/topic", `${at}`, 1, { messageId: at });
    const reader = new Reader();
    const first = await client.take();
    acknowledge(client, first);
    const second = await client.take();
    expect(reader.read([...first, ...second]).map(([sent, alias]) => [sent, alias])).to.deep.equal([
      ["long/topic", 1],
      ["", 1],
    ]);
    client.drop();
    await client.gone();
    const again = await rig.client(5, "s", {
      ...{ clean: false, properties: { sessionExpiryInterval: 99, topicAliasMaximum: 1, receiveMaximum: 1 } },
    });
    const fresh = new Reader();
    const third = await again.take();
    acknowledge(again, third);
    expect(fresh.read([...third, ...(await again.take())])).to.deep.equal([
      ["long/topic", 1, "long/topic", "2"],
      ["", 1, "long/topic", "3"],
    ]);
    again.drop();
    await again.gone();
    publisher.publish("long/topic", "4", 1, { messageId: 4 });
    await turns();
    const none = await rig.client(5, "s", durable(5));
    expect(new Reader().read(await none.take()).map(([sent, alias]) => [sent, alias])).to.deep.equal([
      ["long/topic", undefined],
      ["long/topic", undefined],
    ]);
  });

  it("is not told by a packet that was dropped: too large for the client", async () => {
    const client = await subscriber(3, { maximumPacketSize: 40 });
    const publisher = await rig.client(5, "p");
    publisher.publish("long/topic", "x".repeat(50));
    publisher.publish("long/topic", "x".repeat(25)); // with its topic 39 bytes, with an alias told 42, with one known 32
    publisher.publish("long/topic", "y");
    publisher.publish("long/topic", "x".repeat(25));
    const got = new Reader().read(await client.take());
    expect(got.map(([sent, alias, , payload]) => [sent, alias, payload.length])).to.deep.equal([
      ["long/topic", undefined, 25],
      ["long/topic", 1, 1],
      ["", 1, 25],
    ]);
    expect(rig.dropped("too-large")).to.equal(1);
  });

  it("is not told by a packet that was dropped: the outbox was full", async () => {
    const small = new Rig({ limits: { outboxBytes: 2000 } });
    const client = small.open(5, 1000);
    const properties = { topicAliasMaximum: 5 };
    client.send({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 5,
      clean: true,
      clientId: "s",
      keepalive: 0,
      properties,
    });
    await client.connack();
    await client.subscribe("long/#", 0);
    client.stall();
    const publisher = await small.client(5, "p");
    for (let at = 0; at < 100; at += 1) publisher.publish(`long/${at % 2 === 0 ? "one" : "two"}`, "x".repeat(400));
    await turns(30);
    for (let at = 0; at < 20; at += 1) publisher.publish("long/three", "y".repeat(100));
    await turns();
    expect(small.dropped("outbox-full")).to.be.above(50);
    client.resume();
    await turns(50);
    publisher.publish("long/three", "last");
    const got = new Reader().read(await client.take()); // fails where one was not told
    expect(got.at(-1)).to.deep.equal(["long/three", 3, "long/three", "last"]);
    await small.close();
  });

  it("retained messages, shared subscriptions and identifiers have it as well", async () => {
    const publisher = await rig.client(5, "p");
    publisher.publish("long/kept", "r", 1, { retain: true, messageId: 1 });
    await turns();
    const client = await rig.client(5, "s", { properties: { topicAliasMaximum: 2 } });
    await client.subscribe("long/kept", 1, { id: 5 });
    const reader = new Reader();
    const packets = await client.take();
    await client.subscribe("$share/g/long/shared", 1, { id: 6 });
    for (let at = 0; at < 2; at += 1) publisher.publish("long/shared", "s", 1, { messageId: 2 + at });
    publisher.publish("long/kept", "l", 0);
    packets.push(...(await client.take()));
    expect(reader.read(packets)).to.deep.equal([
      ["long/kept", 1, "long/kept", "r"],
      ["long/shared", 2, "long/shared", "s"],
      ["", 2, "long/shared", "s"],
      ["", 1, "long/kept", "l"],
    ]);
    const ids = packets.flatMap((packet) =>
      packet.cmd === "publish" ? [packet.properties?.subscriptionIdentifier] : [],
    );
    expect(ids).to.deep.equal([5, 6, 6, 5]);
  });

  it("one publisher, twenty subscribers with aliases and without: each gets what it can read", async () => {
    const clients = await Promise.all(
      Array.from({ length: 20 }, async (_, at) => {
        const client = await subscriber(at % 3, {}, `s${at}`);
        return { client, reader: new Reader() };
      }),
    );
    const publisher = await rig.client(5, "p");
    for (let at = 0; at < 30; at += 1)
      publisher.publish(`long/${["abc", "def", "ghi"][at % 3]}`, `${at}`, (at % 2) as 0 | 1, { messageId: at + 1 });
    for (const { client, reader } of clients) {
      const got = reader.read(await client.take());
      expect(got.map(([, , topic, payload]) => [topic, payload])).to.deep.equal(
        Array.from({ length: 30 }, (_, at) => [`long/${["abc", "def", "ghi"][at % 3]}`, `${at}`]),
      );
    }
  });
});
