import { expect } from "chai";
import { ack, P, pingreq, publish, subscribe, unsubscribe } from "./frames.ts";
import type { Seen } from "./seen.ts";
import { acknowledge, joined, keptWith, type Peer, type Rig, withRig } from "./support.ts";

const limit = (count: number) => keptWith([P.receiveMaximum, count]);
const payloads = (list: readonly Seen[]): string => list.map(({ payload }) => payload).join("");

/** A subscriber with this Receive Maximum, and a publisher who sent these payloads, one message each. */
async function flooded(rig: Rig, count: number, qos: 1 | 2, letters: string): Promise<{ reader: Peer; writer: Peer }> {
  const reader = await joined(rig, "reader", limit(count));
  await reader.subscribe("t", qos);
  const writer = await joined(rig, "writer");
  await write(writer, qos, letters);
  return { reader, writer };
}

async function write(writer: Peer, qos: 1 | 2, letters: string): Promise<void> {
  let id = 0;
  for (const letter of letters) {
    id += 1;
    writer.publish("t", letter, { qos, id });
    await writer.next(qos === 1 ? "PUBACK" : "PUBREC");
    if (qos === 2) {
      writer.send(ack("pubrel", id));
      await writer.next("PUBCOMP");
    }
  }
}

describe("MQTT 5 flow control towards a client", () => {
  for (const qos of [1, 2] as const) {
    it(
      `[MQTT-3.3.4-9] [MQTT-4.9.0-1, -2] QoS ${qos}: no more in flight than its Receive Maximum, and no fewer`,
      withRig(async (rig) => {
        const { reader } = await flooded(rig, 3, qos, "abcdef");
        expect(payloads(await reader.take())).to.equal("abc");
        rig.advance(60_000);
        expect(await reader.says()).to.deep.equal([]);
      }),
    );
  }

  it(
    "[MQTT-3.3.4-9] PUBACK gives a place back, with an error code too",
    withRig(async (rig) => {
      const { reader } = await flooded(rig, 1, 1, "abc");
      const [a] = await reader.publishes(1);
      reader.send(ack("puback", a?.id ?? 0));
      const [b] = await reader.publishes(1);
      reader.send(ack("puback", b?.id ?? 0, 0x80));
      const [c] = await reader.publishes(1);
      expect([b?.payload, c?.payload]).to.deep.equal(["b", "c"]);
    }),
  );

  it(
    "[MQTT-3.3.4-9] [MQTT-4.9.0-2] PUBREC gives no place back, PUBCOMP does",
    withRig(async (rig) => {
      const { reader } = await flooded(rig, 1, 2, "ab");
      const [{ id }] = (await reader.publishes(1)) as [Seen];
      reader.send(ack("pubrec", id));
      expect(await reader.says()).to.deep.equal([`PUBREL ${id} 00`]);
      reader.send(ack("pubcomp", id));
      expect(await reader.says()).to.deep.equal(["PUBLISH q2 t=b"]);
    }),
  );

  it(
    "[MQTT-3.3.4-9] [MQTT-4.4.0-2] PUBREC of 0x80 and more gives a place back, and no PUBREL follows",
    withRig(async (rig) => {
      const { reader } = await flooded(rig, 1, 2, "ab");
      const [{ id }] = (await reader.publishes(1)) as [Seen];
      reader.send(ack("pubrec", id, 0x83));
      expect(await reader.says()).to.deep.equal(["PUBLISH q2 t=b"]);
    }),
  );

  it(
    "[MQTT-3.3.4-9] [MQTT-4.4.0-2] PUBREC 0x10 is no error: PUBREL follows, no place is free",
    withRig(async (rig) => {
      const { reader } = await flooded(rig, 1, 2, "ab");
      const [{ id }] = (await reader.publishes(1)) as [Seen];
      reader.send(ack("pubrec", id, 0x10));
      expect(await reader.says()).to.deep.equal([`PUBREL ${id} 00`]);
    }),
  );

  it(
    "[MQTT-3.3.4-9] acknowledgements of ids that are not in flight give no place",
    withRig(async (rig) => {
      const { reader } = await flooded(rig, 1, 1, "abc");
      const [{ id }] = (await reader.publishes(1)) as [Seen];
      reader.send(ack("puback", id + 1), ack("pubcomp", id + 2));
      expect((await reader.says()).filter((said) => said.startsWith("PUBLISH"))).to.deep.equal([]);
    }),
  );

  it(
    "[MQTT-3.3.4-9] an acknowledgement that comes twice gives one place",
    withRig(async (rig) => {
      const { reader } = await flooded(rig, 1, 1, "abc");
      const [{ id }] = (await reader.publishes(1)) as [Seen];
      reader.send(ack("puback", id), ack("puback", id));
      const got = (await reader.take()).filter(({ kind }) => kind === "PUBLISH");
      // The second may have met `b`, if that has the same id: then it is acknowledged, and `c` is the one in flight.
      expect(["b", "bc"]).to.include(payloads(got));
      if (payloads(got) === "bc") expect(got[0]?.id).to.equal(id);
    }),
  );

  it(
    "[MQTT-3.3.4-10] [MQTT-4.9.0-3] at the limit, QoS 0 and all other packets go on",
    withRig(async (rig) => {
      const { reader, writer } = await flooded(rig, 1, 2, "ab");
      await reader.publishes(1);
      writer.publish("t", "zero");
      expect(await reader.says()).to.deep.equal(["PUBLISH q0 t=zero"]);
      reader.send(pingreq, subscribe(5, [["u", 1]]), unsubscribe(6, ["u"]));
      reader.send(publish("v", "x", { qos: 1, id: 7 }), publish("v", "x", { qos: 2, id: 8 }), ack("pubrel", 8));
      const all = ["PINGRESP", "SUBACK 5 01", "UNSUBACK 6 00", "PUBACK 7 00", "PUBREC 8 00", "PUBCOMP 8 00"];
      expect(await reader.says()).to.have.members(all);
    }),
  );

  it(
    "[MQTT-3.1.2-25] [MQTT-3.3.4-9] a message too large for the client takes no place and no turn",
    withRig(async (rig) => {
      const reader = await joined(rig, "reader", keptWith([P.receiveMaximum, 1], [P.maximumPacket, 100]));
      await reader.subscribe("t", 1);
      const writer = await joined(rig, "writer");
      for (const payload of ["L".repeat(200), "a", "L".repeat(200), "b"])
        writer.publish("t", payload, { qos: 1, id: 1 });
      const [a] = await reader.publishes(1);
      reader.send(ack("puback", a?.id ?? 0));
      const [b] = await reader.publishes(1);
      expect([a?.payload, b?.payload]).to.deep.equal(["a", "b"]);
      reader.send(ack("puback", b?.id ?? 0));
      await reader.drop();
      rig.advance(1000);
      expect(rig.broker.stats().queued).to.equal(0);
    }),
  );

  it(
    "[MQTT-3.1.2-25] what waited is too large for the client that comes back: discarded, for good",
    withRig(async (rig) => {
      const first = await joined(rig, "reader", limit(1));
      await first.subscribe("t", 2);
      await first.drop();
      const writer = await joined(rig, "writer");
      for (const [at, payload] of ["L".repeat(200), "a", "L".repeat(300), "b"].entries())
        writer.publish("t", payload, { qos: 1 + (at % 2), id: at + 1 });
      await writer.alive();
      const small = await joined(rig, "reader", keptWith([P.receiveMaximum, 2], [P.maximumPacket, 100]));
      const got = await small.publishes(2);
      expect(payloads(got)).to.equal("ab");
      await acknowledge(small, got);
      await small.drop();
      expect(await (await joined(rig, "reader", limit(1))).says()).to.deep.equal([]);
    }),
  );

  it(
    "[MQTT-3.1.2-24, -25] so is what is to be sent again, and it holds no place",
    withRig(async (rig) => {
      const first = await joined(rig, "reader", limit(1));
      await first.subscribe("t", 1);
      const writer = await joined(rig, "writer");
      for (const payload of ["L".repeat(200), "a"]) writer.publish("t", payload, { qos: 1, id: 1 });
      await first.publishes(1);
      await first.drop();
      const small = await joined(rig, "reader", keptWith([P.receiveMaximum, 1], [P.maximumPacket, 100]));
      expect(payloads(await small.publishes(1))).to.equal("a");
    }),
  );

  it(
    "[MQTT-3.1.2-25] a retained message too large is left out, the others come",
    withRig(async (rig) => {
      const writer = await joined(rig, "writer");
      for (const [topic, payload] of [
        ["r/1", "L".repeat(200)],
        ["r/2", "a"],
      ] as const)
        writer.publish(topic, payload, { qos: 1, id: 1, retain: true });
      const small = await joined(rig, "reader", keptWith([P.receiveMaximum, 1], [P.maximumPacket, 100]));
      await small.subscribe("r/#", 1);
      expect(payloads(await small.publishes(1))).to.equal("a");
    }),
  );

  it(
    "[MQTT-3.3.4-9] retained messages count as well",
    withRig(async (rig) => {
      const writer = await joined(rig, "writer");
      for (const topic of ["r/1", "r/2", "r/3"]) writer.publish(topic, topic, { qos: 1, id: 1, retain: true });
      const reader = await joined(rig, "reader", limit(2));
      await reader.subscribe("r/+", 1);
      const got = await reader.publishes(2);
      for (const { id } of got) reader.send(ack("puback", id));
      await reader.publishes(1);
    }),
  );
});

