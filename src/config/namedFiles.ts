/** Files that the config names and that are read only when they are needed: what keeps them from being read, for `check`. */
import { accessSync, constants, statSync } from "node:fs";
import { resolve } from "node:path";
import { errnoOf } from "../base/errors.ts";
import type { ConfigNode, Reporter } from "./document.ts";
import { readFaults } from "./secrets.ts";

const allowed = "a PEM file, readable by the gateway's user";

export const pemPaths: ReadonlyArray<readonly string[]> = [
  ...["cert", "key", "ca"].map((key) => ["mqtt", "listeners", "*", "tls", key]),
  ...["cert", "key"].map((key) => ["mqtt", "listeners", "*", "tls", "sni", "*", key]),
  ...["cert", "key", "ca"].map((key) => ["uplinks", "*", "tls", key]),
];

/** @param folder the config file's */
export function checkNamedFiles(root: ConfigNode, folder: string, report: Reporter): void {
  for (const path of pemPaths) {
    for (const node of root.match(path)) {
      const fault =
        typeof node.scalar === "string" && !node.broken ? pemFault(resolve(folder, node.scalar)) : undefined;
      if (fault !== undefined) report.node(node, `${fault} (${allowed})`);
    }
  }
}

function pemFault(path: string): string | undefined {
  try {
    if (statSync(path).isDirectory()) return readFaults["EISDIR"];
    accessSync(path, constants.R_OK);
    return undefined;
  } catch (error) {
    return readFaults[errnoOf(error)] ?? "cannot be read";
  }
}
