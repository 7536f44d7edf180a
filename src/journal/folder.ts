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
  seedOf,
  segmentMagic,
  stagedNamePattern,
} from "./format.ts";
import { type SegmentId, salvage, segmentIdsOf, withoutReplaced } from "./segmentFiles.ts";

export interface SegmentFile {
  readonly name: string;
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
  /** Names of segments that were never whole, and of those that a merged one replaces. */
  readonly debris: string[];
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

interface Head extends SegmentId {
  readonly header: Header | undefined;
  readonly size: number;
  /** False: on a bad sector, so that nothing can be said about it. */
  readonly readable: boolean;
}

/** So many headers are read at once: a thousand segments one after the other take longer than all the rest of a start. */
const headsAtOnce = 16;

/** The headers of all segments; undefined where one cannot be read. @throws TidegateError TG_STORE_FOREIGN */
async function readHeads({ files, dir, log }: Place, ids: readonly SegmentId[]): Promise<Head[]> {
  const heads: Head[] = [];
  for (let from = 0; from < ids.length; from += headsAtOnce) {
    const some = ids.slice(from, from + headsAtOnce).map(async (id): Promise<Head[]> => {
      const { name } = id;
      const path = join(dir, name);
      const bytes = await readHead(files, path).catch(async (error: unknown) => {
        throwUnlessDamage(error);
        log.error({ file: name, error: messageOf(error) }, "journal: segment cannot be read");
        return { head: undefined, size: (await files.stat(path)).size };
      });
      const header = bytes.head === undefined ? undefined : decodeHeader(segmentMagic, bytes.head);
      if (header === "newer") throw foreign(name);
      const named = header?.number === id.number && (header.merged?.generation ?? 0) === id.generation;
      if (header !== undefined && !named) return []; // copied under another name: not ours to judge
      return [{ ...id, header, size: bytes.size, readable: bytes.head !== undefined }];
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

/**
 * Whether this one never held anything that counts. The newest was just being made when the power went; so were those before it that no header
 * follows: making them failed, and a segment is begun only when the one before is synced. Between two others, their bytes leave none to it.
 */
async function isBypassed({ files, dir }: Place, heads: readonly Head[], number: number): Promise<boolean> {
  const known = heads.filter(({ header }) => header !== undefined);
  if (heads.every((head) => head.number <= number || (head.header === undefined && head.readable))) return true;
  const before = known.filter((head) => head.number < number).at(-1);
  const after = known.find((head) => head.number > number);
  if (before?.header === undefined || after?.header === undefined) return false;
  if (before.header.merged !== undefined) return before.header.merged.end >= after.header.prevEnd;
  // Not by its size: a prepared file is longer than what is written.
  const walk = new FileWalk();
  const seed = seedOf(segmentMagic, before.header.storeId, before.number);
  try {
    const file = await files.open(join(dir, before.name), "read");
    await walk.run(file, headerBytes, before.size, seed, () => undefined).finally(() => file.close());
  } catch (error) {
    throwUnlessDamage(error);
    return false;
  }
  return before.header.base + walk.writtenEnd - headerBytes >= after.header.prevEnd;
}

/** Our segments among the heads, what is of no use, and how many held something that cannot be told any more. */
async function sortSegments(
  { files, dir, log }: Place,
  heads: readonly Head[],
  storeId: Buffer | undefined,
): Promise<{ segments: SegmentFile[]; debris: string[]; damaged: number }> {
  const segments: SegmentFile[] = [];
  const debris: string[] = [];
  let damaged = 0;
  for (const { name, number, generation, header, size, readable } of heads) {
    if (header !== undefined && storeId?.equals(header.storeId) !== true) {
      log.warn({ file: name }, "journal: segment of another store, left alone");
      continue;
    }
    const known =
      header ??
      (storeId === undefined ? undefined : await salvage(files, join(dir, name), { number, generation, storeId }));
    if (known !== undefined) segments.push({ name, number, header: known, size });
    if (header !== undefined) continue;
    log.warn({ file: name, salvaged: known !== undefined }, "journal: segment header is damaged");
    if (known !== undefined) continue;
    if (readable && (await isBypassed({ files, dir, log }, heads, number))) debris.push(name);
    else damaged += 1;
  }
  const { current, replaced } = withoutReplaced(segments);
  return { segments: current, debris: [...debris, ...replaced], damaged };
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
  const segmentIds = segmentIdsOf(names);
  const checkpointNumbers = numbersOf(checkpointNamePattern);
  const heads = await readHeads(place, segmentIds);
  const checkpoints = await Promise.all(checkpointNumbers.map((number) => readCheckpointHeader(files, dir, number)));
  for (const { number, header } of checkpoints) if (header === "newer") throw foreign(checkpointName(number));
  const headers = heads.flatMap(({ header }) => header ?? []);
  const storeId = chooseStore(heads, headersOf(checkpoints));
  const ours = checkpoints.filter((one) => {
    const [header] = headersOf([one]);
    const isOurs = header === undefined || storeId?.equals(header.storeId) === true;
    if (!isOurs) log.warn({ file: checkpointName(one.number) }, "journal: checkpoint of another store, left alone");
    return isOurs;
  });
  const { segments, debris, damaged } = await sortSegments(place, heads, storeId);
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
    segmentNumberMax: Math.max(
      0,
      ...segmentIds.map(({ number }) => number),
      ...segments.map(({ header }) => header.merged?.lastNumber ?? 0),
    ),
    checkpointNumberMax: Math.max(0, ...checkpointNumbers),
  };
}

const headersOf = (found: readonly CheckpointFile[]): Header[] =>
  found.flatMap(({ header }) => (header === undefined || header === "newer" ? [] : header));

/** Nothing was ever freed: the journal alone says everything. */
const isComplete = (segments: readonly SegmentFile[]): boolean =>
  segments.every(({ number, header }, index) => number === index + 1 && (index > 0 || header.base <= 1));

/** Removes what a crash left half made, or made superfluous. */
export async function sweepDebris(files: Files, dir: string, debris: readonly string[]): Promise<void> {
  // After kill -9 the name of a merged segment may not be on the disk yet: what it replaces must not go before it is.
  if (debris.length > 0) await files.syncDir(dir);
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

/**
 * Whose store this is: one that has segments and checkpoints goes before one that has segments only, that before one that has checkpoints only (which
 * somebody copied here); then most bytes of segments, then the newest checkpoint.
 */
function chooseStore(heads: readonly Head[], checkpoints: readonly Header[]): Buffer | undefined {
  const found = new Map<string, { bytes: number; checkpoint: number }>();
  const of = (storeId: Buffer): { bytes: number; checkpoint: number } => {
    const key = storeId.toString("hex");
    const known = found.get(key) ?? { bytes: 0, checkpoint: 0 };
    found.set(key, known);
    return known;
  };
  for (const { header, size } of heads) if (header !== undefined) of(header.storeId).bytes += size;
  for (const { storeId, number } of checkpoints) of(storeId).checkpoint = number;
  const rank = ({ bytes, checkpoint }: { bytes: number; checkpoint: number }): number =>
    (bytes > 0 ? 2 : 0) + (checkpoint > 0 ? 1 : 0);
  const [best] = [...found].sort(
    ([, a], [, b]) => rank(b) - rank(a) || b.bytes - a.bytes || b.checkpoint - a.checkpoint,
  );
  return best === undefined ? undefined : Buffer.from(best[0], "hex");
}
