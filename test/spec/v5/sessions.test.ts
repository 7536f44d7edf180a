import { expect } from "chai";
import { ack, type Connect, connect, disconnect, P, pingreq, unsubscribe } from "./frames.ts";
import { propertyOf } from "./seen.ts";
import { joined, kept, open, Rig, turns, welcomed, withRig } from "./support.ts";

const keptFor = (seconds: number): Connect => ({ clean: false, properties: [[P.sessionExpiry, seconds]] });

describe("MQTT 5 sessions: how long", () => {
  it(
    "[MQTT-3.1.2-23] [MQTT-4.1.0-2] kept for the Session Expiry Interval after the close, discarded then",
    withRig(async (rig) => {
      for (const [later, present] of [
        [3598, true],
        [3602, false],
      ] as const) {
        await (await joined(rig, "c", keptFor(3600))).drop();
        rig.advance(later * 1000);
        expect((await welcomed(rig, "c", keptFor(3600))).connack.present).to.equal(present);
      }
    }),
  );

  it(
    "[MQTT-4.1.0-2] all of it is discarded: subscriptions, what waits, packet ids in use",
    withRig(async (rig) => {
      const first = await joined(rig, "c", keptFor(10));
      await first.subscribe("t", 2);
      first.publish("u", "held", { qos: 2, id: 7 });
      await first.next("PUBREC");
      await first.drop();
      const writer = await joined(rig, "w");
      writer.publish("t", "x", { qos: 1, id: 1 });
      await writer.next("PUBACK");
      rig.advance(12_000);
      await turns();
      expect(rig.broker.stats()).to.include({ sessions: 1, subscriptions: 0, queued: 0 });
      const back = await joined(rig, "c", keptFor(10));
      writer.publish("t", "y");
      expect(await back.says()).to.deep.equal([]);
      back.publish("u", "new", { qos: 2, id: 7 });
      expect(await back.says()).to.deep.equal(["PUBREC 7 00"]);
    }),
  );

  it(
    "[MQTT-4.1.0-1] not while it is connected, however long that is",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", keptFor(10));
      await peer.subscribe("t");
      rig.advance(3600_000);
      peer.publish("t");
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 t=x"]);
      await peer.drop();
      rig.advance(8000);
      expect((await welcomed(rig, "c", keptFor(10))).connack.present).to.equal(true);
    }),
  );

  it(
    "[3.1.2.11.2] 0xFFFFFFFF keeps it as long as the server can: what it told in the CONNACK",
    withRig(
      async (rig) => {
        const { peer, connack } = await welcomed(rig, "c", keptFor(0xffff_ffff));
        expect(propertyOf(connack, P.sessionExpiry)).to.equal(7200);
        await peer.drop();
        rig.advance(7190_000);
        expect((await welcomed(rig, "c", kept)).connack.present).to.equal(true);
      },
      { limits: { sessionExpiryMaxMs: 7200_000 } },
    ),
  );

  it(
    "[MQTT-3.1.2-23] [3.1.2.11.2] the last CONNECT decides: a shorter interval, none at all",
    withRig(async (rig) => {
      await (await joined(rig, "c", keptFor(3600))).drop();
      await (await joined(rig, "c", keptFor(5))).drop();
      rig.advance(7000);
      expect((await welcomed(rig, "c", keptFor(3600))).connack.present).to.equal(false);
      await (await joined(rig, "c", { clean: false })).drop();
      expect((await welcomed(rig, "c")).connack.present).to.equal(false);
    }),
  );

  it("[MQTT-3.1.2-23] [MQTT-4.1.0-2] the interval goes on over a restart of the server", async () => {
    for (const [seconds, present] of [
      [3000, true],
      [3700, false],
    ] as const) {
      const rig = new Rig();
      await (await joined(rig, "c", kept)).drop();
      await rig.close();
      const store = rig.store.crash();
      store.timeMs = rig.store.timeMs + seconds * 1000;
      const after = new Rig({ store });
      after.advance(1000);
      expect((await welcomed(after, "c", kept)).connack.present, `${seconds} s`).to.equal(present);
      await after.close();
    }
  });
});

