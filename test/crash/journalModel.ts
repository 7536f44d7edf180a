/**
 * A random workload beside a model of what must come back. Every commit also writes its number to a map, so that the store itself says up to where
 * it recovered; that must be a group's boundary, not before the last acknowledged commit, and everything must be as the model was there.
 */
import { expect } from "chai";
import type { QueuedMessage, Store, UplinkQueue } from "../../src/base/contracts.ts";
import { TidegateError } from "../../src/base/errors.ts";
import { Meter } from "../../src/base/meter.ts";
import { loadCheckpoint } from "../../src/journal/checkpoint.ts";
import { FaultyFiles } from "../helpers/faultyFiles.ts";
import { open, randomOf, TestClock, turn } from "../unit/journal/support.ts";
import { checkCounts, compare, type Difference } from "./compare.ts";
import { type Disturbance, disturbance, failingSync } from "./faults.ts";
import { type Entry, LaneBook, sumOf, uplinkPlans } from "./laneBook.ts";
import { type Commit, Ledger } from "./ledger.ts";
import type { Reach } from "./reach.ts";
import { type Recipe, recipeOf, tuningOf } from "./recipe.ts";
import { RoomWatch, roomOf, slowly } from "./slowDisk.ts";
import { readAlong, Workload, type Workplace } from "./workload.ts";

const hourMs = 3600_000;

export class CrashModel {
  readonly files = new FaultyFiles();
  readonly clock = new TestClock();
  readonly recipe: Recipe;
  readonly reach: Reach;
  readonly lanes = new LaneBook();
  readonly #random: () => number;
  /** Of its own, so that seeds that do not share stay what they were. */
  readonly #shareRandom: () => number;
  readonly #workload: Workload;
  readonly #place: Workplace;
  readonly #room = new RoomWatch();
  store!: Store;
  meter = new Meter();
  /** By uplink; since the last start. */
  readonly queues = new Map<string, UplinkQueue>();
  /** What the last comparison found, and everything committed since on top of it. */
  base = new Ledger();
  live = new Ledger();
  commits: Commit[] = [];
  number = 0;
  acknowledged = 0;
  /** Bits were flipped: what that may cost is judged by the comparison, and later counts of damage prove nothing. */
  rotten = false;
  /** Checkpoints that were not whole at the last start. */
  rottenCheckpoints = 0;
  /** The last life ended with a clean close. */
  closed = false;
  #inFlight: Array<{ uplink: string; out: QueuedMessage; entry: Entry }> = [];
  /** By uplink: what should wait, and what it had dropped when the count began. */
  readonly counts = new Map<string, { waiting: number; dropped: number }>();
  readonly #fullSeen = new Map<string, number>();
  #disturbance: Disturbance | undefined;
  #closing = false;
  /** Commits of earlier lives: this store's groups say nothing about them. */
  #madeBefore = 0;
  /** So far the wall clock went forward, credibly, since the store ran last. */
  #believedMs = 0;
  #readError: Error | undefined;

  constructor(seed: number, reach: Reach) {
    this.#random = randomOf(seed);
    this.#shareRandom = randomOf(seed * 31 + 7);
    this.reach = reach;
    this.recipe = recipeOf(seed);
    this.files.slow = slowly(seed, this.recipe.syncTurns);
    this.#place = {
      below: (limit) => Math.floor(this.#random() * limit),
      chance: (probability) => this.#random() < probability,
      store: () => this.store,
      queue: (uplink) => this.queues.get(uplink)!,
      ledger: () => this.live,
      lanes: this.lanes,
      largeBytes: this.recipe.largeBytes,
      ...{ keys: this.recipe.keys, longQueues: this.recipe.longQueues, acknowledges: this.recipe.syncTurns > 0 },
    };
    this.#workload = new Workload(this.#place);
  }

  below(limit: number): number {
    return this.#place.below(limit);
  }

  chance(probability: number): boolean {
    return this.#place.chance(probability);
  }

