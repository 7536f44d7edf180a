/** How messages repeat what the file says: as it stands there, so that a variable of the environment stays a name; a secret never. */
import type { ConfigNode } from "./document.ts";
import { oneLine } from "./problems.ts";
import { isSecret } from "./secrets.ts";

export function shown(node: ConfigNode): string {
  if (node.source === "" || isSecret(node.path)) return kindOf(node);
  const quoted = /^["']/.test(node.source) || typeof node.scalar !== "string";
  return quoted ? oneLine(node.source) : `"${oneLine(node.source)}"`;
}

/** A `{name}` of the template at `node`. */
export function placeholder(node: ConfigNode, name: string): string {
  return node.source.includes("${") ? "a {name}" : `{${oneLine(name)}}`;
}

export function kindOf(node: ConfigNode): string {
  if (node.entries !== undefined) return "a map";
  if (node.items !== undefined) return "a list";
  if (node.scalar === null) return "nothing";
  const kinds: Readonly<Record<string, string>> = { string: "a text", number: "a number", boolean: "true or false" };
  return kinds[typeof node.scalar] ?? "a value";
}
