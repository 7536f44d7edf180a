import { createReadStream } from "node:fs";
import { copyFile, mkdir, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "../base/errors.ts";
import { isWhole, type LetterDocument } from "./letterDocument.ts";

/** A file of 10,000 documents has some megabytes, and is made anew before it has a few times that; a larger one is not ours. */
const fileBytesMax = 64 * 1024 * 1024;

export type FileState = "good" | "missing" | "damaged" | "foreign";

/** What lies there, and when it is good its documents by id. */
export interface CatalogueFile {
  readonly state: FileState;
  readonly documents: ReadonlyMap<number, LetterDocument>;
}

const none: ReadonlyMap<number, LetterDocument> = new Map();

/**
 * Reads the file in place of NeDB, which would drop what it cannot read in silence, take for true what was changed, and do it all in one turn of the
 * event loop.
 * - damaged: something in it is not as it was written, a torn last line as well.
 * - foreign: it belongs to another store, or to this one before it was restored from a backup.
 */
export async function readFileOf(path: string, epoch: number): Promise<CatalogueFile> {
  const documents = new Map<number, LetterDocument>();
  let isOurs = false;
  try {
    if ((await stat(path)).size > fileBytesMax) return { state: "damaged", documents: none };
    for await (const line of linesOf(path)) {
      const value = parse(line);
      if (value === undefined) return { state: "damaged", documents: none };
      if (value["_id"] === "store") {
        if (value["epoch"] !== epoch) return { state: "foreign", documents: none };
        isOurs = true;
      } else if (value["$$deleted"] === true) documents.delete(Number(value["_id"]));
      else if (isWhole(value)) documents.set(Number(value["n"]), value as unknown as LetterDocument);
      else if (value["$$indexCreated"] === undefined) return { state: "damaged", documents: none };
    }
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { state: "missing", documents: none };
    throw error;
  }
  return isOurs ? { state: "good", documents } : { state: "foreign", documents: none };
}

/** Its lines, some hundred a turn of the event loop; the rest behind the last line feed as well, if there is any. */
async function* linesOf(path: string): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of createReadStream(path, { encoding: "utf8" })) {
    const lines = (rest + String(chunk)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") yield line;
  }
  if (rest !== "") yield `${rest}\n`; // no JSON: it was cut, even if what is there of it could be read
}

/** Makes the folder and room for a new file; a damaged one is kept under another name, so that people can look at it. */
export async function clearFile(path: string, state: FileState): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  if (state === "damaged") await copyFile(path, `${path}.damaged`);
  await rm(path, { force: true });
  await rm(`${path}~`, { force: true }); // NeDB would take it for the file
}

function parse(line: string): Record<string, unknown> | undefined {
  if (line.endsWith("\n")) return undefined;
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
