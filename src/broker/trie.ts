/**
 * Filters to values, by topic level. `+` and `#` are ordinary children under their own names: no topic level can be called so.
 */
interface Node<V> {
  children: Map<string, Node<V>> | undefined;
  values: Map<unknown, V> | undefined;
}

const emptyNode = <V>(): Node<V> => ({ children: undefined, values: undefined });

export class Trie<V> {
  readonly #root: Node<V> = emptyNode();
  #size = 0;

  /** Pairs of filter and key. */
  get size(): number {
    return this.#size;
  }

  /** Puts a value under a filter and key. Returns the value that was there before. */
  set(filter: string, key: unknown, value: V): V | undefined {
    let node = this.#root;
    for (const level of filter.split("/")) {
      node.children ??= new Map();
      let child = node.children.get(level);
      if (child === undefined) {
        child = emptyNode();
        node.children.set(level, child);
      }
      node = child;
    }
    node.values ??= new Map();
    const before = node.values.get(key);
    node.values.set(key, value);
    if (before === undefined) this.#size += 1;
    return before;
  }

  get(filter: string, key: unknown): V | undefined {
    let node: Node<V> | undefined = this.#root;
    for (const level of filter.split("/")) node = node?.children?.get(level);
    return node?.values?.get(key);
  }

  /** False when it was not there. Branches that become empty go with it. */
  delete(filter: string, key: unknown): boolean {
    const levels = filter.split("/");
    const path: Node<V>[] = [this.#root];
    for (const level of levels) {
      const next = path[path.length - 1]?.children?.get(level);
      if (next === undefined) return false;
      path.push(next);
    }
    const leaf = path[path.length - 1];
    if (leaf?.values?.delete(key) !== true) return false;
    this.#size -= 1;
    if (leaf.values.size === 0) leaf.values = undefined;
    for (let at = levels.length; at > 0; at -= 1) {
      const node = path[at];
      if (node === undefined || node.values !== undefined || (node.children?.size ?? 0) > 0) break;
      const parent = path[at - 1];
      parent?.children?.delete(levels[at - 1] ?? "");
      if (parent?.children?.size === 0) parent.children = undefined;
    }
    return true;
  }

  /** Adds the values of every filter that matches `topic` to `found`. */
  match(topic: string, found: V[]): void {
    const levels = topic.split("/");
    const root = this.#root.children;
    if (root === undefined) return;
    const first = root.get(levels[0] ?? "");
    if (first !== undefined) walk(first, levels, found);
    if (topic.startsWith("$")) return; // a leading wildcard does not match $ topics [MQTT-4.7.2-1]
    const any = root.get("+");
    if (any !== undefined) walk(any, levels, found);
    collect(root.get("#"), found);
  }
}

/** On a list of its own: filters may have more levels than the call stack takes. */
function walk<V>(start: Node<V>, levels: readonly string[], found: V[]): void {
  const open: Array<{ node: Node<V>; at: number }> = [{ node: start, at: 1 }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { node, at } = next;
    const { children } = node;
    if (at === levels.length) collect(node, found);
    if (children === undefined) continue;
    collect(children.get("#"), found); // # also stands for the parent level itself (MQTT 5 section 4.7.1.2)
    if (at === levels.length) continue;
    const any = children.get("+");
    if (any !== undefined) open.push({ node: any, at: at + 1 });
    const literal = children.get(levels[at] ?? "");
    if (literal !== undefined) open.push({ node: literal, at: at + 1 }); // first, being last
  }
}

function collect<V>(node: Node<V> | undefined, found: V[]): void {
  if (node?.values === undefined) return;
  for (const value of node.values.values()) found.push(value);
}
