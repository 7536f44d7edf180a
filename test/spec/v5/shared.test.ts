import { expect } from "chai";
import { ack, disconnect, nl, P, rap, rh, subscribe, unsubscribe } from "./frames.ts";
import type { Seen } from "./seen.ts";
import {
  acknowledge,
  fault,
  joined,
  kept,
  keptWith,
  notGranted,
  type Peer,
  type Rig,
  welcomed,
  withRig,
} from "./support.ts";

/** Clients of one group, and one who publishes. */
async function group(rig: Rig, count: number, filter = "$share/g/t", options = 2) {
  const members: Peer[] = [];
  for (let at = 0; at < count; at += 1) {
    const member = await joined(rig, `m${at}`, kept);
    expect(await member.subscribe(filter, options)).to.deep.equal([options & 3]);
    members.push(member);
  }
  return { members, writer: await joined(rig, "writer") };
}

/** All that the members got, those of each in a list, acknowledged. */
async function shares(members: readonly Peer[]): Promise<Seen[][]> {
  const lists: Seen[][] = [];
  for (const member of members) {
    const got = await member.take();
    lists.push(got);
    await acknowledge(member, got);
  }
  return lists;
}

const payloads = (lists: ReadonlyArray<readonly Seen[]>): string[] =>
  lists
    .flat()
    .map(({ payload }) => payload)
    .sort();

describe("MQTT 5 shared subscriptions: names", () => {
  it(
    "[3.2.2.3.13] the CONNACK does not say that there are none",
    withRig(async (rig) => {
      const { connack } = await welcomed(rig);
      expect(connack.properties.find(([id]) => id === P.sharedAvailable)?.[1] ?? 1).to.equal(1);
    }),
  );
  for (const filter of [
    "$share/g/t",
    "$share/g//",
    "$share/g/#",
    "$share/g/+/a",
    "$share/ g\u00e9$/t",
    "$share/g/$SYS/#",
    "$share/$share/t",
  ]) {
    it(
      `[MQTT-4.8.2-1, -2] ${filter} is granted`,
      withRig(async (rig) => {
        expect(await (await joined(rig)).subscribe(filter, 1)).to.deep.equal([1]);
      }),
    );
  }
  for (const filter of [
    "$share/",
    "$share/g",
    "$share/g/",
    "$share//t",
    "$share//",
    "$share/g+/t",
    "$share/+/t",
    "$share/#/t",
    "$share/#",
    "$share/g#/t",
    "$share/g/t#",
    "$share/g/a/#/b",
  ]) {
    it(
      `[MQTT-4.8.2-1, -2] ${filter} is not granted`,
      withRig((rig) => notGranted(rig, filter)),
    );
  }
  it(
    "[MQTT-3.8.3-4] No Local is a Protocol Error",
    withRig((rig) => fault(rig, subscribe(1, [["$share/g/t", 1 | nl]]), [0x82])),
  );
});

