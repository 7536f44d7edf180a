import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { comesMsMax } from "./wait.ts";

export const program = join(import.meta.dirname, "..", "..", "dist", "main.js");

export interface LogLine {
  level?: string;
  msg?: string;
  [field: string]: unknown;
}

/** The real binary, built to dist/, with a config and data folder of its own. */
export class GatewayProcess {
  readonly dir: string;
  /** The newest 2000 log lines of all its lives. */
  readonly lines: LogLine[] = [];
  /** How many came before the first of `lines`. */
  #forgotten = 0;
  stderr = "";
  /** A command that runs the gateway as its last arguments and becomes it (exec): `nsenter`, `setpriv`. */
  prefix: readonly string[] = [];
  #child: ChildProcess | undefined;
  #watchers = new Set<() => void>();

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** Makes the temporary folder and writes the config; does not start yet. */
  static async create(config: string): Promise<GatewayProcess> {
    const gateway = new GatewayProcess(await mkdtemp(join(tmpdir(), "tidegate-")));
    await gateway.configure(config);
    return gateway;
  }

  get configFile(): string {
    return join(this.dir, "tidegate.yaml");
  }

  /** How many log lines came so far, in all its lives: a mark for `line` and `since`. */
  get logged(): number {
    return this.#forgotten + this.lines.length;
  }

  /** The lines after a mark, as far as they are kept. */
  since(mark: number): LogLine[] {
    return this.lines.slice(Math.max(0, mark - this.#forgotten));
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  async configure(config: string): Promise<void> {
    await writeFile(this.configFile, config);
  }

  /** Starts it and waits for the line whose msg is "ready". */
  async start(env: NodeJS.ProcessEnv = {}): Promise<void> {
    const before = this.logged;
    const child = this.spawn(env);
    const ended = once(child, "exit").then(([code, signal]) => {
      throw new Error(`the gateway ended before it was ready (${code ?? signal}): ${this.stderr}${this.#tail()}`);
    });
    await Promise.race([this.line("ready", before), ended]);
    ended.catch(() => {}); // it may end later, when it is told to
  }

  /** Starts it and returns at once. */
  spawn(env: NodeJS.ProcessEnv = {}): ChildProcess {
    const [command = "", ...args] = [...this.prefix, process.execPath, program, "run", "-c", this.configFile];
    const child = spawn(command, args, {
      cwd: this.dir,
      env: { PATH: process.env["PATH"], HOME: this.dir, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    createInterface({ input: child.stdout }).on("line", (line) => {
      this.lines.push(parse(line));
      if (this.lines.length > 2000) this.#forgotten += this.lines.splice(0, 1000).length;
      for (const look of [...this.#watchers]) look();
    });
    child.stderr.on("data", (chunk) => (this.stderr = (this.stderr + chunk).slice(-20_000)));
    return child;
  }

  /** The first log line after the mark `from` with this msg, now or within `msMax`. */
  line(msg: string, from = 0, msMax = comesMsMax): Promise<LogLine> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const found = this.since(from).find((line) => line.msg === msg);
        if (found === undefined) return;
        done();
        resolve(found);
      };
      const timer = setTimeout(() => {
        done();
        reject(new Error(`no log line "${msg}" within ${msMax} ms: ${this.stderr}${this.#tail()}`));
      }, msMax);
      const done = (): void => {
        clearTimeout(timer);
        this.#watchers.delete(look);
      };
      this.#watchers.add(look);
      look();
    });
  }

  /** Starts it where it must not come up, and resolves when it has ended by itself. */
  async failingStart(): Promise<{ code: number | null; stderr: string }> {
    this.stderr = "";
    const child = this.spawn();
    await once(child, "close");
    return { code: child.exitCode, stderr: this.stderr };
  }

  /** Sends a signal and waits for the end. Returns exit code or signal name. */
  async end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals | null> {
    const child = this.#child;
    if (child === undefined) return null;
    if (child.exitCode === null && child.signalCode === null) {
      const exit = once(child, "exit");
      child.kill(signal);
      await exit;
    }
    return child.exitCode ?? child.signalCode;
  }

  /** Ends it however it stands and removes its folder. */
  async remove(): Promise<void> {
    await this.end("SIGKILL");
    await rm(this.dir, { recursive: true, force: true });
  }

  #tail(): string {
    return this.lines
      .slice(-15)
      .map((line) => `\n${JSON.stringify(line)}`)
      .join("");
  }
}

function parse(line: string): LogLine {
  try {
    return JSON.parse(line) as LogLine;
  } catch {
    return { msg: line };
  }
}

/** Runs the program with arguments to its end. */
export async function runProgram(
  args: string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<{
  code: number | null;
  stdout: string;
  stderr: string;
}> {
  const child = spawn(process.execPath, [program, ...args], {
    cwd: options.cwd,
    env: { PATH: process.env["PATH"], ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => (stdout += chunk));
  child.stderr.on("data", (chunk) => (stderr += chunk));
  await once(child, "close");
  return { code: child.exitCode, stdout, stderr };
}
