import { expect } from "chai";
import { ack, connect, disconnect, P, packet, pingreq, publish, subscribe, text, u16, unsubscribe } from "./frames.ts";
import { fault, joined, kept, open, Rig, refusal, refused, welcomed, withRig, witness } from "./support.ts";

/** A CONNECT up to its properties, then whatever. */
const connectOf = (flags: number, ...payload: readonly Uint8Array[]): Buffer =>
  packet(0x10, text("MQTT"), Buffer.from([5, flags, 0, 0, 0]), ...payload);

describe("MQTT 5 CONNECT: the first packet", () => {
  const others: ReadonlyArray<readonly [string, Buffer]> = [
    ["PUBLISH", publish("t")],
    ["PUBACK", ack("puback", 1)],
    ["PUBREC", ack("pubrec", 1)],
    ["PUBREL", ack("pubrel", 1)],
    ["PUBCOMP", ack("pubcomp", 1)],
    ["SUBSCRIBE", subscribe(1, [["t", 0]])],
    ["UNSUBSCRIBE", unsubscribe(1, ["t"])],
    ["PINGREQ", pingreq],
    ["DISCONNECT", disconnect(0)],
    ["AUTH", packet(0xf0)],
    ["CONNACK", Buffer.from([0x20, 3, 0, 0, 0])],
    ["type 0", Buffer.from([0, 0])],
  ];
  for (const [name, bytes] of others) {
    it(
      `[MQTT-3.1.0-1] [MQTT-3.2.0-1] [MQTT-3.14.0-1] ${name} instead of CONNECT closes: no DISCONNECT, nothing taken`,
      withRig(async (rig) => {
        const seen = await witness(rig);
        const peer = open(rig);
        peer.send(bytes, connect({ id: "late" }));
        await peer.gone();
        await refusal(peer, [0x80, 0x81, 0x82]);
        expect(await seen.says()).to.deep.equal([]);
        expect(rig.broker.stats()).to.include({ connections: 1, sessions: 1 });
      }),
    );
  }

  it(
    "[MQTT-3.1.0-2] a second CONNECT is a Protocol Error",
    withRig((rig) => fault(rig, connect({ id: "faulty" }), [0x82])),
  );

  it(
    "[MQTT-3.1.0-2] [MQTT-3.2.0-2] a second CONNECT in the same bytes as the first gets no second CONNACK",
    withRig(async (rig) => {
      const peer = open(rig);
      peer.send(connect(), connect({ id: "d" }));
      await peer.gone();
      expect(await peer.says()).to.deep.equal(["CONNACK 00", "DISCONNECT 82"]);
      expect(rig.broker.stats().connections).to.equal(0);
    }),
  );

  it(
    "[MQTT-3.1.4-5] [MQTT-3.2.0-1] packets right behind CONNECT are processed, and answered after the CONNACK",
    withRig(async (rig) => {
      const peer = open(rig);
      peer.send(connect(), subscribe(5, [["t", 1]]), publish("t", "x", { qos: 1, id: 6 }), pingreq);
      const [first, ...rest] = await peer.says();
      expect(first).to.equal("CONNACK 00");
      expect(rest).to.have.members(["SUBACK 5 01", "PUBACK 6 00", "PINGRESP", "PUBLISH q1 t=x"]);
    }),
  );
});

