/**
 * Where the positions of a merged segment lie in its file: a pair for each 8 KiB, in RAM and in the MERGED record at the file's end.
 *
 *   MERGED   generation | last number | base | end | prevEnd | first group | bytes of statements
 *            | mean bytes of a pinned message | n | n x { position - the one before | offset - the one before }
 *
 * It repeats what the header says: with both copies of that lost, nothing else could tell which segments the file stands for.
 */
import type { ByteReader } from "./bytes.ts";
import { headerBytes, recordType } from "./format.ts";
import type { RecordSink } from "./records.ts";
import type { KeptBytes } from "./segments.ts";

/** A record without a pair of its own begins less than this after one that has. Bytes. */
export const tableStepBytes = 8 * 1024;

export class PositionTable {
  readonly #positions: Float64Array;
  readonly #offsets: Float64Array;

  constructor(positions: readonly number[], offsets: readonly number[]) {
    this.#positions = Float64Array.from(positions);
    this.#offsets = Float64Array.from(offsets);
  }

  /** Offset of the last known record at or before `position`; where the records begin when there is none. */
  offsetOf(position: number): number {
    const positions = this.#positions;
    let low = 0;
    let high = positions.length;
    while (low < high) {
      const middle = (low + high) >>> 1; // an index, not a position
      if (positions[middle]! <= position) low = middle + 1;
      else high = middle;
    }
    return this.#offsets[low - 1] ?? headerBytes;
  }

  pairs(): ReadonlyArray<readonly [position: number, offset: number]> {
    return [...this.#positions].map((position, index) => [position, this.#offsets[index]!]);
  }
}

/** Fed with every message of the file, in order. */
export class PositionTableBuilder {
  readonly #positions: number[] = [];
  readonly #offsets: number[] = [];

  add(position: number, offset: number): void {
    const before = this.#offsets.at(-1);
    if (before !== undefined && offset - before < tableStepBytes) return;
    this.#positions.push(position);
    this.#offsets.push(offset);
  }

  finish(): PositionTable {
    return new PositionTable(this.#positions, this.#offsets);
  }
}

/** What the MERGED record says. */
export interface MergedRecord {
  readonly generation: number;
  readonly lastNumber: number;
  readonly base: number;
  readonly end: number;
  readonly prevEnd: number;
  readonly firstGroup: number;
  readonly kept: KeptBytes;
  readonly table: PositionTable;
}

export function writeMerged(sink: RecordSink, of: MergedRecord): void {
  const pairs = of.table.pairs();
  const to = sink.begin(recordType.merged, 0, 90 + pairs.length * 20);
  const { statements, pinnedMean } = of.kept;
  for (const value of [of.generation, of.lastNumber, of.base, of.end, of.prevEnd, of.firstGroup]) to.uvarint(value);
  for (const value of [statements, pinnedMean, pairs.length]) to.uvarint(value);
  let before: readonly [number, number] = [0, 0];
  for (const pair of pairs) {
    to.uvarint(pair[0] - before[0]);
    to.uvarint(pair[1] - before[1]);
    before = pair;
  }
  sink.finish();
}

/** @throws FieldError */
export function readMerged(from: ByteReader): MergedRecord {
  const [generation, lastNumber, base, end] = [from.uvarint(), from.uvarint(), from.uvarint(), from.uvarint()];
  const [prevEnd, firstGroup] = [from.uvarint(), from.uvarint()];
  const kept = { statements: from.uvarint(), pinnedMean: from.uvarint() };
  const positions: number[] = [];
  const offsets: number[] = [];
  for (let left = from.uvarint(); left > 0; left -= 1) {
    positions.push((positions.at(-1) ?? 0) + from.uvarint());
    offsets.push((offsets.at(-1) ?? 0) + from.uvarint());
  }
  return { generation, lastNumber, base, end, prevEnd, firstGroup, kept, table: new PositionTable(positions, offsets) };
}
