/**
 * The mean rate of a count that only rises, exponentially weighted: what happened `tau` ago weighs 1/e of what happens now. It is right from the second
 * look on, since the weight that is missing in the beginning is taken out. Looks may come at any distance.
 */
export class Rate {
  readonly #tauMs: number;
  #count = 0;
  #atMs: number | undefined;
  #mean = 0;
  #weight = 0;

  /** @param tauMs 60_000: a one-minute mean */
  constructor(tauMs: number) {
    this.#tauMs = tauMs;
  }

  /** @param nowMs monotonic */
  look(count: number, nowMs: number): void {
    const before = this.#atMs;
    if (before !== undefined && nowMs > before) {
      const ms = nowMs - before;
      const share = 1 - Math.exp(-ms / this.#tauMs);
      this.#mean += share * (((count - this.#count) / ms) * 1000 - this.#mean);
      this.#weight += share * (1 - this.#weight);
    }
    this.#atMs = nowMs;
    this.#count = count;
  }

  /** Forgets what was: the next look begins anew. */
  restart(): void {
    this.#atMs = undefined;
    this.#mean = 0;
    this.#weight = 0;
  }

  /** Undefined until there were two looks. */
  get perSecond(): number | undefined {
    return this.#weight > 0 ? this.#mean / this.#weight : undefined;
  }
}

/** A hundred years: what takes longer is not worth a number. */
const secondsMax = 100 * 365 * 86_400;

/** How long `left` lasts at this rate; null: for ever, as far as can be told. */
export function secondsUntil(left: number, perSecond: number | undefined): number | null {
  const seconds = perSecond === undefined || perSecond <= 0 ? Number.POSITIVE_INFINITY : left / perSecond;
  return seconds < secondsMax ? Math.round(seconds) : null;
}