  /** @returns false when the machine stopped meanwhile */
  async start(): Promise<boolean> {
    this.clock.forgetTimers();
    this.#jumpClock();
    const checkpoints = this.files.paths().filter((path) => path.endsWith(".bin"));
    this.rottenCheckpoints = checkpoints.filter(
      (path) => loadCheckpoint(this.files.content(path)) === undefined,
    ).length;
    this.meter = new Meter();
    const { segmentBytes, syncTurns } = this.recipe;
    const sizes = { ...roomOf(syncTurns), segmentBytes, tuning: tuningOf(this.recipe) };
    const options = { ...sizes, meter: this.meter, log: this.reach.log() };
    const opening = open(this.files.mount(), this.clock, options);
    const opened = await this.#outcome(opening, "openStore");
    if (opened === undefined) return false;
    this.store = opened;
    this.files.log.length = 0;
    this.#checkClock();
    this.lanes.life += 1;
    this.#inFlight = [];
    this.#closing = false;
    this.#madeBefore = this.number;
    this.store.onDurable((group) => this.#onDurable(group));
    this.queues.clear();
    for (const { name, limits } of uplinkPlans) {
      const queue = this.store.uplink(name, limits);
      this.queues.set(name, queue);
      this.#fullSeen.set(name, queue.stats().dropped["full"] ?? 0);
      this.lanes.rewound(name);
    }
    return true;
  }

  /** What a promise of the store came to; undefined when the machine stopped. */
  async #outcome<T>(promise: Promise<T>, what: string): Promise<T | undefined> {
    let settled: { value: T } | { error: unknown } | undefined;
    promise.then(
      (value) => {
        settled = { value };
      },
      (error: unknown) => {
        settled = { error };
      },
    );
    for (let turns = 0; settled === undefined; turns += 1) {
      if (this.files.stopped) return undefined;
      if (turns > 5000) throw new Error(`${what} hangs`);
      await turn();
    }
    if ("error" in settled) throw settled.error;
    return settled.value;
  }

