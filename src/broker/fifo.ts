/** Of all empty lists; nothing is ever put into it. */
const none: never[] = [];

/** A first-in-first-out list that takes no memory while empty; the owner bounds it. (base/ring.ts takes all of its memory at once.) */
export class Fifo<T> {
  #items: Array<T | undefined> = none;
  #head = 0;

  get size(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    if (this.#items === none) this.#items = [];
    this.#items.push(item);
  }

  peek(): T | undefined {
    return this.#items[this.#head];
  }

  shift(): T | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head] = undefined; // or the list keeps it alive
    this.#head += 1;
    if (this.#head === this.#items.length) this.clear();
    else if (this.#head >= 64 && this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  clear(): void {
    this.#items = none;
    this.#head = 0;
  }
}
