// What is refused or dropped at each limit: with which code, counted where, and what goes on.
import { duplexPair } from "node:stream";
import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import {
  connectPacket,
  durable,
  Rig,
  type RigOptions,
  TestClient,
  text,
  turns,
  versions,
} from "../helpers/brokerRig.ts";

const reasonOf = (packet: Packet): number => ("reasonCode" in packet ? packet.reasonCode : undefined) ?? 0;
const payloads = (packets: Packet[]): string[] =>
  packets.flatMap((packet) => (packet.cmd === "publish" ? [text(packet)] : []));

for (const version of versions) {
  describe(`limits, MQTT ${version}`, () => {
    let rig: Rig;
    const start = (options: RigOptions = {}): void => {
      rig = new Rig(options);
    };
    afterEach(() => rig.close());

    const counted = (name: string, reason: string): number =>
      Number(new RegExp(`^${name}\\{reason="${reason}"\\} (\\d+)$`, "m").exec(rig.meter.expose())?.[1] ?? 0);
    const refused = (reason: string): number => counted("tidegate_mqtt_refused_total", reason);

    /** A connection that says where it comes from. */
    function from(address: string): TestClient {
      const [near, far] = duplexPair();
      near.once("close", () => far.destroy());
      far.once("close", () => near.destroy());
      rig.broker.attach(near, { listener: "test", address });
      const client = new TestClient(far, version);
      client.send(connectPacket(version, ""));
      return client;
    }

    it("connections in all and of one address: ended without a word, counted, until there is room", async () => {
      start({ limits: { maxConnections: 3, maxConnectionsPerAddress: 2 } });
      const first = from("10.0.0.1");
      await first.connack();
      await from("10.0.0.1").connack();
      const third = from("10.0.0.1");
      await third.gone();
      expect(third.received).to.deep.equal([]);
      expect([refused("max-per-address"), refused("max-connections")]).to.deep.equal([1, 0]);
      await from("10.0.0.2").connack();
      const fifth = from("10.0.0.3");
      await fifth.gone();
      expect(fifth.received).to.deep.equal([]);
      expect([refused("max-per-address"), refused("max-connections")]).to.deep.equal([1, 1]);
      first.drop();
      await first.gone();
      await from("10.0.0.1").connack();
    });

    it("no CONNECT in time: ended, counted; those connected stay", async () => {
      start({ limits: { connectTimeoutMs: 5000 } });
      const client = await rig.client(version, "c");
      const silent = rig.open(version);
      const slow = rig.open(version);
      slow.raw(Buffer.from([0x10, 50, 0, 4])); // a part of it is none
      rig.advance(4000);
      await turns();
      expect([silent.closed, slow.closed]).to.deep.equal([false, false]);
      rig.advance(2000);
      await Promise.all([silent.gone(), slow.gone()]);
      expect(refused("timeout")).to.equal(2);
      expect(client.closed).to.equal(false);
    });

    it("persistent sessions: CONNACK 0x97 or 3, counted; a known one and clean ones get in", async () => {
      start({ limits: { maxSessions: 1 } });
      (await rig.client(version, "kept", durable(version))).drop();
      await turns();
      const other = rig.open(version);
      other.send(connectPacket(version, "other", durable(version)));
      expect((await other.connack()).code).to.equal(version === 5 ? 0x97 : 3);
      await other.gone();
      expect(refused("sessions")).to.equal(1);
      await rig.client(version, "clean");
      await rig.client(version, "kept", durable(version));
    });

    it("subscriptions of a client: 0x97 or 0x80 for what is too many, counted; one that it has can be changed", async () => {
      start({ limits: { maxSubscriptions: 2 } });
      const client = await rig.client(version, "c");
      const refusal = version === 5 ? 0x97 : 0x80;
      expect(await client.subscribe("a", 0)).to.deep.equal([0]);
      expect(await client.subscribe("$share/g/a", 1)).to.deep.equal([1]);
      expect(await client.subscribe("b", 0)).to.deep.equal([refusal]);
      expect(await client.subscribe("a", 2)).to.deep.equal([2]);
      expect(counted("tidegate_mqtt_filters_refused_total", "count")).to.equal(1);
      client.send({ cmd: "unsubscribe", messageId: 2, unsubscriptions: ["a"] });
      await client.next("unsuback");
      expect(await client.subscribe("b", 0)).to.deep.equal([0]);
    });

    it("levels of a filter: 0x8F or 0x80, counted; $share and the name are none of them", async () => {
      start({ limits: { maxTopicLevels: 3 } });
      const client = await rig.client(version, "c");
      expect(await client.subscribe("a/b/c", 1)).to.deep.equal([1]);
      expect(await client.subscribe("$share/g/a/b/c", 1)).to.deep.equal([1]);
      expect(await client.subscribe("a/b/c/#", 1)).to.deep.equal([version === 5 ? 0x8f : 0x80]);
      expect(counted("tidegate_mqtt_filters_refused_total", "levels")).to.equal(1);
    });

    for (const qos of [0, 1, 2] as const) {
      it(`levels of a topic, QoS ${qos}: 0x90, in the answer where there is one, counted`, async () => {
        start({ limits: { maxTopicLevels: 3 } });
        const all = await rig.client(version, "all");
        await all.subscribe("#");
        const client = await rig.client(version, "c");
        client.publish("a/b/c", "fits", qos, { messageId: 1 });
        client.publish("a/b/c/d", "does not", qos, { messageId: 2 });
        client.publish("a/b", "after it", qos, { messageId: 3 });
        const kept = version === 5 && qos > 0;
        if (kept) {
          const answers = await client.take();
          expect(answers.map((packet) => [packet.cmd, packet.messageId, reasonOf(packet)])).to.deep.equal(
            [1, 2, 3].map((id) => [qos === 1 ? "puback" : "pubrec", id, id === 2 ? 0x90 : 0]),
          );
          // 2 was not taken, so its id is free.
          client.publish("a", "again", qos, { messageId: 2 });
          await client.next(qos === 1 ? "puback" : "pubrec");
        } else {
          await client.gone();
          if (version === 5) expect((await client.next("disconnect")).reasonCode).to.equal(0x90);
        }
        expect(payloads(await all.take())).to.deep.equal(kept ? ["fits", "after it", "again"] : ["fits"]);
        expect(rig.dropped("topic-levels")).to.equal(1);
      });
    }

    it("refused topics count in the Receive Maximum only until they are answered", async () => {
      start({ limits: { maxTopicLevels: 1, receiveMaximum: 2 } });
      const client = await rig.client(version, "c");
      for (let at = 1; at <= 10; at += 1) {
        client.publish(version === 5 ? "a/b" : "a", "x", 1, { messageId: at });
        await client.next("puback");
      }
      expect(client.closed).to.equal(false);
    });

    for (const [what, session] of [
      ["messages", { maxMessages: 3, maxBytes: 1_000_000 }],
      ["bytes", { maxMessages: 1000, maxBytes: 320 }], // each of 101
    ] as const) {
      for (const whenFull of ["drop-oldest", "drop-newest"] as const) {
        for (const kind of ["durable", "clean"] as const) {
          it(`a ${kind} session's queue by ${what}, ${whenFull}: counted, the publisher is not refused`, async () => {
            const bytes = kind === "clean" && what === "bytes" ? { maxBytes: 3 * 310 } : {}; // in memory: the packet and 200 more
            start({ limits: { maxInflight: 1, session: { ...session, ...bytes, whenFull, queueQos0: false } } });
            const client = await rig.client(version, "c", kind === "durable" ? durable(version) : {});
            await client.subscribe("t", 1);
            const publisher = await rig.client(version, "p");
            const send = async (texts: string[]): Promise<void> => {
              for (const one of texts) publisher.publish("t", one.padEnd(100), 1, { messageId: 1 });
              for (const _ of texts) expect((await publisher.next("puback")).reasonCode ?? 0).to.equal(0);
            };
            if (kind === "durable") {
              client.drop();
              await client.gone();
            } else await send(["in flight"]);
            await send(["1", "2", "3", "4", "5"]);
            expect(rig.dropped("queue-full")).to.equal(2);
            const reader = kind === "durable" ? await rig.client(version, "c", durable(version)) : client;
            const got: string[] = [];
            for (let round = 0; round < 5; round += 1) {
              for (const packet of await reader.take()) {
                if (packet.cmd !== "publish") continue;
                got.push(text(packet).trim());
                reader.send({ cmd: "puback", messageId: packet.messageId ?? 0 });
              }
            }
            const kept = whenFull === "drop-oldest" ? ["3", "4", "5"] : ["1", "2", "3"];
            expect(got).to.deep.equal(kind === "durable" ? kept : ["in flight", ...kept]);
          });
        }
      }
    }

    it("queuedTotal: over all sessions, counted, and free again when they have taken theirs", async () => {
      const session = { maxMessages: 100, maxBytes: 100_000, whenFull: "drop-newest", queueQos0: false } as const;
      start({ limits: { queuedTotal: 3, session } });
      for (const id of ["a", "b"]) {
        const client = await rig.client(version, id, durable(version));
        await client.subscribe(`t/${id}`, 1);
        client.drop();
        await client.gone();
      }
      const publisher = await rig.client(version, "p");
      for (const id of ["a", "a", "b", "b", "a"]) publisher.publish(`t/${id}`, id, 1, { messageId: 1 });
      await turns();
      expect(rig.broker.stats().queued).to.equal(3);
      expect(rig.dropped("queue-full")).to.equal(2);
      const again = await rig.client(version, "a", durable(version));
      const got = await again.take();
      expect(payloads(got)).to.deep.equal(["a", "a"]);
      for (const { messageId = 0 } of got) again.send({ cmd: "puback", messageId });
      await turns();
      rig.advance(100);
      publisher.publish("t/b", "b2", 1, { messageId: 2 });
      await turns();
      expect(rig.dropped("queue-full")).to.equal(2);
      expect(rig.broker.stats().queued).to.equal(2);
    });

    it("in flight to a client: maxInflight, whatever it would take", async () => {
      start({ limits: { maxInflight: 3 } });
      for (const more of [{}, durable(version)]) {
        const properties = version === 5 ? { receiveMaximum: 50, ...more.properties } : {};
        const client = await rig.client(version, "c", { ...more, properties });
        await client.subscribe("t", 2);
        const publisher = await rig.client(version, "p");
        for (let at = 0; at < 10; at += 1) publisher.publish("t", `${at}`, 1, { messageId: at + 1 });
        const got = await client.take();
        expect(payloads(got)).to.have.length(3);
        client.send({ cmd: "puback", messageId: got[0]?.messageId ?? 0 });
        expect(payloads(await client.take())).to.have.length(1);
        client.drop();
        await client.gone();
        rig.advance(100);
      }
    });

    it("the outbox of a slow consumer: QoS 0 dropped, counted, nobody else waits; QoS 1 waits", async () => {
      start({ limits: { outboxBytes: 4000 } });
      const slow = rig.open(version, 1000);
      slow.send(connectPacket(version, "slow"));
      await slow.connack();
      await slow.subscribe("t/#", 1);
      const quick = await rig.client(version, "quick");
      await quick.subscribe("t/#", 1);
      slow.stall();
      const publisher = await rig.client(version, "p");
      for (let at = 0; at < 50; at += 1) {
        publisher.publish("t/0", "x".repeat(300));
        await turns(1);
      }
      publisher.publish("t/1", "kept", 1, { messageId: 1 });
      await turns();
      const got = payloads(await quick.take());
      expect(got).to.have.length(51);
      const dropped = rig.dropped("outbox-full");
      expect(dropped).to.be.within(20, 49);
      slow.resume();
      await turns(50);
      const late = payloads(await slow.take());
      expect(late).to.have.length(51 - dropped);
      expect(late.at(-1)).to.equal("kept");
    });

    it("retained values: what finds no room is delivered and accepted, not kept, counted; a kept one can change", async () => {
      start({ limits: { retained: { maxMessages: 1, maxBytes: 1000 } } });
      const client = await rig.client(version, "c", durable(version));
      await client.subscribe("r/#", 1);
      const publisher = await rig.client(version, "p");
      publisher.publish("r/1", "kept", 1, { retain: true, messageId: 1 });
      publisher.publish("r/2", "passed on", 1, { retain: true, messageId: 2 });
      publisher.publish("r/1", "changed", 1, { retain: true, messageId: 3 });
      const answers = await publisher.take();
      expect(answers.map((packet) => [packet.cmd, reasonOf(packet)])).to.deep.equal(new Array(3).fill(["puback", 0]));
      expect(payloads(await client.take())).to.deep.equal(["kept", "passed on", "changed"]);
      expect(rig.dropped("retained-full")).to.equal(1);
      const late = await rig.client(version, "late");
      await late.subscribe("r/#", 0);
      expect(payloads(await late.take())).to.deep.equal(["changed"]);
    });
  });
}
