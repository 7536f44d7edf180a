import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { PortReport } from "./cloud.ts";

/** The benchmarks' cloud as a process. Its ports are closed until `open`. */
export class CloudProcess {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  constructor(ports: readonly number[]) {
    const script = join(import.meta.dirname, "cloud.ts");
    this.#child = spawn(process.execPath, ["--import", "tsx", script, ...ports.map(String)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#lines = createInterface(this.#child.stdout!);
  }

  open(): Promise<PortReport[]> {
    return this.#ask("open");
  }

  report(): Promise<PortReport[]> {
    return this.#ask("report");
  }

  /** Messages that came in at all of its ports. */
  async messages(): Promise<number> {
    return (await this.report()).reduce((sum, { messages }) => sum + messages, 0);
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, "close");
    this.#child.kill("SIGKILL");
    await ended;
  }

  async #ask(what: string): Promise<PortReport[]> {
    const answer = once(this.#lines, "line");
    this.#child.stdin!.write(`${what}\n`);
    const [line] = (await answer) as [string];
    return JSON.parse(line) as PortReport[];
  }
}
