import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { QueuedMessage, Store } from "../../../src/base/contracts.ts";
import { nodeFiles } from "../../../src/base/files.ts";
import { until } from "../../helpers/wait.ts";
import { generous, open, TestClock, textOf } from "../../unit/journal/support.ts";
import type { ExpectedMessage, ExpectedStore } from "./expected.ts";

// A store of every format that ever shipped opens with today's code and holds what it held. makeStore.ts has made them.

const formats = readdirSync(import.meta.dirname).filter((name) => name.startsWith("format-"));

for (const format of formats) {
  describe(`kept store of ${format}`, () => {
    const kept = join(import.meta.dirname, format);
    const expected = JSON.parse(readFileSync(join(kept, "expected.json"), "utf8")) as ExpectedStore;
    const uplinks = Object.keys(expected.lanes);
    let dir: string;
    let clock: TestClock;
    let store: Store;

    const start = async (): Promise<void> => {
      clock.forgetTimers();
      store = await open(nodeFiles, clock, { dir, segmentBytes: 4000 });
    };

    beforeEach(async () => {
      dir = mkdtempSync(join(tmpdir(), "tidegate-"));
      cpSync(join(kept, "store"), dir, { recursive: true });
      clock = new TestClock();
      clock.wall = expected.wallMs + 1000;
      await start();
    });
    afterEach(async () => {
      await store.close();
      rmSync(dir, { recursive: true, force: true });
    });

    /** Everything that an uplink hands out now. */
    async function takeAll(name: string): Promise<QueuedMessage[]> {
      const queue = store.uplink(name, generous);
      const out: QueuedMessage[] = [];
      // By time and not by turns: these are real files, and 20,000 turns pass in 50 ms.
      await until(`${name} is empty`, () => {
        for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next);
        return out.length >= queue.stats().messages;
      });
      return out;
    }

    it("opens, and nothing of it is damaged", () => {
      const { clean, corruptRecords, tornBytes } = store.stats().recovery;
      expect({ clean, corruptRecords }).to.deep.equal({ clean: false, corruptRecords: 0 });
      expect(tornBytes).to.be.above(0);
      expect(store.failed).to.equal(undefined);
    });

    it("its lanes wait in order, with number, rule, times and properties of each message", async () => {
      for (const name of uplinks) {
        const wanted = expected.lanes[name]!;
        expect(store.uplink(name, generous).stats().messages, name).to.equal(wanted.length);
        expect((await takeAll(name)).map(seen)).to.deep.equal(wanted.map(shown));
        expect(store.uplink(name, generous).stats().dropped, name).to.deep.equal(
          name === "cloud" ? { refused: expected.refused } : {},
        );
      }
    });

    function seen({ message, position, priority, seq, rule, acceptedAtMs, wallMs, ...more }: QueuedMessage): object {
      const { topic, qos, properties } = message;
      void more;
      const names = properties?.userProperties?.map(([name, value]) => `${name}=${value}`);
      return {
        ...{ text: textOf({ message }), topic, qos, priority, seq, rule: store.ruleDefinition(rule), position },
        ...{ acceptedAtMs, wallMs },
        properties: properties && {
          ...properties,
          ...{ userProperties: names, correlationData: Buffer.from(properties.correlationData!).toString("hex") },
        },
      };
    }

    it("its lifetimes go on: what had an hour expires after it, and only that", async () => {
      clock.advance(3_600_000);
      for (const name of uplinks) {
        const wanted = expected.lanes[name]!.filter(({ limited }) => !limited);
        expect((await takeAll(name)).map(textOf)).to.deep.equal(wanted.map(({ text }) => text));
      }
      const expired = expected.lanes["cloud"]!.filter(({ limited }) => limited).length;
      expect(expired).to.be.above(2);
      expect(store.uplink("cloud", generous).stats().dropped["expired"]).to.equal(expired);
    });

    async function compareSmall(queues: ExpectedStore["queues"]): Promise<void> {
      for (const [name, { next, waiting }] of Object.entries(queues)) {
        const queue = store.references(name);
        const found = (await queue?.read(0, { messages: 1000, bytes: 1e6 })) ?? [];
        expect(queue?.nextOrdinal, name).to.equal(next);
        expect(found.map((one) => ({ ordinal: one.ordinal, meta: one.meta, text: textOf(one) }))).to.deep.equal(
          waiting,
        );
      }
      expect([...store.referenceNames()].sort()).to.deep.equal(Object.keys(expected.queues).sort());
      const retained: Record<string, string> = {};
      for (const [topic, position] of store.retained()) retained[topic] = textOf((await store.read(position))!);
      expect(retained).to.deep.equal(expected.retained);
      for (const [name, entries] of Object.entries(expected.maps)) {
        const found = [...store.entries(name)].map(([key, value]) => [key, Buffer.from(value).toString("hex")]);
        expect(Object.fromEntries(found), name).to.deep.equal(entries);
      }
    }

    it("its queues, retained values and maps are there", () => compareSmall(expected.queues));

    it("it can be drained, closed, opened again, and written to", async () => {
      for (const name of uplinks)
        for (const message of await takeAll(name)) store.uplink(name, generous).settle(message);
      await store.close();
      await start();
      for (const name of uplinks) expect(await takeAll(name), name).to.deep.equal([]);
      await compareSmall(expected.queues);
      const queue = store.uplink("cloud", generous);
      const lane = queue.lane(9);
      const { group } = store.commit((txn) => {
        for (const [name, { waiting }] of Object.entries(expected.queues))
          for (const { ordinal } of waiting) txn.release(name, ordinal);
        const message = { topic: "new", payload: Buffer.from("new"), qos: 1, retain: false, source: "mqtt:x" } as const;
        txn.message(message, [{ lane, rule: 1, ttlMs: undefined }]);
      });
      await until("durable", () => store.durableGroup >= group);
      await store.close();
      await start();
      const emptied: ExpectedStore["queues"] = {};
      for (const [name, { next }] of Object.entries(expected.queues)) emptied[name] = { next, waiting: [] };
      await compareSmall(emptied);
      const [message, ...others] = await takeAll("cloud");
      expect(others).to.deep.equal([]);
      expect(textOf(message!)).to.equal("new");
      const used = Math.max(...expected.lanes["cloud"]!.map(({ seq }) => seq));
      expect(message!.seq, "a number is never used twice").to.be.above(used);
    });
  });
}

function shown({ limited, properties, ...same }: ExpectedMessage): object {
  void limited;
  return {
    ...same,
    properties: properties
      ? {
          ...{
            payloadFormat: 1,
            messageExpirySeconds: 86_400,
            contentType: "text/plain",
            responseTopic: "answers/here",
          },
          ...{ correlationData: "00ff10", userProperties: ["name=first", "name=again"] },
        }
      : undefined,
  };
}
