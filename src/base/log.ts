/**
 * What every stage logs to. main.ts makes it from pino; tests from `silentLog` or their own. A stage never imports pino, so it
 * can be tested without it. Fields must not hold payloads or secrets.
 */
export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** A log whose every line carries these fields as well. */
  child(fields: LogFields): Log;
}

export type LogFields = Readonly<Record<string, unknown>>;

/** Swallows everything. */
export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLog,
};

/**
 * Lets one line a key through per interval, so that a fault that repeats a thousand times a second fills no log. Keys are bounded:
 * when `keysMax` are known the oldest is forgotten (its next line is then logged early, which does no harm).
 */
export class LogLimiter {
  readonly #lastMs = new Map<string, number>();
  readonly #intervalMs: number;
  readonly #keysMax: number;
  readonly #nowMs: () => number;

  constructor(options: { intervalMs?: number; keysMax?: number; nowMs?: () => number } = {}) {
    this.#intervalMs = options.intervalMs ?? 10_000;
    this.#keysMax = options.keysMax ?? 1000;
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  /** True when a line for `key` is due; calling it counts as logging it. */
  due(key: string): boolean {
    const nowMs = this.#nowMs();
    const lastMs = this.#lastMs.get(key);
    if (lastMs !== undefined && nowMs - lastMs < this.#intervalMs) return false;
    this.#lastMs.delete(key);
    if (this.#lastMs.size >= this.#keysMax) {
      const oldest = this.#lastMs.keys().next();
      if (!oldest.done) this.#lastMs.delete(oldest.value);
    }
    this.#lastMs.set(key, nowMs);
    return true;
  }
}
