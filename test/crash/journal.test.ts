import { expect } from "chai";
import { CrashModel } from "./journalModel.ts";

const seeds = Number(process.env["TIDEGATE_SEEDS"] ?? 80);
const firstSeed = Number(process.env["TIDEGATE_FIRST_SEED"] ?? 1);

/** Seeds that caught something which few others do. A change of the model's workload makes them others: find them anew with the mutant named. */
const regressions: ReadonlyArray<readonly [seed: number, caught: string]> = [
  [40, "what was recovered from the page cache was sent before it was on the disk"],
  [96, "a segment was freed that the older checkpoint needs"],
  [176, "a checkpoint encoded before a roll named the segment that the roll had left"],
  [195, "a new segment was begun before lane states of the old one were synced"],
  [240, "a segment was freed before the lane state that emptied it was durable"],
];

async function run(seed: number): Promise<void> {
  const model = new CrashModel(seed);
  try {
    await model.start();
    await model.settleIn();
    for (let life = 0; life < 4; life += 1) {
      if (seed % 4 === 0) {
        model.disturb();
        await model.work(60);
      }
      await model.crashWithin(40 + (seed % 7) * 20);
      await model.recover();
    }
    expect(model.store.failed).to.equal(undefined);
  } catch (error) {
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

describe("journal: crashes at any step", () => {
  for (const [seed, caught] of regressions) it(`seed ${seed}: ${caught}`, () => run(seed));

  it(`keeps what was acknowledged, whole and in order (${seeds} seeds)`, async function () {
    this.timeout(Math.max(20_000, seeds * 500));
    for (let seed = firstSeed; seed < firstSeed + seeds; seed += 1) await run(seed);
  });
});
