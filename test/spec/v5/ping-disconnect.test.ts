import { expect } from "chai";
import { connect, disconnect, P, type Property, packet, pingreq, publish } from "./frames.ts";
import { fault, joined, kept, open, type Peer, type Rig, welcomed, withRig, witness } from "./support.ts";

describe("MQTT 5 PINGREQ", () => {
  it(
    "[MQTT-3.12.4-1] each is answered with PINGRESP, which is two bytes",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.send(pingreq, pingreq, pingreq);
      const got = await peer.take();
      expect(got.map(({ bytes }) => bytes.toString("hex"))).to.deep.equal(["d000", "d000", "d000"]);
    }),
  );
  it(
    "[2.1.3] PINGRESP from a client is a Protocol Error",
    withRig((rig) => fault(rig, Buffer.from([0xd0, 0]), [0x82])),
  );
});

describe("MQTT 5 DISCONNECT from a client", () => {
  const normal: ReadonlyArray<readonly [string, Buffer]> = [
    ["no reason code", packet(0xe0)],
    ["0x00", packet(0xe0, Buffer.from([0]))],
    ["0x00 and no properties", disconnect(0, [])],
    [
      "0x00, a reason and user properties",
      disconnect(0, [
        [P.reason, "bye"],
        [P.user, ["a", "b"]],
        [P.user, ["a", "c"]],
      ]),
    ],
  ];
  for (const [name, bytes] of normal) {
    it(
      `[MQTT-3.14.4-3] [MQTT-3.1.2-8, -10] with ${name} discards the will, closes, and gets no answer`,
      withRig(async (rig) => {
        const { seen, peer } = await willing(rig);
        peer.send(bytes);
        await peer.gone();
        expect(await peer.says()).to.deep.equal([]);
        rig.advance(3600_000);
        expect(await seen.says()).to.deep.equal([]);
      }),
    );
  }

  for (const code of [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]) {
    it(
      `[MQTT-3.1.2-8] [MQTT-4.13.2-1] with 0x${code.toString(16)} leaves the will to be published, once`,
      withRig(async (rig) => {
        const { seen, peer } = await willing(rig);
        peer.send(disconnect(code));
        await peer.gone();
        expect(await peer.says()).to.deep.equal([]);
        rig.advance(3600_000);
        expect(await seen.says()).to.deep.equal(["PUBLISH q0 will=w"]);
      }),
    );
  }

  for (const code of [0x01, 0x8e, 0xff]) {
    it(
      `[MQTT-3.14.2-1] with 0x${code.toString(16)}, which is not a client's, is no DISCONNECT 0x00: the will is published`,
      withRig(async (rig) => {
        const { seen, peer } = await willing(rig);
        peer.send(disconnect(code));
        await peer.gone();
        expect(["", "DISCONNECT 81", "DISCONNECT 82"]).to.include((await peer.says()).join());
        rig.advance(3600_000);
        expect(await seen.says()).to.deep.equal(["PUBLISH q0 will=w"]);
      }),
    );
  }

  it(
    "[MQTT-3.14.1-1] [MQTT-2.1.3-1] with header flags is a Malformed Packet, and does not discard the will",
    withRig(async (rig) => {
      for (let flags = 1; flags < 16; flags += 1) await fault(rig, packet(0xe0 | flags, Buffer.from([0])), [0x81]);
    }),
  );
  it(
    "[3.14.2] with bytes behind its properties is a Malformed Packet",
    withRig(async (rig) => {
      await fault(rig, packet(0xe0, Buffer.from([0, 0, 0])), [0x81]);
      await fault(rig, packet(0xe0, Buffer.from([0, 5, 0x11])), [0x81]);
    }),
  );
  it(
    "[3.14.2.2.2] a Session Expiry Interval after one of 0 is a Protocol Error, and no valid DISCONNECT",
    withRig(async (rig) => {
      const bytes = disconnect(0, [[P.sessionExpiry, 1]]);
      await fault(rig, bytes, [0x82], { properties: [[P.sessionExpiry, 0]] });
      await fault(rig, bytes, [0x82]);
      expect(rig.broker.stats().sessions).to.equal(1);
    }),
  );
  it(
    "[3.14.2.2.2] a Session Expiry Interval of 0 after one of 0 is no fault",
    withRig(async (rig) => {
      const { seen, peer } = await willing(rig);
      peer.send(disconnect(0, [[P.sessionExpiry, 0]]));
      await peer.gone();
      expect([...(await peer.says()), ...(await seen.says())]).to.deep.equal([]);
    }),
  );

  const expiries: ReadonlyArray<readonly [string, readonly Property[], number]> = [
    ["shorter", [[P.sessionExpiry, 10]], 10],
    ["longer", [[P.sessionExpiry, 7200]], 7200],
    ["absent: that of CONNECT counts", [], 3600],
  ];
  for (const [name, list, seconds] of expiries) {
    it(
      `[MQTT-3.1.2-23] [MQTT-4.1.0-2] [3.14.2.2.2] Session Expiry Interval ${name}: kept so long and no longer`,
      withRig(async (rig) => {
        for (const [later, present] of [
          [-2, true],
          [2, false],
        ] as const) {
          const peer = await joined(rig, "c", kept);
          peer.send(disconnect(0, list));
          await peer.gone();
          rig.advance((seconds + later) * 1000);
          expect((await welcomed(rig, "c", kept)).connack.present, `${later} s`).to.equal(present);
        }
      }),
    );
  }
  it(
    "[MQTT-4.1.0-2] [3.14.2.2.2] Session Expiry Interval 0 in DISCONNECT ends the session at once",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", kept);
      peer.send(disconnect(0, [[P.sessionExpiry, 0]]));
      await peer.gone();
      expect(rig.broker.stats().sessions).to.equal(0);
    }),
  );
  it(
    "[MQTT-3.14.4-1] packets behind a DISCONNECT are not processed",
    withRig(async (rig) => {
      const { seen, peer } = await willing(rig);
      peer.send(disconnect(0), publish("t", "late"), pingreq, connect());
      await peer.gone();
      expect(await peer.says()).to.deep.equal([]);
      expect(await seen.says()).to.deep.equal([]);
    }),
  );
});

