import { isDeepStrictEqual } from "node:util";
import type { Config } from "./schema.ts";

/** What a running gateway takes over from a config read anew; everything else needs a restart. */
const reloaded = new Set(["access", "gateway.logLevel"]);

/** Paths of what differs and needs a restart, in the order of the config: `mqtt.limits.maxConnections`, a list as a whole. Never a value. */
export function changesForRestart(running: Config, next: Config): string[] {
  const paths: string[] = [];
  compare(running, next, "", paths);
  return paths;
}

function compare(a: unknown, b: unknown, path: string, paths: string[]): void {
  if (reloaded.has(path) || isDeepStrictEqual(a, b)) return;
  if (!isMap(a) || !isMap(b)) {
    paths.push(path);
    return;
  }
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    compare(a[key], b[key], path === "" ? key : `${path}.${key}`, paths);
  }
}

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
