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

  /** Values whose topic `filter` matches. */
  match(filter: string): V[] {
    const found: V[] = [];
    walk(this.#root, filter.split("/"), found);
    return found;
  }
}

/** Depth first in the order of insertion, on a list of its own: a topic may have more levels than the call stack takes. */
function walk<V>(root: Node<V>, filter: readonly string[], found: V[]): void {
  const open: Array<{ node: Node<V>; at: number }> = [{ node: root, at: 0 }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { node, at } = next;
    const wanted = filter[at];
    const deep = wanted === "#"; // and from there on everything
    if ((wanted === undefined || deep) && node.value !== undefined) found.push(node.value);
    if (wanted === undefined || node.children === undefined) continue;
    if (!deep && wanted !== "+") {
      const child = node.children.get(wanted);
      if (child !== undefined) open.push({ node: child, at: at + 1 });
      continue;
    }
    const from = open.length;
    for (const [level, child] of node.children) {
      if (node !== root || !level.startsWith("$")) open.push({ node: child, at: deep ? at : at + 1 }); // [MQTT-4.7.2-1]
    }
    reverse(open, from);
  }
}

function reverse<T>(list: T[], from: number): void {
  for (let low = from, high = list.length - 1; low < high; low += 1, high -= 1) {
    [list[low], list[high]] = [list[high] as T, list[low] as T];
  }
}
