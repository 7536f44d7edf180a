/** One seed's run: several lives of one folder, each ended by a crash or a close, then an ending. */
import { expect } from "chai";
import { turn } from "../unit/journal/support.ts";
import { brief, type Difference } from "./compare.ts";
import { CrashModel } from "./journalModel.ts";
import { uplinkPlans } from "./laneBook.ts";
import type { Reach } from "./reach.ts";
import { withinTurns } from "./turnLimit.ts";
import { queueNames } from "./workload.ts";

/** @throws what the model found, with the seed */
export async function runSeed(seed: number, reach: Reach): Promise<void> {
  const model = new CrashModel(seed, reach);
  try {
    await withinTurns(seed, live(model, seed));
  } catch (error) {
    const told = process.env["TIDEGATE_TELL"] === undefined ? [] : reach.told.slice(-40);
    const why = error instanceof Error ? error.message : String(error);
    throw new Error([`seed ${seed}: ${why}`, ...told].join("\n  "), { cause: error });
  }
}

async function live(model: CrashModel, seed: number): Promise<void> {
  if (!(await model.start())) throw new Error("stopped without a fault");
  model.beginCounts();
  for (let life = 0; life < 4; life += 1) {
    if (model.recipe.disturbed && model.chance(0.7)) {
      model.disturb();
      await model.work(60);
    }
    if (model.chance(0.15)) await model.close();
    else await model.crashWithin(40 + (seed % 7) * 20);
    await model.recover();
  }
  expect(model.store.failed).to.equal(undefined);
  if (model.recipe.ending === "flip") await flip(model);
  else if (model.recipe.ending === "drain") await drainAll(model);
}

/** One bit of one file, after a clean or unclean stop: that costs one record at most. */
async function flip(model: CrashModel): Promise<void> {
  await model.work(30 + model.below(100));
  model.rotten = true;
  if (model.chance(0.3)) await model.close();
  else {
    for (let turns = model.below(30); turns > 0; turns -= 1) await turn();
    model.power();
  }
  const paths = model.files.paths().filter((path) => model.files.content(path).length > 0);
  const path = paths[model.below(paths.length)]!;
  const rotten = Buffer.from(model.files.content(path));
  const at = model.below(rotten.length);
  rotten[at] = rotten[at]! ^ (1 << model.below(8));
  model.files.replace(path, rotten);
  model.closed = false;
  model.reach.count(`bit flipped in ${path.includes("ckpt") ? "a checkpoint" : "a segment"}`);
  const differences = await model.recover();
  judge(model, differences, `bit flipped in ${path} at ${at}`);
  // The damage stays in the file; from here on nothing more may be missing.
  for (let life = 0; life < 2; life += 1) {
    await model.work(40);
    if (model.chance(0.5)) await model.close();
    else await model.crashWithin(60);
    judge(model, await model.recover(), "after the damage");
  }
}

function judge(model: CrashModel, differences: readonly Difference[], where: string): void {
  const units = new Set(differences.map(({ unit }) => unit));
  const told = differences.map(({ unit, what }) => `${brief(unit)}: ${what}`).join("\n  ");
  if (units.has("groups") || units.has("atomicity") || units.size > 1 || where.startsWith("after") === units.size > 0)
    if (units.size > 0) throw new Error(`${where}:\n  ${told}`);
  if (units.size > 0) model.reach.count("one record lost to a flipped bit");
  else model.reach.count("nothing lost to a flipped bit");
}

const giveBackTurns = 40;

/** Settles and releases everything: then no file may stay that nothing needs. */
async function drainAll(model: CrashModel): Promise<void> {
  const { store, clock } = model;
  model.files.slow = () => 0; // how many turns this takes is counted
  for (const name of queueNames) store.commit((txn) => txn.dropQueue(name));
  store.commit((txn) => {
    for (const [topic] of [...store.retained()]) txn.unretain(topic);
  });
  const waits = (): boolean => [...model.queues.values()].some((queue) => queue.stats().messages > 0);
  for (let round = 0; round < 200 && waits(); round += 1) {
    for (const { name } of uplinkPlans) {
      const queue = model.queues.get(name)!;
      for (let out = queue.next(); out !== undefined; out = queue.next()) queue.settle(out);
    }
    for (let turns = 0; turns < 10; turns += 1) await turn();
  }
  for (const [name, queue] of model.queues)
    expect(queue.stats(), name).to.deep.include({ messages: 0, bytes: 0, oldestAcceptedAtMs: undefined });
  const segments = (): string[] => model.files.paths().filter((path) => /\/seg-/.test(path));
  const drained = new Set(segments().slice(0, -1));
  const needless = (): string[] => segments().filter((path) => drained.has(path));
  for (let round = 0; round < 12 && needless().length > 0; round += 1) {
    clock.advance(11_000);
    for (let turns = 0; turns < giveBackTurns; turns += 1) await turn();
  }
  // A checkpoint may be under way, or a spare, which is zeroed piece by piece.
  for (let round = 0; round < 10; round += 1) {
    clock.advance(20);
    for (let turns = 0; turns < giveBackTurns; turns += 1) await turn();
  }
  const paths = model.files.paths();
  // A checkpoint only to free a segment is made for two of them.
  expect(needless().length, `not given back: ${paths.join(" ")}`).to.be.at.most(2);
  expect(paths.filter((path) => path.endsWith(".bin")).length, "checkpoints kept").to.be.at.most(3); // one was found at the start
  expect(paths.filter((path) => path.endsWith(".tmp"))).to.deep.equal([]);
  // The newest may not have a file yet.
  expect(store.stats().segments - segments().length, `every file is known: ${paths.join(" ")}`).to.be.within(0, 1);
  model.reach.count("all given back");
}