describe("MQTT 5 flow control and expiry", () => {
  it(
    "[MQTT-3.3.2-5, -6] what flow control holds back expires, or goes out with what is left",
    withRig(async (rig) => {
      const reader = await joined(rig, "reader", limit(1));
      await reader.subscribe("t", 1);
      const writer = await joined(rig, "writer");
      writer.publish("t", "first", { qos: 1, id: 1 });
      writer.publish("t", "short", { qos: 1, id: 2, properties: [[P.expiry, 5]] });
      writer.publish("t", "long", { qos: 1, id: 3, properties: [[P.expiry, 100]] });
      const [first] = await reader.publishes(1);
      rig.advance(10_000);
      reader.send(ack("puback", first?.id ?? 0));
      expect(await reader.says()).to.deep.equal(["PUBLISH q1 t=long 2:90"]);
    }),
  );

  for (const qos of [1, 2] as const) {
    it(
      `[MQTT-4.3.3-7] [MQTT-4.4.0-1] QoS ${qos} that was sent is sent again although it expired meanwhile`,
      withRig(async (rig) => {
        const reader = await joined(rig, "reader", limit(1));
        await reader.subscribe("t", qos);
        const writer = await joined(rig, "writer");
        writer.publish("t", "sent", { qos, id: 1, properties: [[P.expiry, 5]] });
        const [first] = await reader.publishes(1);
        await reader.drop();
        rig.advance(10_000);
        const back = await joined(rig, "reader", limit(1));
        const [again] = await back.publishes(1);
        expect([again?.id, again?.payload, again?.dup]).to.deep.equal([first?.id, "sent", true]);
      }),
    );
  }
});

