import { expect } from "chai";
import type { StoredMessage } from "../../../src/base/contracts.ts";
import type { Message, MessageProperties } from "../../../src/base/message.ts";
import { limitDefaults } from "../../../src/broker/options.ts";
import { durable, Rig, text, turns } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";

const value = (topic: string, payload: string, qos: 0 | 1 = 1, properties?: MessageProperties): Message => ({
  ...{ topic, payload: Buffer.from(payload), qos, retain: true, source: "test" },
  ...(properties === undefined ? {} : { properties }),
});

/** A store whose next read of several positions waits until the test lets it go on, or fails. */
class SlowStore extends MemoryStore {
  beforeRead: (() => void) | undefined;
  answer:
    | ((found: Array<StoredMessage | "later" | undefined>) => Array<StoredMessage | "later" | undefined>)
    | undefined;

  override async readMany(
    positions: readonly number[],
    bytes: number,
  ): Promise<Array<StoredMessage | "later" | undefined>> {
    const found = await super.readMany(positions, bytes);
    const change = this.beforeRead;
    this.beforeRead = undefined;
    change?.();
    return this.answer?.(found) ?? found;
  }
}

describe("retained messages by their place", () => {
  it("a subscriber to # gets fifteen hundred, each once, also after a restart", async () => {
    const many = 1500;
    let rig = new Rig();
    for (let at = 0; at < many; at += 1) rig.broker.publish(value(`plant/${at % 50}/${at}`, `v${at}`));
    await turns();
    for (let round = 0; round < 2; round += 1) {
      const client = await rig.client(5, `c${round}`);
      await client.subscribe("#");
      const got: string[] = [];
      while (got.length < many) {
        for (const packet of await client.take()) {
          if (packet.cmd !== "publish") continue;
          expect(packet.retain).to.equal(true);
          got.push(`${packet.topic}=${text(packet)}`);
        }
      }
      const wanted = Array.from({ length: many }, (_, at) => `plant/${at % 50}/${at}=v${at}`);
      expect(got.sort()).to.deep.equal(wanted.sort());
      expect((await client.take()).length, "each once").to.equal(0);
      const { store } = rig;
      await rig.close();
      rig = new Rig({ store: store.crash() });
      await rig.broker.ready;
      expect(rig.broker.stats().retained).to.equal(many);
    }
    await rig.close();
  });

  it("each new subscription of a connection is served, also when there was nothing left to do for those before it", async () => {
    const rig = new Rig();
    for (const topic of ["a/1", "a/2", "b/1"]) rig.broker.publish(value(topic, "v"));
    const client = await rig.client(5, "c");
    const asked: Array<[string, number]> = [
      ["a/+", 2],
      ["none", 0],
      ["b/+", 1],
      ["a/+", 2],
      ["#", 3],
    ];
    for (const [filter, count] of asked) {
      await client.subscribe(filter);
      const topics: string[] = [];
      for (let at = 0; at < count; at += 1) topics.push(String((await client.next("publish")).topic));
      expect(new Set(topics).size, filter).to.equal(count);
      expect((await client.take()).length, filter).to.equal(0);
    }
    await rig.close();
  });

  it("what was replaced while it was read goes out as it is now; what was removed does not", async () => {
    const store = new SlowStore();
    const rig = new Rig({ store });
    for (const topic of ["a", "b", "c"]) rig.broker.publish(value(topic, "old"));
    await turns();
    const client = await rig.client(4, "late");
    store.beforeRead = () => {
      rig.broker.publish(value("a", "new"));
      rig.broker.publish(value("b", ""));
    };
    await client.subscribe("+");
    const packets = (await client.take()).flatMap((packet) => (packet.cmd === "publish" ? [packet] : []));
    const retained = packets.filter((packet) => packet.retain).map((packet) => `${packet.topic}=${text(packet)}`);
    expect(retained.sort()).to.deep.equal(["a=new", "c=old"]);
    expect(packets.filter(({ topic, retain }) => topic === "a" && !retain).map(text)).to.deep.equal(["new"]);
    await rig.close();
  });

  it("a value that has rotted is counted and forgotten; one that cannot be read now stays", async () => {
    const store = new SlowStore();
    const rig = new Rig({ store });
    for (const topic of ["a", "b", "c"]) rig.broker.publish(value(topic, topic));
    await turns();
    store.answer = (found) => found.map((one) => (one !== "later" && one?.message.topic === "b" ? undefined : one));
    const first = await rig.client(4, "first");
    await first.subscribe("#");
    expect((await first.take()).map((packet) => packet.cmd === "publish" && packet.topic)).to.deep.equal(["a", "c"]);
    store.answer = (found) => found.map(() => "later" as const);
    const second = await rig.client(4, "second");
    await second.subscribe("#");
    expect(await second.take()).to.deep.equal([]);
    expect([rig.dropped("rotten"), rig.dropped("read-failed"), rig.broker.stats().retained]).to.deep.equal([1, 2, 2]);
    store.answer = undefined;
    rig.advance(1000);
    await turns();
    expect([...store.retained()].map(([topic]) => topic)).to.deep.equal(["a", "c"]);
    await rig.close();
  });

  it("QoS 0 values are sent before they are written, and written as the last one of their topic", async () => {
    const rig = new Rig();
    for (let at = 0; at < 20; at += 1) rig.broker.publish(value("t", `v${at}`, 0));
    rig.broker.publish(value("gone", "x", 0));
    rig.broker.publish(value("gone", "", 0));
    const client = await rig.client(5, "early");
    await client.subscribe("#");
    expect(text(await client.next("publish"))).to.equal("v19");
    rig.advance(1000);
    await turns();
    const stored = await Promise.all([...rig.store.retained()].map(async ([, at]) => await rig.store.read(at)));
    expect(stored.map((one) => one?.message.payload.toString())).to.deep.equal(["v19"]);
    await rig.close();
  });

  it("values that were stored when the limit was lower or higher can be replaced and removed; $SYS counts against none", async () => {
    const store = new MemoryStore();
    const wide = new Rig({ store });
    for (const topic of ["a", "b", "c"]) wide.broker.publish(value(topic, "1"));
    await turns();
    await wide.close();
    const limits = { retained: { ...limitDefaults.retained, maxMessages: 2 } };
    const rig = new Rig({ store: store.crash(), limits });
    await rig.broker.ready;
    rig.broker.publish({ ...value("$SYS/x", "y", 0), source: "sys" });
    rig.broker.publish(value("d", "1"));
    expect(rig.dropped("retained-full")).to.equal(1);
    for (const topic of ["a", "b"]) rig.broker.publish(value(topic, ""));
    rig.broker.publish(value("d", "1"));
    await turns();
    expect([...rig.store.retained()].map(([topic]) => topic).sort()).to.deep.equal(["c", "d"]);
    await rig.close();
  });

  it("an expiry that ran while the gateway was down keeps the value from being sent [MQTT-3.3.2-5]", async () => {
    const store = new MemoryStore();
    const before = new Rig({ store });
    before.broker.publish(value("short", "x", 1, { messageExpirySeconds: 10 }));
    before.broker.publish(value("long", "x", 1, { messageExpirySeconds: 1000 }));
    await turns();
    await before.close();
    const again = store.crash();
    again.timeMs = store.timeMs + 20_000;
    const rig = new Rig({ store: again });
    await rig.broker.ready;
    await turns();
    expect([rig.broker.stats().retained, rig.dropped("expired")]).to.deep.equal([1, 1]);
    const client = await rig.client(5, "c");
    await client.subscribe("#");
    const packet = await client.next("publish");
    expect([packet.topic, packet.properties?.messageExpiryInterval]).to.deep.equal(["long", 980]);
    await rig.close();
  });

  it("what was on its way to a connection that is gone does not go to the next one", async () => {
    const store = new SlowStore();
    const rig = new Rig({ store });
    for (let at = 0; at < 600; at += 1) rig.broker.publish(value(`t/${at}`, "x"));
    await turns();
    const first = await rig.client(5, "same", durable(5));
    let second: Promise<unknown> | undefined;
    const later: { client?: Awaited<ReturnType<Rig["client"]>> } = {};
    store.beforeRead = () => {
      first.drop();
      second = rig.client(5, "same", durable(5)).then((client) => {
        later.client = client;
      });
    };
    first.send({
      cmd: "subscribe",
      messageId: 1,
      subscriptions: [{ topic: "#", qos: 0, nl: false, rap: false, rh: 0 }],
    });
    await turns(40);
    await second;
    expect(await later.client?.take(), "a session that resumes is sent no retained messages").to.deep.equal([]);
    await rig.close();
  });
});
