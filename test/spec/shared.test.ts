// Shared subscriptions, MQTT 5 section 4.8.2, and what JOURNAL.md adds: a group with a durable member is a queue in the store.
import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import {
  durable,
  Rig,
  type RigOptions,
  type TestClient,
  text,
  turns,
  type Version,
  versions,
} from "../helpers/brokerRig.ts";

type Publish = Extract<Packet, { cmd: "publish" }>;

const publishes = (packets: Packet[]): Publish[] => packets.filter((packet) => packet.cmd === "publish");
const payloads = (packets: Packet[]): string[] => publishes(packets).map(text);

/** Takes what came, and acknowledges all of it to the end. */
async function drain(client: TestClient): Promise<string[]> {
  const got: string[] = [];
  for (let idle = 0; idle < 2; idle += 1) {
    for (const packet of await client.take()) {
      idle = 0;
      if (packet.cmd === "publish") {
        got.push(text(packet));
        if (packet.qos === 1) client.send({ cmd: "puback", messageId: packet.messageId ?? 0 });
        if (packet.qos === 2) client.send({ cmd: "pubrec", messageId: packet.messageId ?? 0 });
      } else if (packet.cmd === "pubrel") client.send({ cmd: "pubcomp", messageId: packet.messageId ?? 0 });
    }
  }
  return got;
}

async function leave(client: TestClient): Promise<void> {
  client.drop();
  await client.gone();
}

let ids = 0;
const send = (client: TestClient, payloadTexts: readonly string[], qos: 0 | 1 | 2, topic = "t/x"): void => {
  for (const payload of payloadTexts) client.publish(topic, payload, qos, { messageId: 1 + (ids++ % 60_000) });
};