describe("MQTT 5 flow control on a resumed session", () => {
  it(
    "[MQTT-3.3.4-9] [MQTT-4.6.0-1] what is sent again counts: no more than the new Receive Maximum, in order",
    withRig(async (rig) => {
      const { reader } = await flooded(rig, 3, 1, "abcd");
      await reader.publishes(3);
      await reader.drop();
      const back = await joined(rig, "reader", limit(1));
      let order = "";
      for (let round = 0; round < 4; round += 1) {
        const [got] = await back.publishes(1);
        order += `${got?.payload}${got?.dup ? "!" : ""}`;
        back.send(ack("puback", got?.id ?? 0));
      }
      expect(order).to.equal("a!b!c!d");
    }),
  );

  it(
    "[MQTT-4.4.0-1] [MQTT-3.3.4-9, -10] PUBREL is sent again without waiting, and its PUBCOMP gives no place beyond the limit",
    withRig(async (rig) => {
      const { reader, writer } = await flooded(rig, 2, 2, "ab");
      const first = await reader.publishes(2);
      for (const { id } of first) reader.send(ack("pubrec", id));
      await reader.take();
      await reader.drop();
      await write(writer, 2, "cdef");
      const back = await joined(rig, "reader", limit(2));
      const got = await back.take();
      const released = got.filter(({ kind }) => kind === "PUBREL").map(({ id }) => id);
      expect(released).to.deep.equal(first.map(({ id }) => id));
      for (const id of released) back.send(ack("pubcomp", id));
      const all = [...got, ...(await back.take())].filter(({ kind }) => kind === "PUBLISH");
      expect(payloads(all)).to.equal("cd");
    }),
  );

  it(
    "[MQTT-3.3.4-9] [4.9] the quota is not carried over: all places are free again",
    withRig(async (rig) => {
      const { reader, writer } = await flooded(rig, 2, 1, "ab");
      const first = await reader.publishes(2);
      await write(writer, 1, "c");
      await reader.drop();
      const back = await joined(rig, "reader", limit(3));
      const got = await back.publishes(3);
      expect(payloads(got)).to.equal("abc");
      expect(got.slice(0, 2).map(({ id }) => id)).to.deep.equal(first.map(({ id }) => id));
    }),
  );
});
