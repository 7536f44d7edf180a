import { expect } from "chai";
import type { StoreOptions } from "../../src/journal/open.ts";
import { failure, LetterRig, ruleText } from "../unit/journal/letterRig.ts";
import { message, randomOf, turn } from "../unit/journal/support.ts";

// A machine that stops at every I/O step of work on dead letters, with any subset of what was not synced: each message that was durable is in the
// uplink's queue, or it is exactly one dead letter; never both, never neither.

const count = 12;

interface Life {
  readonly rig: LetterRig;
  /** Texts whose message is durable. */
  readonly durable: Set<string>;
  /** Texts that the cloud took: they may be gone, and may come again. */
  readonly taken: Set<string>;
  /** Texts that a person purged, durably. */
  readonly purged: Set<string>;
}

/** Ends by itself, or hangs when the machine stops: the caller looks at `files.stopped`. */
async function work({ rig, durable, taken, purged }: Life, seed: number): Promise<void> {
  const random = randomOf(seed);
  for (let n = 0; n < count; n += 1) {
    const text = `m${n}`.padEnd(40 + Math.floor(random() * 4000));
    await rig.put(text, { priority: Math.floor(random() * 2) });
    if (rig.dead) return;
    durable.add(text);
    const queued = rig.queue.next();
    if (queued === undefined) continue;
    const its = Buffer.from(queued.message.payload).toString();
    if (random() < 0.25) {
      taken.add(its);
      rig.queue.settle(queued);
    } else if (random() < 0.8) {
      rig.letters.keep(queued, "cloud", ruleText, failure());
    } // else in flight
    if (random() < 0.3) await rig.settle();
    if (rig.dead) return;
    const [id] = rig.desk.newestIds(1);
    if (id !== undefined && random() < 0.3) {
      const letter = (await rig.desk.read(id - 1, { messages: 1, bytes: 1 }))[0];
      const what = Buffer.from(letter?.message.payload ?? []).toString();
      if (random() < 0.6) await rig.desk.retry(id);
      else {
        purged.add(what);
        await rig.desk.purge(id);
      }
    }
    if (random() < 0.2) {
      const of = `r${n}`.padEnd(40 + Math.floor(random() * 4000));
      const bad = { route: "meters", code: "decode", text: "too short", message: message(of) };
      const { group } = rig.store.commit((txn) => rig.letters.routes.keep(txn, bad));
      await rig.settle();
      if (rig.dead) return;
      if (rig.store.durableGroup >= group) durable.add(of);
    }
    if (random() < 0.1) await rig.desk.retryAll({ uplink: "cloud" }, new AbortController().signal);
    if (random() < 0.2) rig.clock.advance(200); // lane states are written
  }
}

async function stopAt(step: number, seed: number, tuning: StoreOptions["tuning"] = { spares: 0 }): Promise<boolean> {
  const rig = new LetterRig();
  rig.storeOptions = { tuning };
  await rig.start();
  const life: Life = { rig, durable: new Set(), taken: new Set(), purged: new Set() };
  const from = rig.files.steps;
  rig.files.fault = (_, __, at) => (at - from === step ? "stop" : undefined);
  let ended = false;
  void work(life, seed).then(
    () => {
      ended = true;
    },
    () => {}, // its disk is gone
  );
  for (let turns = 0; !ended && !rig.files.stopped && turns < 5000; turns += 1) await turn();
  for (let turns = 0; turns < 5; turns += 1) await turn();
  const stopped = rig.files.stopped;
  const random = randomOf(seed * 1009 + step);
  const after = await rig.successor(random() < 0.3 ? "kill" : random);
  await compare({ ...life, rig: after }, `seed ${seed}, step ${step}`);
  const again = await after.successor(random); // right after the recovery
  await compare({ ...life, rig: again }, `seed ${seed}, step ${step}, again`);
  await again.close();
  return stopped;
}

async function compare({ rig, durable, taken, purged }: Life, where: string): Promise<void> {
  const waiting = await rig.waiting();
  const letters = await rig.texts();
  const all = [...waiting, ...letters];
  for (const text of durable) {
    const found = all.filter((one) => one === text).length;
    const may = taken.has(text) || purged.has(text) ? [0, 1] : [1];
    expect(
      may,
      `${where}: ${text.trim()} found ${found} times, ${letters.includes(text) ? "" : "not "}as a letter`,
    ).to.include(found);
  }
  expect(rig.queue.stats().messages, where).to.equal(waiting.length);
  expect(rig.desk.stats().messages, where).to.equal(letters.length);
}

describe("crash: dead letters", () => {
  for (const seed of [1, 2, 3, 4, 5, 6])
    it(`a message is in the queue or one dead letter, whenever the machine stops (seed ${seed})`, async function () {
      this.timeout(120_000);
      let step = 1;
      for (; await stopAt(step, seed); step += 1);
      expect(step, "steps").to.be.above(30);
    });

  it("the same where most messages have a segment of their own, and segments are merged", async function () {
    this.timeout(120_000);
    const tuning = { spares: 0, largeRecordBytes: 2000, mergeBytes: 8000, sliceMs: 0, sliceItems: 3, mergeRate: 1e12 };
    for (const seed of [7, 8, 9]) for (let step = 1; await stopAt(step, seed, tuning); step += 1);
  });

  it("is a test that finds a letter and its settling in two groups", async function () {
    this.timeout(120_000);
    // The order that is wrong: first out of the queue, durably, then the letter.
    const keep = LetterRig.prototype.start;
    LetterRig.prototype.start = async function (this: LetterRig) {
      await keep.call(this);
      const { letters, queue, store, clock } = this;
      const right = letters.keep.bind(letters);
      letters.keep = (queued, ...more) => {
        queue.settle(queued);
        clock.advance(200); // the lane's state is written
        store.commit((txn) => txn.put("test", "x", new Uint8Array(0)));
        setImmediate(() => right(queued, ...more));
        return "kept";
      };
    };
    let found = 0;
    try {
      for (let step = 1; found === 0 && step < 200; step += 1) {
        const went = await stopAt(step, 2).catch(() => {
          found += 1;
          return true;
        });
        if (!went) break;
      }
    } finally {
      LetterRig.prototype.start = keep;
    }
    expect(found).to.be.above(0);
  });
});
