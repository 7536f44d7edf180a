import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The package's version. From dist/ and from src/cli/ the package.json is found on the way up. */
export const version: string = readVersion();

function readVersion(): string {
  for (const up of ["..", join("..", "..")]) {
    try {
      const found = JSON.parse(readFileSync(join(import.meta.dirname, up, "package.json"), "utf8")) as {
        name?: string;
        version?: string;
      };
      if (found.name === "tidegate" && found.version !== undefined) return found.version;
    } catch {
      // not here: one up
    }
  }
  return "unknown";
}
