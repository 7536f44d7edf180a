/** MQTT 3.1 (MQIsdp, level 3): what differs from 3.1.1. */
import { expect } from "chai";
import type { IConnectPacket } from "mqtt-packet";
import { Rig, type TestClient, text, turns } from "../helpers/brokerRig.ts";

const old = { protocolId: "MQIsdp", protocolVersion: 3 } as const;

async function open(rig: Rig, clientId: string, more: Partial<IConnectPacket> = {}): Promise<TestClient> {
  const client = rig.open(4);
  client.send({ cmd: "connect", clean: true, keepalive: 0, clientId, ...old, ...more });
  const { code, sessionPresent } = await client.connack();
  expect([code, sessionPresent]).to.deep.equal([0, false]);
  return client;
}

describe("MQTT 3.1", () => {
  let rig: Rig;
  beforeEach(() => {
    rig = new Rig();
  });
  afterEach(() => rig.close());

  it("is served at every QoS, beside the newer versions", async () => {
    const client = await open(rig, "a");
    const five = await rig.client(5, "b");
    for (const qos of [0, 1, 2] as const) {
      expect(await client.subscribe(`t/${qos}`, qos)).to.deep.equal([qos]);
      five.publish(`t/${qos}`, "x", qos, { messageId: 10 + qos, properties: { contentType: "text" } });
      expect((await client.next("publish")).qos).to.equal(qos);
    }
    await five.subscribe("back", 2);
    client.publish("back", "y", 2, { messageId: 9 });
    await client.next("pubrec");
    client.send({ cmd: "pubrel", messageId: 9 });
    await client.next("pubcomp");
    expect(text(await five.next("publish"))).to.equal("y");
    expect([...rig.broker.clients()].find(({ clientId }) => clientId === "a")?.version).to.equal(3);
  });

  it("client ids have 1 to 23 characters, else return code 2 (section 3.1)", async () => {
    await open(rig, "x".repeat(23));
    for (const clientId of ["x".repeat(24), ""]) {
      const client = rig.open(4);
      const bytes = Buffer.concat([Buffer.from("00064d51497364700302003c", "hex"), Buffer.from([0, clientId.length])]);
      client.raw(Buffer.concat([Buffer.from([0x10, bytes.length + clientId.length]), bytes, Buffer.from(clientId)]));
      expect((await client.connack()).code).to.equal(2);
      await client.gone();
    }
  });

  it("another level under the name MQIsdp: return code 1 (section 3.2)", async () => {
    const client = rig.open(4);
    client.raw(Buffer.from("100f00064d51497364700402003c000163", "hex"));
    expect((await client.connack()).code).to.equal(1);
    await client.gone();
  });

  it("a session that goes on is not told in the CONNACK, whose first byte is reserved (section 3.2)", async () => {
    const first = await open(rig, "a", { clean: false });
    await first.subscribe("t", 1);
    first.drop();
    await turns();
    const publisher = await rig.client(4, "p");
    publisher.publish("t", "kept", 1);
    await publisher.next("puback");
    const second = await open(rig, "a", { clean: false });
    expect(text(await second.next("publish"))).to.equal("kept");
  });

  it("SUBSCRIBE and UNSUBSCRIBE may come with DUP, PUBREL too (section 2.1)", async () => {
    const client = await open(rig, "a");
    client.raw(Buffer.from("8a06000100017401", "hex"));
    expect((await client.next("suback")).granted).to.deep.equal([1]);
    client.publish("t", "x", 2, { messageId: 3 });
    await client.next("pubrec");
    client.raw(Buffer.from("6a020003", "hex"));
    await client.next("pubcomp");
    client.raw(Buffer.from("aa050002000174", "hex"));
    await client.next("unsuback");
  });

  it("a subscription that is refused gets a positive answer: there is no other (section 3.9)", async () => {
    const small = new Rig({ limits: { maxTopicLevels: 2 } });
    const client = await open(small, "a");
    expect(await client.subscribe("a/b/c", 1)).to.deep.equal([1]);
    expect(small.broker.stats().subscriptions).to.equal(0);
    await small.close();
  });

  it("flags may promise a user name that the remaining length does not have (section 3.1)", async () => {
    const client = rig.open(4);
    client.raw(Buffer.from("100f00064d514973647003c2003c000163", "hex"));
    expect((await client.connack()).code).to.equal(0);
  });

  it("wills and Keep Alive work as in 3.1.1", async () => {
    const watcher = await rig.client(5, "w");
    await watcher.subscribe("will", 1);
    const will = { topic: "will", payload: Buffer.from("gone"), qos: 1 as const, retain: false };
    const client = await open(rig, "a", { will, keepalive: 10 });
    rig.advance(16_000);
    await client.gone();
    expect(text(await watcher.next("publish"))).to.equal("gone");
  });
});
