/** What lies in the data folder: our segments and checkpoints, told apart from what is not ours, which is left alone. */
import { join } from "node:path";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { ByteReader } from "./bytes.ts";
import { type KeptCheckpoint, type LoadedCheckpoint, loadCheckpoint } from "./checkpoint.ts";
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
  segmentNamePattern,
  stagedNamePattern,
} from "./format.ts";
import { MessageReader } from "./messageRecord.ts";
import { readMerged } from "./positionTable.ts";
import { RecordWalker } from "./walk.ts";

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
  /** The newest checkpoint that is whole, and the one before it. */
  readonly checkpoint: LoadedCheckpoint | undefined;
  /** All that are whole, oldest first. */
  readonly kept: KeptCheckpoint[];
  /** Numbers of those that are not. */
  readonly damagedCheckpoints: number[];
  readonly damaged: number;
  /** Names of segments that were never whole, and of those that a merged one replaces. */
  readonly debris: string[];
  readonly segmentNumberMax: number;
  readonly checkpointNumberMax: number;
}

export async function readWhole(files: Files, path: string): Promise<Buffer> {
  const file = await files.open(path, "read");
  try {
    const buffer = Buffer.alloc(await file.size());
    let filled = 0;
    while (filled < buffer.length) {
      const count = await file.read(buffer.subarray(filled), filled);
      if (count === 0) break;
      filled += count;
    }
    return buffer.subarray(0, filled);
  } finally {
    await file.close();
  }
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

/** What a segment's name says. */
interface SegmentId {
  readonly name: string;
  readonly number: number;
  readonly generation: number;
}

interface Head extends SegmentId {
  readonly header: Header | undefined;
  readonly size: number;
}

/** The headers of all segments; undefined where one cannot be read. @throws TidegateError TG_STORE_FOREIGN */
async function readHeads({ files, dir, log }: Place, ids: readonly SegmentId[]): Promise<Head[]> {
  const heads: Head[] = [];
  for (const id of ids) {
    const { name } = id;
    const bytes = await readHead(files, join(dir, name)).catch((error: unknown) => {
      log.error({ file: name, error: messageOf(error) }, "journal: segment cannot be read");
      return undefined;
    });
    const header = bytes === undefined ? undefined : decodeHeader(segmentMagic, bytes.head);
    if (header === "newer") throw foreign(name);
    const named = header?.number === id.number && (header.merged?.generation ?? 0) === id.generation;
    if (header !== undefined && !named) continue; // copied under another name: not ours to judge
    heads.push({ ...id, header, size: bytes?.size ?? 0 });
  }
  return heads;
}

/** Those that are whole, and the numbers of those that are not. @throws TidegateError TG_STORE_FOREIGN */
async function readCheckpoints(
  { files, dir, log }: Place,
  numbers: readonly number[],
): Promise<{ whole: LoadedCheckpoint[]; damaged: number[] }> {
  const whole: LoadedCheckpoint[] = [];
  const damaged: number[] = [];
  for (const number of numbers) {
    const name = checkpointName(number);
    const buffer = await readWhole(files, join(dir, name)).catch(() => Buffer.alloc(0));
    const loaded = loadCheckpoint(buffer);
    if (loaded === "newer") throw foreign(name);
    if (loaded !== undefined) whole.push(loaded);
    else {
      damaged.push(number);
      log.error({ file: name }, "journal: checkpoint is damaged, using the one before");
    }
  }
  return { whole, damaged };
}

/** Our segments among the heads, what is of no use, and how many held something that cannot be told any more. */
async function sortSegments(
  { files, dir, log }: Place,
  heads: readonly Head[],
  storeId: Buffer | undefined,
  newest: string | undefined,
): Promise<{ segments: SegmentFile[]; debris: string[]; damaged: number }> {
  const segments: SegmentFile[] = [];
  const debris: string[] = [];
  let damaged = 0;
  for (const { name, number, generation, header, size } of heads) {
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
    // The newest was just being made when the power went, and is of no use; any other held something once.
    if (name === newest) debris.push(name);
    else damaged += 1;
  }
  const { current, replaced } = withoutReplaced(segments);
  return { segments: current, debris: [...debris, ...replaced], damaged };
}

/** A crash may have left segments beside the merged one that replaces them, which was whole before it had its name. */
function withoutReplaced(segments: readonly SegmentFile[]): { current: SegmentFile[]; replaced: string[] } {
  const current: SegmentFile[] = [];
  const replaced: string[] = [];
  const merged = segments.flatMap(({ header }) => (header.merged === undefined ? [] : [{ ...header.merged, header }]));
  for (const file of segments) {
    const generation = file.header.merged?.generation ?? 0;
    const by = merged.some(
      (one) => one.generation > generation && one.header.number <= file.number && one.lastNumber >= file.number,
    );
    if (by) replaced.push(file.name);
    else current.push(file);
  }
  return { current, replaced };
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
  const segmentIds = names
    .flatMap((name) => {
      const [, number, generation = "0"] = segmentNamePattern.exec(name) ?? [];
      return number === undefined ? [] : [{ name, number: Number(number), generation: Number(generation) }];
    })
    .sort((a, b) => a.number - b.number || a.generation - b.generation);
  const checkpointNumbers = numbersOf(checkpointNamePattern);
  const heads = await readHeads(place, segmentIds);
  const { whole: checkpoints, damaged: damagedCheckpoints } = await readCheckpoints(place, checkpointNumbers);
  const storeId = chooseStore(
    heads.flatMap(({ header }) => header ?? []),
    checkpoints,
  );
  const kept = checkpoints.filter(({ header }) => storeId?.equals(header.storeId) ?? false);
  const sorted = await sortSegments(place, heads, storeId, segmentIds.at(-1)?.name);
  const { segments, debris } = sorted;
  const damaged = sorted.damaged + damagedCheckpoints.length;
  return {
    storeId,
    epoch: Math.max(
      0,
      ...heads.map(({ header }) => header?.epoch ?? 0),
      ...checkpoints.map(({ header }) => header.epoch),
    ),
    segments,
    checkpoint: kept.at(-1),
    kept: kept.map(({ header, bytes }) => ({ number: header.number, mark: header.base, bytes })),
    damagedCheckpoints,
    damaged,
    debris,
    segmentNumberMax: Math.max(
      0,
      ...segmentIds.map(({ number }) => number),
      ...segments.map(({ header }) => header.merged?.lastNumber ?? 0),
    ),
    checkpointNumberMax: Math.max(0, ...checkpointNumbers),
  };
}

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

/** Whose store this is: that of the newest whole checkpoint, else that of most segments. */
function chooseStore(headers: Header[], checkpoints: LoadedCheckpoint[]): Buffer | undefined {
  const newest = checkpoints.at(-1);
  if (newest !== undefined) return Buffer.from(newest.header.storeId);
  const counts = new Map<string, number>();
  for (const { storeId } of headers)
    counts.set(storeId.toString("hex"), (counts.get(storeId.toString("hex")) ?? 0) + 1);
  const [most] = [...counts].sort((a, b) => b[1] - a[1]);
  return most === undefined ? undefined : Buffer.from(most[0], "hex");
}

/** Both copies of a header are gone: the file's name gives the checksum's seed, a message its base, of a merged one the last record all. */
async function salvage(
  files: Files,
  path: string,
  { number, generation, storeId }: { number: number; generation: number; storeId: Buffer },
): Promise<Header | undefined> {
  const buffer = await readWhole(files, path).catch(() => Buffer.alloc(0));
  const walker = new RecordWalker();
  const seed = seedOf(segmentMagic, storeId, number, generation);
  walker.start(buffer, Math.min(headerBytes, buffer.length), buffer.length, 0, seed);
  const message = new MessageReader();
  const lost = { storeId, epoch: 0, number, firstGroup: 0, wallMs: 0 };
  let [base, end] = [0, 0];
  while (walker.step() === "record") {
    if (generation > 0 && walker.type === recordType.merged) {
      const said = readMerged(new ByteReader(buffer, walker.at + recordHeaderBytes, walker.next));
      const { firstGroup, prevEnd, lastNumber } = said;
      const merged = { generation, lastNumber, end: said.end, tableAt: walker.at };
      return { ...lost, base: said.base, firstGroup, prevEnd, merged };
    }
    if (walker.type !== recordType.message) continue;
    message.start(buffer, walker.at + recordHeaderBytes, walker.next, walker.flags);
    end = message.position + 1;
    if (base === 0) base = generation > 0 ? message.position : message.position - walker.at + headerBytes;
    if (generation === 0) return { ...lost, base, prevEnd: base };
  }
  if (base === 0) return undefined;
  return { ...lost, base, prevEnd: base, merged: { generation, lastNumber: number, end, tableAt: buffer.length } };
}
