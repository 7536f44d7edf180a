import { expect } from "chai";
import { byte, P, packet, publish, rh, subscribe, text, u16 } from "./frames.ts";
import { fault, joined, kept, notGranted, withRig } from "./support.ts";

const head = (id: number): Buffer => Buffer.concat([u16(id), byte(0)]);

describe("MQTT 5 SUBSCRIBE: form", () => {
  it(
    "[MQTT-3.8.1-1] [MQTT-2.1.3-1] other header flags are malformed",
    withRig(async (rig) => {
      for (let flags = 0; flags < 16; flags += 1)
        if (flags !== 2) await fault(rig, packet(0x80 | flags, head(1), text("t"), byte(0)), [0x81]);
    }),
  );
  it(
    "[MQTT-3.8.3-2] no filter is a Protocol Error",
    withRig((rig) => fault(rig, subscribe(1, []), [0x82])),
  );
  it(
    "[2.2.1] packet id 0 is a fault",
    withRig((rig) => fault(rig, subscribe(0, [["t", 0]]), [0x81, 0x82])),
  );
  for (const bit of [0x40, 0x80, 0xc0]) {
    it(
      `[MQTT-3.8.3-5] reserved option bits 0x${bit.toString(16)} are malformed`,
      withRig((rig) => fault(rig, subscribe(1, [["t", bit | 1]]), [0x81])),
    );
  }
  it(
    "[3.8.3.1] QoS 3 is a Protocol Error",
    withRig((rig) => fault(rig, subscribe(1, [["t", 3]]), [0x82])),
  );
  it(
    "[3.8.3.1] Retain Handling 3 is a Protocol Error",
    withRig((rig) => fault(rig, subscribe(1, [["t", rh(3)]]), [0x82])),
  );
  it(
    "[3.8.3.1] a fault in the second filter undoes the packet, and nothing is subscribed",
    withRig(async (rig) => {
      await fault(
        rig,
        subscribe(1, [
          ["good", 0],
          ["t", 3],
        ]),
        [0x82],
        kept,
      );
      expect(rig.broker.stats().subscriptions).to.equal(1); // that of the witness
    }),
  );
  it(
    "[3.8.2.1.2] Subscription Identifier 0 is a Protocol Error",
    withRig((rig) => fault(rig, subscribe(1, [["t", 0]], [[P.subId, 0]]), [0x82])),
  );
  it(
    "[3.8.2.1.2] Subscription Identifier twice is a Protocol Error",
    withRig((rig) =>
      fault(
        rig,
        subscribe(
          1,
          [["t", 0]],
          [
            [P.subId, 1],
            [P.subId, 2],
          ],
        ),
        [0x82],
      ),
    ),
  );
  const broken: ReadonlyArray<readonly [string, Buffer]> = [
    ["no options for its filter", packet(0x82, head(1), text("t"))],
    ["a filter cut short", packet(0x82, head(1), u16(5), Buffer.from("abc"))],
    ["half a length at its end", packet(0x82, head(1), text("t"), byte(0), byte(0))],
    ["no Property Length", packet(0x82, u16(1))],
    ["no packet id", packet(0x82)],
    ["a Property Length beyond its end", packet(0x82, u16(1), byte(50), text("t"), byte(0))],
    [
      "a Subscription Identifier of five bytes",
      packet(0x82, u16(1), byte(6), Buffer.from("0bffffffff01", "hex"), text("t"), byte(0)),
    ],
  ];
  for (const [name, bytes] of broken) {
    it(
      `[2.1.4] [MQTT-4.13.1-1] with ${name}: malformed`,
      withRig((rig) => fault(rig, bytes, [0x81])),
    );
  }
  const filters = ["a#", "a/#/b", "#/a", "##", "a+", "+a/b", "a/b+", "/a#", "++"];
  for (const filter of filters) {
    it(
      `[MQTT-4.7.1-1, -2] the filter ${filter} is not granted`,
      withRig((rig) => notGranted(rig, filter)),
    );
  }
  it(
    "[MQTT-4.7.3-1] a filter of no characters is not granted",
    withRig((rig) => notGranted(rig, "")),
  );
});

