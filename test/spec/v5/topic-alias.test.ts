import { expect } from "chai";
import { P, type Property, publish } from "./frames.ts";
import { fault, joined, kept, resolved, welcomed, withRig, witness } from "./support.ts";

const alias = (number: number): readonly Property[] => [[P.alias, number]];
const limits = { topicAliasMaximum: 3 };

describe("MQTT 5 topic aliases from a client", () => {
  it(
    "[MQTT-3.3.2-12] every alias from 1 to the server's maximum is taken, and stands for its topic",
    withRig(
      async (rig) => {
        const seen = await witness(rig);
        const { peer, connack } = await welcomed(rig);
        expect(connack.properties.find(([id]) => id === P.aliasMaximum)?.[1]).to.equal(3);
        for (const number of [1, 2, 3]) peer.publish(`t/${number}`, "first", { properties: alias(number) });
        for (const number of [3, 1, 2]) peer.publish("", "second", { properties: alias(number), qos: 1, id: number });
        const order = ["t/1", "t/2", "t/3", "t/3", "t/1", "t/2"];
        const got = (await seen.take()).filter(({ kind }) => kind === "PUBLISH");
        expect(resolved(got)).to.deep.equal(order);
        expect(got.flatMap(({ properties }) => properties)).to.deep.equal([]);
      },
      { limits },
    ),
  );
  it(
    "[3.3.2.3.4] an alias is given another topic by a PUBLISH that names both",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      peer.publish("a", "1", { properties: alias(1) });
      peer.publish("b", "2", { properties: alias(1) });
      peer.publish("", "3", { properties: alias(1) });
      expect(resolved(await seen.publishes(3))).to.deep.equal(["a", "b", "b"]);
    }),
  );
  it(
    "[3.3.2.3.4] two aliases may stand for one topic, and a plain topic changes none",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      peer.publish("a", "1", { properties: alias(1) });
      peer.publish("a", "2", { properties: alias(2) });
      peer.publish("b", "3");
      peer.publish("", "4", { properties: alias(1) });
      peer.publish("", "5", { properties: alias(2) });
      expect(resolved(await seen.publishes(5))).to.deep.equal(["a", "a", "b", "a", "a"]);
    }),
  );
  it(
    "[3.3.2.3.4] aliases of a client are not those of another",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peers = [await joined(rig, "a"), await joined(rig, "b")];
      for (const [at, peer] of peers.entries()) peer.publish(`t${at}`, "x", { properties: alias(1) });
      for (const peer of peers) peer.publish("", "x", { properties: alias(1) });
      expect(resolved(await seen.take())).to.have.members(["t0", "t1", "t0", "t1"]);
    }),
  );
  it(
    "[MQTT-3.3.2-9] an alias above the maximum: DISCONNECT 0x94",
    withRig((rig) => fault(rig, publish("t", "x", { properties: alias(4) }), [0x94]), { limits }),
  );
  it(
    "[MQTT-3.2.2-18] the server allows none: any alias gets DISCONNECT 0x94",
    withRig((rig) => fault(rig, publish("t", "x", { properties: alias(1) }), [0x94]), {
      limits: { topicAliasMaximum: 0 },
    }),
  );
  it(
    "[MQTT-3.3.2-8] alias 0 is refused",
    withRig((rig) => fault(rig, publish("t", "x", { properties: alias(0) }), [0x82, 0x94])),
  );
  it(
    "[3.3.2.3.4] no topic and an alias that nothing was said about is a Protocol Error",
    withRig((rig) => fault(rig, publish("", "x", { properties: alias(2) }), [0x82])),
  );
  it(
    "[MQTT-3.3.2-7] aliases end with the connection, although the session goes on",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const first = await joined(rig, "c", kept);
      first.publish("a", "1", { properties: alias(1) });
      await seen.publishes(1);
      await first.drop();
      const { peer, connack } = await welcomed(rig, "c", kept);
      expect(connack.present).to.equal(true);
      peer.publish("", "2", { properties: alias(1) });
      await peer.gone();
      expect(await peer.says()).to.deep.equal(["DISCONNECT 82"]);
      expect(await seen.says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-3.3.1-5] a message by alias is retained, and waits, under its topic",
    withRig(async (rig) => {
      const away = await joined(rig, "away", kept);
      await away.subscribe("a", 1);
      await away.drop();
      const peer = await joined(rig);
      peer.publish("a", "1", { properties: alias(1) });
      peer.publish("", "2", { properties: alias(1), retain: true, qos: 1, id: 1 });
      await peer.next("PUBACK");
      const late = await joined(rig, "late");
      await late.subscribe("#", 1);
      expect(await late.says()).to.deep.equal(["PUBLISH q1 a=2 retain"]);
      expect(await (await joined(rig, "away", kept)).says()).to.deep.equal(["PUBLISH q1 a=2"]);
    }),
  );
  it(
    "[3.3.2.3.4] a PUBLISH that is refused sets its alias all the same",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      rig.store.verdict = "full";
      peer.publish("a", "1", { properties: alias(1), qos: 1, id: 5, retain: true });
      expect((await peer.next("PUBACK")).codes[0]).to.be.at.least(0x80);
      rig.store.verdict = "ok";
      peer.publish("", "2", { properties: alias(1) });
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 a=2"]);
    }),
  );
  it(
    "[3.3.2.3.4] a PUBLISH that is sent again with its alias is the same message",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      peer.publish("a", "1", { properties: alias(1), qos: 2, id: 5 });
      peer.publish("", "1", { properties: alias(1), qos: 2, id: 5, dup: true });
      expect(await peer.says()).to.deep.equal(["PUBREC 5 00", "PUBREC 5 00"]);
      expect(resolved(await seen.publishes(1))).to.deep.equal(["a"]);
    }),
  );
});

