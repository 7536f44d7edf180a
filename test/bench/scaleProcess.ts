import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
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
