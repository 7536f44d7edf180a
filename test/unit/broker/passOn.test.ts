import { connect, type Socket } from "node:net";
import { expect } from "chai";
import { generate, type IPublishPacket, type Packet, parser } from "mqtt-packet";
import { Rig, turns, versions } from "../../helpers/brokerRig.ts";
import { openBroker } from "../../helpers/openBroker.ts";
import { until } from "../../helpers/wait.ts";

/** What the fast lane passes on as the bytes it came in must be what the long way would have sent. */
describe("passing a PUBLISH on", () => {
  for (const version of versions) {
    for (const qos of [0, 1, 2] as const) {
      it(`QoS ${qos}, MQTT ${version}: each subscriber gets it with its own packet id and QoS, without DUP and RETAIN`, async () => {
        const rig = new Rig();
        const publisher = await rig.client(version, "p");
        const other = version === 4 ? 5 : 4;
        const names = ["q0", "q1", "q2", "other version", "with identifier"];
        const clients = [];
        for (const [at, name] of names.entries()) {
          const client = await rig.client(at < 3 ? version : at === 3 ? other : 5, name);
          await client.subscribe("a/b", at < 3 ? (at as 0 | 1 | 2) : 2, at === 4 ? { id: 7 } : {});
          clients.push(client);
        }
        publisher.publish("a/b", "warm", 0); // the topic is known by its bytes from now on
        publisher.publish("a/b", "x", qos, { messageId: 77 });
        publisher.publish("a/b", "y", qos, { messageId: 78, dup: qos > 0 });
        publisher.publish("a/b", "z", qos, { messageId: 79, retain: true });
        for (const [at, client] of clients.entries()) {
          const got = (await client.take()).filter((packet): packet is IPublishPacket => packet.cmd === "publish");
          const granted = Math.min(qos, at < 3 ? at : 2);
          expect(got.map(({ payload }) => String(payload))).to.deep.equal(["warm", "x", "y", "z"]);
          for (const packet of got.slice(1)) {
            expect(packet).to.include({ topic: "a/b", qos: granted, dup: false, retain: false });
            if (at === 4) expect(packet.properties?.subscriptionIdentifier).to.equal(7);
          }
          const ids = granted === 0 ? [undefined, undefined, undefined] : [1, 2, 3];
          expect(got.slice(1).map(({ messageId }) => messageId)).to.deep.equal(ids);
        }
        const answers = (await publisher.take()).map(({ cmd, messageId }) => `${cmd} ${messageId}`);
        const answer = qos === 1 ? "puback" : "pubrec";
        expect(answers).to.deep.equal(qos === 0 ? [] : [77, 78, 79].map((id) => `${answer} ${id}`));
        await rig.close();
      });
    }

    it(`MQTT ${version}: a QoS 2 id that comes twice is delivered once, and again after its PUBREL`, async () => {
      const rig = new Rig();
      const publisher = await rig.client(version, "p");
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("a", 2);
      publisher.publish("a", "warm", 0);
      for (const payload of ["once", "once"]) publisher.publish("a", payload, 2, { messageId: 5 });
      publisher.send({ cmd: "pubrel", messageId: 5 } as Packet);
      publisher.publish("a", "again", 2, { messageId: 5 });
      const got = (await subscriber.take()).filter((packet): packet is IPublishPacket => packet.cmd === "publish");
      expect(got.map(({ payload }) => String(payload))).to.deep.equal(["warm", "once", "again"]);
      const answers = (await publisher.take()).map(({ cmd }) => cmd);
      expect(answers).to.deep.equal(["pubrec", "pubrec", "pubcomp", "pubrec"]);
      await rig.close();
    });

    it(`MQTT ${version}: what the window has no room for waits, and keeps its order with what comes after`, async () => {
      const rig = new Rig({ limits: { maxInflight: 2 } });
      const publisher = await rig.client(version, "p");
      const subscriber = await rig.client(version, "s");
      await subscriber.subscribe("a", 1);
      publisher.publish("a", "warm", 0);
      for (let n = 1; n <= 5; n += 1) publisher.publish("a", `${n}`, 1, { messageId: n });
      const seen: string[] = [];
      for (let n = 1; n <= 5; n += 1) {
        await turns();
        const got = subscriber.received.filter((packet): packet is IPublishPacket => packet.cmd === "publish");
        expect(got.filter(({ qos }) => qos === 1).length).to.be.at.most(2);
        const next = await subscriber.next("publish");
        if (next.qos === 0) {
          n -= 1;
          continue;
        }
        seen.push(String(next.payload));
        subscriber.send({ cmd: "puback", messageId: next.messageId } as Packet);
        if (n === 3) publisher.publish("a", "6", 1, { messageId: 6 });
      }
      expect(seen).to.deep.equal(["1", "2", "3", "4", "5"]);
      expect(String((await subscriber.next("publish")).payload)).to.equal("6");
      await rig.close();
    });
  }

  it("MQTT 5: more than its Receive Maximum ends the publisher, on the fast lane too", async () => {
    const rig = new Rig({ limits: { receiveMaximum: 3 } });
    const publisher = await rig.client(5, "p");
    publisher.publish("a", "warm", 0);
    const frames = [1, 2, 3, 4].map((messageId) =>
      generate({ cmd: "publish", topic: "a", payload: "x", qos: 2, retain: false, dup: false, messageId }, five),
    );
    publisher.raw(Buffer.concat(frames));
    expect((await publisher.next("disconnect")).reasonCode).to.equal(0x93);
    await rig.close();
  });

  it("a socket that stops reading gets what was written to it, whatever was written to others meanwhile", async () => {
    const { broker } = openBroker();
    const { port } = await broker.listen({ url: "mqtt://127.0.0.1:0" });
    const slow = await Numbers.open(port, "slow");
    const quick = await Numbers.open(port, "quick");
    const publishers = [await Numbers.open(port, "p1"), await Numbers.open(port, "p2")];
    try {
      await Promise.all([slow, quick].map((client) => client.subscribe()));
      slow.socket.pause();
      const each = 8000;
      for (let number = 0; number < each; number += 1)
        for (const publisher of publishers) publisher.publish(number, 100 + ((number * 37) % 2900));
      await until(
        "the quick one has the last of both",
        () => quick.faults.length > 0 || quick.seen.filter((n) => n === each - 1).length === 2,
      );
      slow.socket.resume();
      for (const publisher of publishers) publisher.publish(each, 100); // a marker, which the slow one has room for once it reads
      await until("the slow one has caught up", () => {
        if (slow.seen.includes(each) || slow.faults.length > 0) return true;
        for (const publisher of publishers) publisher.publish(each, 100);
        return false;
      });
      expect(slow.faults.concat(quick.faults)).to.deep.equal([]);
      expect(slow.seen.length).to.be.above(500);
    } finally {
      for (const client of [slow, quick, ...publishers]) client.socket.destroy();
      await broker.close();
    }
  });
});

