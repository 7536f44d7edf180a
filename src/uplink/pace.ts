/**
 * A token bucket for messages and one for bytes: how fast a backlog may use a metered link. A bucket holds one second's worth, so the
 * rate is kept over any longer span; a message larger than the bucket goes when it is full and leaves a debt.
 */
export class Pace {
  readonly #messages: Bucket;
  readonly #bytes: Bucket;

  /** @param limits per second; 0: no limit */
  constructor(limits: { maxPerSecond: number; maxBytesPerSecond: number }, nowMs: number) {
    this.#messages = new Bucket(limits.maxPerSecond, nowMs);
    this.#bytes = new Bucket(limits.maxBytesPerSecond, nowMs);
  }

  /** Milliseconds until a message may go; 0: now. */
  waitMs(nowMs: number): number {
    return Math.max(this.#messages.waitMs(nowMs), this.#bytes.waitMs(nowMs));
  }

  spend(bytes: number): void {
    this.#messages.spend(1);
    this.#bytes.spend(bytes);
  }
}

class Bucket {
  readonly #perSecond: number;
  #tokens: number;
  #atMs: number;

  constructor(perSecond: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond;
    this.#atMs = nowMs;
  }

  waitMs(nowMs: number): number {
    if (this.#perSecond <= 0) return 0;
    const gained = ((nowMs - this.#atMs) / 1000) * this.#perSecond;
    this.#tokens = Math.min(this.#perSecond, this.#tokens + gained);
    this.#atMs = nowMs;
    // A rate below one a second still has to reach a whole token.
    const enough = Math.min(1, this.#perSecond);
    return this.#tokens >= enough ? 0 : Math.ceil(((enough - this.#tokens) / this.#perSecond) * 1000);
  }

  spend(tokens: number): void {
    if (this.#perSecond > 0) this.#tokens -= tokens;
  }
}
