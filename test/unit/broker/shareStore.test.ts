// What the store keeps of a shared group: limits, giving way, and what a crash leaves at each point.
import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import { durable, Rig, type RigOptions, type TestClient, text, turns } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";

type Publish = Extract<Packet, { cmd: "publish" }>;
const publishes = (packets: Packet[]): Publish[] => packets.filter((packet) => packet.cmd === "publish");
const payloads = (packets: Packet[]): string[] => publishes(packets).map((packet) => text(packet).trim());
const session = { maxMessages: 3, maxBytes: 100_000, whenFull: "drop-oldest", queueQos0: false } as const;

describe("shared groups in the store", () => {
  let rig: Rig;
  const start = (options: RigOptions = {}): void => {
    rig = new Rig(options);
  };
  afterEach(() => rig.close());

  async function member(clientId: string, qos: 1 | 2, more = durable(5)): Promise<TestClient> {
    const client = await rig.client(5, clientId, more);
    await client.subscribe("$share/g/t/#", qos);
    return client;
  }

  async function leave(client: TestClient): Promise<void> {
    client.drop();
    await client.gone();
  }

  const publish = (texts: readonly string[], qos: 1 | 2 = 1): void => {
    for (const one of texts) {
      const payload = Buffer.from(one.padEnd(100));
      rig.broker.publish({ topic: "t/x", payload, qos, retain: false, source: "source:test" });
    }
  };

  const crash = async (options: RigOptions = {}): Promise<void> => {
    const store = rig.store.crash();
    await rig.close();
    start({ ...options, store });
  };

  for (const whenFull of ["drop-oldest", "drop-newest"] as const) {
    it(`the queue is bounded in messages, bytes and in all: ${whenFull}, each counted`, async () => {
      for (const limits of [
        { session: { ...session, whenFull } },
        { session: { ...session, whenFull, maxMessages: 100, maxBytes: 330 } },
        { session: { ...session, whenFull, maxMessages: 100 }, queuedTotal: 3 },
      ]) {
        start({ limits });
        await leave(await member("a", 1));
        publish(["1", "2", "3", "4", "5"]);
        expect(rig.dropped("queue-full")).to.equal(2);
        expect(rig.broker.stats().queued).to.equal(3);
        const again = await rig.client(5, "a", durable(5));
        expect(payloads(await again.take())).to.deep.equal(
          whenFull === "drop-oldest" ? ["3", "4", "5"] : ["1", "2", "3"],
        );
        await rig.close();
      }
    });
  }

  it("what is with a member is never dropped for room", async () => {
    start({ limits: { session, maxInflight: 2 } });
    const one = await member("a", 1);
    publish(["1", "2", "3", "4", "5"]);
    expect(payloads(await one.take())).to.deep.equal(["1", "2"]);
    expect(rig.dropped("queue-full")).to.equal(2);
    await leave(one);
    const again = await rig.client(5, "a", durable(5));
    const got = publishes(await again.take());
    for (const { messageId = 0 } of got) again.send({ cmd: "puback", messageId });
    expect([...got.map((packet) => text(packet).trim()), ...payloads(await again.take())]).to.deep.equal([
      "1",
      "2",
      "5",
    ]);
  });

  it("gives way to a full store: its oldest that are with nobody, as the fattest, those with nobody online first", async () => {
    start({ limits: { session: { ...session, maxMessages: 100 }, maxInflight: 2 } });
    const absent = await rig.client(5, "absent", durable(5));
    await absent.subscribe("t/x", 1);
    await leave(absent);
    const one = await member("a", 1);
    publish(["1", "2", "3", "4"]);
    expect(payloads(await one.take())).to.deep.equal(["1", "2"]);
    expect(rig.store.askSessions(100), "of the absent one").to.be.within(100, 120);
    await leave(one);
    // The group has 4 now, and has sent 1 and 2, which are with nobody any more.
    expect(rig.store.askSessions(200), "of the group").to.be.within(200, 220);
    const again = await rig.client(5, "a", durable(5));
    expect(payloads(await again.take())).to.deep.equal(["3", "4"]);
    expect(rig.store.askSessions(1_000_000), "what is left of the absent one").to.be.within(300, 330);
    expect(rig.dropped("store-full")).to.equal(6);
  });

  it("QoS 1 with a member: with nobody after a crash", async () => {
    start();
    await leave(await member("b", 1));
    const one = await member("a", 1);
    publish(["1"]);
    expect(payloads(await one.take())).to.deep.equal(["1"]);
    await crash();
    const other = await rig.client(5, "b", durable(5));
    expect(payloads(await other.take())).to.deep.equal(["1"]);
    expect(rig.broker.stats().queued).to.equal(1);
  });

  for (const kind of ["durable", "clean"] as const) {
    const as = kind === "durable" ? durable(5) : {};

    it(`QoS 2 given to a ${kind} member: not sent before that is durable, so a crash leaves it to the others`, async () => {
      start({ store: new MemoryStore({ hold: true }) });
      await leave(await member("b", 2));
      publish(["1"], 2);
      rig.store.settle();
      const one = await member("a", 2, as);
      expect(payloads(await one.take()), "not durable yet").to.deep.equal([]);
      const sooner = rig.store.crash();
      rig.store.settle();
      expect(payloads(await one.take())).to.deep.equal(["1"]);
      await rig.close();
      start({ store: sooner });
      const other = await rig.client(5, "b", durable(5));
      await turns();
      rig.store.settle();
      expect(payloads(await other.take())).to.deep.equal(["1"]);
    });

    it(`QoS 2 sent to a ${kind} member: nobody else's after a crash, whether or not the group has let go of it`, async () => {
      for (const later of [0, 100]) {
        start({ store: new MemoryStore({ hold: true }) });
        await leave(await member("b", 2));
        publish(["1", "2"], 2);
        const one = await member("a", 2, as);
        await turns();
        rig.store.settle();
        expect(payloads(await one.take())).to.deep.equal(["1", "2"]);
        rig.advance(later); // what is released lazily
        if (later > 0) rig.store.settle();
        await crash();
        const other = await rig.client(5, "b", durable(5));
        rig.store.settle();
        expect(payloads(await other.take())).to.deep.equal([]);
        expect(rig.dropped("session-ended")).to.equal(kind === "clean" && later === 0 ? 2 : 0);
        const again = await rig.client(5, "a", as);
        rig.store.settle();
        expect(payloads(await again.take())).to.deep.equal(kind === "durable" ? ["1", "2"] : []);
        expect(rig.broker.stats().queued).to.equal(kind === "durable" ? 2 : 0);
        expect([...rig.store.entries("sharesent")]).to.deep.equal([]);
        await rig.close();
      }
    });

    it(`QoS 2 given to a ${kind} member that leaves before it is sent: back at its old place, with one member only`, async () => {
      start({ store: new MemoryStore({ hold: true }), limits: { maxInflight: 1 } });
      await leave(await member("b", 2));
      publish(["1", "2"], 2);
      rig.store.settle();
      const one = await member("a", 2, as);
      await turns();
      await leave(one);
      const other = await rig.client(5, "b", durable(5));
      await turns();
      rig.store.settle();
      const [first] = publishes(await other.take());
      expect(first && text(first).trim()).to.equal("1");
      await crash();
      const again = await rig.client(5, "a", as);
      await turns();
      rig.store.settle();
      expect(payloads(await again.take())).to.deep.equal(kind === "durable" ? ["2"] : []);
    });
  }

  it("QoS 2 in number does not wait for one sync each", async () => {
    start({ store: new MemoryStore({ hold: true }) });
    const one = await member("a", 2);
    publish(["1", "2", "3", "4"], 2);
    await turns();
    rig.store.settle();
    expect(payloads(await one.take())).to.deep.equal(["1", "2", "3", "4"]);
  });

  it("the group's end takes its queue along, counted, and nothing of it comes to a new group of that name", async () => {
    start({ store: new MemoryStore({ hold: true }), limits: { maxInflight: 1 } });
    const one = await member("a", 2);
    publish(["1", "2"], 2); // 1 is given, not sent
    await turns();
    one.send({ cmd: "unsubscribe", messageId: 3, unsubscriptions: ["$share/g/t/#"] });
    await one.next("unsuback");
    expect(rig.dropped("session-ended")).to.equal(1);
    expect([...rig.store.referenceNames()]).to.deep.equal(["session/a"]);
    expect([...rig.store.entries("sharesent")]).to.deep.equal([]);
    const other = await member("b", 2);
    publish(["3"], 2);
    await turns();
    rig.store.settle();
    expect(payloads(await other.take())).to.deep.equal(["3"]);
    expect(payloads(await one.take()), "begun before it unsubscribed [MQTT-3.10.4-3]").to.deep.equal(["1"]);
    rig.advance(100);
    expect(rig.broker.stats().queued).to.equal(2);
  });

  it("when the last durable member goes, the clean ones that are left take what waits, then go on without the store", async () => {
    start({ limits: { maxInflight: 1 } });
    const one = await member("a", 1);
    const clean = await member("c", 1, {});
    publish(["1", "2", "3", "4"]);
    const [first] = publishes(await one.take());
    expect(first && text(first).trim()).to.equal("1");
    await leave(await rig.client(5, "a")); // clean start: the session ends
    const got: string[] = [];
    for (let round = 0; round < 6; round += 1) {
      for (const packet of publishes(await clean.take())) {
        got.push(text(packet).trim());
        clean.send({ cmd: "puback", messageId: packet.messageId ?? 0 });
      }
    }
    expect(got).to.deep.equal(["2", "1", "3", "4"]);
    rig.advance(100);
    const before = rig.store.commits;
    publish(["5"]);
    expect(payloads(await clean.take())).to.deep.equal(["5"]);
    expect(rig.store.commits).to.equal(before);
    expect(rig.broker.stats().queued).to.equal(0);
  });

  it("a queue whose members' records are lost waits for one that subscribes again, as long as a session may", async () => {
    for (const comes of [true, false]) {
      start({ limits: { sessionExpiryMaxMs: 60_000 } });
      await leave(await member("a", 1));
      publish(["1"]);
      await turns();
      rig.store.commit((txn) => txn.delete("sub", "a\u0000$share/g/t/#"));
      await turns();
      await crash({ limits: { sessionExpiryMaxMs: 60_000 } });
      expect(rig.broker.stats().queued).to.equal(1);
      if (comes) expect(payloads(await (await member("b", 1)).take())).to.deep.equal(["1"]);
      else {
        rig.advance(62_000);
        expect(rig.broker.stats().queued).to.equal(0);
        expect(rig.dropped("session-ended")).to.equal(1);
      }
      await rig.close();
    }
  });

  it("what comes back behind something that was read ahead does not pass over it", async () => {
    start({ limits: { maxInflight: 1 } });
    await leave(await member("a", 1));
    publish(["1", "2", "3"]);
    const one = await rig.client(5, "a", durable(5));
    expect(payloads(await one.take())).to.deep.equal(["1"]);
    const two = await member("b", 1);
    expect(payloads(await two.take())).to.deep.equal(["2"]);
    await leave(one); // 1 and 3 are read ahead, 2 between them is with b
    await turns();
    await leave(two);
    const again = await rig.client(5, "a", durable(5));
    const got: string[] = [];
    for (let round = 0; round < 4; round += 1) {
      for (const packet of publishes(await again.take())) {
        got.push(text(packet).trim());
        again.send({ cmd: "puback", messageId: packet.messageId ?? 0 });
      }
    }
    expect(got).to.deep.equal(["1", "2", "3"]);
  });

  it("one member of many groups with much waiting: not all of it is read at once, and all of it comes", async () => {
    start({ limits: { maxInflight: 2, session: { ...session, maxMessages: 100, maxBytes: 10_000_000 } } });
    const one = await rig.client(5, "a", durable(5));
    const names = Array.from({ length: 80 }, (_, at) => `g${at}`);
    for (const name of names) await one.subscribe(`$share/${name}/t`, 1);
    await leave(one);
    const payload = Buffer.alloc(100_000);
    rig.broker.publish({ topic: "t", payload, qos: 1, retain: false, source: "source:test" });
    const { store } = rig;
    const references = store.references.bind(store);
    let reading = 0;
    let most = 0;
    store.references = (name) => {
      const queue = references(name);
      if (queue === undefined || !name.startsWith("share/")) return queue;
      const read = queue.read.bind(queue);
      return Object.defineProperty(queue, "read", {
        value: async (after: number, limits: { messages: number; bytes: number }) => {
          most = Math.max(most, ++reading);
          const batch = await read(after, limits);
          reading -= 1;
          return batch;
        },
      });
    };
    const again = await rig.client(5, "a", durable(5));
    let got = 0;
    for (let round = 0; round < 60 && got < names.length; round += 1) {
      for (const packet of publishes(await again.take())) {
        got += 1;
        again.send({ cmd: "puback", messageId: packet.messageId ?? 0 });
      }
      if (round % 10 === 9) rig.advance(1000);
    }
    expect(got).to.equal(names.length);
    expect(most).to.be.within(1, 64);
  });

  it("QoS 2 whose member may not read it any more when it is durable: dropped, and the group is done with it", async () => {
    start({ store: new MemoryStore({ hold: true }) });
    const one = await member("a", 2);
    publish(["1"], 2);
    await turns();
    const rules = [{ effect: "allow", action: "all", users: undefined, topic: "other/#" }] as const;
    rig.broker.setAccess({ anonymous: true, users: [], rules });
    rig.store.settle();
    expect(payloads(await one.take())).to.deep.equal([]);
    expect(rig.dropped("denied")).to.equal(1);
    rig.advance(100);
    expect(rig.broker.stats().queued).to.equal(0);
    expect([...rig.store.entries("sharesent")]).to.deep.equal([]);
  });

  it("a store that fails sends no QoS 2 that it could not mark, and the rest goes on", async () => {
    start();
    const one = await member("a", 2);
    await leave(await member("b", 2));
    one.stall();
    rig.store.fail();
    publish(["1"], 2);
    one.resume();
    expect(payloads(await one.take())).to.deep.equal([]);
  });
});
