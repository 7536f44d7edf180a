import { expect } from "chai";
import { MemoryStore } from "../../helpers/memoryStore.ts";
import { ack, P, publish } from "./frames.ts";
import type { Seen } from "./seen.ts";
import { acknowledge, joined, kept, keptWith, type Peer, Rig, turns, withRig, witness } from "./support.ts";

async function reading(rig: Rig, qos: number): Promise<Peer> {
  const reader = await joined(rig, "reader", kept);
  await reader.subscribe("t", qos);
  return reader;
}

describe("MQTT 5 QoS from a client", () => {
  it(
    "[MQTT-3.3.4-1] [MQTT-4.3.1-1] QoS 0 gets no answer",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      peer.publish("t");
      expect(await peer.says()).to.deep.equal([]);
      expect(await seen.says()).to.deep.equal(["PUBLISH q0 t=x"]);
    }),
  );
  it(
    "[MQTT-4.3.2-4] [MQTT-2.2.1-5] QoS 1: one PUBACK with its id, the highest too",
    withRig(async (rig) => {
      const peer = await joined(rig);
      for (const id of [1, 65_535, 256]) peer.publish("t", "x", { qos: 1, id });
      expect(await peer.says()).to.deep.equal(["PUBACK 1 00", "PUBACK 65535 00", "PUBACK 256 00"]);
    }),
  );
  it("[MQTT-4.3.2-4] [MQTT-4.3.3-8] no PUBACK or PUBREC before the message is on disk: ownership", async () => {
    const store = new MemoryStore({ hold: true });
    const rig = new Rig({ store });
    const peer = await joined(rig);
    peer.send(publish("t", "x", { qos: 1, id: 1, retain: true }), publish("t", "y", { qos: 2, id: 2, retain: true }));
    expect(await peer.says()).to.deep.equal([]);
    store.settle();
    expect(await peer.says()).to.deep.equal(["PUBACK 1 00", "PUBREC 2 00"]);
    await rig.close();
  });
  it(
    "[MQTT-4.3.2-5] QoS 1: the same id after PUBACK is a new message, with DUP too",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      for (const dup of [false, true, true]) {
        peer.publish("t", String(dup), { qos: 1, id: 4, dup });
        await peer.next("PUBACK");
      }
      expect(await seen.says()).to.deep.equal(["PUBLISH q1 t=false", "PUBLISH q1 t=true", "PUBLISH q1 t=true"]);
    }),
  );
  it(
    "[MQTT-4.3.3-8, -11] QoS 2: PUBREC, and PUBCOMP for the PUBREL, with its id",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      peer.publish("t", "x", { qos: 2, id: 65_535 });
      expect(await peer.says()).to.deep.equal(["PUBREC 65535 00"]);
      peer.send(ack("pubrel", 65_535));
      expect(await peer.says()).to.deep.equal(["PUBCOMP 65535 00"]);
      expect(await seen.says()).to.deep.equal(["PUBLISH q2 t=x"]);
    }),
  );
  it(
    "[MQTT-4.3.3-10] QoS 2: until PUBREL the same id gets PUBREC again and goes nowhere, with or without DUP",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      for (const dup of [false, true, false]) peer.publish("t", "x", { qos: 2, id: 4, dup });
      const said = await peer.says();
      expect(said.map((line) => line.slice(0, 9))).to.deep.equal(["PUBREC 4 ", "PUBREC 4 ", "PUBREC 4 "]);
      expect(await seen.says()).to.deep.equal(["PUBLISH q2 t=x"]);
    }),
  );
  it(
    "[MQTT-4.3.3-12] QoS 2: after PUBCOMP the same id is a new message, with DUP too",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      for (const payload of ["a", "b"]) {
        peer.publish("t", payload, { qos: 2, id: 4, dup: payload === "b" });
        await peer.next("PUBREC");
        peer.send(ack("pubrel", 4));
        await peer.next("PUBCOMP");
      }
      expect(await seen.says()).to.deep.equal(["PUBLISH q2 t=a", "PUBLISH q2 t=b"]);
    }),
  );
  it(
    "[MQTT-4.3.3-11] PUBREL twice gets PUBCOMP twice",
    withRig(async (rig) => {
      const peer = await joined(rig);
      peer.publish("t", "x", { qos: 2, id: 4 });
      peer.send(ack("pubrel", 4), ack("pubrel", 4));
      const got = await peer.take();
      expect(got.map(({ kind, id }) => [kind, id])).to.deep.equal([
        ["PUBREC", 4],
        ["PUBCOMP", 4],
        ["PUBCOMP", 4],
      ]);
    }),
  );
  it(
    "[MQTT-4.3.3-13] the sequence goes on although the message has expired",
    withRig(async (rig) => {
      const away = await reading(rig, 2);
      await away.drop();
      const peer = await joined(rig);
      peer.publish("t", "x", { qos: 2, id: 4, properties: [[P.expiry, 1]] });
      expect(await peer.says()).to.deep.equal(["PUBREC 4 00"]);
      rig.advance(60_000);
      peer.publish("t", "x", { qos: 2, id: 4, dup: true, properties: [[P.expiry, 1]] });
      expect((await peer.take()).map(({ kind, id }) => [kind, id])).to.deep.equal([["PUBREC", 4]]);
      peer.send(ack("pubrel", 4));
      expect(await peer.says()).to.deep.equal(["PUBCOMP 4 00"]);
      expect(await (await joined(rig, "reader", kept)).says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-2.2.1-5] ids of a client and of the server are two sets: the same id may be in use both ways",
    withRig(async (rig) => {
      const peer = await reading(rig, 2);
      peer.publish("t", "x", { qos: 2, id: 1 });
      const { id } = await peer.next("PUBLISH");
      await peer.next("PUBREC");
      peer.publish("other", "x", { qos: 2, id });
      peer.send(ack("pubrec", id), ack("pubrel", id), ack("pubrel", 1), ack("pubcomp", id));
      const said = (await peer.says()).filter((line) => !line.startsWith("PUBREC"));
      expect(said).to.include(`PUBREL ${id} 00`).and.to.include(`PUBCOMP ${id} 00`);
    }),
  );
  it(
    "[MQTT-4.6.0-2, -3] PUBACK and PUBREC come in the order of their PUBLISH",
    withRig(async (rig) => {
      await reading(rig, 1);
      const peer = await joined(rig);
      const ids = Array.from({ length: 40 }, (_, at) => ((at * 7919) % 60_000) + 1);
      for (const [at, id] of ids.entries()) peer.publish("t", "x", { qos: 1 + (at % 2), id });
      const got = await peer.take();
      for (const kind of ["PUBACK", "PUBREC"])
        expect(got.filter((seen) => seen.kind === kind).map(({ id }) => id)).to.deep.equal(
          ids.filter((_, at) => (kind === "PUBACK") === (at % 2 === 0)),
        );
    }),
  );
});

