import { expect } from "chai";
import { ack, nl, P, publish, rap, rh, subscribe, unsubscribe } from "./frames.ts";
import { fault, joined, kept, type Peer, Rig, withRig } from "./support.ts";

describe("MQTT 5 No Local", () => {
  it(
    "[MQTT-3.8.3-3] nothing back to its own client id, everything to others",
    withRig(async (rig) => {
      const a = await joined(rig, "a");
      const b = await joined(rig, "b");
      for (const peer of [a, b]) await peer.subscribe("t", 1 | nl);
      a.publish("t", "from a", { qos: 1, id: 1 });
      b.publish("t", "from b", { qos: 1, id: 1 });
      expect(await a.says()).to.have.members(["PUBACK 1 00", "PUBLISH q1 t=from b"]);
      expect(await b.says()).to.have.members(["PUBACK 1 00", "PUBLISH q1 t=from a"]);
    }),
  );
  it(
    "[MQTT-3.8.3-3] without it one's own messages come back",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("t");
      peer.publish("t");
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 t=x"]);
    }),
  );
  it(
    "[MQTT-3.8.3-3] [MQTT-3.3.4-3] another subscription without it gets the message, by its own QoS and identifier",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("t", 2 | nl, [[P.subId, 1]]);
      await peer.subscribe("#", 0, [[P.subId, 2]]);
      peer.publish("t", "x", { qos: 1, id: 1 });
      expect(await peer.says()).to.have.members(["PUBACK 1 00", "PUBLISH q0 t=x 11:2"]);
    }),
  );
  it(
    "[MQTT-3.8.3-3] it holds by client id: over connections of the session, and what was published before",
    withRig(async (rig) => {
      const first = await joined(rig, "c", kept);
      await first.subscribe("t", 1 | nl);
      first.publish("t", "mine", { qos: 1, id: 1 });
      await first.next("PUBACK");
      await first.drop();
      (await joined(rig, "w")).publish("t", "other", { qos: 1, id: 1 });
      const peer = await joined(rig, "c", kept);
      expect(await peer.says()).to.deep.equal(["PUBLISH q1 t=other"]);
      peer.publish("t", "mine again");
      expect(await peer.says()).to.deep.equal([]);
    }),
  );
  it("[MQTT-3.8.3-3] over a crash of the server", async () => {
    const rig = new Rig();
    const first = await joined(rig, "c", kept);
    await first.subscribe("t", 1 | nl);
    await first.drop();
    const after = new Rig({ store: rig.store.crash() });
    const peer = await joined(after, "c", kept);
    peer.publish("t", "x", { qos: 1, id: 1 });
    expect(await peer.says()).to.deep.equal(["PUBACK 1 00"]);
    await after.close();
  });
  it(
    "[MQTT-3.8.3-4] on a shared subscription it is a Protocol Error",
    withRig((rig) => fault(rig, subscribe(1, [["$share/g/t", nl]]), [0x82])),
  );
});

describe("MQTT 5 Retain As Published", () => {
  for (const qos of [0, 1, 2]) {
    it(
      `[MQTT-3.3.1-12, -13] QoS ${qos}: RETAIN out is 0 without it and as it came with it`,
      withRig(async (rig) => {
        const plain = await joined(rig, "plain");
        await plain.subscribe("t", 2);
        const exact = await joined(rig, "exact");
        await exact.subscribe("t", 2 | rap);
        const writer = await joined(rig, "writer");
        writer.publish("t", "a", { qos, id: 1, retain: true });
        writer.publish("t", "b", { qos, id: 2 });
        expect(await plain.says()).to.deep.equal([`PUBLISH q${qos} t=a`, `PUBLISH q${qos} t=b`]);
        expect(await exact.says()).to.deep.equal([`PUBLISH q${qos} t=a retain`, `PUBLISH q${qos} t=b`]);
      }),
    );
  }
  it(
    "[MQTT-3.3.1-12, -13] what waits for a session has RETAIN as its subscription wants",
    withRig(async (rig) => {
      for (const [id, option] of [
        ["plain", 0],
        ["exact", rap],
      ] as const) {
        const peer = await joined(rig, id, kept);
        await peer.subscribe("t", 1 | option);
        await peer.drop();
      }
      const writer = await joined(rig, "writer");
      writer.publish("t", "a", { qos: 1, id: 1, retain: true });
      await writer.next("PUBACK");
      expect(await (await joined(rig, "plain", kept)).says()).to.deep.equal(["PUBLISH q1 t=a"]);
      expect(await (await joined(rig, "exact", kept)).says()).to.deep.equal(["PUBLISH q1 t=a retain"]);
    }),
  );
  it(
    "[3.3.1.3] [MQTT-3.3.1-9] messages sent because of a new subscription have RETAIN 1, with or without it",
    withRig(async (rig) => {
      (await joined(rig, "w")).publish("t", "kept", { retain: true });
      const peer = await joined(rig);
      for (const option of [0, rap]) {
        await peer.subscribe("t", option);
        expect(await peer.says()).to.deep.equal(["PUBLISH q0 t=kept retain"]);
      }
    }),
  );
});

/** Three retained messages, and somebody to subscribe. */
async function withRetained(rig: Rig, id = "c"): Promise<Peer> {
  const writer = await joined(rig, "writer");
  for (const qos of [0, 1, 2]) writer.publish(`r/${qos}`, "kept", { qos, id: qos, retain: true });
  await writer.next("PUBREC");
  return joined(rig, id, kept);
}
const all = ["PUBLISH q0 r/0=kept retain", "PUBLISH q1 r/1=kept retain", "PUBLISH q2 r/2=kept retain"];