describe("MQTT 5 sessions: what is in them", () => {
  it(
    "[MQTT-3.1.2-5] [MQTT-4.5.0-1] subscriptions with all their options, and messages of QoS 1 and 2, in order",
    withRig(async (rig) => {
      const first = await joined(rig, "c", kept);
      await first.subscribe([["a", 2 | 8]], 0, [[P.subId, 5]]);
      await first.subscribe([["own", 1 | 4]]);
      await first.drop();
      const writer = await joined(rig, "w");
      for (const [payload, qos] of [
        ["1", 1],
        ["2", 2],
        ["3", 1],
      ] as const)
        writer.publish("a", payload, { qos, id: Number(payload), retain: payload === "3" });
      await turns();
      const { peer, connack } = await welcomed(rig, "c", kept);
      expect(connack.present).to.equal(true);
      const got = await peer.says();
      expect(got).to.deep.equal(["PUBLISH q1 a=1 11:5", "PUBLISH q2 a=2 11:5", "PUBLISH q1 a=3 retain 11:5"]);
      peer.publish("own");
      expect(await peer.says()).to.deep.equal([]);
    }),
  );

  for (const crash of [false, true]) {
    it(`[MQTT-3.1.2-5] [MQTT-3.2.2-3] all of that over a ${crash ? "crash" : "restart"} of the server`, async () => {
      const rig = new Rig();
      const first = await joined(rig, "c", kept);
      await first.subscribe([["a", 2 | 8]], 0, [[P.subId, 5]]);
      await first.subscribe([
        ["own", 1 | 4],
        ["gone", 1],
      ]);
      first.send(unsubscribe(3, ["gone"]));
      await first.next("UNSUBACK");
      await first.drop();
      const writer = await joined(rig, "w");
      writer.publish("a", "1", {
        qos: 1,
        id: 1,
        retain: true,
        properties: [
          [P.user, ["k", "v"]],
          [P.contentType, "c"],
        ],
      });
      await writer.next("PUBACK");
      if (!crash) await rig.close();
      const after = new Rig({ store: rig.store.crash() });
      const { peer, connack } = await welcomed(after, "c", kept);
      expect(connack.present).to.equal(true);
      const [got] = await peer.publishes(1);
      expect([got?.topic, got?.payload, got?.retain, got?.qos]).to.deep.equal(["a", "1", true, 1]);
      expect(got?.properties).to.have.deep.members([
        [P.subId, 5],
        [P.user, ["k", "v"]],
        [P.contentType, "c"],
      ]);
      peer.publish("own");
      peer.publish("gone");
      peer.publish("a", "2");
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 a=2 11:5"]);
      await after.close();
    });
  }

  it("[MQTT-4.3.3-10] [MQTT-4.1.0-1] QoS 2 ids that were received survive a crash: no duplicate onwards", async () => {
    const rig = new Rig();
    const seen = await joined(rig, "seen", kept);
    await seen.subscribe("t", 2);
    await seen.drop();
    const first = await joined(rig, "c", kept);
    first.publish("t", "once", { qos: 2, id: 9 });
    await first.next("PUBREC");
    const after = new Rig({ store: rig.store.crash() });
    const back = await joined(after, "c", kept);
    back.publish("t", "once", { qos: 2, id: 9, dup: true });
    back.send(ack("pubrel", 9));
    expect(await back.says()).to.deep.equal(["PUBREC 9 00", "PUBCOMP 9 00"]);
    const reader = await joined(after, "seen", kept);
    expect(await reader.says()).to.deep.equal(["PUBLISH q2 t=once"]);
    await after.close();
  });

  it(
    "[MQTT-3.1.3-2] sessions of other client ids are not touched",
    withRig(async (rig) => {
      for (const id of ["a", "b"]) {
        const peer = await joined(rig, id, kept);
        await peer.subscribe(id, 1);
        await peer.drop();
      }
      await joined(rig, "a");
      const { peer, connack } = await welcomed(rig, "b", kept);
      expect(connack.present).to.equal(true);
      peer.publish("b");
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 b=x"]);
    }),
  );
});

describe("MQTT 5 sessions: take-over", () => {
  it(
    "[MQTT-3.1.4-3] the old connection is told 0x8E and closed, the new one has the session",
    withRig(async (rig) => {
      const old = await joined(rig, "c", kept);
      await old.subscribe("t", 1);
      const { peer, connack } = await welcomed(rig, "c", kept);
      await old.gone();
      expect(await old.says()).to.deep.equal(["DISCONNECT 8e"]);
      expect(connack.present).to.equal(true);
      peer.publish("t", "x", { qos: 1, id: 1 });
      expect(await peer.says()).to.have.members(["PUBACK 1 00", "PUBLISH q1 t=x"]);
      expect(rig.broker.stats()).to.include({ connections: 1, sessions: 1 });
    }),
  );

  it(
    "[MQTT-3.1.4-3] [MQTT-4.4.0-1] what was in flight to the old connection is sent to the new one",
    withRig(async (rig) => {
      const old = await joined(rig, "c", kept);
      await old.subscribe("t", 1);
      old.publish("t", "x", { qos: 1, id: 1 });
      const first = await old.next("PUBLISH");
      const peer = await joined(rig, "c", kept);
      const [again] = await peer.publishes(1);
      expect([again?.id, again?.dup, again?.payload]).to.deep.equal([first.id, true, "x"]);
    }),
  );

  it(
    "[MQTT-3.1.4-3, -4] with Clean Start nothing of the old session is left",
    withRig(async (rig) => {
      const old = await joined(rig, "c", kept);
      await old.subscribe("t", 1);
      old.publish("t", "x", { qos: 1, id: 1 });
      await old.next("PUBLISH");
      const { peer, connack } = await welcomed(rig, "c", { ...kept, clean: true });
      expect(connack.present).to.equal(false);
      peer.publish("t");
      expect(await peer.says()).to.deep.equal([]);
      await old.gone();
    }),
  );

  it(
    "[MQTT-3.1.4-3] a session that ends with its connection ends by the take-over too",
    withRig(async (rig) => {
      const old = await joined(rig, "c", { clean: false });
      await old.subscribe("t", 1);
      const { connack } = await welcomed(rig, "c", kept);
      expect(connack.present).to.equal(false);
      await old.gone();
    }),
  );

  it(
    "[MQTT-3.1.4-3] packets of the old connection that come afterwards are not processed",
    withRig(async (rig) => {
      const old = await joined(rig, "c", kept);
      const seen = await joined(rig, "seen");
      await seen.subscribe("#");
      const next = open(rig);
      next.send(connect({ id: "c", ...kept }));
      await next.next("CONNACK");
      old.publish("t", "late");
      old.send(disconnect(0), pingreq);
      expect(await seen.says()).to.deep.equal([]);
      await next.alive();
    }),
  );

  it(
    "[MQTT-3.1.4-3] many in a row: the last one stays",
    withRig(async (rig) => {
      const peers = [];
      for (let count = 0; count < 20; count += 1) peers.push(await joined(rig, "c", kept));
      const last = peers.pop();
      for (const peer of peers) {
        await peer.gone();
        expect(await peer.says()).to.deep.equal(["DISCONNECT 8e"]);
      }
      await last?.alive();
      expect(rig.broker.stats().connections).to.equal(1);
    }),
  );
});
