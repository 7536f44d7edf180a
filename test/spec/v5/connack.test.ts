import { expect } from "chai";
import { connect, disconnect, P } from "./frames.ts";
import { propertyOf } from "./seen.ts";
import { fault, joined, kept, open, refusal, welcomed, withRig } from "./support.ts";

describe("MQTT 5 CONNACK: Session Present", () => {
  for (const clean of [true, false]) {
    it(
      `[MQTT-3.2.2-2, -3] [MQTT-3.1.2-6] no session yet, Clean Start ${Number(clean)}: 0`,
      withRig(async (rig) => {
        const { connack } = await welcomed(rig, "c", { ...kept, clean });
        expect([...connack.bytes.subarray(2, 4)]).to.deep.equal([0, 0]);
      }),
    );
  }

  it(
    "[MQTT-3.2.2-3] [MQTT-3.1.2-5] [MQTT-3.2.2-1] Clean Start 0 and a session: 1, and its reserved bits are 0",
    withRig(async (rig) => {
      await (await joined(rig, "c", kept)).drop();
      const { connack } = await welcomed(rig, "c", kept);
      expect([...connack.bytes.subarray(2, 4)]).to.deep.equal([1, 0]);
    }),
  );

  it(
    "[MQTT-3.2.2-2] [MQTT-3.1.2-4] [MQTT-3.1.4-4] Clean Start 1 and a session: 0, and the session is gone",
    withRig(async (rig) => {
      const first = await joined(rig, "c", kept);
      await first.subscribe("t", 1);
      await first.drop();
      const { peer, connack } = await welcomed(rig, "c", { ...kept, clean: true });
      expect(connack.present).to.equal(false);
      expect(rig.broker.stats().subscriptions).to.equal(0);
      peer.publish("t");
      expect(await peer.says()).to.deep.equal([]);
    }),
  );

  it(
    "[MQTT-3.2.2-3] the session ended with its connection: 0",
    withRig(async (rig) => {
      await (await joined(rig, "c", { clean: false })).drop();
      expect((await welcomed(rig, "c", kept)).connack.present).to.equal(false);
    }),
  );

  it(
    "[MQTT-3.2.2-6, -7] a refusal has Session Present 0 although there is a session, and closes",
    withRig(
      async (rig) => {
        await (await joined(rig, "c", { ...kept, user: "u" })).drop();
        const peer = open(rig);
        peer.send(connect({ id: "c", ...kept, user: "v" }));
        await peer.gone();
        await refusal(peer, [0x86, 0x87]);
        expect((await welcomed(rig, "c", { ...kept, user: "u" })).connack.present).to.equal(true);
      },
      { anonymous: false, authenticate: (name) => name === "u" },
    ),
  );
});

describe("MQTT 5 CONNACK: properties", () => {
  it(
    "[3.2.2.3] the limits that the server enforces are announced",
    withRig(
      async (rig) => {
        const { connack } = await welcomed(rig);
        expect(propertyOf(connack, P.receiveMaximum)).to.equal(7);
        expect(propertyOf(connack, P.maximumPacket)).to.equal(5000);
        expect(propertyOf(connack, P.aliasMaximum)).to.equal(3);
        expect(propertyOf(connack, P.serverKeepAlive)).to.equal(60);
      },
      { limits: { receiveMaximum: 7, maxPacketSize: 5000, topicAliasMaximum: 3, maxKeepAliveSeconds: 60 } },
    ),
  );

  it(
    "[MQTT-2.2.2-1] [MQTT-3.2.2-8] nothing is said twice, and nothing that is not a CONNACK's",
    withRig(async (rig) => {
      const { connack } = await welcomed(rig, "", { ...kept, keepAlive: 65_535 });
      const ids = connack.properties.map(([id]) => id).filter((id) => id !== P.user);
      expect(new Set(ids).size).to.equal(ids.length);
      for (const [id, value] of connack.properties) {
        if ([P.maximumQos, P.retainAvailable, P.wildcardAvailable, P.subIdAvailable].includes(id as 0x24))
          expect([0, 1]).to.include(value);
        if ([P.receiveMaximum, P.maximumPacket].includes(id as 0x21)) expect(value).not.to.equal(0);
      }
    }),
  );

  it(
    "[MQTT-3.2.2-9, -10] [3.2.2.3] retained messages, wildcards and Subscription Identifiers are available, and any QoS",
    withRig(async (rig) => {
      const { peer, connack } = await welcomed(rig);
      const denied = [P.retainAvailable, P.wildcardAvailable, P.subIdAvailable, P.maximumQos];
      expect(connack.properties.filter(([id]) => denied.includes(id as 0x25)).map(([, value]) => value)).not.to.include(
        0,
      );
      for (const qos of [0, 1, 2]) expect(await peer.subscribe(`+/${qos}/#`, qos, [[P.subId, 1]])).to.deep.equal([qos]);
    }),
  );

  it(
    "[3.2.2.3.2] a session that is kept shorter than the client asked for: it is told how long",
    withRig(
      async (rig) => {
        for (const asked of [101, 0xffff_ffff]) {
          const { connack } = await welcomed(rig, "c", { properties: [[P.sessionExpiry, asked]] });
          expect(propertyOf(connack, P.sessionExpiry)).to.equal(100);
        }
        const { connack } = await welcomed(rig, "d", { properties: [[P.sessionExpiry, 99]] });
        expect(propertyOf(connack, P.sessionExpiry) ?? 99).to.equal(99);
      },
      { limits: { sessionExpiryMaxMs: 100_000 } },
    ),
  );

  it(
    "[MQTT-3.1.2-28] no Response Information unless it was asked for",
    withRig(async (rig) => {
      for (const asked of [[], [[P.requestResponse, 0]]] as const) {
        const { connack } = await welcomed(rig, "c", { properties: asked });
        expect(propertyOf(connack, P.responseInfo)).to.equal(undefined);
      }
      await joined(rig, "c", { properties: [[P.requestResponse, 1]] });
    }),
  );

  it(
    "[MQTT-4.12.0-6] without an Authentication Method the CONNACK has none",
    withRig(async (rig) => {
      const { connack } = await welcomed(rig);
      expect(propertyOf(connack, P.authMethod)).to.equal(undefined);
      expect(propertyOf(connack, P.authData)).to.equal(undefined);
    }),
  );

  it(
    "[MQTT-3.2.2-19, -20] [MQTT-3.1.2-24] no CONNACK is larger than the client's Maximum Packet Size",
    withRig(async (rig) => {
      for (const [id, size] of [
        ["x".repeat(65_000), 5],
        ["x".repeat(65_000), 20],
        ["", 5],
        ["", 12],
        ["c", 5],
      ] as const) {
        const peer = open(rig);
        peer.send(connect({ id, properties: [[P.maximumPacket, size]] }));
        for (const { bytes } of await peer.take()) expect(bytes.length).to.be.at.most(size);
      }
    }),
  );
});

