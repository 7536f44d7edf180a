import { Backoff } from "../base/backoff.ts";
import { isSlow, type LinkFault } from "../base/linkFaults.ts";

/** The longest pause after what only a person can mend. */
const slowMsMax = 600_000;

interface Endpoint {
  readonly url: string;
  readonly slow: Backoff;
  /** Monotonic: not to be tried before. */
  notBeforeMs: number;
}

/**
 * Which url is tried next, and when. In their order, with a growing pause under full jitter. One whose fault only a person can mend waits by itself, from
 * `backoff.max` up to ten minutes, while the others are tried: an account is not locked by us, and one bad certificate holds nobody up.
 */
export class Endpoints {
  readonly #list: readonly Endpoint[];
  readonly #backoff: Backoff;
  #at = 0;
  #stays = false;
  #again = false;

  constructor(
    urls: readonly string[],
    backoff: { readonly minMs: number; readonly maxMs: number; random?: () => number },
  ) {
    this.#backoff = new Backoff(backoff);
    const slow = { ...backoff, minMs: backoff.maxMs, maxMs: Math.max(backoff.maxMs, slowMsMax) };
    this.#list = urls.map((url) => ({ url, slow: new Backoff(slow), notBeforeMs: 0 }));
  }

  /** In use, or to be tried next. */
  get url(): string {
    return this.#list[this.#at]?.url ?? "";
  }

  /** The attempt or the link has ended. @param stood it was up for so long that all begins anew, with the first url @returns ms until the next attempt */
  failed(fault: LinkFault, stood: boolean, nowMs: number): number {
    const here = this.#list[this.#at];
    if (here === undefined) return this.#backoff.nextMs();
    if (stood) this.#backoff.reset();
    if (isSlow(fault.code)) here.notBeforeMs = nowMs + here.slow.nextMs();
    else here.notBeforeMs = 0;
    const waitMs = this.#backoff.nextMs();
    if (this.#again && !this.#stays) {
      this.mended();
      return 0;
    }
    if (!this.#stays) this.#at = this.#choose(stood ? 0 : this.#at + 1, nowMs + waitMs);
    this.#stays = false;
    return Math.max(waitMs, this.#list[this.#at]!.notBeforeMs - nowMs);
  }

  /** The end that comes next is by our own wish: the same url is tried again. */
  stay(): void {
    this.#stays = true;
  }

  /** Somebody says that the fault may be gone, not where: all may be tried at once, in their order. */
  mended(): void {
    this.#again = false;
    this.#at = 0;
    for (const endpoint of this.#list) endpoint.notBeforeMs = 0;
  }

  /** As `mended`, while an attempt is under way: it may have begun with what was there before. Once it has failed another one follows at once. */
  again(): void {
    this.#again = true;
  }

  /** The cloud has let us in: what kept it waiting is mended. */
  accepted(): void {
    this.#again = false;
    const here = this.#list[this.#at];
    here?.slow.reset();
    if (here !== undefined) here.notBeforeMs = 0;
  }

  /** The first from `from` on that may be tried then, else the one that may be tried first. */
  #choose(from: number, atMs: number): number {
    let best = from % this.#list.length;
    for (let step = 0; step < this.#list.length; step += 1) {
      const index = (from + step) % this.#list.length;
      const { notBeforeMs } = this.#list[index]!;
      if (notBeforeMs <= atMs) return index;
      if (notBeforeMs < this.#list[best]!.notBeforeMs) best = index;
    }
    return best;
  }
}