describe("MQTT 5 CONNECT: variable header", () => {
  // MQIsdp is of 3.1, whose clients get its answer; one of another name is not known to read any.
  const answers: Record<string, string> = { MQTT: "2003008400", MQIsdp: "20020001" };
  for (const [name, version] of [
    ["MQTt"],
    ["MQIsdp"],
    ["mqtt"],
    [""],
    ["MQTTX"],
    ["hj"],
    ["MQTT", 0],
    ["MQTT", 6],
    ["MQTT", 255],
  ] as Array<[string, number?]>) {
    it(
      `[MQTT-3.1.2-1] [MQTT-3.1.2-2] protocol ${JSON.stringify(name)}, version ${version ?? 5}, is refused with 0x84 or without a word`,
      withRig(async (rig) => {
        const peer = open(rig);
        peer.send(connect({ name, version: version ?? 5 }));
        await peer.gone();
        expect(await peer.hex()).to.equal(answers[name] ?? "");
        expect(rig.broker.stats()).to.include({ connections: 0, sessions: 0 });
      }),
    );
  }

  it(
    "[MQTT-3.1.2-3] the reserved connect flag must be 0",
    withRig((rig) => refused(rig, connect({ wrongFlags: 1 }), [0x81])),
  );
  it(
    "[MQTT-3.1.2-11] Will QoS without the Will Flag is refused",
    withRig((rig) => refused(rig, connect({ wrongFlags: 0x08 }), [0x81, 0x82])),
  );
  it(
    "[MQTT-3.1.2-13] Will Retain without the Will Flag is refused",
    withRig((rig) => refused(rig, connect({ wrongFlags: 0x20 }), [0x81, 0x82])),
  );
  it(
    "[MQTT-3.1.2-12] Will QoS 3 is a Malformed Packet",
    withRig((rig) => refused(rig, connect({ will: { qos: 3 } }), [0x81])),
  );
  for (const qos of [0, 1, 2]) {
    it(
      `[MQTT-3.1.2-12] [MQTT-3.2.2-9] Will QoS ${qos} is accepted, and QoS 1 and 2 are not ruled out by a Maximum QoS`,
      withRig(async (rig) => {
        const { connack } = await welcomed(rig, "c", { will: { qos } });
        expect(connack.properties.map(([id]) => id)).not.to.include(P.maximumQos);
      }),
    );
  }
});

describe("MQTT 5 CONNECT: payload", () => {
  const broken: ReadonlyArray<readonly [string, Buffer]> = [
    ["no client id at all", connectOf(2)],
    ["a client id cut short", connectOf(2, u16(5), Buffer.from("abc"))],
    ["a will flag, and no will", connectOf(6, text("c"))],
    ["a will without payload", connectOf(6, text("c"), Buffer.from([0]), text("will"))],
    ["a user name flag, and no user name", connectOf(0x82, text("c"))],
    ["a password flag, and no password", connectOf(0xc2, text("c"), text("u"))],
    ["a user name without its flag", connectOf(2, text("c"), text("u"))],
    ["a password without its flag", connectOf(0x82, text("c"), text("u"), text("p"))],
    ["a will without its flag", connectOf(2, text("c"), Buffer.from([0]), text("will"), text("w"))],
    ["bytes behind the payload", connect({ trailing: Buffer.from([0]) })],
    ["no Keep Alive", packet(0x10, text("MQTT"), Buffer.from([5, 2]))],
    ["no Property Length", packet(0x10, text("MQTT"), Buffer.from([5, 2, 0, 0]))],
    ["a Property Length beyond the packet", packet(0x10, text("MQTT"), Buffer.from([5, 2, 0, 0, 40]), text("c"))],
  ];
  for (const [name, bytes] of broken) {
    it(
      `[MQTT-3.1.4-1] [MQTT-3.1.3-1, -3] ${name}: a Malformed Packet`,
      withRig((rig) => refused(rig, bytes, [0x81])),
    );
  }

  it(
    "[MQTT-2.1.3-1] [MQTT-3.1.4-1] CONNECT with header flags is a Malformed Packet",
    withRig(async (rig) => {
      for (let flags = 1; flags < 16; flags += 1) {
        const bytes = connect();
        bytes[0] = 0x10 | flags;
        const peer = open(rig);
        peer.send(bytes);
        await peer.gone();
        await refusal(peer, [0x81]);
      }
      expect(rig.broker.stats().sessions).to.equal(0);
    }),
  );

  it(
    "[MQTT-3.1.3-5] client ids of 1 to 23 letters and digits are allowed",
    withRig(async (rig) => {
      const all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
      for (let at = 0; at < all.length; at += 1) await joined(rig, all[at]);
      for (let at = 0; at + 23 <= all.length; at += 13) await joined(rig, all.slice(at, at + 23));
      expect(rig.broker.stats().connections).to.equal(all.length + 4);
    }),
  );

  it(
    "[MQTT-3.1.3-2, -4] [MQTT-1.5.4-3] [MQTT-4.7.3-4] ids that differ by a byte are different clients",
    withRig(async (rig) => {
      const ids = ["a", "A", " a", "\ufeffa", "\u00e9", "e\u0301", "a/#", "$a"];
      const peers = [];
      for (const id of ids) peers.push(await joined(rig, id));
      for (const peer of peers) await peer.alive();
      expect([...rig.broker.clients()].map(({ clientId }) => clientId)).to.have.members(ids);
    }),
  );

  for (const clean of [true, false]) {
    it(
      `[MQTT-3.1.3-6, -7] [MQTT-3.2.2-16] an empty id gets one that nobody has, Clean Start ${Number(clean)}`,
      withRig(async (rig) => {
        const given = new Set<unknown>();
        for (let count = 0; count < 20; count += 1) {
          const { connack } = await welcomed(rig, "", { clean });
          const id = connack.properties.find(([name]) => name === P.assignedId)?.[1];
          expect(id).to.be.a("string").with.length.greaterThan(0);
          given.add(id);
        }
        expect(given.size).to.equal(20);
        expect([...rig.broker.clients()].map(({ clientId }) => clientId)).to.have.members([...given]);
      }),
    );
  }

  it(
    "[MQTT-3.1.3-7] an assigned id is the client's: with it the session is resumed",
    withRig(async (rig) => {
      const { peer, connack } = await welcomed(rig, "", kept);
      await peer.subscribe("t", 1);
      await peer.drop();
      const id = connack.properties.find(([name]) => name === P.assignedId)?.[1] as string;
      const again = await welcomed(rig, id, kept);
      expect(again.connack.present).to.equal(true);
      expect(again.connack.properties.map(([name]) => name)).not.to.include(P.assignedId);
    }),
  );

  it(
    "[MQTT-3.1.3-8] an id that is too long is refused with 0x85 and closed",
    withRig((rig) => refused(rig, connect({ id: "x".repeat(65_535) }), [0x85])),
  );
});

