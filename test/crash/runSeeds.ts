/** `runSeeds.ts FIRST COUNT [all]`: runs seeds without mocha; ends with 1 at the first that fails, or after all of them, telling each. */
import { Reach } from "./reach.ts";
import { runSeed } from "./scenario.ts";
import { watchTurns } from "./turnLimit.ts";

const [first = "1", count = "100", mode = ""] = process.argv.slice(2);
const reach = new Reach();
watchTurns();
let failed = 0;
for (let seed = Number(first); seed < Number(first) + Number(count); seed += 1) {
  try {
    await runSeed(seed, reach);
  } catch (error) {
    failed += 1;
    process.stdout.write(`${error instanceof Error ? error.message : String(error)}\n`);
    if (mode !== "all") break;
  }
}
if (mode === "all") process.stdout.write(`${reach}\n${failed} failed\n`);
process.exit(failed > 0 ? 1 : 0);
