import { copyFile, mkdir, readFile, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "../base/errors.ts";
import { isWhole } from "./letterDocument.ts";

/** A file of 10,000 documents has some megabytes, compaction keeps it under a few times that; a larger one is not ours. */
const fileBytesMax = 64 * 1024 * 1024;
/** Lines looked at in one turn of the event loop. */
const linesMax = 500;

export type FileState = "good" | "missing" | "damaged" | "foreign";

/**
 * Looks at every line before NeDB does: it would drop what it cannot read in silence, and take for true what was changed.
 * - damaged: something in it is not as it was written, a torn last line as well.
 * - foreign: it belongs to another store, or to this one before it was restored from a backup.
 */
export async function inspectFile(path: string, epoch: number): Promise<FileState> {
  let text: string;
  try {
    if ((await stat(path)).size > fileBytesMax) return "damaged";
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "missing";
    throw error;
  }
  if (text.length > 0 && !text.endsWith("\n")) return "damaged";
  const lines = text.split("\n");
  let isOurs = false;
  for (const [at, line] of lines.entries()) {
    if (line === "") continue;
    const value = parse(line);
    if (value === undefined) return "damaged";
    if (value["_id"] === "store") {
      if (value["epoch"] !== epoch) return "foreign";
      isOurs = true;
    } else if (value["$$indexCreated"] === undefined && value["$$deleted"] !== true && !isWhole(value))
      return "damaged";
    if (at % linesMax === linesMax - 1) await new Promise((resolve) => setImmediate(resolve));
  }
  return isOurs ? "good" : "foreign";
}

/** Makes the folder; what lies there and is of no use goes, a damaged file under another name, so that people can look at it. */
export async function clearFile(path: string, state: FileState): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  if (state === "good") return;
  if (state === "damaged") await copyFile(path, `${path}.damaged`);
  await rm(path, { force: true });
  await rm(`${path}~`, { force: true }); // NeDB would take it for the file
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