describe("shared subscriptions", () => {
  let rig: Rig;
  const start = (options: RigOptions = {}): Rig => {
    rig = new Rig(options);
    return rig;
  };
  afterEach(() => rig.close());

  async function member(
    version: Version,
    clientId: string,
    qos: 0 | 1 | 2,
    more: Parameters<Rig["client"]>[2] = {},
  ): Promise<TestClient> {
    const client = await rig.client(version, clientId, more);
    await client.subscribe("$share/g/t/+", qos);
    return client;
  }

  for (const version of versions) {
    describe(`MQTT ${version}`, () => {
      for (const filter of ["$share//t", "$share/g", "$share/g/", "$share/g+/t", "$share/#/t"]) {
        it(`${filter} is none [MQTT-4.8.2-1, -2]`, async () => {
          start();
          const client = await rig.client(version, "a");
          client.send({
            cmd: "subscribe",
            messageId: 1,
            subscriptions: [{ topic: filter, qos: 0, nl: false, rap: false, rh: 0 }],
          });
          await client.gone();
          expect(client.received.some(({ cmd }) => cmd === "suback")).to.equal(false);
        });
      }

      for (const kind of ["clean", "durable"] as const) {
        const of = kind === "clean" ? {} : durable(version);

        it(`${kind}: in turn, at the QoS that each was granted [MQTT-4.8.2-3]`, async () => {
          start();
          const members = [
            await member(version, "q0", 0, of),
            await member(version, "q1", 1, of),
            await member(version, "q2", 2, of),
          ];
          const publisher = await rig.client(version, "p");
          send(publisher, ["a", "b", "c", "d", "e", "f"], 2);
          const got = await Promise.all(members.map((one) => one.take()));
          expect(got.map(payloads)).to.deep.equal([
            ["a", "d"],
            ["b", "e"],
            ["c", "f"],
          ]);
          expect(got.map((packets) => publishes(packets)[0]?.qos)).to.deep.equal([0, 1, 2]);
        });

        it(`${kind}: only to those with room, the rest waits`, async () => {
          start({ limits: { maxInflight: 2 } });
          const slow = await member(version, "slow", 1, of);
          const quick = await member(version, "quick", 1, of);
          const publisher = await rig.client(version, "p");
          send(publisher, ["1", "2", "3", "4", "5", "6", "7", "8"], 1);
          expect(payloads(await slow.take())).to.deep.equal(["1", "3"]);
          expect(await drain(quick)).to.deep.equal(["2", "4", "5", "6", "7", "8"]);
        });

        it(`${kind}: unacknowledged QoS 1 goes to another when the connection ends, from the group's head, without DUP`, async () => {
          start({ limits: { maxInflight: 2 } });
          const first = await member(version, "first", 1, of);
          const publisher = await rig.client(version, "p");
          send(publisher, ["1", "2", "3"], 1);
          expect(payloads(await first.take())).to.deep.equal(["1", "2"]);
          const second = await member(version, "second", 1);
          // 3 had not been given to anybody when the second came, so it went there at once.
          expect(payloads(await second.take())).to.deep.equal(["3"]);
          await leave(first);
          const [one] = publishes(await second.take());
          expect([one && text(one), one?.dup]).to.deep.equal(["1", false]);
          second.send({ cmd: "puback", messageId: one?.messageId ?? 0 });
          expect(payloads(await second.take())).to.deep.equal(["2"]);
        });

        it(`${kind}: QoS 2 once sent goes to nobody else, also when its session ends [MQTT-4.8.2-5]`, async () => {
          start({ limits: { maxInflight: 1 } });
          const first = await member(version, "first", 2, of);
          const second = await member(version, "second", 2, of);
          const publisher = await rig.client(version, "p");
          send(publisher, ["1", "2", "3"], 2);
          expect(payloads(await first.take())).to.deep.equal(["1"]);
          await leave(first);
          expect(await drain(second)).to.deep.equal(["2", "3"]);
          const again = await rig.client(version, "first"); // clean: the old session ends now at the latest
          expect(await drain(second)).to.deep.equal([]);
          expect(await drain(again)).to.deep.equal([]);
        });

        it(`${kind}: what a member leaves goes to those who stay; UNSUBSCRIBE too`, async () => {
          start({ limits: { maxInflight: 1 } });
          const first = await member(version, "first", 1, of);
          const publisher = await rig.client(version, "p");
          send(publisher, ["1", "2"], 1);
          const [sent] = publishes(await first.take());
          first.send({ cmd: "unsubscribe", messageId: 3, unsubscriptions: ["$share/g/t/+"] });
          await first.next("unsuback");
          const second = await member(version, "second", 1, of);
          send(publisher, ["3"], 1);
          first.send({ cmd: "puback", messageId: sent?.messageId ?? 0 });
          expect(payloads(await first.take()), "no new ones [MQTT-3.10.4-2]").to.deep.equal([]);
          // The group ended with its last member, and 2 with it.
          expect(await drain(second)).to.deep.equal(["3"]);
          expect(rig.dropped("session-ended")).to.equal(1);
        });
      }

      it("durable: waits for nobody, in order, over a restart; any member takes it", async () => {
        start();
        await leave(await member(version, "first", 1, durable(version)));
        await leave(await member(version, "second", 2, durable(version)));
        const publisher = await rig.client(version, "p");
        send(publisher, ["1", "2", "3"], 1);
        await turns();
        const store = rig.store.crash();
        await rig.close();
        start({ store });
        const back = await rig.client(version, "second", durable(version));
        expect(await drain(back)).to.deep.equal(["1", "2", "3"]);
        rig.advance(100);
        expect(rig.broker.stats().queued).to.equal(0);
      });

      it("durable: QoS 2 sent and not finished is finished by the same client on its return [MQTT-4.8.2-4]", async () => {
        start();
        const first = await member(version, "first", 2, durable(version));
        const publisher = await rig.client(version, "p");
        send(publisher, ["1", "2"], 2);
        const [one, two] = publishes(await first.take());
        first.send({ cmd: "pubrec", messageId: one?.messageId ?? 0 });
        await first.next("pubrel");
        await leave(first);
        const other = await member(version, "other", 2, durable(version));
        expect(await drain(other)).to.deep.equal([]);
        const again = await rig.client(version, "first", durable(version));
        const packets = await again.take();
        expect(packets.map(({ cmd, messageId }) => [cmd, messageId])).to.deep.equal([
          ["pubrel", one?.messageId],
          ["publish", two?.messageId],
        ]);
        expect((packets[1] as Publish).dup).to.equal(true);
      });

      it("QoS 1 that returns to the client it was sent to before has DUP and its old id [MQTT-4.4.0-1]", async () => {
        start();
        const first = await member(version, "first", 1, durable(version));
        const publisher = await rig.client(version, "p");
        send(publisher, ["1", "2"], 1);
        const sent = publishes(await first.take()).map((packet) => [text(packet), packet.messageId]);
        await leave(first);
        send(publisher, ["3"], 1);
        const again = await rig.client(version, "first", durable(version));
        const got = publishes(await again.take());
        expect(got.slice(0, 2).map((packet) => [text(packet), packet.messageId])).to.deep.equal(sent);
        expect(got.map((packet) => [text(packet), packet.dup])).to.deep.equal([
          ["1", true],
          ["2", true],
          ["3", false],
        ]);
      });

      it("a clean member of a durable group takes from its queue and gives back", async () => {
        start({ limits: { maxInflight: 1 } });
        await leave(await member(version, "durable", 2, durable(version)));
        const publisher = await rig.client(version, "p");
        send(publisher, ["1", "2"], 1);
        send(publisher, ["3", "4"], 2);
        const clean = await member(version, "clean", 2);
        expect(payloads(await clean.take())).to.deep.equal(["1"]);
        await leave(clean);
        const next = await member(version, "next", 2);
        const [one] = publishes(await next.take());
        expect(one && text(one)).to.equal("1");
        next.send({ cmd: "puback", messageId: one?.messageId ?? 0 });
        const [two] = publishes(await next.take());
        next.send({ cmd: "puback", messageId: two?.messageId ?? 0 });
        expect(payloads(await next.take())).to.deep.equal(["3"]);
        await leave(next); // 3 was sent at QoS 2: gone with its session
        const back = await rig.client(version, "durable", durable(version));
        expect(await drain(back)).to.deep.equal(["4"]);
        rig.advance(100);
        expect(rig.broker.stats().queued).to.equal(0);
      });
    });
  }

  describe("MQTT 5 only", () => {
    it("No Local with it is a protocol error [MQTT-3.8.3-4]", async () => {
      start();
      const client = await rig.client(5, "a");
      const subscriptions = [{ topic: "$share/g/t", qos: 0 as const, nl: true, rap: false, rh: 0 }];
      client.send({ cmd: "subscribe", messageId: 1, subscriptions });
      await client.gone();
      expect((await client.next("disconnect")).reasonCode).to.equal(0x82);
    });

    for (const kind of ["clean", "durable"] as const) {
      const of = kind === "clean" ? {} : durable(5);

      it(`${kind}: PUBACK and PUBREC of 0x80 and above discard the message [MQTT-4.8.2-6]`, async () => {
        start();
        const first = await member(5, "first", 2, of);
        const publisher = await rig.client(5, "p");
        send(publisher, ["1"], 1);
        send(publisher, ["2"], 2);
        const [one, two] = publishes(await first.take());
        first.send({ cmd: "puback", messageId: one?.messageId ?? 0, reasonCode: 0x83 });
        first.send({ cmd: "pubrec", messageId: two?.messageId ?? 0, reasonCode: 0x97 });
        await turns();
        const second = await member(5, "second", 2, of);
        await leave(first);
        expect(await drain(second)).to.deep.equal([]);
        expect(rig.dropped("client-refused")).to.equal(2);
        rig.advance(100);
        expect(rig.broker.stats().queued).to.equal(0);
      });

      it(`${kind}: identifiers and Retain As Published of the member's own subscription`, async () => {
        start();
        const one = await rig.client(5, "one", of);
        await one.subscribe("$share/g/t/+", 2, { id: 11, rap: true });
        const two = await rig.client(5, "two", of);
        await two.subscribe("$share/g/t/+", 2, { id: 22 });
        await two.subscribe("t/x", 0, { id: 33 });
        const publisher = await rig.client(5, "p");
        for (const qos of [1, 1, 2, 2, 0, 0] as const) {
          publisher.publish("t/x", `q${qos}`, qos, { retain: true, messageId: 1 + (ids++ % 1000) });
        }
        const seen = (packets: Packet[]): unknown[] =>
          publishes(packets).map(({ qos, retain, properties }) => [qos, retain, properties?.subscriptionIdentifier]);
        expect(seen(await one.take())).to.have.deep.members([
          [1, true, 11],
          [2, true, 11],
          [0, true, 11],
        ]);
        const own = [0, false, 33];
        expect(seen(await two.take())).to.have.deep.members([
          ...[own, own, own, own, own, own],
          ...[
            [1, false, 22],
            [2, false, 22],
            [0, false, 22],
          ],
        ]);
      });

      it(`${kind}: what a member cannot take for its size goes to another, and is dropped when none can`, async () => {
        start();
        const small = {
          properties: { maximumPacketSize: 60, ...(kind === "clean" ? {} : { sessionExpiryInterval: 9 }) },
        };
        const one = await member(5, "one", 1, { clean: kind === "clean", ...small });
        const two = await member(5, "two", 1, of);
        const publisher = await rig.client(5, "p");
        const large = "x".repeat(100);
        send(publisher, [large, large, "s"], 1);
        expect(await drain(two)).to.have.members([large, large]);
        expect(await drain(one)).to.deep.equal(["s"]);
        await leave(two);
        await turns();
        send(publisher, [large, "t"], 1);
        expect(await drain(one)).to.deep.equal(["t"]);
        expect(rig.dropped("too-large")).to.equal(1);
      });

      it(`${kind}: what expires while it waits is given to nobody, and the rest of the time is told [MQTT-3.3.2-5, -6]`, async () => {
        start({ limits: { maxInflight: 1 } });
        const one = await member(5, "one", 1, of);
        const publisher = await rig.client(5, "p");
        for (const [payload, expiry] of [
          ["now", 100],
          ["short", 5],
          ["long", 60],
        ] as const) {
          const properties = { messageExpiryInterval: expiry };
          publisher.publish("t/x", payload, 1, { messageId: 1 + (ids++ % 1000), properties });
        }
        const [first] = publishes(await one.take());
        rig.advance(10_000);
        one.send({ cmd: "puback", messageId: first?.messageId ?? 0 });
        const [last] = publishes(await one.take());
        expect([last && text(last), last?.properties?.messageExpiryInterval]).to.deep.equal(["long", 50]);
        expect(rig.dropped("expired")).to.equal(1);
      });
    }

    for (const kind of ["clean", "durable"] as const) {
      for (const cmd of ["pubrec", "pubcomp"] as const) {
        it(`${kind}: ${cmd} for a QoS 1 message is a protocol error, and the message goes to another`, async () => {
          start();
          const of = kind === "clean" ? {} : durable(5);
          const first = await member(5, "first", 1, of);
          send(await rig.client(5, "p"), ["1"], 1);
          const [one] = publishes(await first.take());
          const second = await member(5, "second", 1, of);
          first.send({ cmd, messageId: one?.messageId ?? 0 });
          await first.gone();
          expect((await first.next("disconnect")).reasonCode).to.equal(0x82);
          expect(await drain(second)).to.deep.equal(["1"]);
        });
      }
    }

    it("QoS 2 that its session reads back has the identifier of the shared subscription", async () => {
      start();
      const one = await rig.client(5, "one", durable(5));
      await one.subscribe("$share/g/t/+", 2, { id: 11 });
      await one.subscribe("t/x", 0, { id: 33 });
      const publisher = await rig.client(5, "p");
      send(publisher, ["1"], 2);
      await turns();
      await leave(one);
      const again = await rig.client(5, "one", durable(5));
      const [packet] = publishes(await again.take());
      expect([packet?.qos, packet?.dup, packet?.properties?.subscriptionIdentifier]).to.deep.equal([2, true, 11]);
    });

    it("a member of many groups serves them in turn", async () => {
      start({ limits: { maxInflight: 1 } });
      const one = await rig.client(5, "one");
      for (const name of ["a", "b", "c"]) await one.subscribe(`$share/g/${name}`, 1);
      const publisher = await rig.client(5, "p");
      for (const name of ["a", "b", "c"]) send(publisher, [`${name}1`, `${name}2`, `${name}3`], 1, name);
      await turns();
      const got = await drain(one);
      expect(got).to.have.length(9);
      expect(new Set(got.slice(1, 4).map((payload) => payload[0])).size, got.join(" ")).to.equal(3);
    });

    it("QoS 0 waits for nobody, unless session.queueQos0 says so", async () => {
      start();
      await leave(await member(5, "one", 1, durable(5)));
      const publisher = await rig.client(5, "p");
      send(publisher, ["lost"], 0);
      await turns();
      expect(rig.dropped("offline")).to.equal(1);
      await rig.close();
      const session = { maxMessages: 10, maxBytes: 10_000, whenFull: "drop-oldest", queueQos0: true } as const;
      start({ limits: { session } });
      await leave(await member(5, "one", 1, durable(5)));
      send(await rig.client(5, "p"), ["kept"], 0);
      await turns();
      const again = await rig.client(5, "one", durable(5));
      const [packet] = publishes(await again.take());
      expect([packet && text(packet), packet?.qos]).to.deep.equal(["kept", 0]);
      rig.advance(100);
      expect(rig.broker.stats().queued).to.equal(0);
    });
  });
});
