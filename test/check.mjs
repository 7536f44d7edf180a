// Type-check (src, firmware-sim, tests: three configurations, because each may see other things) and lint, all of it before failing.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

const bin = join(import.meta.dirname, "..", "node_modules", ".bin");
const steps = [
  ["tsc", "-p", "tsconfig.json"],
  ["tsc", "-p", "firmware-sim/tsconfig.json"],
  ["tsc", "-p", "test/tsconfig.json"],
  ["biome", "check", "--error-on-warnings", "."],
];
let failed = false;
for (const [tool, ...args] of steps) {
  // Biome has no build for 32-bit arm; npm leaves its binary out there.
  if (tool === "biome" && process.arch === "arm") {
    process.stdout.write("lint: skipped on this platform\n");
    continue;
  }
  if (!existsSync(join(bin, tool))) throw new Error(`${tool} is missing: run npm ci first`);
  const { status } = spawnSync(join(bin, tool), args, { stdio: "inherit" });
  if (status !== 0) {
    process.stderr.write(`FAILED: ${tool} ${args.join(" ")}\n`);
    failed = true;
  }
}
process.exit(failed ? 1 : 0);
