/** Full-jitter exponential backoff: each wait is drawn from [min, min(max, min * 2^attempt)]. Jitter keeps a fleet from reconnecting in step. */
export class Backoff {
  #attempt = 0;
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;

  constructor(options: { minMs: number; maxMs: number; random?: () => number }) {
    this.#minMs = options.minMs;
    this.#maxMs = Math.max(options.minMs, options.maxMs);
    this.#random = options.random ?? Math.random;
  }

  /** Failed attempts since the last `reset`. */
  get attempt(): number {
    return this.#attempt;
  }

  /** Milliseconds to wait before the next attempt. */
  nextMs(): number {
    const ceilingMs = Math.min(this.#maxMs, this.#minMs * 2 ** Math.min(this.#attempt, 30));
    this.#attempt += 1;
    return Math.round(this.#minMs + this.#random() * (ceilingMs - this.#minMs));
  }

  /** To be called once a connection has proven itself, not when it merely opened. */
  reset(): void {
    this.#attempt = 0;
  }
}
