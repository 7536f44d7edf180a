/**
 * `npm run bench:compare -- BASE [NEW]`: two stored runs beside each other, files or names in test/bench/results; NEW is the newest of those when it
 * is not given. Marks what has moved by more than the rounds of a run lie apart. Exit code 1: something is worse; 2: the runs cannot be compared,
 * as those of two machines (`--any-machine` does it all the same).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { compareRuns, machineDifferences, tableOf } from "./compare.ts";
import { newestRun, readRun, resultsFolder, type StoredRun } from "./record.ts";
import { say } from "./report.ts";

const { values, positionals } = parseArgs({
  options: { "any-machine": { type: "boolean", default: false } },
  allowPositionals: true,
});

function end(why: string): never {
  process.stderr.write(`${why}\n`);
  process.exit(2);
}

function open(name: string): StoredRun {
  const beside = [name, join(resultsFolder, name), join(resultsFolder, `${name}.json`)].find((file) =>
    existsSync(file),
  );
  if (beside === undefined) end(`there is no ${name}, neither as a file nor in ${resultsFolder}`);
  try {
    return readRun(beside);
  } catch (error) {
    end((error as Error).message);
  }
}

const [baseName, newName = newestRun()] = positionals;
if (baseName === undefined || newName === undefined) end("usage: npm run bench:compare -- BASE [NEW]");
const [base, now] = [open(baseName), open(newName)];
const differences = machineDifferences(base.machine, now.machine);
if (differences.length > 0) {
  process.stderr.write(`not the same machine:\n${differences.map((line) => `  ${line}\n`).join("")}`);
  if (!values["any-machine"]) end("its figures would say nothing (--any-machine compares them all the same)");
}
for (const [what, { commit, dirty, date, loadBefore, rounds, secondsEach }] of [
  ["base", base],
  ["now ", now],
] as const)
  say(
    `${what}  ${commit.slice(0, 8)}${dirty ? " and changes" : ""}, ${date}, ${rounds} rounds of ${secondsEach} s, load ${loadBefore.toFixed(1)} at its start`,
  );
const rows = compareRuns(base, now);
say(`\n${tableOf(rows).join("\n")}`);
process.exit(rows.some(({ verdict }) => verdict === "worse") ? 1 : 0);
