import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Answers } from "./scaleClients.ts";

/** The clients' process, as the benchmark sees it. */
export class ScaleClients {
  readonly #child: ChildProcess;
  #asked = 0;

  /** @param prefix a command that becomes it, such as `pinned(1)` */
  constructor(prefix: readonly string[]) {
    const script = join(import.meta.dirname, "scaleClients.ts");
    const [command = "", ...args] = [...prefix, process.execPath, "--import", "tsx", script];
    this.#child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.#child.setMaxListeners(0);
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  ask<N extends keyof Answers>(name: N, options?: Parameters<Answers[N]>[0]): Promise<Awaited<ReturnType<Answers[N]>>> {
    const id = ++this.#asked;
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error("the clients' process ended"));
      const hear = (answer: { id: number; result: never; error?: string }): void => {
        if (answer.id !== id) return;
        this.#child.off("message", hear);
        this.#child.off("exit", ended);
        if (answer.error === undefined) resolve(answer.result);
        else reject(new Error(answer.error));
      };
      this.#child.on("message", hear);
      this.#child.once("exit", ended);
      this.#child.send({ id, name, options });
    });
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }
}

/** CPU time of all threads of a process so far, seconds: the kernel's own count in ns, not clock ticks. Threads that have ended are not in it. */
export function cpuSeconds(pid: number): number {
  let ns = 0;
  for (const task of readdirSync(`/proc/${pid}/task`))
    ns += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "latin1").split(" ")[0]);
  return ns / 1e9;
}

/** Of /proc/PID/status, kB. */
export function statusKb(pid: number, field: "VmRSS" | "VmHWM"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1]);
}

/** Twelve seconds after a start V8 gives back seven megabytes: measured earlier, they would be taken off what comes then. */
const settledMs = 20_000;

/** Resident memory once it has not moved by more than 256 kB for twenty seconds, or after ninety; kB. */
export async function settledKb(pid: number): Promise<number> {
  let kept = statusKb(pid, "VmRSS");
  let sinceMs = performance.now();
  for (const endMs = sinceMs + 90_000; performance.now() < endMs && performance.now() - sinceMs < settledMs; ) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    const now = statusKb(pid, "VmRSS");
    if (Math.abs(now - kept) <= 256) continue;
    kept = now;
    sinceMs = performance.now();
  }
  return statusKb(pid, "VmRSS");
}