describe("MQTT 5 SUBACK", () => {
  it(
    "[MQTT-3.8.4-1, -2, -5, -6, -7] [MQTT-3.9.3-1, -2] [MQTT-2.2.1-6] one for all filters: its id, a code each, in order",
    withRig(async (rig) => {
      const peer = await joined(rig);
      const filters = [2, 0, 1, 1, 2, 0].map((qos, at) => [`t/${at}`, qos] as const);
      peer.send(subscribe(65_535, filters));
      expect(await peer.says()).to.deep.equal(["SUBACK 65535 02,00,01,01,02,00"]);
    }),
  );
  it(
    "[MQTT-3.8.4-5, -6, -7] [MQTT-3.9.3-1] some fail, the others are granted",
    withRig(
      async (rig) => {
        const peer = await joined(rig);
        peer.send(
          subscribe(5, [
            ["a", 1],
            ["b", 2],
            ["c", 1],
            ["a", 2],
          ]),
        );
        const [suback] = await peer.take();
        expect(suback?.codes.map((code) => (code < 3 ? code : "no"))).to.deep.equal([1, 2, "no", 2]);
        peer.publish("c");
        peer.publish("b");
        expect(await peer.says()).to.deep.equal(["PUBLISH q0 b=x"]);
      },
      { limits: { maxSubscriptions: 2 } },
    ),
  );
  it(
    "[MQTT-3.8.4-5] as many SUBSCRIBEs in a row: the last of two equal filters counts, retained messages are sent for both",
    withRig(async (rig) => {
      const writer = await joined(rig, "writer");
      writer.publish("t", "kept", { retain: true, qos: 2, id: 1 });
      await writer.next("PUBREC");
      const peer = await joined(rig);
      expect(
        await peer.subscribe([
          ["t", 2],
          ["t", 0],
        ]),
      ).to.deep.equal([2, 0]);
      expect((await peer.says()).map((said) => said.slice(11))).to.include("t=kept retain");
      writer.publish("t", "x", { qos: 1, id: 2 });
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 t=x"]);
    }),
  );
  it(
    "[MQTT-3.8.4-1] each SUBSCRIBE has its own, also with the id of the one before",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.send(subscribe(5, [["a", 0]]), subscribe(5, [["b", 1]]), subscribe(6, [["a", 2]]));
      expect(await peer.says()).to.deep.equal(["SUBACK 5 00", "SUBACK 5 01", "SUBACK 6 02"]);
    }),
  );
  it(
    "[MQTT-2.2.1-6] a packet id that a message of the client has in use is the client's own affair",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.send(publish("t", "x", { qos: 2, id: 5 }));
      await peer.next("PUBREC");
      peer.send(subscribe(5, [["a", 0]]));
      const got = await peer.take();
      expect(got.map(({ kind, id }) => [kind, id])).to.deep.equal([["SUBACK", 5]]);
    }),
  );
  it(
    "[2.1.3] SUBACK and UNSUBACK from a client are Protocol Errors",
    withRig(async (rig) => {
      await fault(rig, packet(0x90, head(1), byte(0)), [0x82]);
      await fault(rig, packet(0xb0, head(1), byte(0)), [0x82]);
    }),
  );
});

describe("MQTT 5 subscribing again", () => {
  it(
    "[MQTT-3.8.4-3] the new one replaces the old: one message, with the new QoS",
    withRig(async (rig) => {
      const peer = await joined(rig);
      const writer = await joined(rig, "writer");
      for (const qos of [0, 2, 1]) {
        await peer.subscribe("t", qos);
        writer.publish("t", "x", { qos: 2, id: 10 + qos });
        expect(await peer.says()).to.deep.equal([`PUBLISH q${qos} t=x`]);
      }
      expect(rig.broker.stats().subscriptions).to.equal(1);
    }),
  );
  it(
    "[MQTT-3.8.4-3] No Local and Retain As Published are replaced, both ways",
    withRig(async (rig) => {
      const peer = await joined(rig);
      for (const [options, expected] of [
        [4, []],
        [0, ["PUBLISH q0 t=x"]],
        [8, ["PUBLISH q0 t=x retain"]],
        [0, ["PUBLISH q0 t=x"]],
        [12, []],
      ] as const) {
        await peer.subscribe("t", options | rh(2));
        peer.publish("t", "x", { retain: true });
        expect(await peer.says()).to.deep.equal(expected);
      }
    }),
  );
  it(
    "[MQTT-3.8.4-3] [3.8.2.1.2] the Subscription Identifier is replaced, and taken away by none",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", kept);
      for (const id of [5, 6, undefined, 7]) {
        await peer.subscribe("t", 0, id === undefined ? [] : [[P.subId, id]]);
        peer.publish("t");
        expect(await peer.says()).to.deep.equal([`PUBLISH q0 t=x${id === undefined ? "" : ` 11:${id}`}`]);
      }
    }),
  );
  it(
    "[MQTT-3.8.4-3] all of it lasts over the connection",
    withRig(async (rig) => {
      const first = await joined(rig, "c", kept);
      await first.subscribe("t", 2, [[P.subId, 5]]);
      await first.subscribe("t", 1 | 8);
      await first.drop();
      const peer = await joined(rig, "c", kept);
      (await joined(rig, "w")).publish("t", "x", { qos: 2, id: 1, retain: true });
      expect(await peer.says()).to.deep.equal(["PUBLISH q1 t=x retain"]);
    }),
  );
  it(
    "[MQTT-3.8.4-4] no message is lost by it: those in flight and those that wait",
    withRig(async (rig) => {
      const peer = await joined(rig, "c", {
        ...kept,
        properties: [
          [P.sessionExpiry, 60],
          [P.receiveMaximum, 2],
        ],
      });
      await peer.subscribe("t", 1);
      const writer = await joined(rig, "writer");
      for (let at = 1; at <= 4; at += 1) writer.publish("t", String(at), { qos: 1, id: at });
      const first = await peer.publishes(2);
      await peer.subscribe("t", 1);
      for (let at = 5; at <= 6; at += 1) writer.publish("t", String(at), { qos: 1, id: at });
      const order = first.map(({ payload }) => payload);
      let waiting = first;
      while (waiting.length > 0) {
        for (const { id } of waiting) peer.send(Buffer.concat([Buffer.from([0x40, 2]), u16(id)]));
        waiting = await peer.take();
        order.push(...waiting.map(({ payload }) => payload));
      }
      expect(order).to.deep.equal(["1", "2", "3", "4", "5", "6"]);
    }),
  );
  it(
    "[MQTT-3.8.4-3] filters that match the same but are not the same are two subscriptions",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("t", 0, [[P.subId, 1]]);
      await peer.subscribe("+", 0, [[P.subId, 2]]);
      peer.publish("t");
      const ids = (await peer.take()).flatMap(({ properties }) => properties.map(([, value]) => value));
      expect(ids).to.have.members([1, 2]);
    }),
  );
});
