import { expect } from "chai";
import { byte, P, packet, publish, text, u16 } from "./frames.ts";
import { fault, joined, kept, type Rig, withRig, witness } from "./support.ts";

describe("MQTT 5 PUBLISH: fixed header and topic", () => {
  it(
    "[MQTT-3.3.1-4] QoS 3 is a Malformed Packet, with DUP and RETAIN too",
    withRig(async (rig) => {
      for (const first of [0x36, 0x37, 0x3e, 0x3f])
        await fault(rig, packet(first, text("t"), u16(1), byte(0), Buffer.from("x")), [0x81]);
    }),
  );
  for (const qos of [1, 2]) {
    it(
      `[MQTT-2.2.1-3] [2.2.1] QoS ${qos} with packet id 0 is a fault`,
      withRig((rig) => fault(rig, publish("t", "x", { qos, id: 0 }), [0x81, 0x82])),
    );
  }
  it(
    "[MQTT-2.2.1-2] QoS 0 has no packet id: what would be one are properties",
    withRig(async (rig) => {
      const seen = await witness(rig);
      (await joined(rig)).send(packet(0x30, text("t"), byte(0), Buffer.from("\x00\x05x")));
      const [got] = await seen.take();
      expect(got?.bytes.toString("hex")).to.equal(
        packet(0x30, text("t"), byte(0), Buffer.from("\x00\x05x")).toString("hex"),
      );
    }),
  );
  it(
    "[MQTT-3.3.1-2] [MQTT-4.3.1-1] no subscriber gets QoS 0 with DUP, whatever a publisher does",
    withRig(async (rig) => {
      const seen = await joined(rig, "seen");
      await seen.subscribe("t", 2);
      const peer = await joined(rig);
      peer.publish("t", "x", { qos: 0, dup: true });
      const got = await seen.take();
      expect(got.map(({ dup }) => dup)).not.to.include(true);
    }),
  );
  it(
    "[MQTT-3.3.1-3] DUP of the publisher is not passed on",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      peer.publish("t", "a", { qos: 1, id: 1, dup: true });
      peer.publish("t", "b", { qos: 2, id: 2, dup: true });
      expect(await seen.says()).to.deep.equal(["PUBLISH q1 t=a", "PUBLISH q2 t=b"]);
    }),
  );
  for (const topic of ["#", "a/#", "+", "a/+/b", "a+", "a#"]) {
    it(
      `[MQTT-3.3.2-2] [MQTT-4.7.0-1] a topic with wildcards is refused: ${topic}`,
      withRig((rig) => fault(rig, publish(topic), [0x81, 0x82, 0x90])),
    );
  }
  it(
    "[3.3.2.1] [MQTT-4.7.3-1] no topic and no alias is a Protocol Error",
    withRig((rig) => fault(rig, publish(""), [0x82])),
  );
  it(
    "[MQTT-3.3.2-1] a PUBLISH without a topic field, an id or a Property Length is a Malformed Packet",
    withRig(async (rig) => {
      const cut = [
        packet(0x30),
        packet(0x30, byte(0)),
        packet(0x30, u16(4), Buffer.from("abc")),
        packet(0x30, text("t")),
      ];
      for (const bytes of [...cut, packet(0x32, text("t"), byte(0)), packet(0x32, text("t"), u16(1))])
        await fault(rig, bytes, [0x81]);
    }),
  );
  it(
    "[3.3.2.3.8] [MQTT-3.3.4-6] a Subscription Identifier from a client is a Protocol Error",
    withRig((rig) => fault(rig, publish("t", "x", { properties: [[P.subId, 5]] }), [0x82])),
  );
  it(
    "[MQTT-3.3.2-3] the topic that a subscriber gets is the publisher's, whatever its filter",
    withRig(async (rig) => {
      const seen = await joined(rig, "seen");
      await seen.subscribe([["a/+/c", 0]]);
      const peer = await joined(rig);
      for (const topic of ["a/b/c", "a//c", "a/b", "a/b/c/d", "A/b/c"]) peer.publish(topic);
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 a/b/c=x", "PUBLISH q0 a//c=x"]);
    }),
  );
  it(
    "[3.3.3] no payload is a payload; any bytes are",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      const all = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
      peer.send(publish("t", ""), publish("t", all));
      const got = await seen.publishes(2);
      expect(got[0]?.bytes).to.deep.equal(publish("t", ""));
      expect(got[1]?.bytes).to.deep.equal(publish("t", all));
    }),
  );
});

