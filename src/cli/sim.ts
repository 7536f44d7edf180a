import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

/** Runs the firmware simulators, which are a program of their own, with these arguments. Returns its exit code. */
export async function sim(args: readonly string[]): Promise<number> {
  const program = join(import.meta.dirname, "firmware-sim", "sim.js");
  const child = spawn(process.execPath, [program, ...args], { stdio: "inherit" });
  const pass = (signal: NodeJS.Signals): void => void child.kill(signal);
  process.on("SIGINT", pass).on("SIGTERM", pass);
  const [code] = (await once(child, "exit")) as [number | null];
  return code ?? 1;
}
