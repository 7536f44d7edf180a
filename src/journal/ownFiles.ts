/** Files named like ours that cannot be read: which of them may be removed. */
import { join } from "node:path";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { headerBytes } from "./format.ts";

/** The second copy of a header. */
const copyAt = 512;

/**
 * Those that were ours once, so far as can be told: a header's mark is left, or nothing was ever written (zeros, or no bytes). Anything else somebody
 * put there under such a name, and is not ours to remove. Never rejects.
 */
export async function onlyOurs(
  { files, dir, log }: { files: Files; dir: string; log: Log },
  names: readonly string[],
  magic: string,
): Promise<string[]> {
  const ours: string[] = [];
  for (const name of names) {
    const head = await readHead(files, join(dir, name));
    const marked = [0, copyAt].some((at) => head.toString("latin1", at, at + magic.length) === magic);
    if (marked || head.every((byte) => byte === 0)) ours.push(name);
    else log.error({ file: name }, "journal: not a file of ours, left alone");
  }
  return ours;
}

/** Empty when it cannot be read. */
async function readHead(files: Files, path: string): Promise<Buffer> {
  const head = Buffer.alloc(headerBytes);
  try {
    const file = await files.open(path, "read");
    try {
      return head.subarray(0, await file.read(head, 0));
    } finally {
      await file.close();
    }
  } catch {
    return head.subarray(0, 0);
  }
}
