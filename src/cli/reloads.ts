import { formatProblem, loadConfig } from "../config/load.ts";
import type { Gateway } from "../gateway.ts";
import { configFile } from "./check.ts";
import type { LeveledLog } from "./pinoLog.ts";

/** Reads the config again on SIGHUP, one reading at a time: a signal meanwhile, or during the start, is answered by one more. */
export class Reloads {
  readonly #options: { readonly config?: string };
  readonly #path: string | undefined;
  readonly #log: LeveledLog;
  #gateway: Pick<Gateway, "reload"> | undefined;
  #asked = false;
  #reading = false;

  /** @param path the file that it was started with; without one, a file that is written later is looked for by `options` */
  constructor(options: { readonly config?: string }, path: string | undefined, log: LeveledLog) {
    this.#options = options;
    this.#path = path;
    this.#log = log;
    process.on("SIGHUP", () => {
      this.#asked = true;
      void this.#reload();
    });
  }

  serve(gateway: Pick<Gateway, "reload">): void {
    this.#gateway = gateway;
    void this.#reload();
  }

  end(): void {
    this.#gateway = undefined;
  }

  async #reload(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    while (this.#asked && this.#gateway !== undefined) {
      this.#asked = false;
      await this.#reloadOnce();
    }
    this.#reading = false;
  }

  async #reloadOnce(): Promise<void> {
    const log = this.#log;
    const loaded = await loadConfig({ path: this.#path ?? configFile(this.#options), running: true });
    const problems = loaded.ok ? loaded.unavailable : loaded.problems;
    if (!loaded.ok || problems.length > 0) {
      for (const problem of problems) log.error({ at: formatProblem(problem) }, "config");
      log.error({ problems: problems.length }, "not reloaded: the config is wrong, the one before stays");
      return;
    }
    for (const warning of loaded.warnings) log.warn({ at: formatProblem(warning) }, "config");
    log.setLevel(loaded.config.gateway.logLevel);
    await this.#gateway?.reload(loaded.config);
  }
}
