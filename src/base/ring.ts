/**
 * A bounded first-in-first-out queue on a circular array; `push` refuses when full, and the caller owns the policy.
 *
 *   slots  [ . . a b c . . . ]     head = index of a, tail = one after c; both only grow, masked on access
 */
export class Ring<T> {
  readonly #slots: Array<T | undefined>;
  readonly #capacity: number;
  #head = 0;
  #tail = 0;

  /** @param capacity at least 1; memory is taken for the next power of two. */
  constructor(capacity: number) {
    if (!Number.isSafeInteger(capacity) || capacity < 1) throw new RangeError("capacity must be a positive integer");
    this.#capacity = capacity;
    this.#slots = new Array(2 ** Math.ceil(Math.log2(capacity))).fill(undefined);
  }

  get size(): number {
    return this.#tail - this.#head;
  }

  get capacity(): number {
    return this.#capacity;
  }

  /** False when full: nothing was added. */
  push(item: T): boolean {
    if (this.#tail - this.#head >= this.#capacity) return false;
    this.#slots[this.#tail++ & (this.#slots.length - 1)] = item;
    return true;
  }

  peek(): T | undefined {
    return this.#head === this.#tail ? undefined : this.#slots[this.#head & (this.#slots.length - 1)];
  }

  shift(): T | undefined {
    if (this.#head === this.#tail) return undefined;
    const at = this.#head++ & (this.#slots.length - 1);
    const item = this.#slots[at];
    this.#slots[at] = undefined; // or the ring keeps it alive
    return item;
  }

  clear(): void {
    this.#slots.fill(undefined);
    this.#head = this.#tail = 0;
  }
}