describe("MQTT 5 shared subscriptions: one member gets it", () => {
  for (const qos of [0, 1, 2]) {
    it(
      `[4.8.2] QoS ${qos}: each message to one member, all members have their turn`,
      withRig(async (rig) => {
        const { members, writer } = await group(rig, 3);
        for (let at = 0; at < 30; at += 1) writer.publish("t", String(at + 10), { qos, id: at + 1 });
        const lists = await shares(members);
        expect(payloads(lists)).to.deep.equal(Array.from({ length: 30 }, (_, at) => String(at + 10)));
        for (const list of lists) expect(list.length).to.be.greaterThan(0);
      }),
    );
  }
  it(
    "[4.8.2] another name or another filter is another group: each gets its own copy",
    withRig(async (rig) => {
      const filters = ["$share/g/t", "$share/h/t", "$share/g/+", "$share/G/t"];
      const peers = [];
      for (const [at, filter] of filters.entries()) {
        const peer = await joined(rig, `p${at}`);
        await peer.subscribe(filter, 1);
        peers.push(peer);
      }
      (await joined(rig, "w")).publish("t", "x", { qos: 1, id: 1 });
      for (const peer of peers) expect(await peer.says()).to.deep.equal(["PUBLISH q1 t=x"]);
    }),
  );
  it(
    "[4.8.2] a client may have a shared and a plain subscription: a copy by each",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("$share/g/t", 1, [[P.subId, 1]]);
      await peer.subscribe("t", 0, [[P.subId, 2]]);
      (await joined(rig, "w")).publish("t", "x", { qos: 1, id: 1 });
      expect(await peer.says()).to.have.members(["PUBLISH q1 t=x 11:1", "PUBLISH q0 t=x 11:2"]);
    }),
  );
  it(
    "[MQTT-4.8.2-3] [MQTT-3.8.4-8] the QoS is the one granted to the member that gets it",
    withRig(async (rig) => {
      const low = await joined(rig, "low");
      await low.subscribe("$share/g/t", 0);
      const high = await joined(rig, "high");
      await high.subscribe("$share/g/t", 2);
      const writer = await joined(rig, "writer");
      for (let id = 1; id <= 20; id += 1) writer.publish("t", "x", { qos: 1, id });
      expect(new Set((await low.take()).map(({ qos }) => qos))).to.deep.equal(new Set([0]));
      expect(new Set((await high.take()).map(({ qos }) => qos))).to.deep.equal(new Set([1]));
    }),
  );
  it(
    "[MQTT-4.7.2-1] a shared # does not match topics with $ either",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 1, "$share/g/#");
      writer.publish("$x/t");
      writer.publish("t");
      expect((await members[0]?.take())?.map(({ topic }) => topic)).to.deep.equal(["t"]);
    }),
  );
  it(
    "[MQTT-3.3.2-3] the topic is the message's own, and the properties come with it",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 1, "$share/g/a/+");
      writer.publish("a/b", "x", { properties: [[P.user, ["k", "v"]]] });
      expect(await members[0]?.says()).to.deep.equal(["PUBLISH q0 a/b=x 38:k,v"]);
    }),
  );
  it(
    "[4.8.2] no retained messages when it is made, whatever the Retain Handling",
    withRig(async (rig) => {
      (await joined(rig, "w")).publish("t", "kept", { retain: true });
      const peer = await joined(rig);
      for (const handling of [0, 1, 2, 0]) await peer.subscribe("$share/g/t", 1 | rh(handling));
      expect(await peer.says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-3.3.1-12, -13] Retain As Published counts",
    withRig(async (rig) => {
      for (const [id, option] of [
        ["plain", 0],
        ["exact", rap],
      ] as const) {
        const peer = await joined(rig, id);
        await peer.subscribe(`$share/${id}/t`, option);
        peer.publish("t", "x", { retain: true });
        expect(await peer.says()).to.deep.equal([`PUBLISH q0 t=x${option === 0 ? "" : " retain"}`]);
      }
    }),
  );
  it(
    "[MQTT-3.3.2-4] one's own messages come: there is no No Local in it",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("$share/g/t");
      peer.publish("t");
      expect(await peer.says()).to.deep.equal(["PUBLISH q0 t=x"]);
    }),
  );
});

