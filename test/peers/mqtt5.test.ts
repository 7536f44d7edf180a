import { expect } from "chai";
import { needPeers, stopPeers } from "../helpers/peers.ts";
import { TapProxy } from "../helpers/tapProxy.ts";
import { until } from "../helpers/wait.ts";
import type { Door, Kit, MessageProperties } from "./clients/kit.ts";
import { mosquitto } from "./clients/mosquitto.ts";
import { mqttJs, mqttJsCommand, pahoPython, pahoPythonCommand, ScriptedClient } from "./clients/scripted.ts";
import { PeerGateway } from "./peerGateway.ts";

const kits: readonly Kit[] = [mqttJs, pahoPython, mosquitto];
const libraries = [
  ["MQTT.js", mqttJsCommand],
  ["python3-paho-mqtt", pahoPythonCommand],
] as const;

describe("peer: what only MQTT 5 has", function () {
  this.timeout(180_000);
  let gateway: PeerGateway;
  let tap: TapProxy | undefined;
  before(async function () {
    needPeers(this, "openssl", ...kits.flatMap(({ needs }) => needs));
    gateway = await PeerGateway.start(["mqtt"], "  limits: { receiveMaximum: 50 }");
  });
  after(() => gateway?.remove());
  afterEach(async () => {
    stopPeers();
    await tap?.close();
    tap = undefined;
  });
  const door = (): Door => gateway.door("mqtt");

  for (const publisher of kits) {
    it(`properties of ${publisher.name} reach every other as they were sent`, async () => {
      const topic = `five/${publisher.name.replaceAll(/[^A-Za-z0-9]+/g, "-")}`;
      // A library that groups them by name cannot send them in another order.
      const mixed: Array<[string, string]> = [
        ["zone", "1"],
        ["a", "2"],
        ["zone", "3"],
      ];
      const userProperties = publisher.ordersProperties ? mixed : mixed.toSorted(([a], [b]) => (a > b ? -1 : 1));
      const properties: MessageProperties = {
        ...{ userProperties, correlationData: Buffer.from("call 7").toString("hex"), responseTopic: "answers/7" },
        ...{ contentType: "text/plain", messageExpiry: 1000, payloadFormat: 1 },
      };
      const subscribers = await Promise.all(
        kits.map((kit) => kit.subscribe(door(), { version: "5", qos: 2, filter: topic })),
      );
      await publisher.publish(door(), { version: "5", qos: 1, topic, properties }, ["text"]);
      for (const [at, subscriber] of subscribers.entries()) {
        await until(`${kits[at]?.name} has it`, () => subscriber.seen().length > 0);
        const { messageExpiry, ...got } = subscriber.seen()[0]?.properties ?? {};
        const { messageExpiry: _sent, ...sent } = properties;
        const grouped = mixed.toSorted(([a], [b]) => (a > b ? -1 : 1));
        const shown = kits[at]?.ordersProperties === true ? userProperties : grouped;
        expect(got, kits[at]?.name).to.deep.equal({ ...sent, userProperties: shown });
        expect(messageExpiry, kits[at]?.name).to.be.within(940, 1000); // what is left of it [MQTT-3.3.2-6]
        await subscriber.leave();
      }
    });
  }

  it("a shared subscription: each message to one member, of whatever library, and every member gets some", async () => {
    const members = await Promise.all(
      [...kits, ...kits].map((kit) => kit.subscribe(door(), { version: "5", qos: 1, filter: "$share/crew/jobs/#" })),
    );
    const lines = Array.from({ length: 300 }, (_, n) => `task ${n}`);
    await pahoPython.publish(door(), { version: "5", qos: 1, topic: "jobs/1" }, lines);
    const all = () => members.flatMap((member) => member.seen().map(({ payload }) => payload));
    await until("all of it is done", () => all().length >= lines.length);
    for (const member of members) await member.leave();
    expect(all().toSorted()).to.deep.equal(lines.toSorted());
    for (const member of members) expect(member.seen().length).to.be.above(10);
  });

  for (const [name, command] of libraries) {
    it(`${name}: a session lives as long as it was asked to`, async () => {
      const visit = async (expiry: number): Promise<boolean> => {
        const client = new ScriptedClient(command);
        const present = await client.connect(door(), { version: "5", clientId: `x-${name}`, persistent: true, expiry });
        await client.subscribe("nothing", 1);
        await client.leave();
        return present;
      };
      expect(await visit(3600)).to.equal(false);
      expect(await visit(1)).to.equal(true);
      await new Promise((resolve) => setTimeout(resolve, 3000)); // the time is what is tested
      expect(await visit(0)).to.equal(false);
      expect(await visit(0)).to.equal(false);
    });

    it(`${name}: a message that expired while its receiver was away does not come`, async () => {
      const options = { version: "5", clientId: `late-${name}`, persistent: true } as const;
      const away = new ScriptedClient(command);
      await away.connect(door(), options);
      await away.subscribe(`late/${name}`, 1);
      await away.leave();
      const publisher = new ScriptedClient(command);
      await publisher.connect(door(), { version: "5" });
      const topic = { topic: `late/${name}`, qos: 1 } as const;
      await publisher.publish({ ...topic, properties: { messageExpiry: 1 } }, ["short"]);
      await publisher.publish({ ...topic, properties: { messageExpiry: 100 } }, ["long"]);
      await new Promise((resolve) => setTimeout(resolve, 2000)); // the time is what is tested
      const back = new ScriptedClient(command);
      expect(await back.connect(door(), options)).to.equal(true);
      await until("the other one is there", () => back.messages.length > 0);
      await publisher.publish(topic, ["end"]);
      await until("what came behind it is there", () => back.messages.at(-1)?.payload === "end");
      expect(back.messages.map(({ payload }) => payload)).to.deep.equal(["long", "end"]);
      expect(back.messages[0]?.properties?.messageExpiry).to.be.within(40, 98);
      await Promise.all([back.leave(), publisher.leave()]);
    });

    it(`${name}: a topic alias stands for its topic, and may be given another`, async () => {
      tap = await TapProxy.open(door().port);
      const subscriber = await mosquitto.subscribe(door(), { version: "5", qos: 1, filter: `alias/${name}/#` });
      const publisher = new ScriptedClient(command);
      await publisher.connect({ ...door(), port: tap.port }, { version: "5" });
      const send = (topic: string, payload: string): Promise<void> =>
        publisher.publish({ topic, qos: 1, properties: { topicAlias: 1 } }, [payload]);
      await send(`alias/${name}/a`, "1");
      await send("", "2");
      await send(`alias/${name}/b`, "3");
      await send("", "4");
      await until("all are there", () => subscriber.seen().length >= 4);
      const got = subscriber.seen().map(({ topic, payload }) => `${topic.at(-1)}${payload}`);
      expect(got).to.deep.equal(["a1", "a2", "b3", "b4"]);
      const onTheWire = tap.up.filter(({ cmd }) => cmd === "publish").map(({ topic }) => topic?.at(-1) ?? "");
      expect(onTheWire).to.deep.equal(["a", "", "b", ""]);
      await Promise.all([publisher.leave(), subscriber.leave()]);
    });

    it(`${name}: Receive Maximum 3, and it acknowledges nothing: 3 messages and no more, QoS 0 passes; then all of them`, async () => {
      tap = await TapProxy.open(door().port);
      const client = new ScriptedClient(command);
      await client.connect({ ...door(), port: tap.port }, { version: "5", receiveMaximum: 3 });
      await client.subscribe(`slow/${name}/#`, 1);
      await client.ask({ do: "hold" }, "holding");
      const lines = Array.from({ length: 200 }, (_, n) => `line ${n}`);
      await mosquitto.publish(door(), { version: "5", qos: 1, topic: `slow/${name}/1` }, lines);
      await mosquitto.publish(door(), { version: "5", qos: 0, topic: `slow/${name}/0` }, ["passes"]);
      const came = (qos: number) => tap?.down.filter((packet) => packet.cmd === "publish" && packet.qos === qos) ?? [];
      await until("QoS 0 is there", () => came(0).length > 0);
      expect(came(1)).to.have.length(3);
      await client.ask({ do: "release" }, "released");
      await until("all are there", () => client.messages.length >= 201);
      const got = client.messages.filter(({ qos }) => qos === 1).map(({ payload }) => payload);
      expect(got).to.deep.equal(lines);
      await client.leave();
    });
  }

  it("MQTT.js: topic aliases of the gateway, which it asked for, are understood", async () => {
    const client = new ScriptedClient(mqttJsCommand);
    await client.connect(door(), { version: "5", topicAliasMaximum: 4 });
    await client.subscribe("many/#", 1);
    const topics = ["a", "b", "a", "c", "d", "e", "f", "a", "b", "f"];
    for (const topic of topics)
      await mosquitto.publish(door(), { version: "5", qos: 1, topic: `many/${topic}` }, [topic]);
    await until("all are there", () => client.messages.length >= topics.length);
    expect(client.messages.map(({ topic }) => topic)).to.deep.equal(topics.map((topic) => `many/${topic}`));
    expect(client.messages.map(({ payload }) => payload)).to.deep.equal(topics);
    await client.leave();
  });

  it("mosquitto_pub keeps within the gateway's Receive Maximum, and 500 messages at QoS 2 arrive once", async () => {
    const lines = Array.from({ length: 500 }, (_, n) => `line ${n}`);
    const subscriber = await mosquitto.subscribe(door(), { version: "5", qos: 2, filter: "window/#" });
    await mosquitto.publish(door(), { version: "5", qos: 2, topic: "window/1" }, lines);
    await until("all are there", () => subscriber.seen().length >= lines.length);
    expect(subscriber.seen().map(({ payload }) => payload)).to.deep.equal(lines);
    await subscriber.leave();
  });
});
