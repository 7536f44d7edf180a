/** Dead letters on a store on a disk in memory. */
import type { QueuedMessage, Store, UplinkQueue } from "../../../src/base/contracts.ts";
import type { Letter, UplinkFailure } from "../../../src/base/deadLetters.ts";
import { LogLimiter, silentLog } from "../../../src/base/log.ts";
import type { Message } from "../../../src/base/message.ts";
import { Meter } from "../../../src/base/meter.ts";
import { type DeadLetterOptions, DeadLetters } from "../../../src/journal/deadLetters.ts";
import { JournalLetterDesk, type LetterTargets } from "../../../src/journal/letterDesk.ts";
import type { StoreOptions } from "../../../src/journal/open.ts";
import { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { generous, message, open, TestClock, taker, textOf, turn, until } from "./support.ts";

export const dayMs = 24 * 3600 * 1000;
export const letterLimits: DeadLetterOptions = { maxMessages: 1000, maxBytes: 2 ** 30, maxAgeMs: 90 * dayMs };
export const ruleText = '{"filter":"t/#","to":"up/{rest}","qos":1}';

export const failure = (more: Partial<UplinkFailure> = {}): UplinkFailure => ({
  ...{ code: "0x87", text: "the cloud refused it: not authorized", attempts: 1, firstMs: 1000, lastMs: 2000 },
  ...more,
});

export class LetterRig {
  readonly files: FaultyFiles;
  readonly clock = new TestClock();
  /** Its process has ended: what waits for the disk waits no longer. */
  dead = false;
  meter = new Meter();
  store!: Store;
  queue!: UplinkQueue;
  letters!: DeadLetters;
  desk!: JournalLetterDesk;
  limits: DeadLetterOptions = letterLimits;
  storeOptions: Partial<StoreOptions> = {};
  again: LetterTargets["again"] = () => ({ ok: false, code: "no_route", message: "no such route" });

  constructor(files = new FaultyFiles()) {
    this.files = files;
  }

  static async open(limits: Partial<DeadLetterOptions> = {}): Promise<LetterRig> {
    const rig = new LetterRig();
    rig.limits = { ...letterLimits, ...limits };
    await rig.start();
    return rig;
  }

  async start(): Promise<void> {
    const { clock } = this;
    this.meter = new Meter();
    this.store = await open(this.files.mount(), clock, { segmentBytes: 32_768, ...this.storeOptions });
    this.queue = this.store.uplink("cloud", generous);
    this.store.configured();
    const limiter = new LogLimiter({ nowMs: () => clock.monotonicMs() });
    this.letters = new DeadLetters(this.limits, {
      store: this.store,
      clock,
      log: silentLog,
      limiter,
      meter: this.meter,
    });
    this.desk = new JournalLetterDesk(this.letters, this.store, {
      lane: (name, priority) =>
        name === "cloud" ? { lane: this.queue.lane(priority), rejectNewest: false } : undefined,
      again: (route, whole) => this.again(route, whole),
    });
  }

  /** What is there after a stop, a kill, or a power cut that loses all or some of what was not synced. */
  async restart(how: "stop" | "kill" | (() => number)): Promise<void> {
    if (how === "stop") await this.close();
    else if (how === "kill") this.files.kill();
    else this.files.crash(how);
    this.clock.forgetTimers();
    await this.start();
  }

  /** Another process on the same disk, after a kill or a power cut. */
  async successor(how: "kill" | (() => number)): Promise<LetterRig> {
    this.dead = true;
    if (how === "kill") this.files.kill();
    else this.files.crash(how);
    const next = new LetterRig(this.files);
    next.limits = this.limits;
    next.clock.advance(this.clock.monotonicMs());
    await next.start();
    return next;
  }

  async close(): Promise<void> {
    await this.letters.close();
    await this.store.close();
  }

  /** A message in the uplink's queue, durable. */
  async put(text: string, more: Partial<Message> & { priority?: number } = {}): Promise<void> {
    const { priority = 0, ...rest } = more;
    const rule = this.store.rule("cloud", ruleText);
    const lane = this.queue.lane(priority);
    const { group } = this.store.commit((txn) => void txn.message(message(text, rest), [taker(lane, rule)]));
    await until(() => this.dead || this.store.durableGroup >= group, "durable");
  }

  async next(): Promise<QueuedMessage> {
    for (let turns = 0; turns < 20_000; turns += 1) {
      const found = this.queue.next();
      if (found !== undefined) return found;
      await turn();
    }
    throw new Error("no message came");
  }

  /** The next message becomes a letter. */
  async bury(more: Partial<UplinkFailure> = {}): Promise<QueuedMessage> {
    const queued = await this.next();
    const rule = this.store.ruleDefinition(queued.rule) ?? "";
    const kept = this.letters.keep(queued, "cloud", rule, failure(more));
    if (kept !== "kept") throw new Error(`not kept: ${kept}`);
    return queued;
  }

  async settle(): Promise<void> {
    const { group } = this.store.commit((txn) => txn.put("test", "x", new Uint8Array(0)));
    await until(() => this.dead || this.store.durableGroup >= group, "durable");
  }

  read(): Promise<Letter[]> {
    return this.desk.read(0, { messages: 100_000, bytes: 2 ** 40 });
  }

  async texts(): Promise<string[]> {
    return (await this.read()).map(textOf);
  }

  /** What waits in the uplink's queue, in order; it waits there still. */
  async waiting(): Promise<string[]> {
    const got: string[] = [];
    for (let idle = 0; idle < 10; idle += 1) {
      for (let next = this.queue.next(); next !== undefined; next = this.queue.next()) {
        got.push(textOf(next));
        idle = 0;
      }
      await turn();
    }
    this.queue.rewind();
    return got;
  }

  metric(name: string): number {
    const line = this.meter.expose().match(new RegExp(`^${name} (.*)$`, "m"));
    return Number(line?.[1] ?? Number.NaN);
  }

  async passMs(ms: number): Promise<void> {
    this.clock.advance(ms);
    for (let turns = 0; turns < 40; turns += 1) await turn();
  }
}