describe("MQTT 5 CONNECT: who may", () => {
  const authenticate = (name: string, word: Uint8Array | undefined): boolean =>
    name === "u" && word !== undefined && Buffer.from(word).equals(Buffer.from([0, 255, 1]));
  const strict = { anonymous: false, authenticate };

  it(
    "[MQTT-3.1.2-17, -19] [MQTT-3.1.3-12] the password is bytes, not text",
    withRig(async (rig) => {
      await joined(rig, "c", { user: "u", password: Buffer.from([0, 255, 1]) });
    }, strict),
  );
  it(
    "[MQTT-3.1.4-2] [MQTT-3.2.2-6, -7, -8] a wrong password is refused with 0x86 or 0x87, and closed",
    withRig(async (rig) => {
      const peer = open(rig);
      peer.send(connect({ user: "u", password: "no" }));
      await peer.gone();
      await refusal(peer, [0x86, 0x87]);
      expect(rig.broker.stats()).to.include({ connections: 0, sessions: 0 });
    }, strict),
  );
  it(
    "[MQTT-3.1.2-16, -18] a password without user name is well-formed in version 5",
    withRig(async (rig) => {
      const peer = open(rig);
      peer.send(connect({ password: "p" }));
      expect([0, 0x86, 0x87]).to.include((await peer.next("CONNACK")).codes[0]);
    }),
  );
  it("[MQTT-3.1.4-6] nothing behind a refused CONNECT is processed", async () => {
    const rig = new Rig({ anonymous: false, authenticate: (name) => name === "u" });
    const seen = await joined(rig, "w", { user: "u" });
    await seen.subscribe("#", 1);
    const peer = open(rig);
    peer.send(connect({ id: "no", will: { topic: "will" } }), publish("t", "x", { retain: true }), pingreq);
    await peer.gone();
    await refusal(peer, [0x86, 0x87]);
    expect(await seen.says()).to.deep.equal([]);
    expect(rig.broker.stats().retained).to.equal(0);
    await rig.close();
  });
  it(
    "[MQTT-3.1.4-6] nothing behind a malformed CONNECT is processed",
    withRig((rig) => refused(rig, Buffer.concat([connect({ wrongFlags: 1 }), publish("t"), connect()]), [0x81])),
  );

  it(
    "[3.1.0] a client that sends no CONNECT in time is disconnected, without a packet",
    withRig(async (rig) => {
      const peer = open(rig);
      peer.send(connect().subarray(0, 5));
      rig.advance(11_000);
      await peer.gone();
      expect(await peer.says()).to.deep.equal([]);
    }),
  );
});