describe("MQTT 5 PUBLISH: RETAIN", () => {
  let lates = 0;

  /** What somebody who subscribes now is sent. */
  async function retained(rig: Rig, filter = "#"): Promise<string[]> {
    const late = await joined(rig, `late${lates++}`);
    await late.subscribe(filter, 2);
    const said = await late.says();
    await late.drop();
    return said;
  }

  it(
    "[MQTT-3.3.1-5] the last one is kept, with its QoS and properties",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.publish("t", "1", { retain: true, properties: [[P.contentType, "old"]] });
      peer.publish("t", "2", { retain: true, qos: 1, id: 1, properties: [[P.user, ["a", "b"]]] });
      expect(await retained(rig)).to.deep.equal(["PUBLISH q1 t=2 retain 38:a,b"]);
      peer.publish("t", "3", { retain: true, qos: 0 });
      expect(await retained(rig)).to.deep.equal(["PUBLISH q0 t=3 retain"]);
    }),
  );
  for (const qos of [0, 1, 2]) {
    it(
      `[MQTT-3.3.1-6, -7] without payload, QoS ${qos}: forwarded as a message, what was retained is removed, nothing is kept`,
      withRig(async (rig) => {
        const peer = await joined(rig);
        peer.publish("t", "1", { retain: true });
        const seen = await joined(rig, "seen");
        await seen.subscribe("t", 2, []);
        await seen.take();
        peer.publish("t", "", { retain: true, qos, id: 1 });
        peer.publish("never", "", { retain: true, qos, id: 2 });
        expect(await seen.says()).to.deep.equal([`PUBLISH q${qos} t=`]);
        expect(await retained(rig)).to.deep.equal([]);
        expect(rig.broker.stats().retained).to.equal(0);
      }),
    );
  }
  it(
    "[MQTT-3.3.1-8] RETAIN 0 neither keeps nor removes, with no payload either",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.publish("t", "1", { retain: true });
      peer.publish("t", "2");
      peer.publish("t", "");
      peer.publish("u", "3", { qos: 1, id: 1 });
      expect(await retained(rig)).to.deep.equal(["PUBLISH q0 t=1 retain"]);
    }),
  );
  it(
    "[MQTT-3.3.2-5, -6] [3.3.1.3] what is retained expires: before, it goes out with what is left",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.publish("t", "1", { retain: true, qos: 1, id: 1, properties: [[P.expiry, 10]] });
      rig.advance(4000);
      expect(await retained(rig)).to.deep.equal(["PUBLISH q1 t=1 retain 2:6"]);
      rig.advance(8000);
      expect(await retained(rig)).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-3.3.1-5] [3.3.1.3] it outlives its publisher's session, and a crash of the server",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.publish("t", "1", { retain: true, qos: 1, id: 1, properties: [[P.user, ["a", "b"]]] });
      await peer.next("PUBACK");
      await peer.drop();
      await withRig(
        async (after) => {
          await after.broker.ready;
          expect(await retained(after)).to.deep.equal(["PUBLISH q1 t=1 retain 38:a,b"]);
        },
        { store: rig.store.crash() },
      )();
    }),
  );
  it(
    "[MQTT-3.3.2-5, -6] the time that is left to it goes on over a crash of the server",
    withRig(async (rig) => {
      const peer = await joined(rig);
      for (const seconds of [10, 60])
        peer.publish(`t/${seconds}`, "1", { retain: true, qos: 1, id: seconds, properties: [[P.expiry, seconds]] });
      await peer.alive();
      const store = rig.store.crash();
      store.timeMs = rig.store.timeMs + 20_000;
      await withRig(
        async (after) => {
          await after.broker.ready;
          expect(await retained(after)).to.deep.equal(["PUBLISH q1 t/60=1 retain 2:40"]);
        },
        { store },
      )();
    }),
  );
  it(
    "[MQTT-3.3.1-5] one for each topic",
    withRig(async (rig) => {
      const peer = await joined(rig);
      for (const topic of ["a", "a/", "/a", "A", "a/b"]) peer.publish(topic, topic, { retain: true });
      const lines = ["a", "a/", "/a", "A", "a/b"].map((topic) => `PUBLISH q0 ${topic}=${topic} retain`);
      expect(await retained(rig)).to.have.members(lines);
      expect(await retained(rig, "a")).to.deep.equal(["PUBLISH q0 a=a retain"]);
    }),
  );
});

describe("MQTT 5 PUBLISH: QoS out", () => {
  it(
    "[MQTT-3.8.4-8] [MQTT-3.3.4-1] the lower of the published and the granted, for every pair",
    withRig(async (rig) => {
      const readers = [await joined(rig, "r0"), await joined(rig, "r1"), await joined(rig, "r2")];
      for (const [granted, reader] of readers.entries())
        expect(await reader.subscribe("t", granted)).to.deep.equal([granted]);
      const peer = await joined(rig);
      for (const qos of [0, 1, 2]) peer.publish("t", String(qos), { qos, id: qos });
      for (const [granted, reader] of readers.entries())
        expect(await reader.says()).to.deep.equal(
          [0, 1, 2].map((qos) => `PUBLISH q${Math.min(qos, granted)} t=${qos}`),
        );
      expect(await peer.says()).to.deep.equal(["PUBACK 1 00", "PUBREC 2 00"]);
    }),
  );
  it(
    "[MQTT-3.8.4-8] retained messages as well",
    withRig(async (rig) => {
      const peer = await joined(rig);
      for (const qos of [0, 1, 2]) peer.publish(`t/${qos}`, "x", { qos, id: 1 + qos, retain: true });
      for (const granted of [0, 1, 2]) {
        const reader = await joined(rig, `r${granted}`);
        await reader.subscribe("t/+", granted);
        const lines = [0, 1, 2].map((qos) => `PUBLISH q${Math.min(qos, granted)} t/${qos}=x retain`);
        expect(await reader.says()).to.have.members(lines);
      }
    }),
  );
  it(
    "[MQTT-3.3.4-2, -3, -4, -5] overlapping subscriptions: the highest QoS, and each Subscription Identifier",
    withRig(async (rig) => {
      const reader = await joined(rig, "reader", kept);
      await reader.subscribe("a/+", 0, [[P.subId, 1]]);
      await reader.subscribe("a/#", 2, [[P.subId, 268_435_455]]);
      await reader.subscribe("+/b", 1);
      await reader.subscribe("c", 2, [[P.subId, 4]]);
      const peer = await joined(rig);
      peer.publish("a/b", "x", { qos: 2, id: 1 });
      const got = await reader.take();
      const ids = got.flatMap(({ properties }) =>
        properties.filter(([id]) => id === P.subId).map(([, value]) => value),
      );
      expect(ids).to.have.members([1, 268_435_455]);
      expect(Math.max(...got.map(({ qos }) => qos))).to.equal(2);
      if (got.length > 1) expect(got.length).to.equal(3);
    }),
  );
});
