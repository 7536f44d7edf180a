/** Which segments a folder's names and headers stand for: merged ones replace others, and what lost its header is recognised by its records. */
import type { Files } from "../base/files.ts";
import { ByteReader } from "./bytes.ts";
import { FileWalk, throwUnlessDamage } from "./fileWalk.ts";
import {
  type Header,
  headerBytes,
  type MergedHeader,
  recordHeaderBytes,
  recordType,
  seedOf,
  segmentMagic,
  segmentNamePattern,
} from "./format.ts";
import { MessageReader } from "./messageRecord.ts";
import { type MergedRecord, readMerged } from "./positionTable.ts";
import type { RecordWalker } from "./walk.ts";

/** What a segment's name says. */
export interface SegmentId {
  readonly name: string;
  readonly number: number;
  readonly generation: number;
}

/** By rising number, then generation. */
export const segmentIdsOf = (names: readonly string[]): SegmentId[] =>
  names
    .flatMap((name) => {
      const [, number, generation = "0"] = segmentNamePattern.exec(name) ?? [];
      return number === undefined ? [] : [{ name, number: Number(number), generation: Number(generation) }];
    })
    .sort((a, b) => a.number - b.number || a.generation - b.generation);

interface Named {
  readonly name: string;
  readonly number: number;
  readonly header: Header;
}

/** A crash may have left segments beside the merged one that replaces them, which was whole before it had its name. */
export function withoutReplaced<T extends Named>(segments: readonly T[]): { current: T[]; replaced: string[] } {
  const current: T[] = [];
  const replaced: string[] = [];
  const merged = segments.flatMap(({ number, header }) =>
    header.merged === undefined ? [] : [{ number, ...header.merged }],
  );
  for (const file of segments) {
    const generation = file.header.merged?.generation ?? 0;
    const by = merged.some(
      (one) => one.generation > generation && one.number <= file.number && one.lastNumber >= file.number,
    );
    if (by) replaced.push(file.name);
    else current.push(file);
  }
  return { current, replaced };
}

/** Both copies of a header are gone: the file's name gives the checksum's seed, a message its base; of a merged one the last record says all. */
export async function salvage(
  files: Files,
  path: string,
  { number, generation, storeId }: { number: number; generation: number; storeId: Buffer },
): Promise<Header | undefined> {
  const seed = seedOf(segmentMagic, storeId, number, generation);
  const message = new MessageReader();
  const walk = new FileWalk();
  let [base, end, size] = [0, 0, 0];
  let said: { record: MergedRecord; tableAt: number } | undefined;
  const visit = (walker: RecordWalker): void => {
    const [at, offset] = [walker.at + recordHeaderBytes, walk.bufferAt + walker.at];
    if (generation > 0 && walker.type === recordType.merged) {
      said = { record: readMerged(new ByteReader(walker.buffer, at, walker.next)), tableAt: offset };
    } else if (walker.type === recordType.message && (base === 0 || generation > 0)) {
      message.start(walker.buffer, at, walker.next, walker.flags);
      end = message.position + 1;
      if (base === 0) base = generation > 0 ? message.position : message.position - offset + headerBytes;
    }
  };
  try {
    const file = await files.open(path, "read");
    size = await file.size();
    await walk.run(file, headerBytes, size, seed, visit).finally(() => file.close());
  } catch (error) {
    throwUnlessDamage(error);
    return undefined;
  }
  const lost = { storeId, epoch: 0, number, firstGroup: 0, wallMs: 0 };
  if (said !== undefined) {
    const { record, tableAt } = said;
    const merged: MergedHeader = { generation, lastNumber: record.lastNumber, end: record.end, tableAt };
    return { ...lost, base: record.base, firstGroup: record.firstGroup, prevEnd: record.prevEnd, merged };
  }
  if (base === 0) return undefined;
  const merged = generation === 0 ? undefined : { generation, lastNumber: number, end, tableAt: size };
  return { ...lost, base, prevEnd: base, merged };
}
