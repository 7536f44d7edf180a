/**
 * A random workload beside a model of what must come back. Every commit also writes its number to a map, so that the store itself says up to where
 * it recovered; that must be a group's boundary, not before the last acknowledged commit, and everything must be as the model was there.
 */
import { expect } from "chai";
import type { QueuedMessage, Store, Txn, UplinkQueue } from "../../src/base/contracts.ts";
import { loadCheckpoint } from "../../src/journal/checkpoint.ts";
import type { Tuning } from "../../src/journal/options.ts";
import { type Fault, FaultyFiles } from "../helpers/faultyFiles.ts";
import { generous, message, open, randomOf, TestClock, taker, textOf, turn } from "../unit/journal/support.ts";

interface Snapshot {
  readonly map: Map<string, string>;
  /** Topic to text. */
  readonly retained: Map<string, string>;
  /** Queue to ordinal to text. */
  readonly queues: Map<string, { next: number; waiting: Map<number, string> }>;
}

interface Commit {
  readonly number: number;
  readonly group: number;
  readonly apply: Array<(to: Snapshot) => void>;
  /** Lane of each text it put in. */
  readonly taken: Array<{ text: string; priority: number }>;
}

const priorities = [9, 5, 2];
const queueNames = ["alice", "bob"];

export class CrashModel {
  readonly files = new FaultyFiles();
  readonly clock = new TestClock();
  readonly #random: () => number;
  readonly #segmentBytes: number;
  readonly #tuning: Partial<Tuning>;
  store!: Store;
  #queue!: UplinkQueue;
  #rule = 0;
  /** Checkpoints that were not whole at the last start. */
  #rotten = 0;
  #commits: Commit[] = [];
  #number = 0;
  #acknowledged = 0;
  /** Since the last start. */
  #inFlight: QueuedMessage[] = [];
  readonly #settled = new Set<string>();
  #retained = new Map<string, number>();
  readonly #positions = new Map<string, string>();
  #texts = 0;
  /** Lets time pass, settles nearly everything at once: checkpoints come, then segments go. */
  readonly #eager: boolean;