describe("MQTT 5 DISCONNECT from the server", () => {
  it(
    "[MQTT-3.14.4-1, -2] [MQTT-4.13.2-1] nothing follows it, and the connection is closed",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("t");
      const other = await joined(rig, "other");
      peer.send(Buffer.from([0xc1, 0]), pingreq, publish("t"));
      other.publish("t");
      await peer.gone();
      const said = await peer.says();
      expect(said.at(-1)).to.equal("DISCONNECT 81");
      expect(said.filter((line) => line.startsWith("PINGRESP"))).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-3.14.2-1, -2] [3.14.2.1] a server that shuts down says 0x8B",
    withRig(async (rig) => {
      const peers = [await joined(rig, "a"), await joined(rig, "b", kept)];
      await rig.broker.close();
      for (const peer of peers) {
        await peer.gone();
        const [last] = await peer.take();
        expect([last?.kind, last?.codes]).to.deep.equal(["DISCONNECT", [0x8b]]);
      }
    }),
  );
  it(
    "[MQTT-3.14.2-1] [4.13.2] an administrator's disconnect says 0x98 and leaves the will to be published",
    withRig(async (rig) => {
      const { seen, peer } = await willing(rig);
      expect(rig.broker.disconnect("c")).to.equal(true);
      await peer.gone();
      expect(await peer.says()).to.deep.equal(["DISCONNECT 98"]);
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 will=w"]);
    }),
  );
  it(
    "[MQTT-3.14.0-1] who has no CONNACK yet gets no DISCONNECT at the shutdown",
    withRig(async (rig) => {
      const peer = open(rig);
      await rig.broker.close();
      await peer.gone();
      expect(await peer.says()).to.deep.equal([]);
    }),
  );
});

async function willing(rig: Rig): Promise<{ seen: Peer; peer: Peer }> {
  const seen = await witness(rig);
  return { seen, peer: await joined(rig, "c", { will: { topic: "will", payload: "w" } }) };
}
