/** What lies in the data folder: our segments and checkpoints, told apart from what is not ours, which is left alone. */
import { join } from "node:path";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
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
  segmentName,
  segmentNamePattern,
  stagedNamePattern,
} from "./format.ts";
import { MessageReader } from "./messageRecord.ts";
import { RecordWalker } from "./walk.ts";

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
  /** The newest checkpoint that is whole, and the one before it. */
  readonly checkpoint: LoadedCheckpoint | undefined;
  /** All that are whole, oldest first. */
  readonly kept: KeptCheckpoint[];
  /** Numbers of those that are not. */
  readonly damagedCheckpoints: number[];
  readonly damaged: number;
  /** Numbers of segments that were never whole. */
  readonly debris: number[];
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

interface Head {
  readonly number: number;
  readonly header: Header | undefined;
  readonly size: number;
}

/** The headers of all segments; undefined where one cannot be read. @throws TidegateError TG_STORE_FOREIGN */
async function readHeads({ files, dir, log }: Place, numbers: readonly number[]): Promise<Head[]> {
  const heads: Head[] = [];
  for (const number of numbers) {
    const name = segmentName(number);
    const bytes = await readHead(files, join(dir, name)).catch((error: unknown) => {
      log.error({ file: name, error: messageOf(error) }, "journal: segment cannot be read");
      return undefined;
    });
    const header = bytes === undefined ? undefined : decodeHeader(segmentMagic, bytes.head);
    if (header === "newer") throw foreign(name);
    if (header !== undefined && header.number !== number) continue; // copied under another name: not ours to judge
    heads.push({ number, header, size: bytes?.size ?? 0 });
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

/** Whether the bytes of the segments around leave none to this one: making it failed, and what it was to hold went to the next. */
function isBypassed(heads: readonly Head[], number: number): boolean {
  const known = heads.filter(({ header }) => header !== undefined);
  const before = known.filter((head) => head.number < number).at(-1);
  const after = known.find((head) => head.number > number);
  if (before?.header === undefined || after?.header === undefined) return false;
  return before.header.base + before.size - headerBytes >= after.header.prevEnd;
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
  for (const { number, header, size } of heads) {
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
    if (number === newest || isBypassed(heads, number)) debris.push(number);
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
  const { whole: checkpoints, damaged: damagedCheckpoints } = await readCheckpoints(place, checkpointNumbers);
  const storeId = chooseStore(
    heads.flatMap(({ header }) => header ?? []),
    checkpoints,
  );
  const kept = checkpoints.filter(({ header }) => storeId?.equals(header.storeId) ?? false);
  const sorted = await sortSegments(place, heads, storeId, segmentNumbers.at(-1));
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
    segmentNumberMax: Math.max(0, ...segmentNumbers),
    checkpointNumberMax: Math.max(0, ...checkpointNumbers),
  };
}

/** Removes what a crash left half made. */
export async function sweepDebris(files: Files, dir: string, debris: readonly number[]): Promise<void> {
  for (const number of debris) await files.unlink(join(dir, segmentName(number))).catch(() => undefined);
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

/** Both copies of a header are gone: the file's name gives the checksum's seed, a message its base. */
async function salvage(files: Files, dir: string, number: number, storeId: Buffer): Promise<Header | undefined> {
  const buffer = await readWhole(files, join(dir, segmentName(number))).catch(() => Buffer.alloc(0));
  const walker = new RecordWalker();
  walker.start(buffer, Math.min(headerBytes, buffer.length), buffer.length, 0, seedOf(segmentMagic, storeId, number));
  const message = new MessageReader();
  while (walker.step() === "record") {
    if (walker.type !== recordType.message) continue;
    message.start(buffer, walker.at + recordHeaderBytes, walker.next, walker.flags);
    const base = message.position - walker.at + headerBytes;
    return { storeId, epoch: 0, number, base, firstGroup: 0, prevEnd: base, wallMs: 0 };
  }
  return undefined;
}
