import { isUtf8 } from "node:buffer";
import { type Stats, statSync } from "node:fs";
import { stat } from "node:fs/promises";
import { isAbsolute, resolve } from "node:path";
import { errnoOf } from "../base/errors.ts";
import type { ConfigNode, Reporter } from "./document.ts";
import { pathText } from "./problems.ts";
import { readBounded, readBoundedLater } from "./readBounded.ts";

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

/** Puts the content of the files in place of `{ file: PATH }`. @returns the files, absolute, by the path of the secret (`uplinks[0].password`) */
export function readSecrets(root: ConfigNode, folder: string, report: Reporter): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  for (const pattern of secretPaths) {
    for (const node of root.match(pattern)) {
      const file = node.get("file");
      if (typeof file?.scalar !== "string" || file.broken || node.entries?.size !== 1) continue;
      const path = isAbsolute(file.scalar) ? file.scalar : resolve(folder, file.scalar);
      const content = readSecret(path);
      files.set(pathText(node.path), path);
      if ("fault" in content) {
        node.broken = true;
        report.node(file, content.fault);
      } else {
        node.replace(content.secret);
      }
    }
  }
  return files;
}

type Content = { readonly secret: string } | { readonly fault: string };

function readSecret(path: string): Content {
  try {
    return fileFault(statSync(path)) ?? contentOf(readBounded(path, secretBytesMax));
  } catch (error) {
    return readFault(error);
  }
}

/** A secret's file, read anew while the gateway runs. @throws Error that says what is wrong with it */
export async function readSecretFile(path: string): Promise<string> {
  const content = await stat(path)
    .then(async (file) => fileFault(file) ?? contentOf(await readBoundedLater(path, secretBytesMax)))
    .catch(readFault);
  if ("fault" in content) throw new Error(`${path}: ${content.fault}`);
  return content.secret;
}

const allowed = "a file with the secret in it, readable by the gateway's user";

function fileFault(file: Stats): { readonly fault: string } | undefined {
  return file.isFile() ? undefined : { fault: `not a regular file (${allowed})` };
}

/** @param bytes undefined: too many */
function contentOf(bytes: Buffer | undefined): Content {
  if (bytes === undefined) return { fault: `more than ${secretBytesMax} bytes (${allowed})` };
  if (!isUtf8(bytes)) return { fault: `not UTF-8 text (${allowed})` };
  const secret = bytes
    .toString("utf8")
    .replace(/^\ufeff/, "")
    .replace(/\r?\n$/, "");
  return secret === "" ? { fault: `an empty file (${allowed})` } : { secret };
}

const readFault = (error: unknown): { readonly fault: string } => ({
  fault: `${readFaults[errnoOf(error)] ?? "cannot be read"} (${allowed})`,
});

/** What a failed read means, for people. */
export const readFaults: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EACCES: "no permission to read it",
  EPERM: "no permission to read it",
  EISDIR: "a folder, not a file",
  ENOTDIR: "a part of the path is not a folder",
};
