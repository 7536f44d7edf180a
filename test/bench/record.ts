import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { dirname, join } from "node:path";

/**
 * What a run of the benchmarks has measured, stored with what it was measured on. Runs are kept beside this file and out of git: a figure says
 * something only beside another one of the same machine.
 */

/** Of one thing, in one unit, a value for each round. */
export interface Figure {
  /** The shape and the broker; with the benchmark's name in front it is unique in a run. */
  readonly name: string;
  readonly unit: string;
  /** Which way is good. */
  readonly better: "more" | "less";
  readonly values: readonly number[];
}

export const figure = (
  name: string,
  unit: string,
  values: readonly number[],
  better: Figure["better"] = "less",
): Figure => ({ name, unit, better, values });

/** What each benchmark returns. */
export interface BenchReport {
  readonly name: string;
  readonly figures: readonly Figure[];
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryMiB: number;
  readonly kernel: string;
  readonly node: string;
}

export interface StoredRun {
  readonly format: typeof format;
  readonly machine: Machine;
  readonly commit: string;
  /** The tree was not as committed. */
  readonly dirty: boolean;
  /** ISO 8601, of the start. */
  readonly date: string;
  /** Processes that ran or waited to, over one minute, when it started: others beside it make its figures worse. */
  readonly loadBefore: number;
  readonly rounds: number;
  readonly secondsEach: number;
  readonly figures: readonly Figure[];
}

const format = "tidegate-bench-1";
export const resultsFolder = join(import.meta.dirname, "results");

const git = (...args: string[]): string =>
  spawnSync("git", args, { cwd: import.meta.dirname, encoding: "utf8" }).stdout?.trim() ?? "";

/** To be called before the run: it says what was there at its start. */
export function beginRun(rounds: number, secondsEach: number): (reports: readonly BenchReport[]) => StoredRun {
  const machine: Machine = {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryMiB: Math.round(totalmem() / 1024 / 1024),
    kernel: release(),
    node: process.version,
  };
  const begun: Omit<StoredRun, "figures"> = {
    format,
    machine,
    commit: git("rev-parse", "HEAD"),
    dirty: git("status", "--porcelain") !== "",
    date: new Date().toISOString(),
    loadBefore: loadavg()[0] ?? 0,
    rounds,
    secondsEach,
  };
  return (reports) => ({
    ...begun,
    figures: reports.flatMap(({ name, figures }) =>
      figures.map((figure) => ({ ...figure, name: `${name}: ${figure.name}` })),
    ),
  });
}

/** Writes it, as a new file among the results or to `file`. Returns where. */
export function storeRun(run: StoredRun, file?: string): string {
  const named = `${run.date.replaceAll(":", "-").slice(0, 19)}-${run.commit.slice(0, 8)}${run.dirty ? "-dirty" : ""}.json`;
  const path = file ?? join(resultsFolder, named);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(run, undefined, 1)}\n`);
  return path;
}

/** @throws Error that names the file when it is not there, or not a stored run */
export function readRun(file: string): StoredRun {
  const text = readFileSync(file, "utf8");
  let run: Partial<StoredRun> = {};
  try {
    run = JSON.parse(text) as Partial<StoredRun>;
  } catch (cause) {
    throw new Error(`${file} is not JSON`, { cause });
  }
  if (run?.format !== format) throw new Error(`${file} is not a run of the benchmarks (${format})`);
  return run as StoredRun;
}

/** The run that was stored last, by its name. */
export function newestRun(folder: string = resultsFolder): string | undefined {
  const names = readdirSync(folder).filter((name) => name.endsWith(".json"));
  const newest = names.sort().at(-1);
  return newest === undefined ? undefined : join(folder, newest);
}
