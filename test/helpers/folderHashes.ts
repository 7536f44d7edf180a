import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Name to SHA-256 of every file of a folder: what must not change. */
export function hashes(dir: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(dir).sort())
    found[name] = createHash("sha256")
      .update(readFileSync(join(dir, name)))
      .digest("hex");
  return found;
}
