import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Name to SHA-256 of every file of a folder, sockets apart: what must not change. */
export function hashes(dir: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const content = readFileSync(join(dir, entry.name));
    found[entry.name] = createHash("sha256").update(content).digest("hex");
  }
  return found;
}
