import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { pinned } from "./brokers.ts";
import type { LoadOptions, LoadResult } from "./load.ts";

export interface ScriptPlace {
  /** Where it stays; undefined: on any. */
  readonly core?: number;
  /** A command that becomes it. */
  readonly prefix?: readonly string[];
  /** Options of Node. */
  readonly node?: readonly string[];
}

/** Runs a script in a process of its own, so that it costs the broker nothing but its share of the machine. Returns the JSON it prints. */
export async function runScript<Result>(file: string, options: unknown, place: ScriptPlace = {}): Promise<Result> {
  const prefix = [...(place.core === undefined ? [] : pinned(place.core)), ...(place.prefix ?? [])];
  const args = [process.execPath, ...(place.node ?? []), "--import", "tsx", file, JSON.stringify(options)];
  const [command = "", ...rest] = [...prefix, ...args];
  const child = spawn(command, rest, { stdio: ["ignore", "pipe", "inherit"] });
  const kill = (): unknown => child.kill("SIGKILL");
  process.once("exit", kill); // when something else ends the benchmark
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  await once(child, "close");
  process.off("exit", kill);
  return JSON.parse(output) as Result;
}

/** @param prefix of its command */
export const runLoad = (options: LoadOptions, prefix: readonly string[] = []): Promise<LoadResult> =>
  runScript<LoadResult>(join(import.meta.dirname, "load.ts"), options, { prefix });