describe("MQTT 5 shared subscriptions: coming and going", () => {
  it(
    "[MQTT-3.10.4-1, -2] UNSUBSCRIBE of the whole filter ends the member's share, and nothing else",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 2);
      const [first, second] = members as [Peer, Peer];
      await first.subscribe("t", 0);
      first.send(unsubscribe(3, ["$share/h/t", "$share/g/t", "$share/g/t"]));
      expect(await first.says()).to.deep.equal(["UNSUBACK 3 11,00,11"]);
      for (let id = 1; id <= 6; id += 1) writer.publish("t", "x", { qos: 1, id });
      expect(new Set((await first.take()).map(({ qos }) => qos))).to.deep.equal(new Set([0]));
      expect((await second.take()).length).to.equal(6);
    }),
  );
  it(
    "[4.8.2] UNSUBSCRIBE of the plain filter leaves the share",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 1);
      members[0]?.send(unsubscribe(3, ["t"]));
      expect(await members[0]?.says()).to.deep.equal(["UNSUBACK 3 11"]);
      writer.publish("t");
      expect(await members[0]?.says()).to.deep.equal(["PUBLISH q0 t=x"]);
    }),
  );
  it(
    "[4.8.2] subscribing again replaces QoS and identifier: still one member, one copy",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 1);
      await members[0]?.subscribe("$share/g/t", 0, [[P.subId, 8]]);
      writer.publish("t", "x", { qos: 2, id: 1 });
      expect(await members[0]?.says()).to.deep.equal(["PUBLISH q0 t=x 11:8"]);
    }),
  );
  it(
    "[4.8.2] the share ends with the session of the member: the others get all",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 2);
      members[0]?.send(disconnect(0, [[P.sessionExpiry, 0]]));
      await members[0]?.gone();
      for (let id = 1; id <= 6; id += 1) writer.publish("t", "x", { qos: 1, id });
      expect((await members[1]?.take())?.length).to.equal(6);
    }),
  );
  it(
    "[4.8.2] it is part of the session: there again after a new connection and a crash of the server",
    withRig(async (rig) => {
      const { members } = await group(rig, 1);
      await members[0]?.drop();
      await withRig(
        async (after) => {
          const { peer, connack } = await welcomed(after, "m0", kept);
          expect(connack.present).to.equal(true);
          const other = await joined(after, "other");
          await other.subscribe("$share/g/t", 2);
          for (let id = 1; id <= 6; id += 1) other.publish("t", "x", { qos: 1, id });
          await acknowledge(peer, await peer.take());
          const own = (await other.take()).filter(({ kind }) => kind === "PUBLISH");
          expect(own.length).to.be.lessThan(6);
        },
        { store: rig.store.crash() },
      )();
    }),
  );
  it(
    "[MQTT-4.8.2-4] [MQTT-4.4.0-1] QoS 2 that was begun is completed to the same member when it is back",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 2);
      writer.publish("t", "x", { qos: 2, id: 1 });
      const lists = [await members[0]?.take(), await members[1]?.take()] as Seen[][];
      const at = lists.findIndex((list) => list.length === 1);
      const id = lists[at]?.[0]?.id;
      await members[at]?.drop();
      expect(await members[1 - at]?.says()).to.deep.equal([]);
      const back = await joined(rig, `m${at}`, kept);
      const [again] = await back.publishes(1);
      expect([again?.id, again?.dup, again?.payload]).to.deep.equal([id, true, "x"]);
    }),
  );
  it(
    "[MQTT-4.8.2-4] after PUBREC: PUBREL to the same member",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 1);
      const [member] = members as [Peer];
      writer.publish("t", "x", { qos: 2, id: 1 });
      const { id } = await member.next("PUBLISH");
      member.send(ack("pubrec", id));
      await member.next("PUBREL");
      await member.drop();
      expect(await (await joined(rig, "m0", kept)).says()).to.deep.equal([`PUBREL ${id} 00`]);
    }),
  );
  it(
    "[MQTT-4.8.2-5] the session of that member ends instead: QoS 2 that was begun goes to nobody",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 2);
      writer.publish("t", "x", { qos: 2, id: 1 });
      const lists = [await members[0]?.take(), await members[1]?.take()] as Seen[][];
      const at = lists.findIndex((list) => list.length === 1);
      members[at]?.send(disconnect(0, [[P.sessionExpiry, 0]]));
      await members[at]?.gone();
      rig.advance(10_000);
      expect(await members[1 - at]?.says()).to.deep.equal([]);
      const back = await joined(rig, `m${at}`, kept);
      expect(await back.says()).to.deep.equal([]);
    }),
  );
  for (const [qos, kind] of [
    [1, "puback"],
    [2, "pubrec"],
  ] as const) {
    it(
      `[MQTT-4.8.2-6] ${kind.toUpperCase()} with an error discards the message: no other member gets it`,
      withRig(async (rig) => {
        const { members, writer } = await group(rig, 2);
        writer.publish("t", "x", { qos, id: 1 });
        const lists = [await members[0]?.take(), await members[1]?.take()] as Seen[][];
        const at = lists.findIndex((list) => list.length === 1);
        members[at]?.send(ack(kind, lists[at]?.[0]?.id ?? 0, 0x97));
        await members[at]?.drop();
        rig.advance(10_000);
        expect(await members[1 - at]?.says()).to.deep.equal([]);
        expect(await (await joined(rig, `m${at}`, kept)).says()).to.deep.equal([]);
      }),
    );
  }
  it(
    "[MQTT-3.3.4-9] a member's Receive Maximum counts",
    withRig(async (rig) => {
      const member = await joined(rig, "m", keptWith([P.receiveMaximum, 2]));
      await member.subscribe("$share/g/t", 1);
      const writer = await joined(rig, "writer");
      for (let id = 1; id <= 5; id += 1) writer.publish("t", String(id), { qos: 1, id });
      const order: string[] = [];
      for (let round = 0; round < 5; round += 1) {
        const got = await member.take();
        expect(got.length).to.be.at.most(2);
        order.push(...got.map(({ payload }) => payload));
        await acknowledge(member, got);
      }
      expect(order.sort()).to.deep.equal(["1", "2", "3", "4", "5"]);
    }),
  );
  it(
    "[MQTT-4.5.0-1] all members are away: the message waits in one of their sessions, and is there once",
    withRig(async (rig) => {
      const { members, writer } = await group(rig, 2);
      for (const member of members) await member.drop();
      writer.publish("t", "x", { qos: 1, id: 1 });
      await writer.next("PUBACK");
      const back = [await joined(rig, "m0", kept), await joined(rig, "m1", kept)];
      expect(payloads(await shares(back))).to.deep.equal(["x"]);
    }),
  );
});