  /** While the machine was off, its clock may have gone anywhere. */
  #jumpClock(): void {
    if (!this.recipe.clockJumps) return;
    const jumps = [0, hourMs, 2 * 365 * 24 * hourMs, -3 * 365 * 24 * hourMs];
    const jumpMs = jumps[this.below(jumps.length)]!;
    this.clock.wall += jumpMs;
    if (jumpMs === hourMs) this.#believedMs += jumpMs;
  }

  /** Never behind what is in the journal, never ahead of time itself. */
  #checkClock(): void {
    const nowMs = this.store.nowMs();
    if (this.lanes.clockMs > 0) expect(nowMs, "store clock").to.be.at.most(this.lanes.clockMs + this.#believedMs);
    this.lanes.clockMs = Math.max(this.lanes.clockMs, nowMs);
    this.#believedMs = 0;
  }

  #onDurable(group: number): void {
    const before = this.acknowledged;
    for (const commit of this.commits)
      if (commit.group <= group && commit.number > this.#madeBefore)
        this.acknowledged = Math.max(this.acknowledged, commit.number);
    if (this.acknowledged - before > 20) this.reach.count("groups of many commits");
  }

  /** What was dropped for want of room since this was called last. */
  noteDrops(): void {
    for (const [name, queue] of this.queues) {
      const full = queue.stats().dropped["full"] ?? 0;
      const more = full - (this.#fullSeen.get(name) ?? 0);
      this.#fullSeen.set(name, full);
      this.lanes.dropped.set(name, (this.lanes.dropped.get(name) ?? 0) + more);
      this.reach.count("dropped for want of room", more);
    }
  }

  /** Counting of what waits begins anew with what the store says. */
  beginCounts(): void {
    for (const [name, queue] of this.queues) {
      const { messages, dropped } = queue.stats();
      this.counts.set(name, { waiting: messages, dropped: sumOf(dropped) });
    }
  }

  async work(steps: number): Promise<void> {
    const { eager } = this.recipe;
    for (let step = 0; step < steps && !this.files.stopped; step += 1) {
      if (this.recipe.shares && this.#shareRandom() < 0.1) this.#linkUp();
      const dice = this.#random() - (eager ? 0.1 : 0);
      if (dice < 0.5) this.#commit();
      else if (dice < (eager ? 0.58 : 0.7)) this.#drain();
      else if (dice < 0.73) this.#rewind();
      else if (dice < 0.76) readAlong(this.#place, () => this.reach.count("reads along"), this.#onReadError);
      else if (dice < 0.85) {
        this.clock.advance([11_000, 150, 1100, 50][this.below(eager ? 2 : 4)]!);
        if (this.recipe.longQueues) await this.#changeQueues();
      } else if (dice < 0.86) await this.#quiet();
      else for (let turns = this.below(12); turns > 0; turns -= 1) await this.#idle();
      this.lanes.clockMs = Math.max(this.lanes.clockMs, this.store.nowMs());
      if (this.#readError !== undefined) throw this.#readError;
    }
    if (!this.files.stopped) checkCounts(this);
    this.#checkFailed();
  }

  /** A turn in which nothing is asked of the store. */
  async #idle(): Promise<void> {
    if (this.recipe.syncTurns > 0) this.#room.begin(this.store);
    await turn();
    if (this.recipe.syncTurns > 0 && !this.files.stopped) this.#room.check(this.store);
  }

  /** A second that passed may have begun a merge or a checkpoint: long queues change while these read them. */
  async #changeQueues(): Promise<void> {
    for (let more = this.below(20); more > 0 && !this.files.stopped; more -= 1) {
      await turn();
      if (this.chance(0.5)) this.#commit();
    }
  }

  readonly #onReadError = (error: Error): void => {
    // Without descriptors a read is refused for now; it may be tried again.
    if (this.#disturbance !== undefined && error instanceof TidegateError && error.code === "TG_STORE_READ") return;
    this.#readError ??= error;
  };

  #commit(): void {
    const made = this.#workload.commit(this.number + 1);
    if (made === undefined) {
      this.reach.count("commits that threw");
      checkCounts(this);
      return;
    }
    this.reach.count("commits");
    this.#note(made.commit, made.taken);
    if (!this.recipe.appends || this.chance(0.5)) return;
    this.reach.count("messages appended by themselves");
    const { commit, taken } = this.#workload.append(made.commit);
    this.#note(commit, taken);
  }

  #note(commit: Commit | undefined, taken: readonly Entry[]): void {
    if (commit !== undefined) {
      this.number = commit.number;
      this.commits.push(commit);
      this.live.apply(commit.changes);
    }
    for (const entry of taken) {
      this.lanes.add(entry);
      this.counts.get(entry.uplink)!.waiting += 1;
    }
  }

  #drain(): void {
    const { name } = uplinkPlans[this.below(uplinkPlans.length)]!;
    const queue = this.queues.get(name)!;
    for (let count = this.below(this.recipe.eager ? 300 : 6); count > 0; count -= 1) {
      const out = queue.next();
      if (out === undefined) break;
      const before = this.lanes.overtaken;
      const entry = this.lanes.handOut(name, out, this.store.ruleDefinition(out.rule), this.store.nowMs(), this.rotten);
      this.reach.count("backlog after fresh", this.lanes.overtaken - before);
      if (entry.commit > this.acknowledged) throw new Error(`${entry.text} came out before it was durable`);
      this.#inFlight.push({ uplink: name, out, entry });
    }
    while (this.#inFlight.length > 0 && this.chance(this.recipe.eager ? 0.98 : 0.6)) {
      const [one] = this.#inFlight.splice(this.below(this.#inFlight.length), 1);
      const { uplink, out, entry } = one!;
      const refused = this.chance(0.03);
      this.queues.get(uplink)!.settle(out, refused ? "refused" : undefined);
      const counts = this.counts.get(uplink)!;
      if (!refused) counts.waiting -= 1; // else the drop says so
      entry.settledIn = this.lanes.life;
      this.reach.count("settled");
    }
  }

  /** What is in flight stays so; fresh messages get half of the link, or none, or nearly all. */
  #linkUp(): void {
    const { name } = uplinkPlans[Math.floor(this.#shareRandom() * uplinkPlans.length)]!;
    const liveShare = [0, 0.2, 0.5, 0.9][Math.floor(this.#shareRandom() * 4)]!;
    this.queues.get(name)!.shareLink(this.store.head, liveShare);
    this.lanes.linkUp(name, this.store.head);
    this.reach.count("links up");
  }

  #rewind(): void {
    const { name } = uplinkPlans[this.below(uplinkPlans.length)]!;
    this.queues.get(name)!.rewind();
    this.lanes.rewound(name);
    this.#inFlight = this.#inFlight.filter(({ uplink }) => uplink !== name);
    this.reach.count("rewinds");
  }

  /** Two seconds without anything to do: what was settled is on the disk then. */
  async #quiet(): Promise<void> {
    if (this.store.failed !== undefined) return;
    const settled = this.lanes.settledIn(this.lanes.life);
    for (const ms of [100, 1000, 1000]) {
      this.clock.advance(ms);
      for (let turns = 25 + 2 * this.recipe.syncTurns; turns > 0; turns -= 1) await this.#idle();
    }
    for (let turns = 0; turns < 100 && this.store.stats().pendingBytes > 0; turns += 1) await turn();
    if (this.files.stopped || this.store.failed !== undefined || this.store.stats().pendingBytes > 0) return;
    for (const entry of settled) entry.final = true;
    this.reach.count("quiet seconds");
  }

  /** Faults that the store has to live with come soon, besides what else is coming. */
  disturb(): void {
    const below = (limit: number): number => this.below(limit);
    const isSlow = this.recipe.syncTurns > 0 && this.chance(0.5);
    const made = (isSlow ? failingSync : disturbance)(below, this.files.steps);
    this.#disturbance = made;
    this.files.fault = made.decide;
    this.reach.count(`disturbed: ${made.name}`);
  }

  /** Works until the machine stops at a random step of what comes; then the power goes. */
  async crashWithin(steps: number): Promise<void> {
    const stopAt = this.files.steps + 1 + this.below(steps);
    const other = this.files.fault;
    this.files.fault = (operation, path, step) => (step >= stopAt ? "stop" : other(operation, path, step));
    await this.work(10 + this.below(150));
    for (let turns = 0; turns < 60 && !this.files.stopped; turns += 1) await turn();
    this.power();
  }

  /** A clean end, unless the machine stops on the way. */
  async close(): Promise<void> {
    this.#closing = true;
    const done = await this.#outcome(
      this.store.close().then(() => true),
      "close",
    );
    this.#checkFailed();
    if (done === true && this.store.failed === undefined) {
      expect(this.acknowledged, "close waits for everything").to.equal(this.number);
      for (const entry of this.lanes.settledIn(this.lanes.life)) entry.final = true;
      this.closed = this.#disturbance === undefined;
      this.reach.count("clean closes");
    }
    this.power();
  }

  #checkFailed(): void {
    const { failed } = this.store;
    if (failed === undefined) return;
    this.reach.count("failed");
    const allowed = this.#disturbance?.mayFail === true || (this.#closing && this.#disturbance !== undefined);
    if (!allowed) throw new Error(`the store failed without need: ${failed.message}`);
  }

  power(): void {
    this.noteDrops();
    this.#disturbance = undefined;
    if (this.chance(0.2)) this.files.kill();
    else this.files.crash(this.#random);
    this.reach.files(this.files.log);
    this.files.log.length = 0;
    if (this.chance(0.15) && !this.rotten) this.#rotCheckpoint();
  }

  /** The newest checkpoint rots, if another is whole: that must cost nothing. */
  #rotCheckpoint(): void {
    const paths = this.files.paths().filter((path) => path.endsWith(".bin"));
    const [older, newest] = paths.slice(-2);
    if (older === undefined || newest === undefined) return;
    if (paths.some((path) => loadCheckpoint(this.files.content(path)) === undefined)) return;
    const rotten = Buffer.from(this.files.content(newest));
    const at = this.below(rotten.length - 1024) + 1024; // not in the header, which is there twice
    rotten[at] = rotten[at]! ^ 0x10;
    this.reach.tell(`${newest} rots`);
    this.files.replace(newest, rotten);
    this.closed = false;
    this.reach.count("newest checkpoint rotted");
  }

  /** Starts, perhaps stopped on the way, and compares. @returns what differs, empty unless bits were flipped */
  async recover(): Promise<readonly Difference[]> {
    while (this.chance(0.4)) {
      const stopAt = 1 + this.below(25);
      this.files.fault = (_operation, _path, step) => (step >= stopAt ? "stop" : undefined);
      if (await this.start()) for (let turns = this.below(20); turns > 0; turns -= 1) await turn();
      this.closed = false;
      this.reach.count("stopped while starting");
      this.power();
    }
    if (!(await this.start())) throw new Error("stopped without a fault");
    const differences = await compare(this);
    this.#madeBefore = 0; // what is compared has no earlier life
    this.closed = false;
    return differences;
  }
}
