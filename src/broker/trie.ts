/**
 * Filters to values, by topic level. `+` and `#` are ordinary children under their own names: no topic level can be called so.
 */
interface Node<V> {
  readonly level: string;
  /** One alone stands here without a map: most filters of devices are of one device, and a map takes as much as all the rest. */
  children: Node<V> | Map<string, Node<V>> | undefined;
  values: Only<V> | Map<unknown, V> | undefined;
}

/** The value of the only key. */
interface Only<V> {
  readonly key: unknown;
  readonly value: V;
}

const emptyNode = <V>(level: string): Node<V> => ({ level, children: undefined, values: undefined });

function childOf<V>({ children }: Node<V>, level: string): Node<V> | undefined {
  if (children instanceof Map) return children.get(level);
  return children?.level === level ? children : undefined;
}

/** It must not have one of that level. */
function addChild<V>(node: Node<V>, child: Node<V>): void {
  const { children } = node;
  if (children instanceof Map) children.set(child.level, child);
  else if (children === undefined) node.children = child;
  else node.children = new Map([children, child].map((each) => [each.level, each]));
}

function removeChild<V>(node: Node<V>, level: string): void {
  if (node.children instanceof Map && node.children.size > 1) node.children.delete(level);
  else node.children = undefined;
}

function valueAt<V>({ values }: Node<V>, key: unknown): V | undefined {
  if (values instanceof Map) return values.get(key);
  return values?.key === key ? values?.value : undefined;
}

function setValue<V>(node: Node<V>, key: unknown, value: V): void {
  const { values } = node;
  if (values instanceof Map) values.set(key, value);
  else if (values === undefined || values.key === key) node.values = { key, value };
  else
    node.values = new Map([
      [values.key, values.value],
      [key, value],
    ]);
}

/** False when it was not there. */
function removeValue<V>(node: Node<V>, key: unknown): boolean {
  const { values } = node;
  if (values instanceof Map) {
    if (!values.delete(key)) return false;
    if (values.size === 0) node.values = undefined;
    return true;
  }
  if (values === undefined || values.key !== key) return false;
  node.values = undefined;
  return true;
}

export class Trie<V> {
  readonly #root: Node<V> = emptyNode("");
  #size = 0;

  /** Pairs of filter and key. */
  get size(): number {
    return this.#size;
  }

  /** Puts a value under a filter and key. Returns the value that was there before. */
  set(filter: string, key: unknown, value: V): V | undefined {
    let node = this.#root;
    for (const level of filter.split("/")) {
      let child = childOf(node, level);
      if (child === undefined) {
        child = emptyNode<V>(level);
        addChild(node, child);
      }
      node = child;
    }
    const before = valueAt(node, key);
    setValue(node, key, value);
    if (before === undefined) this.#size += 1;
    return before;
  }

  get(filter: string, key: unknown): V | undefined {
    let node: Node<V> | undefined = this.#root;
    for (const level of filter.split("/")) node = node && childOf(node, level);
    return node && valueAt(node, key);
  }

  /** False when it was not there. Branches that become empty go with it. */
  delete(filter: string, key: unknown): boolean {
    const levels = filter.split("/");
    const path: Node<V>[] = [this.#root];
    for (const level of levels) {
      const next = childOf(path[path.length - 1] ?? this.#root, level);
      if (next === undefined) return false;
      path.push(next);
    }
    const leaf = path[path.length - 1];
    if (leaf === undefined || !removeValue(leaf, key)) return false;
    this.#size -= 1;
    for (let at = levels.length; at > 0; at -= 1) {
      const node = path[at];
      if (node === undefined || node.values !== undefined || node.children !== undefined) break;
      removeChild(path[at - 1] ?? this.#root, node.level);
    }
    return true;
  }

  /** Adds the values of every filter that matches `topic` to `found`. */
  match(topic: string, found: V[]): void {
    const levels = topic.split("/");
    const root = this.#root;
    const first = childOf(root, levels[0] ?? "");
    if (first !== undefined) walk(first, levels, found);
    if (topic.startsWith("$")) return; // a leading wildcard does not match $ topics [MQTT-4.7.2-1]
    const any = childOf(root, "+");
    if (any !== undefined) walk(any, levels, found);
    collect(childOf(root, "#"), found);
  }
}

/** On a list of its own: filters may have more levels than the call stack takes. */
function walk<V>(start: Node<V>, levels: readonly string[], found: V[]): void {
  const open: Array<{ node: Node<V>; at: number }> = [{ node: start, at: 1 }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { node, at } = next;
    if (at === levels.length) collect(node, found);
    if (node.children === undefined) continue;
    collect(childOf(node, "#"), found); // # also stands for the parent level itself (MQTT 5 section 4.7.1.2)
    if (at === levels.length) continue;
    const any = childOf(node, "+");
    if (any !== undefined) open.push({ node: any, at: at + 1 });
    const literal = childOf(node, levels[at] ?? "");
    if (literal !== undefined) open.push({ node: literal, at: at + 1 }); // first, being last
  }
}

function collect<V>(node: Node<V> | undefined, found: V[]): void {
  const values = node?.values;
  if (values instanceof Map) for (const value of values.values()) found.push(value);
  else if (values !== undefined) found.push(values.value);
}
