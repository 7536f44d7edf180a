import type * as z from "zod";
import type { ConfigNode, Reporter } from "./document.ts";
import { shownKey } from "./fields.ts";
import { pathText } from "./problems.ts";
import { configSchema, type WrittenConfig } from "./schema.ts";
import { kindOf, shown } from "./shown.ts";

/** Sections that may be left empty (`mqtt:` with everything below it commented out). Elsewhere a key without a value is a mistake. */
const mayBeEmpty = [
  ["*"],
  ["mqtt", "*"],
  ["mqtt", "limits", "session"],
  ["mqtt", "limits", "retained"],
  ...["forward", "receive", "queue", "drain", "backoff"].map((key) => ["uplinks", "*", key]),
  ["routes", "*", "steps"],
];

/** Checks the tree against the schema. Undefined when something is wrong; what, is in `report`. */
export function validate(root: ConfigNode, report: Reporter): WrittenConfig | undefined {
  for (const pattern of mayBeEmpty) {
    for (const node of root.match(pattern)) {
      const parent = root.nearest(node.path.slice(0, -1));
      if (node.scalar === null && !node.broken) parent.entries?.delete(String(node.path.at(-1)));
    }
  }
  const schema = configSchema();
  let result = schema.safeParse(root.plain());
  if (!result.success && reinterpret(root, result.error.issues)) result = schema.safeParse(root.plain());
  if (result.success) return result.data;
  for (const issue of result.error.issues) reportIssue(issue, root, report);
  return undefined;
}

/** `baudRate: ${BAUD}`: the environment holds texts only, so one that is refused as a text is tried as YAML would have read it. */
function reinterpret(root: ConfigNode, issues: readonly z.core.$ZodIssue[]): boolean {
  let changed = false;
  for (const issue of issues) {
    const node = root.nearest(issue.path);
    if (!node.expanded || typeof node.scalar !== "string") continue;
    const number = /^-?\d+(\.\d+)?$/.test(node.scalar) ? Number(node.scalar) : undefined;
    const value = number ?? { true: true, false: false }[node.scalar];
    if (value === undefined) continue;
    node.replace(value);
    changed = true;
  }
  return changed;
}

function reportIssue(issue: z.core.$ZodIssue, root: ConfigNode, report: Reporter): void {
  const node = root.nearest(issue.path);
  const path = issue.path.map((part) => (typeof part === "number" ? part : String(part)));
  if (issue.code === "unrecognized_keys") {
    const lines = issue.message.split("\n");
    issue.keys.forEach((key, index) => {
      const at = node.get(key)?.keyAt ?? node.at;
      report.at(at, pathText([...path, shownKey(key)]), lines[index] ?? "unknown key");
    });
    return;
  }
  if (node.broken) return;
  const missing = node.path.length < path.length;
  const at = missing || node.scalar !== null ? node.at : node.keyAt;
  report.at(at, pathText(path) || "yaml", message(issue.message, node));
}

/** Puts in what the file says. */
function message(text: string, node: ConfigNode): string {
  return text.replace(/%[vk]/, (place) => (place === "%k" ? kindOf(node) : shown(node)));
}
