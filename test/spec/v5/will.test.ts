import { expect } from "chai";
import { connect, disconnect, P, type Property, packet, pingreq, subscribe } from "./frames.ts";
import { joined, kept, open, type Rig, refused, withRig, witness } from "./support.ts";

/** Connects with this will and pulls the cable. */
async function lost(rig: Rig, will: Parameters<typeof connect>[0] & object, id = "c"): Promise<void> {
  await (await joined(rig, id, will)).drop();
}

describe("MQTT 5 will: the message", () => {
  for (const qos of [0, 1, 2]) {
    it(
      `[MQTT-3.1.2-7, -8, -14] QoS ${qos}, not retained: published as such`,
      withRig(async (rig) => {
        const seen = await witness(rig);
        await lost(rig, { will: { topic: "a/b", payload: "gone", qos } });
        expect(await seen.says()).to.deep.equal([`PUBLISH q${qos} a/b=gone`]);
        const late = await joined(rig, "late");
        await late.subscribe("#", 2);
        expect(await late.says()).to.deep.equal([]);
      }),
    );
  }

  it(
    "[MQTT-3.1.2-15] Will Retain 1: published as retained",
    withRig(async (rig) => {
      const seen = await joined(rig, "seen");
      await seen.subscribe("#", 2 | 8);
      await lost(rig, { will: { topic: "a", payload: "gone", qos: 1, retain: true } });
      expect(await seen.says()).to.deep.equal(["PUBLISH q1 a=gone retain"]);
      const late = await joined(rig, "late");
      await late.subscribe("#", 2);
      expect(await late.says()).to.deep.equal(["PUBLISH q1 a=gone retain"]);
    }),
  );

  it(
    "[MQTT-3.1.2-14] [MQTT-3.3.1-8] Will Retain 0 leaves what is retained on the topic",
    withRig(async (rig) => {
      const seen = await joined(rig, "seen");
      seen.publish("a", "kept", { retain: true });
      await lost(rig, { will: { topic: "a", payload: "gone" } });
      await seen.subscribe("a");
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 a=kept retain"]);
    }),
  );

  it(
    "[MQTT-3.1.2-15] [MQTT-3.3.1-6, -7] a retained will without payload removes what is retained",
    withRig(async (rig) => {
      const seen = await joined(rig, "seen");
      seen.publish("a", "kept", { retain: true });
      await lost(rig, { will: { topic: "a", payload: "", retain: true } });
      await seen.subscribe("a");
      expect(await seen.says()).to.deep.equal([]);
      expect(rig.broker.stats().retained).to.equal(0);
    }),
  );

  it(
    "[MQTT-3.1.3-10] [MQTT-3.3.2-4, -15, -16, -17, -18, -20] its properties are passed on, user properties in order",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const list: Property[] = [
        [P.user, ["b", "1"]],
        [P.payloadFormat, 1],
        [P.contentType, "text/plain"],
        [P.user, ["a", "2"]],
        [P.responseTopic, "back"],
        [P.correlation, Buffer.from([0, 255])],
        [P.user, ["b", "0"]],
      ];
      await lost(rig, { will: { topic: "a", properties: [[P.willDelay, 0], ...list] } });
      const [got] = await seen.publishes(1);
      expect(got?.properties.filter(([id]) => id === P.user)).to.deep.equal(list.filter(([id]) => id === P.user));
      expect(got?.properties).to.have.deep.members(list);
    }),
  );

  it(
    "[3.1.3.2.4] [MQTT-3.3.2-5, -6] its Message Expiry Interval counts from the time it is published",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const away = await joined(rig, "away", kept);
      await away.subscribe("a", 1);
      await away.drop();
      const peer = await joined(rig, "c", { will: { topic: "a", qos: 1, properties: [[P.expiry, 60]] } });
      rig.advance(600_000);
      await peer.drop();
      expect(await seen.says()).to.deep.equal(["PUBLISH q1 a=w 2:60"]);
      rig.advance(20_000);
      const back = await joined(rig, "away", kept);
      expect(await back.says()).to.deep.equal(["PUBLISH q1 a=w 2:40"]);
    }),
  );

  it(
    "[MQTT-3.1.2-9] a will of no bytes is a will",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await lost(rig, { will: { topic: "a", payload: "" } });
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 a="]);
    }),
  );

  for (const topic of ["a/#", "+", "", "a\0b", Buffer.from([0xc3, 0x28])]) {
    it(
      `[MQTT-3.1.3-11] [MQTT-4.7.0-1] [MQTT-4.7.3-1] a will to ${JSON.stringify(String(topic))} is refused`,
      withRig((rig) => refused(rig, connect({ will: { topic } }), [0x81, 0x82, 0x90])),
    );
  }

  for (const back of ["a/#", "+/a"]) {
    it(
      `[MQTT-3.3.2-14] a will with the Response Topic ${back} is refused`,
      withRig((rig) => refused(rig, connect({ will: { properties: [[P.responseTopic, back]] } }), [0x81, 0x82, 0x90])),
    );
  }
});

