import { expect } from "chai";
import { Reach, reached } from "./reach.ts";
import { runSeed } from "./scenario.ts";
import { recent, regressions } from "./seeds.ts";

/** By hand: TIDEGATE_SEEDS=10000 TIDEGATE_FIRST_SEED=1 npx mocha test/crash/journal.test.ts */
const seeds = Number(process.env["TIDEGATE_SEEDS"] ?? 500);
const firstSeed = Number(process.env["TIDEGATE_FIRST_SEED"] ?? 1);

describe("journal: crashes at any step", () => {
  for (const [seed, caught] of [...regressions, ...recent])
    it(`seed ${seed}: ${caught}`, async () => await runSeed(seed, new Reach()));

  it(`keeps what was acknowledged, whole and in order (${seeds} seeds)`, async function () {
    this.timeout(Math.max(180_000, seeds * 1000));
    const reach = new Reach();
    for (let done = 0; done < seeds; done += 1) {
      await runSeed(firstSeed + done, reach);
      if (seeds > 1000 && done % 500 === 499) process.stderr.write(`${done + 1} of ${seeds} seeds\n`);
    }
    if (seeds > 1000) process.stderr.write(`${reach}\n`);
    // A model that never frees a segment proves nothing about freeing.
    const never = reached.filter((what) => !reach.counts.has(what));
    expect(seeds < 500 ? [] : never, "never happened").to.deep.equal([]);
  });
});
