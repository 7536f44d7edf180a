/** Says what was dropped: at most one line a minute and key, with how many since the last one. */
import type { Log } from "../base/log.ts";

const everyMs = 60_000;

interface Line {
  loggedMs: number;
  messages: number;
}

export class DropLog {
  readonly #log: Log;
  readonly #nowMs: () => number;
  /** By uplink and reason: as many as the configuration ever had uplinks. */
  readonly #lines = new Map<string, Line & { uplink: string; reason: string }>();

  /** @param nowMs monotonic */
  constructor(log: Log, nowMs: () => number) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  note(uplink: string, reason: string, messages: number): void {
    const key = `${reason} ${uplink}`;
    let line = this.#lines.get(key);
    if (line === undefined) {
      line = { uplink, reason, loggedMs: Number.NEGATIVE_INFINITY, messages: 0 };
      this.#lines.set(key, line);
    }
    line.messages += messages;
  }

  /** To be called each second or so: what is due is said. */
  tick(): void {
    const nowMs = this.#nowMs();
    for (const line of this.#lines.values()) {
      if (line.messages === 0 || nowMs - line.loggedMs < everyMs) continue;
      const { uplink, reason, messages } = line;
      this.#log.warn({ uplink, reason, messages }, "journal: stored messages were dropped");
      line.loggedMs = nowMs;
      line.messages = 0;
    }
  }
}
