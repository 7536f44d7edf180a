import { expect } from "chai";
import { until } from "../helpers/wait.ts";
import { randomOf } from "../unit/journal/support.ts";
import { Lives } from "./process/lives.ts";

// The promise, with the real binary on the real disk: whatever was acknowledged arrives everywhere it had to, in order, at QoS 2 once,
// however often the gateway is killed. TIDEGATE_KILLS=1000 by hand; TIDEGATE_SEED repeats the choices, though not the scheduler's.
const wanted = process.env["TIDEGATE_KILLS"];
const cycles = Number(wanted ?? 50);
/** Without a number by hand, a busy machine lives fewer lives rather than holding up everything else. */
const msMax = wanted === undefined ? 90_000 : Number.POSITIVE_INFINITY;
const seed = Number(process.env["TIDEGATE_SEED"] ?? Date.now() % 1_000_000);

describe("process: kill -9", () => {
  it(`everything acknowledged arrives, up to ${cycles} lives (seed ${seed})`, async function () {
    this.timeout(60_000 + cycles * 5000);
    const beganMs = performance.now();
    const lives = new Lives(randomOf(seed));
    try {
      await lives.begin();
      let lived = 0;
      while (lived < cycles && performance.now() - beganMs < msMax) {
        await lives.cycle();
        lived += 1;
      }
      await lives.drain();
      if (lived >= 30)
        await until(
          "the disk is given back",
          async () => (await lives.metric("tidegate_storage_segments")) <= 4,
          60_000,
        );
      const { kills, freed, checkpoints } = lives.summary();
      const seconds = Math.round((performance.now() - beganMs) / 1000);
      process.stdout.write(
        `      ${lived} lives, ${JSON.stringify(kills)}: ${lives.ledger.acknowledged} acknowledged, none missing; ${lives.repeats} repeated; ` +
          `${freed} segments freed, ${checkpoints} checkpoints seen; ${seconds} s\n`,
      );
      if (lived >= 30) expect(freed, "segments were freed").to.be.above(0);
      if (lived >= 30) expect(checkpoints, "checkpoints were written").to.be.above(2); // a short run may see none
    } finally {
      await lives.remove();
    }
  });
});