  constructor(seed: number) {
    this.#random = randomOf(seed);
    this.#eager = seed % 3 === 1;
    this.#segmentBytes = [1500, 4000, 20_000][seed % 3]!;
    this.#tuning =
      seed % 2 === 0 ? { spares: 0 } : { spares: 2, lightMs: seed % 5 === 0 ? 10_000 : 0, largeRecordBytes: 900 };
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  /** @returns false when the machine stopped meanwhile */
  async start(): Promise<boolean> {
    this.clock.forgetTimers();
    const checkpoints = this.files.paths().filter((path) => path.endsWith(".bin"));
    this.#rotten = checkpoints.filter((path) => loadCheckpoint(this.files.content(path)) === undefined).length;
    let opened: Store | undefined;
    let failure: unknown;
    open(this.files.mount(), this.clock, { segmentBytes: this.#segmentBytes, tuning: this.#tuning }).then(
      (store) => {
        opened = store;
      },
      (error: unknown) => {
        failure = error;
      },
    );
    for (let turns = 0; opened === undefined; turns += 1) {
      if (failure !== undefined) throw failure;
      if (this.files.stopped) return false;
      if (turns > 5000) throw new Error("openStore hangs");
      await turn();
    }
    this.store = opened;
    this.store.onDurable((group) => {
      for (const commit of this.#commits)
        if (commit.group <= group) this.#acknowledged = Math.max(this.#acknowledged, commit.number);
    });
    this.#queue = this.store.uplink("cloud", generous);
    this.#inFlight = [];
    return true;
  }

  /** To be called once after the very first start. */
  async settleIn(): Promise<void> {
    for (const priority of priorities) this.#queue.lane(priority);
    this.#rule = this.store.rule("cloud", "{}");
  }

  async work(steps: number): Promise<void> {
    for (let step = 0; step < steps && !this.files.stopped; step += 1) {
      const dice = this.#random() - (this.#eager ? 0.1 : 0);
      if (dice < 0.55) this.#commit();
      else if (dice < (this.#eager ? 0.62 : 0.75)) this.#drain();
      else if (dice < 0.78) {
        this.#queue.rewind();
        this.#inFlight = [];
      } else if (dice < 0.88) this.clock.advance([11_000, 150, 1100, 50][this.#below(this.#eager ? 2 : 4)]!);
      else for (let turns = this.#below(12); turns > 0; turns -= 1) await turn();
    }
  }

  #commit(): void {
    const number = this.#number + 1;
    const apply: Commit["apply"] = [];
    const taken: Commit["taken"] = [];
    const throws = this.#random() < 0.05;
    const retained = new Map(this.#retained);
    try {
      const { group } = this.store.commit((txn) => {
        txn.put("model", "n", Buffer.from(String(number)));
        apply.push((to) => to.map.set("n", String(number)));
        for (let changes = 1 + this.#below(3); changes > 0; changes -= 1) this.#change(txn, apply, taken, retained);
        if (throws) throw new RangeError("on purpose");
      });
      this.#number = number;
      this.#retained = retained;
      this.#commits.push({ number, group, apply, taken });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }

  #change(txn: Txn, apply: Commit["apply"], taken: Commit["taken"], retained: Map<string, number>): void {
    const text = `m${++this.#texts}-${"x".repeat(this.#random() < 0.1 ? this.#below(1500) : this.#below(60))}`;
    const dice = this.#random();
    const name = queueNames[this.#below(queueNames.length)]!;
    if (dice < 0.5) {
      const priority = priorities[this.#below(priorities.length)]!;
      const position = txn.message(message(text), [taker(this.#queue.lane(priority), this.#rule)]);
      this.#positions.set(`${position}`, text);
      taken.push({ text, priority });
      if (this.#random() < 0.3) this.#refer(txn, apply, name, position, text);
    } else if (dice < 0.65) this.#refer(txn, apply, name, txn.message(message(text), []), text);
    else if (dice < 0.8) {
      const ordinal = this.store.references(name)?.oldest()?.ordinal;
      if (ordinal === undefined) return;
      const released = ordinal + (this.#random() < 0.3 ? 1 : 0);
      txn.release(name, released);
      apply.push((to) => void to.queues.get(name)?.waiting.delete(released));
    } else if (dice < 0.82) {
      txn.dropQueue(name);
      apply.push((to) => void to.queues.delete(name));
    } else if (dice < 0.94) {
      const topic = `r/${this.#below(4)}`;
      const position = txn.message(message(text), []);
      txn.retain(topic, position);
      retained.set(topic, position);
      apply.push((to) => void to.retained.set(topic, text));
    } else {
      const topic = `r/${this.#below(4)}`;
      txn.unretain(topic);
      apply.push((to) => void to.retained.delete(topic));
    }
  }

  #refer(txn: Txn, apply: Commit["apply"], name: string, position: number, text: string): void {
    const ordinal = txn.reference(name, position, 7);
    apply.push((to) => {
      const queue = to.queues.get(name) ?? { next: 1, waiting: new Map<number, string>() };
      to.queues.set(name, queue);
      expect(ordinal, "ordinals rise by one").to.equal(queue.next);
      queue.next += 1;
      queue.waiting.set(ordinal, text);
    });
  }

  #drain(): void {
    for (let count = this.#below(this.#eager ? 300 : 6); count > 0; count -= 1) {
      const next = this.#queue.next();
      if (next === undefined) break;
      const text = textOf(next);
      const commit = this.#commits.find(({ taken }) => taken.some((one) => one.text === text));
      if (commit === undefined || commit.number > this.#acknowledged)
        throw new Error(`${text} came out before it was durable`);
      this.#inFlight.push(next);
    }
    expect(this.#queue.stats().dropped, "nothing is dropped").to.deep.equal({});
    while (this.#inFlight.length > 0 && this.#random() < (this.#eager ? 0.98 : 0.6)) {
      const [settled] = this.#inFlight.splice(this.#below(this.#inFlight.length), 1);
      this.#queue.settle(settled!);
      this.#settled.add(textOf(settled!));
    }
  }

  /** Stops at a random step of what comes; then the power goes. */
  async crashWithin(steps: number): Promise<void> {
    const stopAt = this.files.steps + 1 + this.#below(steps);
    this.files.fault = (_operation, _path, step) => (step >= stopAt ? "stop" : undefined);
    await this.work(10 + this.#below(150));
    for (let turns = 0; turns < 60 && !this.files.stopped; turns += 1) await turn();
    this.power();
  }

  power(): void {
    if (this.#random() < 0.2) this.files.kill();
    else this.files.crash(this.#random);
    if (this.#random() < 0.15) this.#rotCheckpoint();
  }

  /** The newest checkpoint rots, if another is whole: that must cost nothing. */
  #rotCheckpoint(): void {
    const paths = this.files.paths().filter((path) => path.endsWith(".bin"));
    const [older, newest] = paths.slice(-2);
    if (older === undefined || newest === undefined) return;
    if (paths.some((path) => loadCheckpoint(this.files.content(path)) === undefined)) return;
    const rotten = Buffer.from(this.files.content(newest));
    const at = this.#below(rotten.length - 1024) + 1024; // not in the header, which is there twice
    rotten[at] = rotten[at]! ^ 0x10;
    this.files.replace(newest, rotten);
  }

  /** Starts, perhaps stopped on the way, and compares. */
  async recover(): Promise<void> {
    while (this.#random() < 0.4) {
      const stopAt = 1 + this.#below(25);
      this.files.fault = (_operation, _path, step) => (step >= stopAt ? "stop" : undefined);
      if (await this.start()) {
        for (let turns = this.#below(20); turns > 0; turns -= 1) await turn();
      }
      this.power();
    }
    if (!(await this.start())) throw new Error("stopped without a fault");
    await this.compare();
  }

  /** Faults that the store has to live with: short writes, and one failing write or sync at a time. */
  disturb(): void {
    const at = this.files.steps + 2 + this.#below(30);
    const fault = (["short", "EIO", "ENOSPC"] as const)[this.#below(3)]!;
    this.files.fault = (operation, _path, step): Fault => {
      if (fault === "short") return operation === "write" && step % 3 === 0 ? "short" : undefined;
      return step >= at && step < at + 1 && (operation === "write" || operation === "datasync") ? fault : undefined;
    };
  }

  async compare(): Promise<void> {
    const recovery = this.store.stats().recovery;
    expect(recovery.corruptRecords, "nothing rotted but a checkpoint").to.equal(this.#rotten);
    const found = Number(Buffer.from(this.store.get("model", "n") ?? []).toString() || 0);
    expect(found, "acknowledged commits are there").to.be.at.least(this.#acknowledged);
    const last = this.#commits.find(({ number }) => number === found);
    const after = this.#commits.find(({ number }) => number === found + 1);
    if (after !== undefined) expect(after.group, "a group is whole or absent").to.not.equal(last?.group ?? 0);
    this.#commits = this.#commits.filter(({ number }) => number <= found);
    this.#number = found;
    this.#acknowledged = found;
    const expected = this.#expected();
    expect(this.#mapNow()).to.deep.equal(expected.map);
    await this.#compareReferences(expected);
    await this.#compareRetained(expected);
    this.#retained = new Map(this.store.retained());
    await this.#compareLanes();
  }

  #expected(): Snapshot {
    const snapshot: Snapshot = { map: new Map(), retained: new Map(), queues: new Map() };
    for (const { apply } of this.#commits) for (const change of apply) change(snapshot);
    return snapshot;
  }

  #mapNow(): Map<string, string> {
    return new Map([...this.store.entries("model")].map(([key, value]) => [key, Buffer.from(value).toString()]));
  }

  async #compareReferences(expected: Snapshot): Promise<void> {
    for (const name of queueNames) {
      const queue = this.store.references(name);
      const wanted = expected.queues.get(name);
      const found = (await queue?.read(0, { messages: 10_000, bytes: 1e9 })) ?? [];
      expect(found.map((one) => [one.ordinal, textOf(one)])).to.deep.equal([...(wanted?.waiting ?? [])]);
      if (wanted !== undefined) expect(queue?.nextOrdinal).to.equal(wanted.next);
    }
  }

  async #compareRetained(expected: Snapshot): Promise<void> {
    const found = new Map<string, string>();
    for (const [topic, position] of this.store.retained()) {
      const stored = await this.store.read(position);
      found.set(topic, stored === undefined ? "gone" : textOf(stored));
    }
    expect([...found].sort()).to.deep.equal([...expected.retained].sort());
  }

  /** Everything not settled comes out once, in order; what was settled may come out again, but only where it belongs. */
  async #compareLanes(): Promise<void> {
    const byPriority = new Map<number, string[]>(priorities.map((priority) => [priority, []]));
    for (const { taken } of this.#commits) for (const { text, priority } of taken) byPriority.get(priority)!.push(text);
    const out: QueuedMessage[] = [];
    for (let idle = 0; idle < 30; ) {
      const next = this.#queue.next();
      if (next === undefined) {
        idle += 1;
        await turn();
      } else {
        idle = 0;
        out.push(next);
      }
    }
    expect(this.#queue.stats().messages, "counted as it is").to.equal(out.length);
    expect(out.map(({ priority }) => priority)).to.deep.equal(
      out.map(({ priority }) => priority).sort((a, b) => b - a),
    );
    for (const [priority, texts] of byPriority) {
      const got = out.filter((one) => one.priority === priority).map(textOf);
      const allowed = new Set(got);
      expect(got, `order of ${priority}`).to.deep.equal(texts.filter((text) => allowed.has(text)));
      expect(
        texts.filter((text) => !allowed.has(text) && !this.#settled.has(text)),
        `lost of ${priority}`,
      ).to.deep.equal([]);
    }
    expect(new Set(out.map(({ seq }) => seq)).size, "numbers are used once").to.equal(out.length);
    this.#queue.rewind();
  }
}
