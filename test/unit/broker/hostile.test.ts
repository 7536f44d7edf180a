import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect } from "chai";
import type { Message, MessageProperties } from "../../../src/base/message.ts";
import { Meter } from "../../../src/base/meter.ts";
import { BrokerMetrics } from "../../../src/broker/metrics.ts";
import { Retained } from "../../../src/broker/retained.ts";
import { TopicCache } from "../../../src/broker/topicCache.ts";
import type { Delivery } from "../../../src/broker/topicEntry.ts";
import { TopicTree } from "../../../src/broker/topicTree.ts";
import { Trie } from "../../../src/broker/trie.ts";
import { durable, ManualClock, Rig, turns } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;

describe("clients that mean harm", () => {
  const deep = new Array(32_768).fill("a").join("/");

  it("a will with more levels than allowed is refused, of the anonymous too", async () => {
    const rig = new Rig();
    const will = { topic: deep, payload: Buffer.from("x"), qos: 0 as const, retain: true };
    const error = await rig.client(5, "w", { will }).catch((caught: Error) => caught);
    expect(String(error)).to.match(/CONNACK 144/);
    await turns();
    expect(rig.broker.stats().retained).to.equal(0);
    await rig.close();
  });

  it("levels do not use up the call stack, however many the limits allow", () => {
    const tree = new TopicTree<string>();
    tree.set(deep, "deep");
    const plus = deep.replaceAll("a", "+");
    for (const filter of ["#", "a/#", plus, deep]) expect(tree.match(filter), filter.slice(0, 9)).to.have.length(1);
    const trie = new Trie<string>();
    for (const filter of [deep, plus, `${deep}/#`]) trie.set(filter, "k", filter);
    const found: string[] = [];
    trie.match(deep, found);
    expect(found).to.have.length(3);
  });

  const topicCache = (): TopicCache =>
    new TopicCache((topic, generation) => ({
      ...{ topic, bytes: Buffer.from(topic), generation, deliveries: [], shares: [], handlers: [], routes: [] },
      ...{ stored: [], live: [], rejectNewest: [], durable: false, plain: true, onlyStored: false },
    }));

  it("two topics whose hashes collide are both found by their bytes, also after subscriptions changed", () => {
    const cache = topicCache();
    const topics = Array.from({ length: 1000 }, (_, at) => `bench/${String(at).padStart(4, "0")}/t`);
    const lost = (): number =>
      topics.filter((topic) => cache.find(Buffer.from(topic), 0, topic.length)?.topic !== topic).length;
    for (let round = 0; round < 3; round += 1) {
      expect(lost()).to.equal(1000); // nothing is known, or all of it is old
      for (const topic of topics) cache.get(topic);
      expect(lost()).to.be.lessThan(20); // with one slot to each: 59
      cache.invalidate();
    }
  });

  it("a topic that lay beside its slot leaves nothing of old subscriptions there when it gets the slot", async () => {
    let made: Array<WeakRef<readonly Delivery[]>> = [];
    const cache = new TopicCache((topic, generation) => {
      const deliveries: Delivery[] = [];
      made.push(new WeakRef(deliveries));
      return {
        ...{ topic, bytes: Buffer.from(topic), generation, deliveries, shares: [], handlers: [], routes: [] },
        ...{ stored: [], live: [], rejectNewest: [], durable: false, plain: true, onlyStored: false },
      };
    });
    const topics = Array.from({ length: 3000 }, (_, at) => `bench/${String(at).padStart(4, "0")}/t`);
    for (const topic of topics) cache.get(topic);
    const used = (_: unknown, at: number): boolean => at % 2 === 1;
    const old = made.filter(used);
    made = [];
    cache.invalidate();
    for (const topic of topics.filter(used)) cache.get(topic);
    await turns(); // a WeakRef keeps what it was asked for until the end of the turn
    gc();
    expect(made.filter((each) => each.deref() !== undefined).length).to.equal(topics.length / 2);
    expect(old.filter((each) => each.deref() !== undefined).length).to.equal(0);
  });

  it("the topic cache is bounded in bytes: 64 KiB topics are not kept by the thousand", () => {
    const cache = topicCache();
    for (let at = 0; at < 1000; at += 1) cache.get(`${at}${"x".repeat(60_000)}`);
    expect(cache.size).to.be.lessThan(200);
    for (let at = 0; at < 9000; at += 1) cache.get(`plant/boiler/${at}`);
    expect(cache.size).to.be.greaterThan(8999);
  });

  for (const version of [4, 5] as const) {
    it(`PUBREL without end is not read while the disk stands still, MQTT ${version}`, async () => {
      const store = new MemoryStore({ hold: true });
      const rig = new Rig({ store, limits: { receiveMaximum: 10, maxInflight: 10 } });
      const client = await rig.client(version, "p", durable(version));
      client.publish("t", "x", 2, { messageId: 1 }); // its PUBREC waits, and everything behind it
      const many = 500;
      for (let at = 0; at < many; at += 1) client.send({ cmd: "pubrel", messageId: 2 });
      client.send({ cmd: "pingreq" });
      expect(await client.take()).to.deep.equal([]); // the PINGREQ lies unread behind them
      store.hold = false;
      store.settle();
      await client.next("pubrec");
      await client.next("pingresp");
      await rig.close();
    });
  }

  it("expired retained messages make room for others", () => {
    const store = new MemoryStore();
    const clock = new ManualClock();
    const limits = { maxMessages: 3, maxBytes: 10_000 };
    const retained = new Retained({ store, clock, metrics: new BrokerMetrics(new Meter()), limits });
    const message = (topic: string, properties: MessageProperties = {}): Message => ({
      ...{ topic, payload: Buffer.from("x"), qos: 0, retain: true, properties, source: "test" },
    });
    for (const topic of ["a", "b"]) retained.apply(message(topic, { messageExpirySeconds: 1 }), 0);
    retained.apply(message("c"), 0);
    expect(retained.hasRoom("d", message("d"))).to.equal(false);
    store.timeMs += 20_000;
    clock.advance(20_000);
    expect(retained.hasRoom("d", message("d"))).to.equal(true);
    expect(
      retained
        .cursor("#")
        .next(9, 99)
        .map(({ topic }) => topic),
    ).to.deep.equal(["c"]);
    retained.flush();
  });
});
