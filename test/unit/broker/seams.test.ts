// Where two parts meet: what one of them changes while the other is in the middle of something.
import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import type { ReferencedMessage, ReferenceQueue, Txn } from "../../../src/base/contracts.ts";
import type { Message } from "../../../src/base/message.ts";
import { durable, Rig, type TestClient, text, turns, versions } from "../../helpers/brokerRig.ts";
import { MemoryStore } from "../../helpers/memoryStore.ts";

const payloads = (packets: Packet[]): string[] =>
  packets.flatMap((packet) => (packet.cmd === "publish" ? [text(packet)] : []));

async function leave(client: TestClient): Promise<void> {
  client.drop();
  await client.gone();
}

describe("a will that is due while its own session comes back", () => {
  for (const qos of [1, 2] as const) {
    it(`reaches it once, QoS ${qos}`, async () => {
      const rig = new Rig();
      const properties = { sessionExpiryInterval: 3600 };
      const will = {
        topic: "w",
        payload: Buffer.from("gone"),
        qos,
        retain: false,
        properties: { willDelayInterval: 1 },
      };
      const first = await rig.client(5, "c", { clean: false, properties, will });
      await first.subscribe("w", qos);
      await leave(first);
      rig.store.timeMs += 2000; // due, and the broker's tick has not come yet
      const again = await rig.client(5, "c", { clean: false, properties });
      expect(payloads(await again.take())).to.deep.equal(["gone"]);
      await rig.close();
    });
  }
});

describe("a shared group's QoS 2 message that its member may not read any more when it is durable", () => {
  for (const clean of [false, true]) {
    it(`is not sent, and nothing of it is left: a ${clean ? "clean" : "durable"} member`, async () => {
      const rig = new Rig({ store: new MemoryStore({ hold: true }) });
      const keeper = await rig.client(5, "keeper", durable(5));
      await keeper.subscribe("$share/g/t", 2);
      if (clean) await leave(keeper);
      const one = clean ? await rig.client(5, "one") : keeper;
      if (clean) await one.subscribe("$share/g/t", 2);
      await turns();
      rig.store.settle();
      rig.broker.publish({ topic: "t", payload: Buffer.from("x"), qos: 2, retain: false, source: "source:test" });
      await turns();
      rig.broker.setAccess({
        anonymous: true,
        users: [],
        rules: [{ effect: "deny", action: "all", users: undefined, topic: "t" }],
      });
      rig.store.settle();
      await turns();
      rig.advance(300);
      await turns();
      rig.store.settle();
      expect(payloads(await one.take())).to.deep.equal([]);
      expect(rig.dropped("denied")).to.equal(1);
      expect(rig.broker.stats().queued).to.equal(0);
      expect([...rig.store.entries("sharesent")]).to.deep.equal([]);
      await rig.close();
    });
  }
});

/** Takes no message above 4096 bytes, as the journal with storage.maxMessageBytes. */
class SmallStore extends MemoryStore {
  override commit<T>(work: (txn: Txn) => T): { value: T; group: number } {
    return super.commit((txn) => {
      const message: Txn["message"] = (one, takers) => {
        if (one.payload.length > 4096) throw new Error("too large for the store");
        return txn.message(one, takers);
      };
      return work({ ...txn, message });
    });
  }
}

/** Reads as a disk does: what was found is on its way while others change the queue. */
class SlowStore extends MemoryStore {
  readonly #gates: Array<() => void> = [];

  get reads(): number {
    return this.#gates.length;
  }

  open(): void {
    for (const gate of this.#gates.splice(0)) gate();
  }

  override references(name: string): ReferenceQueue | undefined {
    const queue = super.references(name);
    if (queue === undefined) return undefined;
    const read = async (after: number, limits: { messages: number; bytes: number }): Promise<ReferencedMessage[]> => {
      const batch = await queue.read(after, limits);
      await new Promise<void>((resolve) => this.#gates.push(resolve));
      return batch;
    };
    return Object.create(queue, { read: { value: read } }) as ReferenceQueue;
  }
}

describe("a shared group that ends while it reads from the store", () => {
  it("costs the others none of what all may have read ahead", async () => {
    const store = new SlowStore();
    const rig = new Rig({ store });
    const publisher = await rig.client(4, "p");
    const payload = "x".repeat(600 * 1024);
    for (let round = 0; round < 30; round += 1) {
      const member = await rig.client(5, "m", durable(5));
      await member.subscribe("$share/g/t", 1);
      await leave(member);
      publisher.publish("t", payload, 1);
      await publisher.next("puback");
      const again = await rig.client(5, "m", durable(5));
      await turns();
      expect(store.reads, `round ${round}`).to.equal(1);
      again.send({ cmd: "unsubscribe", messageId: 1, unsubscriptions: ["$share/g/t"] });
      await again.next("unsuback");
      store.open();
      await turns();
      await leave(again);
    }
    const member = await rig.client(5, "m", durable(5));
    await member.subscribe("$share/g/t", 1);
    await leave(member);
    publisher.publish("t", "y", 1);
    await publisher.next("puback");
    const again = await rig.client(5, "m", durable(5));
    await turns();
    store.open();
    expect(text(await again.next("publish"))).to.equal("y");
    await rig.close();
  });
});

describe("a route that makes a message larger than the store takes", () => {
  for (const version of versions) {
    it(`loses that one, counted, and not the one that it was made of, MQTT ${version}`, async () => {
      const big = { name: "big", apply: (from: Message) => [{ ...from, topic: "big", payload: Buffer.alloc(5000) }] };
      const rig = new Rig({
        store: new SmallStore(),
        limits: { maxPacketSize: 4096 },
        routes: (topic) => (topic === "t" ? [big] : []),
      });
      const reader = await rig.client(version, "r", durable(version));
      await reader.subscribe("#", 1);
      const client = await rig.client(version, "p");
      client.publish("t", "x", 1);
      expect((await client.next("puback")).reasonCode ?? 0).to.equal(0);
      const { messageId = 0, topic } = await reader.next("publish");
      expect(topic).to.equal("t");
      reader.send({ cmd: "puback", messageId });
      await turns();
      rig.advance(100);
      expect(rig.dropped("route-limit")).to.equal(1);
      expect(rig.broker.stats().queued).to.equal(0);
      await rig.close();
    });
  }
});
