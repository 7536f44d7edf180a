import { duplexPair } from "node:stream";
import { expect } from "chai";
import type { Route, Txn } from "../../../src/base/contracts.ts";
import type { RouteFailure } from "../../../src/base/deadLetters.ts";
import { silentLog } from "../../../src/base/log.ts";
import type { Message } from "../../../src/base/message.ts";
import { Meter } from "../../../src/base/meter.ts";
import { createBroker } from "../../../src/broker/broker.ts";
import { type Broker, limitDefaults } from "../../../src/broker/options.ts";
import { createCodecs } from "../../../src/transform/codecs/registry.ts";
import { createRouting } from "../../../src/transform/routes.ts";
import { connectPacket, ManualClock, TestClient, turns, type Version, versions } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";

/** A broker whose routes give everything on raw/# up. */
class Rig {
  readonly store = new MemoryStore({ hold: true });
  readonly kept: RouteFailure[] = [];
  readonly broker: Broker;

  constructor(routes?: (topic: string) => readonly Route[], keep?: (txn: Txn, failure: RouteFailure) => void) {
    const meter = new Meter();
    const codecs = createCodecs({});
    const meters = {
      ...{ name: "meters", from: "raw/#", to: "cooked/{rest}", steps: [{ decode: "json" }] },
      onError: "dead-letter" as const,
    };
    const routing =
      routes === undefined ? createRouting([meters], codecs, { log: silentLog, meter }) : { routesFor: routes };
    this.broker = createBroker(
      { anonymous: true, version: "0", limits: limitDefaults },
      {
        ...{ store: this.store, clock: new ManualClock(), log: silentLog, meter, routing },
        forwarding: { forwardsFor: () => [] },
        letters: {
          keep: (txn, failure) => {
            keep?.(txn, failure);
            this.kept.push(failure);
            txn.reference("dead-letters", txn.message(failure.message, []), 0);
          },
        },
      },
    );
  }

  async client(version: Version): Promise<TestClient> {
    const [near, far] = duplexPair();
    this.broker.attach(near);
    const client = new TestClient(far, version);
    client.send(connectPacket(version, "p"));
    await client.connack();
    return client;
  }

  get waiting(): number {
    return this.store.references("dead-letters")?.size ?? 0;
  }
}

const publish = (topic: string, payload: string, qos: 0 | 1 | 2, messageId = 1) =>
  ({ cmd: "publish", topic, payload, qos, messageId, dup: false, retain: false }) as const;
const asMessage = (topic: string, payload: string, qos: 0 | 1): Message => ({
  ...{ topic, payload: Buffer.from(payload), qos, retain: false, source: "test" },
});

for (const version of versions) {
  describe(`broker/dead letters of routes, MQTT ${version}`, () => {
    it("PUBACK waits until the letter is durable [MQTT-4.3.2-2]", async () => {
      const rig = new Rig();
      const client = await rig.client(version);
      client.send(publish("raw/a", "{", 1));
      await turns();
      expect([rig.kept.length, rig.waiting]).to.deep.equal([1, 1]);
      expect(rig.kept[0]).to.deep.include({ route: "meters", code: "decode" });
      expect(await client.take()).to.deep.equal([]);
      rig.store.settle();
      expect(await client.next("puback")).to.include({ messageId: 1 });
      client.send(publish("raw/a", "{}", 1, 2)); // this one is well, and nothing keeps it
      expect(await client.next("puback")).to.include({ messageId: 2 });
      expect(rig.kept).to.have.length(1);
      await rig.broker.close();
    });

    it("a publish that is refused leaves no letter, so that its retry makes one", async () => {
      const rig = new Rig();
      const client = await rig.client(version);
      rig.store.verdict = "full";
      client.send(publish("raw/a", "{", 1));
      if (version === 5) expect(await client.next("puback")).to.include({ reasonCode: 0x97 });
      await turns();
      expect([rig.kept.length, rig.waiting, rig.store.commits]).to.deep.equal([0, 0, 0]);
      await rig.broker.close();
    });
  });
}

describe("broker/dead letters of routes", () => {
  it("QoS 0: kept as well; dropped, counted, when the store is full, and delivered all the same", async () => {
    const rig = new Rig();
    const seen: string[] = [];
    rig.broker.subscribe("raw/#", ({ payload }) => {
      seen.push(Buffer.from(payload).toString());
      return undefined;
    });
    expect(rig.broker.publish(asMessage("raw/a", "{1", 0))).to.deep.equal({ accepted: true, group: 1 });
    expect(rig.waiting).to.equal(1);
    rig.store.verdict = "full";
    expect(rig.broker.publish(asMessage("raw/a", "{2", 0))).to.deep.equal({ accepted: true, group: 0 });
    expect([rig.waiting, rig.broker.stats().dropped["store-full"]]).to.deep.equal([1, 1]);
    expect(seen).to.deep.equal(["{1", "{2"]);
    await rig.broker.close();
  });

  it("asks the store for the letter's room before", async () => {
    const rig = new Rig();
    const asked: number[] = [];
    rig.store.verdict = ({ bytes }) => {
      asked.push(bytes);
      return "ok";
    };
    rig.broker.publish(asMessage("raw/a", "{".padEnd(5000), 1));
    expect(asked).to.have.length(1);
    expect(asked[0]).to.be.within(5000, 5200);
    await rig.broker.close();
  });

  it("a letter that cannot be written refuses the publish, and the next one is not burdened with it", async () => {
    let broken = true;
    const rig = new Rig(undefined, () => {
      if (broken) throw new Error("no");
    });
    expect(rig.broker.publish(asMessage("raw/a", "{", 1))).to.deep.equal({ accepted: false, reason: "failed" });
    broken = false;
    expect(rig.broker.publish(asMessage("other", "x", 1))).to.deep.equal({ accepted: true, group: 0 });
    expect([rig.kept.length, rig.waiting]).to.deep.equal([0, 0]);
    await rig.broker.close();
  });

  it("several routes of one publish: each its letter, in one commit with what the others made", async () => {
    const bad = (name: string): Route => ({
      name,
      apply: (message, dead) => {
        dead({ route: name, code: "decode", text: "no", message });
        return [];
      },
    });
    const good: Route = {
      name: "good",
      apply: (message) => [{ ...message, topic: "made", retain: true, source: "route:good" }],
    };
    const rig = new Rig((topic) => (topic === "a" ? [bad("one"), good, bad("two")] : []));
    expect(rig.broker.publish(asMessage("a", "x", 1))).to.deep.equal({ accepted: true, group: 1 });
    expect(rig.kept.map(({ route }) => route)).to.deep.equal(["one", "two"]);
    expect([rig.store.commits, [...rig.store.retained()].length]).to.deep.equal([1, 1]);
    await rig.broker.close();
  });
});
