/** The gateway as the demo sees it: a program that is started, killed and asked over HTTP. */
import { JsonLinesProcess } from "./childProcess.ts";

const readyMsMax = 20_000;
const stopMsMax = 6000;

export class Gateway {
  readonly #command: readonly string[];
  readonly #http: string;
  #process: JsonLinesProcess | undefined;

  /** @param command without `run -c FILE` */
  constructor(command: readonly string[], configFile: string, httpPort: number) {
    this.#command = [...command, "run", "-c", configFile];
    this.#http = `http://127.0.0.1:${httpPort}`;
  }

  /** Starts it. @returns milliseconds until its line `ready`. @throws Error with its last lines when it does not come */
  async start(): Promise<number> {
    const startedMs = performance.now();
    let onReady: () => void = () => {};
    const ready = new Promise<"ready">((resolve) => {
      onReady = () => resolve("ready");
    });
    const child = new JsonLinesProcess(this.#command, (line) => {
      if (line["msg"] === "ready") onReady();
    });
    this.#process = child;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<string>((resolve) => {
      timer = setTimeout(resolve, readyMsMax, `it was not ready within ${readyMsMax / 1000} s`);
    });
    const outcome = await Promise.race([ready, late, child.exited.then((how) => `it ended with ${how}`)]);
    clearTimeout(timer);
    if (outcome !== "ready") {
      await child.stop(0);
      throw new Error(`the gateway did not start: ${outcome}\n${child.lastLines.join("\n")}`);
    }
    return Math.round(performance.now() - startedMs);
  }

  /** How it ended although nobody asked it to; undefined while it runs. */
  get ended(): string | undefined {
    return this.#process?.ended;
  }

  get lastLines(): readonly string[] {
    return this.#process?.lastLines ?? [];
  }

  /** SIGKILL: no goodbye, nothing flushed. */
  async kill(): Promise<void> {
    this.#process?.signal("SIGKILL");
    await this.#process?.exited;
  }

  /** SIGTERM. @returns how it ended ("0" when clean), "SIGKILL" when it took too long */
  async stop(): Promise<string> {
    const how = (await this.#process?.stop(stopMsMax)) ?? "0";
    this.#process = undefined;
    return how;
  }

  /** Messages waiting in the first uplink's queue, by GET /api/v1/status; undefined when it cannot be read. */
  async waiting(): Promise<number | undefined> {
    const text = await this.#get("/api/v1/status");
    if (text === undefined) return undefined;
    try {
      const status = JSON.parse(text) as { uplinks?: Array<{ queue?: { messages?: unknown } }> };
      const messages = status.uplinks?.[0]?.queue?.messages;
      return typeof messages === "number" ? messages : undefined;
    } catch {
      return undefined;
    }
  }

  /** `tidegate_source_accepted_total` of a source, by GET /metrics; undefined when it cannot be read. */
  async accepted(source: string): Promise<number | undefined> {
    const text = await this.#get("/metrics");
    return text === undefined ? undefined : readCounter(text, "tidegate_source_accepted_total", { source });
  }

  async #get(path: string): Promise<string | undefined> {
    try {
      const response = await fetch(this.#http + path, { signal: AbortSignal.timeout(2000), redirect: "error" });
      return response.ok ? await response.text() : undefined;
    } catch {
      return undefined; // down, killed or slow: the caller decides what that means
    }
  }
}

/** The sum of a counter's series that carry these labels, in Prometheus text; undefined when there is none. */
export function readCounter(text: string, name: string, labels: Readonly<Record<string, string>>): number | undefined {
  let sum: number | undefined;
  for (const line of text.split("\n")) {
    const match = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (match?.[1] !== name) continue;
    const inBraces = `,${match[2] ?? ""},`;
    if (Object.entries(labels).every(([label, value]) => inBraces.includes(`,${label}="${value}",`))) {
      sum = (sum ?? 0) + Number(match[3]);
    }
  }
  return sum;
}