describe("MQTT 5 QoS to a client", () => {
  for (const qos of [1, 2]) {
    it(
      `[MQTT-2.2.1-4] [MQTT-4.3.2-1, -2] [MQTT-4.3.3-1, -2] QoS ${qos}: ids that are not in use, DUP 0`,
      withRig(async (rig) => {
        const reader = await reading(rig, qos);
        const writer = await joined(rig, "writer");
        const inUse = new Set<number>();
        for (let count = 0; count < 50; count += 1) {
          writer.publish("t", String(count), { qos: 1 });
          if (qos === 2) writer.publish("t", String(count), { qos, id: 1000 + count });
        }
        for (const { id, dup } of await reader.take()) {
          expect(dup).to.equal(false);
          expect(inUse.has(id)).to.equal(false);
          inUse.add(id);
        }
        expect(inUse.size).to.be.at.least(50);
      }),
    );
  }
  it(
    "[MQTT-2.2.1-4] ids go on being unused ones when the count goes round, with one held all the time",
    withRig(
      async (rig) => {
        const reader = await joined(rig, "reader");
        await reader.subscribe("t", 1);
        const writer = await joined(rig, "writer");
        writer.publish("t", "held", { qos: 1, id: 1 });
        const held = await reader.next("PUBLISH");
        const many = Array.from({ length: 1000 }, () => publish("t", "x", { qos: 1, id: 1 }));
        for (let round = 0; round < 67; round += 1) {
          writer.send(...many);
          const got = await several(reader, 1000);
          if (got.some(({ id }) => id === held.id)) throw new Error(`id ${held.id} again in round ${round}`);
          reader.send(...got.map(({ id }) => ack("puback", id)));
          await writer.take();
        }
      },
      { limits: { maxInflight: 2000, receiveMaximum: 2000 } },
    ),
  );
  it(
    "[MQTT-4.3.3-3, -4, -5, -6] QoS 2: PUBREL with its id after PUBREC, once, then nothing more",
    withRig(async (rig) => {
      const reader = await reading(rig, 2);
      (await joined(rig, "writer")).publish("t", "x", { qos: 2, id: 1 });
      const { id } = await reader.next("PUBLISH");
      reader.send(ack("pubrec", id));
      expect(await reader.says()).to.deep.equal([`PUBREL ${id} 00`]);
      reader.send(ack("pubcomp", id));
      rig.advance(60_000);
      expect(await reader.says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-4.3.3-7] QoS 2: it expires after it was sent, and the sequence goes on",
    withRig(async (rig) => {
      const reader = await reading(rig, 2);
      (await joined(rig, "writer")).publish("t", "x", { qos: 2, id: 1, properties: [[P.expiry, 5]] });
      const { id } = await reader.next("PUBLISH");
      rig.advance(60_000);
      reader.send(ack("pubrec", id));
      expect(await reader.says()).to.deep.equal([`PUBREL ${id} 00`]);
      reader.send(ack("pubcomp", id));
      await reader.drop();
      expect(await (await joined(rig, "reader", kept)).says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-4.3.3-4] PUBREC twice gets PUBREL twice, never PUBLISH",
    withRig(async (rig) => {
      const reader = await reading(rig, 2);
      (await joined(rig, "writer")).publish("t", "x", { qos: 2, id: 1 });
      const { id } = await reader.next("PUBLISH");
      reader.send(ack("pubrec", id), ack("pubrec", id));
      expect(await reader.says()).to.deep.equal([`PUBREL ${id} 00`, `PUBREL ${id} 00`]);
    }),
  );
  it(
    "[MQTT-4.6.0-4] PUBREL in the order of PUBREC",
    withRig(async (rig) => {
      const reader = await reading(rig, 2);
      const writer = await joined(rig, "writer");
      for (let id = 1; id <= 5; id += 1) writer.publish("t", "x", { qos: 2, id });
      const ids = (await reader.publishes(5)).map(({ id }) => id);
      const order = [3, 0, 4, 1, 2].map((at) => ids[at] ?? 0);
      for (const id of order) reader.send(ack("pubrec", id));
      expect((await reader.take()).map(({ kind, id }) => [kind, id])).to.deep.equal(order.map((id) => ["PUBREL", id]));
    }),
  );
  it(
    "[MQTT-4.6.0-4] [MQTT-4.4.0-1] PUBREL in the order of PUBREC on the resumed session too, whatever its Receive Maximum",
    withRig(async (rig) => {
      const reader = await reading(rig, 2);
      const writer = await joined(rig, "writer");
      for (let id = 1; id <= 5; id += 1) writer.publish("t", "x", { qos: 2, id });
      const ids = (await reader.publishes(5)).map(({ id }) => id);
      const order = [3, 0, 4].map((at) => ids[at] ?? 0);
      for (const id of order) reader.send(ack("pubrec", id));
      await several(reader, 3);
      await reader.drop();
      const again = await joined(rig, "reader", keptWith([P.receiveMaximum, 1]));
      expect((await several(again, 3)).map(({ kind, id }) => [kind, id])).to.deep.equal(
        order.map((id) => ["PUBREL", id]),
      );
      for (const id of order) again.send(ack("pubcomp", id));
      const [next] = await again.publishes(1);
      expect(next).to.include({ id: ids[1], dup: true });
    }),
  );
});

/** The next packets, until there are so many. */
async function several(reader: Peer, count: number): Promise<Seen[]> {
  const all = await reader.take();
  for (let round = 0; all.length < count && round < 100; round += 1) all.push(...(await reader.take()));
  expect(all.length).to.equal(count);
  return all;
}

describe("MQTT 5 sending again", () => {
  for (const qos of [1, 2]) {
    it(
      `[MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1] QoS ${qos}: on the resumed session, same id, DUP, in order, and properties`,
      withRig(async (rig) => {
        const reader = await reading(rig, qos);
        const writer = await joined(rig, "writer");
        for (const [at, payload] of ["a", "b", "c", "d"].entries())
          writer.publish("t", payload, { qos, id: at + 1, properties: [[P.user, ["n", payload]]] });
        const first = await reader.publishes(4);
        await acknowledge(reader, first.slice(1, 2));
        await reader.take();
        await reader.drop();
        const back = await joined(rig, "reader", kept);
        const again = await back.publishes(3);
        const expected = [0, 2, 3].map((at) => first[at]);
        expect(again.map(({ id, payload, properties }) => ({ id, payload, properties }))).to.deep.equal(
          expected.map((seen) => ({ id: seen?.id, payload: seen?.payload, properties: seen?.properties })),
        );
        expect(again.map(({ dup }) => dup)).to.deep.equal([true, true, true]);
      }),
    );
    it(
      `[MQTT-4.4.0-1] QoS ${qos}: at no other time, however long the client says nothing`,
      withRig(async (rig) => {
        const reader = await reading(rig, qos);
        (await joined(rig, "writer")).publish("t", "x", { qos, id: 1 });
        await reader.publishes(1);
        rig.advance(24 * 3600_000);
        expect(await reader.says()).to.deep.equal([]);
      }),
    );
    it(
      `[MQTT-3.1.2-4] [MQTT-4.4.0-1] QoS ${qos}: not after Clean Start`,
      withRig(async (rig) => {
        const reader = await reading(rig, qos);
        (await joined(rig, "writer")).publish("t", "x", { qos, id: 1 });
        await reader.publishes(1);
        await reader.drop();
        expect(await (await joined(rig, "reader")).says()).to.deep.equal([]);
      }),
    );
    it(`[MQTT-4.4.0-1] QoS ${qos}: over a crash of the server`, async () => {
      const rig = new Rig();
      const reader = await reading(rig, qos);
      (await joined(rig, "writer")).publish("t", "x", { qos, id: 1 });
      const [first] = await reader.publishes(1);
      await turns();
      const after = new Rig({ store: rig.store.crash() });
      const [again] = await (await joined(after, "reader", kept)).publishes(1);
      expect([again?.payload, again?.id, again?.dup]).to.deep.equal(["x", first?.id, true]);
      await after.close();
    });
  }

  for (const crash of [false, true]) {
    it(`[MQTT-4.4.0-1] [MQTT-4.3.3-6] PUBREL${crash ? " over a crash of the server" : ""}: again with its id, and no PUBLISH`, async () => {
      const rig = new Rig();
      const reader = await reading(rig, 2);
      (await joined(rig, "writer")).publish("t", "x", { qos: 2, id: 1 });
      const { id } = await reader.next("PUBLISH");
      reader.send(ack("pubrec", id));
      await reader.next("PUBREL");
      await reader.drop();
      const after = crash ? new Rig({ store: rig.store.crash() }) : rig;
      const back = await joined(after, "reader", kept);
      expect(await back.says()).to.deep.equal([`PUBREL ${id} 00`]);
      back.send(ack("pubcomp", id));
      await back.alive();
      await back.drop();
      expect(await (await joined(after, "reader", kept)).says()).to.deep.equal([]);
      await after.close();
    });
  }

  it(
    "[MQTT-4.4.0-1] [MQTT-2.2.1-4] new messages get ids that those sent again have not",
    withRig(async (rig) => {
      const reader = await reading(rig, 1);
      const writer = await joined(rig, "writer");
      for (let id = 1; id <= 3; id += 1) writer.publish("t", "old", { qos: 1, id });
      await reader.publishes(3);
      await reader.drop();
      const back = await joined(rig, "reader", keptWith());
      const again = await back.publishes(3);
      for (let id = 1; id <= 3; id += 1) writer.publish("t", "new", { qos: 1, id });
      const ids = [...again, ...(await back.publishes(3))].map(({ id }) => id);
      expect(new Set(ids).size).to.equal(6);
    }),
  );
});

describe("MQTT 5 order", () => {
  for (const qos of [0, 1, 2]) {
    it(
      `[MQTT-4.6.0-5, -6] QoS ${qos}: messages of one publisher in their order, for each topic and subscriber`,
      withRig(async (rig) => {
        const readers = [await joined(rig, "a", kept), await joined(rig, "b")];
        for (const reader of readers) await reader.subscribe("t/#", 2);
        const writers = [await joined(rig, "w0"), await joined(rig, "w1")];
        for (let at = 0; at < 40; at += 1)
          for (const [number, writer] of writers.entries())
            writer.publish(`t/${at % 2}`, `${number}:${at}`, { qos, id: at + 1 });
        for (const reader of readers) {
          const got = await several(reader, 80);
          for (const number of [0, 1]) {
            const order = got.flatMap(({ payload }) =>
              payload.startsWith(`${number}:`) ? [Number(payload.slice(2))] : [],
            );
            expect(order).to.deep.equal(Array.from({ length: 40 }, (_, at) => at));
          }
        }
      }),
    );
  }
  it(
    "[MQTT-4.6.0-5] what waited comes before what is published afterwards",
    withRig(async (rig) => {
      const reader = await reading(rig, 1);
      await reader.drop();
      const writer = await joined(rig, "writer");
      for (let at = 0; at < 30; at += 1) writer.publish("t", String(at), { qos: 1, id: at + 1 });
      const back = await joined(rig, "reader", keptWith([P.receiveMaximum, 5]));
      let order: number[] = [];
      for (let at = 30; order.length < 60; at += 1) {
        if (at < 60) writer.publish("t", String(at), { qos: 1, id: at + 1 });
        const got = await back.take();
        order = [...order, ...got.map(({ payload }) => Number(payload))];
        await acknowledge(back, got);
      }
      expect(order).to.deep.equal(Array.from({ length: 60 }, (_, at) => at));
    }),
  );
});
