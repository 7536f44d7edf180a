/** A child process that speaks JSON lines on stdout, whose end can be waited for, and which does not outlive us. */
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { spawnWithoutPtys } from "../ptyInheritance.ts";

export type JsonLine = Readonly<Record<string, unknown>>;

const linesMax = 40;

export class JsonLinesProcess {
  readonly #child: ChildProcess;
  /** The last lines of stdout and stderr, for the report when something goes wrong. */
  readonly lastLines: string[] = [];
  /** Resolves with how it ended: "0", "1", "SIGKILL", or why it could not be started. */
  readonly exited: Promise<string>;
  #ended: string | undefined;

  /** @param onLine gets each stdout line that is a JSON object */
  constructor(command: readonly string[], onLine: (line: JsonLine) => void) {
    const [file = "", ...args] = command;
    const child = spawnWithoutPtys(file, args);
    this.#child = child;
    this.exited = new Promise((resolve) => {
      const end = (how: string): void => {
        this.#ended ??= how;
        resolve(this.#ended);
      };
      child.once("error", (error) => end(error.message));
      child.once("close", (code, signal) => end(signal ?? String(code)));
    });
    if (child.stdout !== null) {
      createInterface({ input: child.stdout }).on("line", (text) => {
        this.#remember(text);
        const line = parseObject(text);
        if (line !== undefined) onLine(line);
      });
    }
    if (child.stderr !== null) createInterface({ input: child.stderr }).on("line", (text) => this.#remember(text));
  }

  get ended(): string | undefined {
    return this.#ended;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#ended === undefined) this.#child.kill(signal);
  }

  /** SIGTERM, then after `graceMs` SIGKILL. @returns how it ended */
  async stop(graceMs: number): Promise<string> {
    this.signal("SIGTERM");
    const timer = setTimeout(() => this.signal("SIGKILL"), graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  #remember(text: string): void {
    this.lastLines.push(text.slice(0, 500));
    if (this.lastLines.length > linesMax) this.lastLines.shift();
  }
}

function parseObject(text: string): JsonLine | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonLine) : undefined;
  } catch {
    return undefined;
  }
}
