interface Node<V> {
  children: Map<string, Node<V>> | undefined;
  value: V | undefined;
}

/** Topics to values, found by filter: the mirror image of the subscription trie. */
export class TopicTree<V> {
  readonly #root: Node<V> = { children: undefined, value: undefined };
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(topic: string): V | undefined {
    let node: Node<V> | undefined = this.#root;
    for (const level of topic.split("/")) node = node?.children?.get(level);
    return node?.value;
  }

  set(topic: string, value: V): void {
    let node = this.#root;
    for (const level of topic.split("/")) {
      node.children ??= new Map();
      let child = node.children.get(level);
      if (child === undefined) {
        child = { children: undefined, value: undefined };
        node.children.set(level, child);
      }
      node = child;
    }
    if (node.value === undefined) this.#size += 1;
    node.value = value;
  }

  delete(topic: string): void {
    const levels = topic.split("/");
    const path: Node<V>[] = [this.#root];
    for (const level of levels) {
      const next = path[path.length - 1]?.children?.get(level);
      if (next === undefined) return;
      path.push(next);
    }
    const leaf = path[path.length - 1];
    if (leaf?.value === undefined) return;
    leaf.value = undefined;
    this.#size -= 1;
    for (let at = levels.length; at > 0; at -= 1) {
      const node = path[at];
      if (node === undefined || node.value !== undefined || (node.children?.size ?? 0) > 0) break;
      path[at - 1]?.children?.delete(levels[at - 1] ?? "");
    }
  }

  /** Values whose topic `filter` matches, a piece at a time, while the tree may change: what is added behind the cursor is not found. */
  cursor(filter: string): TopicCursor<V> {
    return new TopicCursor(this.#root, filter.split("/"));
  }

  /** All at once; for small trees and tests. */
  match(filter: string): V[] {
    return this.cursor(filter).next(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
  }
}

/** A node that is being walked; `children` are those not yet visited. */
interface Visit<V> {
  readonly node: Node<V>;
  readonly at: number;
  children: Iterator<readonly [string, Node<V>]> | undefined;
}

/**
 * Depth first, in the order of insertion, on a stack of its own: a topic may have more levels than the call stack takes, and a hundred
 * thousand values must not be walked in one turn of the event loop.
 */
export class TopicCursor<V> {
  readonly #root: Node<V>;
  readonly #filter: readonly string[];
  readonly #open: Visit<V>[] = [];
  #found: V[] = [];

  constructor(root: Node<V>, filter: readonly string[]) {
    this.#root = root;
    this.#filter = filter;
    this.#enter(root, 0);
  }

  get done(): boolean {
    return this.#open.length === 0 && this.#found.length === 0;
  }

  /** The next values, at most so many, looking at no more than so many nodes: may be empty before `done`. */
  next(valuesMax: number, stepsMax: number): V[] {
    for (let steps = 0; steps < stepsMax && this.#found.length < valuesMax; steps += 1) {
      const visit = this.#open.at(-1);
      if (visit === undefined) break;
      const child = visit.children?.next();
      if (child === undefined || child.done) {
        this.#open.pop();
        continue;
      }
      const [level, node] = child.value;
      if (visit.node === this.#root && level.startsWith("$") && this.#filter[0] !== level) continue; // [MQTT-4.7.2-1]
      this.#enter(node, this.#filter[visit.at] === "#" ? visit.at : visit.at + 1);
    }
    const found = this.#found;
    this.#found = [];
    return found;
  }

  #enter(node: Node<V>, at: number): void {
    const wanted = this.#filter[at];
    const deep = wanted === "#"; // and from there on everything
    if ((wanted === undefined || deep) && node.value !== undefined) this.#found.push(node.value);
    if (wanted === undefined || node.children === undefined) return;
    if (deep || wanted === "+") {
      this.#open.push({ node, at, children: node.children.entries() });
      return;
    }
    const child = node.children.get(wanted);
    if (child !== undefined) this.#open.push({ node, at, children: [[wanted, child] as const].values() });
  }
}
