import { expect } from "chai";
import { ack, byte, P, packet, text, u16, unsubscribe } from "./frames.ts";
import { acknowledge, fault, joined, kept, keptWith, withRig } from "./support.ts";

const head = Buffer.concat([u16(1), byte(0)]);

describe("MQTT 5 UNSUBSCRIBE: form", () => {
  it(
    "[MQTT-3.10.1-1] [MQTT-2.1.3-1] other header flags are malformed",
    withRig(async (rig) => {
      for (let flags = 0; flags < 16; flags += 1)
        if (flags !== 2) await fault(rig, packet(0xa0 | flags, head, text("t")), [0x81]);
    }),
  );
  it(
    "[MQTT-3.10.3-2] no filter is a Protocol Error",
    withRig((rig) => fault(rig, unsubscribe(1, []), [0x82])),
  );
  it(
    "[2.2.1] packet id 0 is a fault",
    withRig((rig) => fault(rig, unsubscribe(0, ["t"]), [0x81, 0x82])),
  );
  const broken: ReadonlyArray<readonly [string, Buffer]> = [
    ["a filter cut short", packet(0xa2, head, u16(5), Buffer.from("abc"))],
    ["half a length at its end", packet(0xa2, head, text("t"), byte(0))],
    ["no Property Length", packet(0xa2, u16(1))],
    ["no packet id", packet(0xa2)],
    ["a Property Length beyond its end", packet(0xa2, u16(1), byte(50), text("t"))],
  ];
  for (const [name, bytes] of broken) {
    it(
      `[2.1.4] [MQTT-4.13.1-1] with ${name}: malformed`,
      withRig((rig) => fault(rig, bytes, [0x81])),
    );
  }
});

describe("MQTT 5 UNSUBACK", () => {
  it(
    "[MQTT-3.10.4-4, -5, -6] [MQTT-3.11.3-1, -2] [MQTT-2.2.1-6] one for all filters: its id, a code each, in order",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe([
        ["a", 0],
        ["b/+", 1],
        ["#", 2],
      ]);
      peer.send(unsubscribe(65_535, ["b/+", "none", "a", "a", "b/1"]));
      expect(await peer.says()).to.deep.equal(["UNSUBACK 65535 00,11,00,11,11"]);
    }),
  );
  it(
    "[MQTT-3.10.4-5] nothing was subscribed: answered all the same, 0x11",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.send(unsubscribe(7, ["a"]), unsubscribe(7, ["#"]));
      expect(await peer.says()).to.deep.equal(["UNSUBACK 7 11", "UNSUBACK 7 11"]);
    }),
  );
  it(
    "[MQTT-3.10.4-1] filters are compared character by character, not matched",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe([
        ["a/b", 0],
        ["a/+", 0],
        ["/a", 0],
      ]);
      peer.send(unsubscribe(1, ["#", "a/#", "A/b", "a/b/", "a", "+/a", "a/c"]));
      expect(await peer.says()).to.deep.equal(["UNSUBACK 1 11,11,11,11,11,11,11"]);
      expect(rig.broker.stats().subscriptions).to.equal(3);
      peer.send(unsubscribe(2, ["a/+"]));
      expect(await peer.says()).to.deep.equal(["UNSUBACK 2 00"]);
      peer.publish("a/c");
      peer.publish("a/b");
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 a/b=x"]);
    }),
  );
  it(
    "[MQTT-3.10.4-1] subscriptions of other clients stay",
    withRig(async (rig) => {
      const peers = [await joined(rig, "a"), await joined(rig, "b")];
      for (const peer of peers) await peer.subscribe("t");
      peers[0]?.send(unsubscribe(1, ["t"]));
      await peers[0]?.next("UNSUBACK");
      peers[0]?.publish("t");
      expect(await peers[1]?.says()).to.deep.equal(["PUBLISH q0 t=x"]);
    }),
  );
});

describe("MQTT 5 UNSUBSCRIBE: messages", () => {
  it(
    "[MQTT-3.10.4-2] no new ones after it",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", kept);
      const writer = await joined(rig, "writer");
      for (const topic of ["a", "b", "c"]) await peer.subscribe(topic, 2);
      peer.send(unsubscribe(1, ["a"]));
      await peer.next("UNSUBACK");
      for (const [at, topic] of ["a", "b", "c"].entries()) writer.publish(topic, "x", { qos: 1, id: at + 1 });
      expect(await peer.says()).to.deep.equal(["PUBLISH q1 b=x", "PUBLISH q1 c=x"]);
    }),
  );
  it(
    "[MQTT-3.10.4-2] another subscription that matches goes on, with its own identifier",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("a/b", 0, [[P.subId, 1]]);
      await peer.subscribe("a/+", 0, [[P.subId, 2]]);
      peer.send(unsubscribe(1, ["a/b"]));
      await peer.next("UNSUBACK");
      peer.publish("a/b");
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 a/b=x 11:2"]);
    }),
  );
  for (const qos of [1, 2]) {
    it(
      `[MQTT-3.10.4-3] QoS ${qos} that was begun is completed, over a new connection too`,
      withRig(async (rig) => {
        const peer = await joined(rig, "c", kept);
        await peer.subscribe("t", qos);
        (await joined(rig, "w")).publish("t", "x", { qos, id: 1 });
        const [first] = await peer.publishes(1);
        peer.send(unsubscribe(1, ["t"]));
        await peer.next("UNSUBACK");
        await peer.drop();
        const back = await joined(rig, "c", kept);
        const again = await back.publishes(1);
        expect([again[0]?.id, again[0]?.dup]).to.deep.equal([first?.id, true]);
        await acknowledge(back, again);
        expect(await back.says()).to.deep.equal([]);
      }),
    );
  }
  it(
    "[MQTT-3.10.4-3] PUBREL after it",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", keptWith());
      await peer.subscribe("t", 2);
      (await joined(rig, "w")).publish("t", "x", { qos: 2, id: 1 });
      const { id } = await peer.next("PUBLISH");
      peer.send(unsubscribe(1, ["t"]), ack("pubrec", id));
      expect(await peer.says()).to.have.members(["UNSUBACK 1 00", `PUBREL ${id} 00`]);
    }),
  );
  it(
    "[MQTT-3.10.4-2] it is for good: not there after a new connection, nor after a crash of the server",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", kept);
      await peer.subscribe([
        ["a", 1],
        ["b", 1],
      ]);
      peer.send(unsubscribe(1, ["a"]));
      await peer.next("UNSUBACK");
      await peer.drop();
      await withRig(
        async (after) => {
          const back = await joined(after, "c", kept);
          back.publish("a");
          back.publish("b");
          expect(await back.says()).to.deep.equal(["PUBLISH q0 b=x"]);
        },
        { store: rig.store.crash() },
      )();
    }),
  );
});
