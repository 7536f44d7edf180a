/**
 * Makes the store of a kept format: `npx tsx test/vectors/stores/makeStore.ts FOLDER`, run with the sources of the release that wrote the format,
 * and never again afterwards. It leaves FOLDER/store, ended as by a power cut in the middle of a write, and FOLDER/expected.json: what must be in
 * it, written down from what was asked of the store, not read back from it. Time is a test clock; only the store id is random.
 */
import { mkdirSync, readdirSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { QueuedMessage, Store, UplinkQueue } from "../../../src/base/contracts.ts";
import { nodeFiles } from "../../../src/base/files.ts";
import type { Message } from "../../../src/base/message.ts";
import { generous, open, TestClock, textOf } from "../../unit/journal/support.ts";
import type { ExpectedMessage, ExpectedStore } from "./expected.ts";

const segmentBytes = 4000;
const priorities = [9, 4, 0];
const rules = ['{"topic":"t/#","to":"up/{topic}","qos":1}', '{"topic":"t/#","to":"{topic}","qos":1,"ttl":3600000}'];
const properties = {
  payloadFormat: 1,
  messageExpirySeconds: 86_400,
  contentType: "text/plain",
  responseTopic: "answers/here",
  correlationData: Buffer.from("00ff10", "hex"),
  userProperties: [
    ["name", "first"],
    ["name", "again"],
  ],
} as const;

class Maker {
  readonly #dir: string;
  readonly #clock = new TestClock();
  readonly #lanes: Record<string, ExpectedMessage[]> = { cloud: [], backup: [] };
  readonly #seqs: Record<string, number> = { cloud: 0, backup: 0 };
  readonly #queues: ExpectedStore["queues"] = {};
  readonly #retained: Record<string, string> = {};
  readonly #maps: ExpectedStore["maps"] = {};
  readonly #positions = new Map<string, number>();
  #store!: Store;
  #cloud!: UplinkQueue;
  #backup!: UplinkQueue;
  #ruleIds: number[] = [];

  constructor(dir: string) {
    this.#dir = dir;
  }

  async make(): Promise<ExpectedStore> {
    await this.#open();
    await this.#fill(1, 30);
    await this.#settle(12);
    await this.#small();
    await this.#store.close(); // the first checkpoint
    await this.#open();
    await this.#fill(31, 60);
    await this.#settle(10);
    await this.#store.close(); // the second
    await this.#open();
    await this.#fill(61, 80);
    await this.#settle(5);
    await this.#runs();
    for (let taken = 0; taken < 4; taken += 1) this.#cloud.next(); // handed out, on their way when the power goes
    const torn = await this.#tear();
    const lanes = Object.fromEntries(
      Object.entries(this.#lanes).map(([name, waiting]) => [
        name,
        waiting.sort((one, other) => other.priority - one.priority || one.seq - other.seq),
      ]),
    );
    const { wall: wallMs } = this.#clock;
    return { wallMs, lanes, queues: this.#queues, retained: this.#retained, maps: this.#maps, refused: 2, torn };
  }

  async #open(): Promise<void> {
    this.#clock.forgetTimers();
    this.#clock.advance(60_000);
    this.#store = await open(nodeFiles, this.#clock, { dir: this.#dir, segmentBytes });
    this.#cloud = this.#store.uplink("cloud", generous);
    this.#backup = this.#store.uplink("backup", generous);
    this.#ruleIds = rules.map((rule) => this.#store.rule("cloud", rule));
    this.#ruleIds.push(this.#store.rule("backup", rules[0]!));
  }

  async #durable(group: number): Promise<void> {
    while (this.#store.durableGroup < group) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Readings of both uplinks; each fifth also waits for a session. */
  async #fill(from: number, to: number): Promise<void> {
    for (let number = from; number <= to; number += 1) {
      this.#clock.advance(700);
      const text = `reading ${number} ${"~".repeat((number * 37) % 200)}`;
      const message: Message = {
        topic: `t/${number % 7}/ü`,
        payload: Buffer.from(text),
        qos: number % 2 === 0 ? 1 : 2,
        retain: false,
        source: "mqtt:maker",
        ...(number % 4 === 0 ? { properties } : {}),
      };
      const priority = priorities[number % 3]!;
      const limited = number % 10 === 0;
      const takers = [{ name: "cloud", priority, rule: limited ? 1 : 0, ttlMs: limited ? 3_600_000 : undefined }];
      if (number % 2 === 0) takers.push({ name: "backup", priority: 4, rule: 2, ttlMs: undefined });
      const queues = { cloud: this.#cloud, backup: this.#backup } as Record<string, UplinkQueue>;
      const { group } = this.#store.commit((txn) => {
        const written = takers.map(({ name, priority, rule, ttlMs }) => ({
          ...{ lane: queues[name]!.lane(priority), rule: this.#ruleIds[rule]!, ttlMs },
        }));
        const position = txn.message(message, written);
        this.#positions.set(text, position);
        if (number % 5 === 0) this.#wait("session/away", txn.reference("session/away", position, 5), 5, text);
        if (number % 9 === 0) this.#wait("share/g", txn.reference("share/g", position, number), number, text);
      });
      await this.#durable(group);
      for (const { name, priority, rule, ttlMs } of takers) {
        const seq = ++this.#seqs[name]!;
        const { topic, qos } = message;
        this.#lanes[name]!.push({
          ...{ text, topic, qos, priority, seq, rule: rules[rule % 2]!, position: this.#positions.get(text)! },
          ...{ acceptedAtMs: this.#store.nowMs(), wallMs: this.#clock.wall, limited: ttlMs !== undefined },
          properties: message.properties !== undefined,
        });
      }
    }
  }

  #wait(name: string, ordinal: number, meta: number, text: string): void {
    this.#queues[name] ??= { next: 1, waiting: [] };
    this.#queues[name].next = ordinal + 1;
    this.#queues[name].waiting.push({ ordinal, meta, text });
  }

  /** The cloud takes some, not in the order in which they went out; one it refuses; one of backup is done as well. */
  async #settle(count: number): Promise<void> {
    const taken: QueuedMessage[] = [];
    while (taken.length < count) {
      const next = this.#cloud.next();
      if (next === undefined) await new Promise((resolve) => setImmediate(resolve));
      else taken.push(next);
    }
    const left = taken.filter((_, index) => index % 4 === 1);
    for (const [index, message] of taken.reverse().entries()) {
      if (left.includes(message)) continue;
      this.#cloud.settle(message, index === 0 ? "refused" : undefined);
      this.#lanes["cloud"] = this.#lanes["cloud"]!.filter(({ seq }) => seq !== message.seq);
    }
    this.#cloud.rewind();
    const other = this.#backup.next();
    if (other !== undefined) {
      this.#backup.settle(other);
      this.#lanes["backup"] = this.#lanes["backup"]!.filter(({ seq }) => seq !== other.seq);
      this.#backup.rewind();
    }
    const { group } = this.#store.commit((txn) => {
      for (const [name, queue] of Object.entries(this.#queues)) {
        const [released] = queue.waiting.splice(1, 1);
        if (released !== undefined) txn.release(name, released.ordinal);
      }
    });
    this.#clock.advance(150); // lane states
    await this.#durable(group);
    this.#clock.advance(1100);
    await this.#durable(this.#store.commit((txn) => txn.put("settled", "last", Buffer.from(textOf(taken[0]!)))).group);
    this.#maps["settled"] = { last: Buffer.from(textOf(taken[0]!)).toString("hex") };
  }

  /** Retained values, map entries, a queue that is dropped. */
  async #small(): Promise<void> {
    const { group } = this.#store.commit((txn) => {
      for (const [topic, text] of [
        ["r/one", "replaced"],
        ["r/gone", "removed"],
        ["r/one", "kept"],
        ["r/two", ""],
        ["r/three", "x".repeat(500)],
      ] as const) {
        const message: Message = { topic, payload: Buffer.from(text), qos: 1, retain: true, source: "mqtt:maker" };
        txn.retain(topic, txn.message(message, []));
        this.#retained[topic] = text;
      }
      txn.unretain("r/gone");
      delete this.#retained["r/gone"];
      for (const [key, hex] of [
        ["a", "00ff"],
        ["b\0c", ""],
        ["gone", "01"],
      ] as const) {
        txn.put("m", key, Buffer.from(hex, "hex"));
        this.#maps["m"] = { ...this.#maps["m"], [key]: hex };
      }
      txn.delete("m", "gone");
      delete this.#maps["m"]!["gone"];
      txn.reference("session/dropped", this.#positions.get([...this.#positions.keys()][0]!)!, 1);
      txn.dropQueue("session/dropped");
    });
    await this.#durable(group);
  }

  /** Since format 3: many references of a group together, of which some and the newest go before it ends, and a run of them after it. */
  async #runs(): Promise<void> {
    const name = "session/many";
    const [text, position] = [...this.#positions].at(-1)!;
    const gone = [3, 20, 49, 50];
    let { group } = this.#store.commit((txn) => {
      for (let meta = 1; meta <= 50; meta += 1) this.#wait(name, txn.reference(name, position, meta), meta, text);
    });
    for (const ordinal of gone) ({ group } = this.#store.commit((txn) => txn.release(name, ordinal)));
    await this.#durable(group);
    ({ group } = this.#store.commit((txn) => txn.release(name, 5, 10)));
    await this.#durable(group);
    const queue = this.#queues[name]!;
    const isGone = (ordinal: number): boolean => gone.includes(ordinal) || (ordinal >= 5 && ordinal < 15);
    queue.waiting = queue.waiting.filter(({ ordinal }) => !isGone(ordinal));
  }

  /** The last write is torn: nobody was told of it. Returns its text. */
  async #tear(): Promise<string> {
    const newest = (): string =>
      join(
        this.#dir,
        readdirSync(this.#dir)
          .filter((name) => name.startsWith("seg-"))
          .sort()
          .at(-1)!,
      );
    const path = newest();
    const before = statSync(path).size;
    const text = "never acknowledged";
    const lane = this.#cloud.lane(9);
    const { group } = this.#store.commit((txn) => {
      const message: Message = {
        topic: "t/x",
        payload: Buffer.from(text),
        qos: 1,
        retain: false,
        source: "mqtt:maker",
      };
      txn.message(message, [{ lane, rule: this.#ruleIds[0]!, ttlMs: undefined }]);
    });
    await this.#durable(group);
    if (newest() !== path) throw new Error("a new segment was begun: choose another number of readings");
    truncateSync(path, before + Math.floor((statSync(path).size - before) / 2));
    return text;
  }
}

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error("usage: makeStore.ts FOLDER");
const dir = join(resolve(folder), "store");
mkdirSync(dir, { recursive: true });
if (readdirSync(dir).length > 0) throw new Error(`${dir} is not empty`);
const expected = await new Maker(dir).make();
writeFileSync(join(folder, "expected.json"), `${JSON.stringify(expected)}\n`);
process.exit(0); // without closing: the power is gone
