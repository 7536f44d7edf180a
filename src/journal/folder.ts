/** What lies in the data folder: our segments and checkpoints, told apart from what is not ours, which is left alone. */
import { join } from "node:path";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import type { KeptCheckpoint } from "./checkpoint.ts";
import { type CheckpointFile, CheckpointReader, type LoadedCheckpoint, readCheckpointHeader } from "./checkpoint.ts";
import { FileWalk, throwUnlessDamage } from "./fileWalk.ts";
import {
  checkpointName,
  checkpointNamePattern,
  decodeHeader,
  type Header,
  headerBytes,
  recordHeaderBytes,
  recordType,
  seedOf,
  segmentMagic,
  segmentName,
  segmentNamePattern,
  stagedNamePattern,
} from "./format.ts";
import { MessageReader } from "./messageRecord.ts";
import type { RecordWalker } from "./walk.ts";

export interface SegmentFile {
  readonly number: number;
  readonly header: Header;
  readonly size: number;
}

export interface Folder {
  /** Undefined: a new folder. */
  readonly storeId: Buffer | undefined;
  /** Highest epoch seen anywhere. */
  readonly epoch: number;
  /** By rising number. */
  readonly segments: SegmentFile[];
  /** The newest that is whole; else what is left of the newest two; undefined when the journal is there from its beginning, or no checkpoint is. */
  readonly checkpoint: LoadedCheckpoint | undefined;
  /** All that are whole, oldest first. */
  readonly kept: KeptCheckpoint[];
  /** Numbers of those that are not, or that newer ones replaced. */
  readonly damagedCheckpoints: number[];
  readonly damaged: number;
  /** Numbers of segments that were never whole. */
  readonly debris: number[];
  readonly segmentNumberMax: number;
  readonly checkpointNumberMax: number;
}

const foreign = (name: string): TidegateError =>
  new TidegateError(
    "TG_STORE_FOREIGN",
    `${name} was written by a newer tidegate: run that version, or choose another data folder. Nothing was changed`,
  );

interface Place {
  readonly files: Files;
  readonly dir: string;
  readonly log: Log;
}

interface Head {
  readonly number: number;
  readonly header: Header | undefined;
  readonly size: number;
  /** False: on a bad sector, so that nothing can be said about it. */
  readonly readable: boolean;
}

/** So many headers are read at once: a thousand segments one after the other take longer than all the rest of a start. */
const headsAtOnce = 16;

/** The headers of all segments; undefined where one cannot be read. @throws TidegateError TG_STORE_FOREIGN */
async function readHeads({ files, dir, log }: Place, numbers: readonly number[]): Promise<Head[]> {
  const heads: Head[] = [];
  for (let from = 0; from < numbers.length; from += headsAtOnce) {
    const some = numbers.slice(from, from + headsAtOnce).map(async (number): Promise<Head[]> => {
      const name = segmentName(number);
      const path = join(dir, name);
      const bytes = await readHead(files, path).catch(async (error: unknown) => {
        throwUnlessDamage(error);
        log.error({ file: name, error: messageOf(error) }, "journal: segment cannot be read");
        return { head: undefined, size: (await files.stat(path)).size };
      });
      const header = bytes.head === undefined ? undefined : decodeHeader(segmentMagic, bytes.head);
      if (header === "newer") throw foreign(name);
      if (header !== undefined && header.number !== number) return []; // copied under another name: not ours to judge
      return [{ number, header, size: bytes.size, readable: bytes.head !== undefined }];
    });
    heads.push(...(await Promise.all(some)).flat());
  }
  return heads;
}

interface FoundCheckpoints {
  readonly kept: KeptCheckpoint[];
  /** Numbers of those that are of no use any more. */
  readonly stale: number[];
  readonly damaged: number;
  readonly checkpoint: LoadedCheckpoint | undefined;
}

/**
 * Which checkpoint to start from. Only the newest two count: segments that an older one needs may be gone.
 * @param complete whether the journal is there from its beginning: better than what is left of two damaged checkpoints
 */
async function chooseCheckpoint(
  { files, dir, log }: Place,
  ours: readonly CheckpointFile[],
  complete: boolean,
): Promise<FoundCheckpoints> {
  const reader = new CheckpointReader(files, dir);
  const readable = ours.filter(({ header }) => header !== undefined);
  const candidates = readable.slice(-2);
  let checkpoint = await reader.load(candidates);
  const kept: KeptCheckpoint[] = [];
  const stale: number[] = [];
  let damaged = 0;
  for (const one of ours) {
    const { number, header, bytes } = one;
    const whole = checkpoint?.header.number === number || (await reader.isWhole(one));
    if (whole && header !== undefined && header !== "newer" && candidates.includes(one)) {
      kept.push({ number, mark: header.base, bytes });
    } else stale.push(number);
    if (whole) continue;
    damaged += 1;
    log.error({ file: checkpointName(number) }, "journal: checkpoint is damaged, using the other one");
  }
  if (checkpoint === undefined && !complete) checkpoint = await reader.merge(candidates);
  return { kept, stale, damaged, checkpoint };
}

