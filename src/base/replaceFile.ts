import { dirname } from "node:path";
import { errnoOf } from "./errors.ts";
import type { Files } from "./files.ts";

/**
 * Replaces a small file whole, mode 0600: whoever reads it, and whatever a power cut leaves, has the old one or the new one.
 * @param path absolute, of the file itself: a link there would be replaced
 * @throws the errno error of what failed; then the old one is still there
 */
export async function replaceFile(files: Files, path: string, content: Uint8Array): Promise<void> {
  const staged = `${path}.new`;
  await files.unlink(staged).catch(ignoreMissing); // of one that was killed
  try {
    await writeWhole(files, staged, content);
    await files.rename(staged, path);
  } catch (error) {
    await files.unlink(staged).catch(() => {});
    throw error;
  }
  await files.syncDir(dirname(path)); // or a power cut may undo the rename
}

async function writeWhole(files: Files, path: string, content: Uint8Array): Promise<void> {
  const file = await files.open(path, "create");
  try {
    for (let at = 0; at < content.length; ) at += await file.write([content.subarray(at)], at);
    await file.datasync();
  } finally {
    await file.close();
  }
}

function ignoreMissing(error: unknown): void {
  if (errnoOf(error) !== "ENOENT") throw error;
}