describe("MQTT 5 will: when", () => {
  it(
    "[MQTT-3.1.2-7, -10] it is published once: not again when the client comes and goes without one",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await lost(rig, { ...kept, will: { topic: "a" } });
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 a=w"]);
      await lost(rig, kept);
      rig.advance(7200_000);
      expect(await seen.says()).to.deep.equal([]);
    }),
  );

  it(
    "[MQTT-3.1.2-7] the will is that of the present connection",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig, "c", { ...kept, will: { topic: "a", payload: "first" } });
      peer.send(disconnect(0));
      await peer.gone();
      await lost(rig, { ...kept, will: { topic: "b", payload: "second" } });
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 b=second"]);
    }),
  );

  it(
    "[MQTT-3.1.2-8] the client closes the connection without DISCONNECT",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig, "c", { will: { topic: "a" } });
      peer.end();
      await peer.gone();
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 a=w"]);
    }),
  );

  const faults: ReadonlyArray<readonly [string, Buffer]> = [
    ["a Malformed Packet", Buffer.from([0xc1, 0])],
    ["a Protocol Error", subscribe(1, [])],
    ["a second CONNECT", connect({ id: "c" })],
    ["a packet too large", packet(0x30, Buffer.alloc(2000))],
    ["AUTH", packet(0xf0)],
  ];
  for (const [name, bytes] of faults) {
    it(
      `[MQTT-3.1.2-8] [3.1.2.5] the server ends the connection for ${name}`,
      withRig(
        async (rig) => {
          const seen = await witness(rig);
          const peer = await joined(rig, "c", { will: { topic: "a" } });
          peer.send(bytes, pingreq);
          await peer.gone();
          expect(await seen.says()).to.deep.equal(["PUBLISH q0 a=w"]);
        },
        { limits: { maxPacketSize: 1000 } },
      ),
    );
  }

  it(
    "[MQTT-3.1.4-6] a CONNECT that is refused leaves no will",
    withRig(
      async (rig) => {
        const seen = await joined(rig, "seen", { user: "u" });
        await seen.subscribe("#");
        const peer = open(rig);
        peer.send(connect({ id: "c", user: "v", will: { topic: "a" } }));
        await peer.gone();
        rig.advance(60_000);
        expect(await seen.says()).to.deep.equal([]);
      },
      { anonymous: false, authenticate: (name) => name === "u" },
    ),
  );

  it(
    "[MQTT-4.5.0-1] a will waits for sessions that are away",
    withRig(async (rig) => {
      const away = await joined(rig, "away", kept);
      await away.subscribe("a", 2);
      await away.drop();
      await lost(rig, { will: { topic: "a", qos: 2 } });
      expect(await (await joined(rig, "away", kept)).says()).to.deep.equal(["PUBLISH q2 a=w"]);
    }),
  );
});
