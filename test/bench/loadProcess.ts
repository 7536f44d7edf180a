import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { LoadOptions, LoadResult } from "./load.ts";

/**
 * Runs the load in a process of its own, so that it costs the broker nothing but its share of the machine.
 * @param prefix of its command
 */
export async function runLoad(options: LoadOptions, prefix: readonly string[] = []): Promise<LoadResult> {
  const load = join(import.meta.dirname, "load.ts");
  const [command = "", ...args] = [...prefix, process.execPath, "--import", "tsx", load, JSON.stringify(options)];
  const child = spawn(command, args, {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  await once(child, "close");
  return JSON.parse(output) as LoadResult;
}
