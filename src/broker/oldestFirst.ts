/** Things with an ordinal, added in any order and taken oldest first: a binary heap, so that thousands that come back at once cost no more each. */
export class OldestFirst<T extends { readonly ordinal: number }> {
  #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  peek(): T | undefined {
    return this.#items[0];
  }

  add(item: T): void {
    const items = this.#items;
    let at = items.length;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = items[above];
      if (parent === undefined || parent.ordinal <= item.ordinal) break;
      items[at] = parent;
      at = above;
    }
    items[at] = item;
  }

  shift(): T | undefined {
    const items = this.#items;
    const oldest = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return oldest;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if ((items[below + 1]?.ordinal ?? Number.POSITIVE_INFINITY) < (items[below]?.ordinal ?? 0)) below += 1;
      const child = items[below];
      if (child === undefined || child.ordinal >= last.ordinal) break;
      items[at] = child;
      at = below;
    }
    items[at] = last;
    return oldest;
  }

  clear(): void {
    this.#items = [];
  }
}