/** Our segments among the heads, what is of no use, and how many held something that cannot be told any more. */
async function sortSegments(
  { files, dir, log }: Place,
  heads: readonly Head[],
  storeId: Buffer | undefined,
  newest: number | undefined,
): Promise<{ segments: SegmentFile[]; debris: number[]; damaged: number }> {
  const segments: SegmentFile[] = [];
  const debris: number[] = [];
  let damaged = 0;
  for (const { number, header, size, readable } of heads) {
    if (header !== undefined && storeId?.equals(header.storeId) !== true) {
      log.warn({ file: segmentName(number) }, "journal: segment of another store, left alone");
      continue;
    }
    const known = header ?? (storeId === undefined ? undefined : await salvage(files, dir, number, storeId));
    if (known !== undefined) segments.push({ number, header: known, size });
    if (header !== undefined) continue;
    log.warn({ file: segmentName(number), salvaged: known !== undefined }, "journal: segment header is damaged");
    if (known !== undefined) continue;
    // The newest was just being made when the power went, and is of no use; any other held something once.
    if (number === newest && readable) debris.push(number);
    else damaged += 1;
  }
  return { segments, debris, damaged };
}

/** Changes nothing. @throws TidegateError TG_STORE_FOREIGN; errno errors of the folder itself */
export async function surveyFolder(files: Files, dir: string, log: Log): Promise<Folder> {
  const place = { files, dir, log };
  const names = await files.readdir(dir);
  const numbersOf = (pattern: RegExp): number[] =>
    names
      .flatMap((name) => pattern.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
  const segmentNumbers = numbersOf(segmentNamePattern);
  const checkpointNumbers = numbersOf(checkpointNamePattern);
  const heads = await readHeads(place, segmentNumbers);
  const checkpoints = await Promise.all(checkpointNumbers.map((number) => readCheckpointHeader(files, dir, number)));
  for (const { number, header } of checkpoints) if (header === "newer") throw foreign(checkpointName(number));
  const headers = heads.flatMap(({ header }) => header ?? []);
  const storeId = chooseStore(headers, headersOf(checkpoints));
  const ours = checkpoints.filter((one) => {
    const [header] = headersOf([one]);
    return header === undefined || storeId?.equals(header.storeId) === true;
  });
  const { segments, debris, damaged } = await sortSegments(place, heads, storeId, segmentNumbers.at(-1));
  const found = await chooseCheckpoint(place, ours, isComplete(segments));
  return {
    storeId,
    epoch: Math.max(0, ...[...headers, ...headersOf(checkpoints)].map(({ epoch }) => epoch)),
    segments,
    checkpoint: found.checkpoint,
    kept: found.kept,
    damagedCheckpoints: found.stale,
    damaged: damaged + found.damaged,
    debris,
    segmentNumberMax: Math.max(0, ...segmentNumbers),
    checkpointNumberMax: Math.max(0, ...checkpointNumbers),
  };
}

const headersOf = (found: readonly CheckpointFile[]): Header[] =>
  found.flatMap(({ header }) => (header === undefined || header === "newer" ? [] : header));

/** Nothing was ever freed: the journal alone says everything. */
const isComplete = (segments: readonly SegmentFile[]): boolean =>
  segments.every(({ number, header }, index) => number === index + 1 && (index > 0 || header.base <= 1));

/** Removes what a crash left half made. */
export async function sweepDebris(files: Files, dir: string, debris: readonly string[]): Promise<void> {
  for (const name of debris) await files.unlink(join(dir, name)).catch(() => undefined);
  for (const name of await files.readdir(dir)) {
    if (stagedNamePattern.test(name)) await files.unlink(join(dir, name)).catch(() => undefined);
  }
}

async function readHead(files: Files, path: string): Promise<{ head: Buffer; size: number }> {
  const file = await files.open(path, "read");
  try {
    const head = Buffer.alloc(headerBytes);
    let filled = 0;
    for (let count = 1; count > 0 && filled < head.length; filled += count) {
      count = await file.read(head.subarray(filled), filled);
    }
    return { head: head.subarray(0, filled), size: await file.size() };
  } finally {
    await file.close();
  }
}

/** Whose store this is: that of the newest checkpoint, else that of most segments. */
function chooseStore(headers: Header[], checkpoints: Header[]): Buffer | undefined {
  const newest = checkpoints.at(-1);
  if (newest !== undefined) return Buffer.from(newest.storeId);
  const counts = new Map<string, number>();
  for (const { storeId } of headers)
    counts.set(storeId.toString("hex"), (counts.get(storeId.toString("hex")) ?? 0) + 1);
  const [most] = [...counts].sort((a, b) => b[1] - a[1]);
  return most === undefined ? undefined : Buffer.from(most[0], "hex");
}

/** Both copies of a header are gone: the file's name gives the checksum's seed, a message its base. */
async function salvage(files: Files, dir: string, number: number, storeId: Buffer): Promise<Header | undefined> {
  const seed = seedOf(segmentMagic, storeId, number);
  const message = new MessageReader();
  const walk = new FileWalk();
  let base: number | undefined;
  try {
    const file = await files.open(join(dir, segmentName(number)), "read");
    const visit = (walker: RecordWalker): void => {
      if (base !== undefined || walker.type !== recordType.message) return;
      message.start(walker.buffer, walker.at + recordHeaderBytes, walker.next, walker.flags);
      base = message.position - (walk.bufferAt + walker.at) + headerBytes;
    };
    await walk.run(file, headerBytes, await file.size(), seed, visit).finally(() => file.close());
  } catch (error) {
    throwUnlessDamage(error);
    return undefined;
  }
  return base === undefined ? undefined : { storeId, epoch: 0, number, base, firstGroup: 0, prevEnd: base, wallMs: 0 };
}