describe("MQTT 5 topic aliases to a client", () => {
  for (const maximum of [undefined, 0] as const) {
    it(
      `[MQTT-3.1.2-27] Topic Alias Maximum ${maximum ?? "absent"}: none is sent`,
      withRig(async (rig) => {
        const list: readonly Property[] = maximum === undefined ? [] : [[P.aliasMaximum, maximum]];
        const reader = await joined(rig, "reader", { properties: list });
        await reader.subscribe("#");
        const peer = await joined(rig);
        for (let round = 0; round < 10; round += 1) peer.publish("a/long/topic/that/is/worth/an/alias");
        for (const { topic, properties } of await reader.publishes(10)) {
          expect(topic).to.equal("a/long/topic/that/is/worth/an/alias");
          expect(properties).to.deep.equal([]);
        }
      }),
    );
  }

  it(
    "[MQTT-3.1.2-26] [MQTT-3.3.2-8, -11] none is 0 or above the client's maximum, and each stands for the right topic",
    withRig(async (rig) => {
      const reader = await joined(rig, "reader", { properties: [[P.aliasMaximum, 2]] });
      await reader.subscribe("#", 1);
      const peer = await joined(rig);
      const order = ["a/b/c", "a/b/d", "a/b/c", "a/b/e", "a/b/d", "a/b/e", "a/b/c", "a/b/f", "a/b/f", "a/b/c"];
      for (const [at, topic] of order.entries()) peer.publish(topic, "x", { qos: at % 2, id: at });
      const got = await reader.publishes(order.length);
      expect(resolved(got)).to.deep.equal(order);
      for (const { properties } of got)
        for (const [id, value] of properties) if (id === P.alias) expect(value).to.be.within(1, 2);
    }),
  );

  it(
    "[MQTT-3.3.2-7] [MQTT-4.4.0-1] what is sent again on a new connection does not rely on an alias of the old one",
    withRig(async (rig) => {
      const fields = {
        clean: false,
        properties: [
          [P.sessionExpiry, 60],
          [P.aliasMaximum, 5],
        ] as Property[],
      };
      const reader = await joined(rig, "reader", fields);
      await reader.subscribe("#", 1);
      const peer = await joined(rig);
      for (let round = 0; round < 4; round += 1) peer.publish("a/b/c", String(round), { qos: 1, id: round + 1 });
      expect(resolved(await reader.publishes(4))).to.deep.equal(["a/b/c", "a/b/c", "a/b/c", "a/b/c"]);
      await reader.drop();
      for (const maximum of [5, 0]) {
        const back = await joined(rig, "reader", {
          clean: false,
          properties: [
            [P.sessionExpiry, 60],
            [P.aliasMaximum, maximum],
          ],
        });
        const again = await back.publishes(4);
        expect(resolved(again)).to.deep.equal(["a/b/c", "a/b/c", "a/b/c", "a/b/c"]);
        if (maximum === 0) expect(again.flatMap(({ properties }) => properties)).to.deep.equal([]);
        await back.drop();
      }
    }),
  );

  it(
    "[MQTT-3.1.2-25] a message too large for the client sets no alias that a later one relies on",
    withRig(async (rig) => {
      const reader = await joined(rig, "reader", {
        properties: [
          [P.aliasMaximum, 5],
          [P.maximumPacket, 60],
        ],
      });
      await reader.subscribe("#");
      const peer = await joined(rig);
      peer.publish("a/b/c", "x".repeat(200));
      for (let round = 0; round < 3; round += 1) peer.publish("a/b/c");
      expect(resolved(await reader.publishes(3))).to.deep.equal(["a/b/c", "a/b/c", "a/b/c"]);
    }),
  );
});
