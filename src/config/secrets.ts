import { isUtf8 } from "node:buffer";
import { readFileSync, statSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { errnoOf } from "../base/errors.ts";
import type { ConfigNode, Reporter } from "./document.ts";

/** Where a secret may stand, as text or as `{ file: PATH }`. What stands there is never repeated in a message. */
const secretPaths = [
  ["uplinks", "*", "password"],
  ["sources", "*", "psk", "key"],
] as const;

const secretBytesMax = 64 * 1024;

export function isSecret(path: ReadonlyArray<PropertyKey>): boolean {
  return secretPaths.some((pattern) =>
    pattern.every((part, at) => path[at] !== undefined && (part === "*" || part === path[at])),
  );
}

/** Puts the content of the files in place of `{ file: PATH }`. */
export function readSecrets(root: ConfigNode, folder: string, report: Reporter): void {
  for (const pattern of secretPaths) {
    for (const node of root.match(pattern)) {
      const file = node.get("file");
      if (typeof file?.scalar !== "string" || file.broken || node.entries?.size !== 1) continue;
      const content = readSecret(isAbsolute(file.scalar) ? file.scalar : resolve(folder, file.scalar));
      if ("fault" in content) {
        node.broken = true;
        report.node(file, content.fault);
      } else {
        node.replace(content.secret);
      }
    }
  }
}

function readSecret(path: string): { secret: string } | { fault: string } {
  const allowed = "a file with the secret in it, readable by the gateway's user";
  try {
    const file = statSync(path);
    if (!file.isFile()) return { fault: `not a regular file (${allowed})` };
    if (file.size > secretBytesMax) return { fault: `more than ${secretBytesMax} bytes (${allowed})` };
    const bytes = readFileSync(path);
    if (!isUtf8(bytes)) return { fault: `not UTF-8 text (${allowed})` };
    const secret = bytes
      .toString("utf8")
      .replace(/^\ufeff/, "")
      .replace(/\r?\n$/, "");
    return secret === "" ? { fault: `an empty file (${allowed})` } : { secret };
  } catch (error) {
    return { fault: `${readFaults[errnoOf(error)] ?? "cannot be read"} (${allowed})` };
  }
}

/** What a failed read means, for people. */
export const readFaults: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EACCES: "no permission to read it",
  EPERM: "no permission to read it",
  EISDIR: "a folder, not a file",
  ENOTDIR: "a part of the path is not a folder",
};