const five = { protocolVersion: 5 };

/** Publishes and gets messages whose bytes follow from their number and length. */
class Numbers {
  readonly socket: Socket;
  readonly seen: number[] = [];
  readonly faults: string[] = [];
  subscribed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    const reader = parser({ protocolVersion: 4 });
    reader.on("packet", (packet: Packet) => this.#take(packet));
    reader.on("error", (error: Error) => this.faults.push(error.message));
    socket.on("data", (chunk: Buffer) => reader.parse(chunk));
    socket.on("error", () => {});
  }

  static async open(port: number, clientId: string): Promise<Numbers> {
    const client = new Numbers(connect(port, "127.0.0.1"));
    client.#send({ cmd: "connect", protocolId: "MQTT", protocolVersion: 4, clean: true, clientId, keepalive: 0 });
    return client;
  }

  async subscribe(): Promise<void> {
    this.#send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "n", qos: 0 }] });
    await until("SUBACK", () => this.subscribed);
  }

  publish(number: number, length: number): void {
    const payload = Buffer.alloc(length, number & 0xff);
    payload.writeUInt32BE(number, 0);
    this.#send({ cmd: "publish", topic: "n", payload, qos: 0, retain: false, dup: false });
  }

  #take(packet: Packet): void {
    if (packet.cmd === "suback") this.subscribed = true;
    if (packet.cmd !== "publish") return;
    const payload = packet.payload as Buffer;
    const number = payload.readUInt32BE(0);
    this.seen.push(number);
    const good = payload.subarray(4).every((byte) => byte === (number & 0xff));
    if (!good && this.faults.length < 5) this.faults.push(`message ${number} has other bytes`);
  }

  #send(packet: Packet): void {
    this.socket.write(generate(packet));
  }
}
