/** The store is asked whether it is crowded with each group's first message, and after so many bytes: not with each message. */
const askBytes = 8192;

/** Bytes given to the store that no sync has covered yet: beyond a limit, or while the store is crowded, publishers' sockets are not read. */
export class PendingBytes {
  readonly #high: number;
  readonly #low: number;
  readonly #resume: () => void;
  #groups: number[] = [];
  #bytesOf: number[] = [];
  #total = 0;
  readonly #crowded: () => boolean;
  /** Since the store was asked. */
  #unasked = 0;
  #above = false;

  /** @param high bytes; reading resumes at half of it. @param resume called when it does. @param crowded the store wants a pause */
  constructor(high: number, resume: () => void, crowded: () => boolean) {
    this.#high = high;
    this.#crowded = crowded;
    this.#low = high / 2;
    this.#resume = resume;
  }

  /** Above the limit and not yet down to half of it. */
  get above(): boolean {
    return this.#above;
  }

  add(group: number, bytes: number): void {
    const last = this.#groups.length - 1;
    if (this.#groups[last] === group) this.#bytesOf[last] = (this.#bytesOf[last] ?? 0) + bytes;
    else {
      this.#groups.push(group);
      this.#bytesOf.push(bytes);
      this.#unasked = askBytes;
    }
    this.#total += bytes;
    this.#unasked += bytes;
    if (this.#total > this.#high) this.#above = true;
    if (this.#unasked < askBytes) return;
    this.#unasked = 0;
    if (this.#crowded()) this.#above = true;
  }

  settle(group: number): void {
    let done = 0;
    while (done < this.#groups.length && (this.#groups[done] ?? 0) <= group) {
      this.#total -= this.#bytesOf[done] ?? 0;
      done += 1;
    }
    this.#groups.splice(0, done);
    this.#bytesOf.splice(0, done);
    if (!this.#above || this.#total > this.#low || this.#crowded()) return;
    this.#above = false;
    this.#resume();
  }

  /** The store failed: nothing waits for it any more. */
  clear(): void {
    this.#groups = [];
    this.#bytesOf = [];
    this.#total = 0;
    if (!this.#above) return;
    this.#above = false;
    this.#resume();
  }
}