describe("MQTT 5 Retain Handling", () => {
  it(
    "[MQTT-3.3.1-9] [MQTT-3.8.4-4] 0: sent with every subscribing",
    withRig(async (rig) => {
      const peer = await withRetained(rig);
      for (let round = 0; round < 3; round += 1) {
        await peer.subscribe("r/+", 2 | rh(0));
        const got = await peer.take();
        expect(got.map(({ topic, retain }) => [topic, retain])).to.have.deep.members([
          ["r/0", true],
          ["r/1", true],
          ["r/2", true],
        ]);
        for (const { id, qos } of got) if (qos > 0) peer.send(qos === 1 ? ack("puback", id) : ack("pubrec", id, 0x80));
      }
    }),
  );
  it(
    "[MQTT-3.3.1-10] 1: sent when the subscription is new, not when it is there",
    withRig(async (rig) => {
      const peer = await withRetained(rig);
      await peer.subscribe("r/+", 2 | rh(1));
      expect(await peer.says()).to.have.members(all);
      await peer.subscribe("r/+", 2 | rh(1));
      await peer.subscribe("r/+", rh(1), [[P.subId, 4]]);
      expect(await peer.says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-3.3.1-10] 1: a subscription made with another handling is there as well, and one of the resumed session",
    withRig(async (rig) => {
      const peer = await withRetained(rig);
      await peer.subscribe("r/+", rh(2));
      await peer.subscribe("r/+", rh(1));
      expect(await peer.says()).to.deep.equal([]);
      await peer.drop();
      const back = await joined(rig, "c", kept);
      await back.subscribe("r/+", rh(1));
      expect(await back.says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-3.3.1-10] 1: after UNSUBSCRIBE, in a new session and for another client it is new",
    withRig(async (rig) => {
      const peer = await withRetained(rig);
      await peer.subscribe("r/+", 2 | rh(1));
      await peer.take();
      peer.send(unsubscribe(7, ["r/+"]));
      await peer.next("UNSUBACK");
      await peer.subscribe("r/+", 0 | rh(1));
      expect((await peer.take()).length).to.equal(3);
      const fresh = await joined(rig, "c", { ...kept, clean: true });
      await fresh.subscribe("r/+", 2 | rh(1));
      expect(await fresh.says()).to.have.members(all);
      const other = await joined(rig, "d");
      await other.subscribe("r/+", 2 | rh(1));
      expect(await other.says()).to.have.members(all);
    }),
  );
  it(
    "[MQTT-3.3.1-11] 2: never sent, and what is published afterwards is",
    withRig(async (rig) => {
      const peer = await withRetained(rig);
      await peer.subscribe("r/+", 2 | rh(2));
      await peer.subscribe("r/+", 2 | rh(2));
      expect(await peer.says()).to.deep.equal([]);
      peer.publish("r/0", "new", { retain: true });
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 r/0=new"]);
    }),
  );
  it(
    "[MQTT-3.3.1-9] [MQTT-3.8.4-5] each filter of one SUBSCRIBE has its own",
    withRig(async (rig) => {
      const peer = await withRetained(rig);
      await peer.subscribe([
        ["r/0", rh(2)],
        ["r/1", 1 | rh(0)],
        ["r/2", 2 | rh(1)],
      ]);
      expect(await peer.says()).to.have.members(all.slice(1));
    }),
  );
  it(
    "[MQTT-3.3.4-3] [3.8.2.1.2] retained messages come with the Subscription Identifier",
    withRig(async (rig) => {
      const peer = await withRetained(rig);
      await peer.subscribe("r/0", 0, [[P.subId, 128]]);
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 r/0=kept retain 11:128"]);
    }),
  );
});

describe("MQTT 5 Subscription Identifier", () => {
  it(
    "[MQTT-3.3.4-3, -4] every length of it, for all filters of the SUBSCRIBE",
    withRig(async (rig) => {
      const peer = await joined(rig);
      for (const id of [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455]) {
        await peer.subscribe(
          [
            ["a", 0],
            ["b", 0],
          ],
          0,
          [[P.subId, id]],
        );
        peer.send(publish("a"), publish("b"));
        expect(await peer.says()).to.deep.equal([`PUBLISH q0 a=x 11:${id}`, `PUBLISH q0 b=x 11:${id}`]);
      }
    }),
  );
  it(
    "[MQTT-3.3.4-4] the same identifier on two subscriptions that match",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe(
        [
          ["a", 0],
          ["+", 0],
        ],
        0,
        [[P.subId, 9]],
      );
      peer.publish("a");
      const got = await peer.take();
      const ids = got.flatMap(({ properties }) => properties.map(([, value]) => value));
      expect(new Set(ids)).to.deep.equal(new Set([9]));
    }),
  );
  it(
    "[MQTT-3.3.4-3] those of one client are not sent to another",
    withRig(async (rig) => {
      const a = await joined(rig, "a");
      const b = await joined(rig, "b");
      await a.subscribe("t", 0, [[P.subId, 1]]);
      await b.subscribe("t");
      a.publish("t");
      expect(await a.says()).to.deep.equal(["PUBLISH q0 t=x 11:1"]);
      expect(await b.says()).to.deep.equal(["PUBLISH q0 t=x"]);
    }),
  );
});