describe("MQTT 5 CONNACK: Keep Alive", () => {
  it(
    "[MQTT-3.1.2-22] [MQTT-3.2.2-22] without Server Keep Alive the client's counts, half as much again",
    withRig(async (rig) => {
      const { peer, connack } = await welcomed(rig, "c", { keepAlive: 10 });
      expect(propertyOf(connack, P.serverKeepAlive)).to.equal(undefined);
      rig.advance(14_500);
      await peer.alive();
      rig.advance(14_500);
      await peer.alive();
      rig.advance(16_000); // a second later is soon enough
      await peer.gone();
      expect(["", "DISCONNECT 8d"]).to.include((await peer.says()).join());
    }),
  );

  it(
    "[3.2.2.3.14] a Server Keep Alive is what the server uses",
    withRig(
      async (rig) => {
        for (const asked of [0, 100, 65_535]) {
          const { peer, connack } = await welcomed(rig, `c${asked}`, { keepAlive: asked });
          expect(propertyOf(connack, P.serverKeepAlive)).to.equal(20);
          rig.advance(29_000);
          await peer.alive();
          rig.advance(31_000);
          await peer.gone();
        }
      },
      { limits: { maxKeepAliveSeconds: 20 } },
    ),
  );

  it(
    "[MQTT-3.1.2-22] what a client is sent does not count as its own packets",
    withRig(async (rig) => {
      const reader = await joined(rig, "reader", { keepAlive: 10 });
      await reader.subscribe("t");
      const writer = await joined(rig, "writer");
      for (let second = 0; second < 17; second += 1) {
        rig.advance(1000);
        writer.publish("t");
        await writer.alive();
      }
      await reader.gone();
    }),
  );

  it(
    "[MQTT-3.1.2-22] bytes of a packet that never ends are no packet",
    withRig(async (rig) => {
      const half = await joined(rig, "half", { keepAlive: 10 });
      half.send(Buffer.from([0x30, 100]));
      for (let second = 0; second < 17; second += 1) {
        rig.advance(1000);
        half.send(Buffer.from([0]));
        await half.hex();
      }
      await half.gone();
    }),
  );

  it(
    "[MQTT-3.1.2-22] a client that goes silent loses its connection as if the network had failed: its will is published",
    withRig(async (rig) => {
      const seen = await joined(rig, "seen");
      await seen.subscribe("will");
      const peer = await joined(rig, "c", { keepAlive: 5, will: { topic: "will", payload: "silent" } });
      rig.advance(8500);
      await peer.gone();
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 will=silent"]);
    }),
  );

  it(
    "[3.1.2.10] Keep Alive 0 switches it off",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", { keepAlive: 0 });
      rig.advance(4 * 3600 * 1000);
      await peer.alive();
    }),
  );
});

describe("MQTT 5 CONNACK: once, and first", () => {
  it(
    "[MQTT-3.2.0-1] what waits for a session comes after the CONNACK",
    withRig(async (rig) => {
      const first = await joined(rig, "c", kept);
      await first.subscribe("t", 1);
      await first.drop();
      const writer = await joined(rig, "w");
      writer.publish("t", "a", { qos: 1, id: 1 });
      await writer.next("PUBACK");
      const again = open(rig);
      again.send(connect({ id: "c", ...kept }));
      expect(await again.says()).to.deep.equal(["CONNACK 00 present", "PUBLISH q1 t=a"]);
    }),
  );

  it(
    "[MQTT-3.2.0-2] a server's CONNACK that comes from a client is a Protocol Error",
    withRig((rig) => fault(rig, Buffer.from([0x20, 3, 0, 0, 0]), [0x82])),
  );

  it(
    "[MQTT-3.14.0-1] a client that leaves before its CONNACK gets nothing else",
    withRig(async (rig) => {
      const peer = open(rig);
      peer.send(connect(), disconnect(0));
      await peer.gone();
      expect(["", "CONNACK 00"]).to.include((await peer.says()).join());
    }),
  );
});
