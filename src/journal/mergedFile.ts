/**
 * The file of a merged segment while it is being made, and what is read of it at the start. It gets its header last and its name after that, so a
 * file with the name is whole.
 */
import { join } from "node:path";
import { errnoOf, messageOf } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";
import { ByteReader, dataViewOf, FieldError } from "./bytes.ts";
import type { LoadedCheckpoint } from "./checkpoint.ts";
import {
  encodeHeader,
  type Header,
  headerBytes,
  type MergedHeader,
  recordHeaderBytes,
  recordType,
  sealRecord,
  seedOf,
  segmentMagic,
  segmentName,
  stagedName,
} from "./format.ts";
import { writeAll } from "./groupBytes.ts";
import { MessageReader } from "./messageRecord.ts";
import { PieceWalk } from "./pieceWalk.ts";
import { PositionTable, PositionTableBuilder, readMerged, writeMerged } from "./positionTable.ts";
import type { RecordSink } from "./records.ts";
import { type KeptBytes, type MergedPlace, Segment, unknownKept } from "./segments.ts";
import { Tail } from "./tail.ts";

const chunkBytes = 64 * 1024;
/** Mostly a record or few. */
const sayBytes = 4 * 1024;

export class MergedFile {
  readonly #files: Files;
  readonly #dir: string;
  readonly #staged: string;
  readonly #seed: number;
  readonly #file: OpenFile;
  readonly #table = new PositionTableBuilder();
  #chunks: Buffer[] = [];
  #chunkUsed = 0;
  /** Of the last chunk. */
  #view: DataView = new DataView(new ArrayBuffer(0));
  /** Bytes that are in the file, and that will be with what is in RAM. */
  #written = headerBytes;
  bytes = headerBytes;
  #lastPosition = 0;
  messages = 0;
  #open = true;
  #named: string | undefined;

  private constructor(files: Files, dir: string, staged: string, seed: number, file: OpenFile) {
    this.#files = files;
    this.#dir = dir;
    this.#staged = staged;
    this.#seed = seed;
    this.#file = file;
  }

  /** @throws errno errors */
  static async create(files: Files, dir: string, place: { number: number; generation: number; seed: number }) {
    const staged = join(dir, stagedName(segmentName(place.number, place.generation)));
    await files.unlink(staged).catch(() => undefined);
    return new MergedFile(files, dir, staged, place.seed, await files.open(staged, "create"));
  }

  /** Bytes that `flush` would write. */
  get pending(): number {
    return this.bytes - this.#written;
  }

  /** A record of another file, copied. @param position of a message @throws RangeError when positions do not rise: a fault of ours */
  copy(buffer: Buffer, at: number, length: number, position?: number): void {
    if (position !== undefined) {
      if (position <= this.#lastPosition) throw new RangeError(`position ${position} after ${this.#lastPosition}`);
      this.#lastPosition = position;
      this.#table.add(position, this.bytes);
      this.messages += 1;
    }
    let chunk = this.#chunks.at(-1);
    if (chunk === undefined || chunk.length - this.#chunkUsed < length) {
      if (chunk !== undefined) this.#chunks[this.#chunks.length - 1] = chunk.subarray(0, this.#chunkUsed);
      chunk = Buffer.allocUnsafe(Math.max(chunkBytes, length));
      this.#chunks.push(chunk);
      this.#view = dataViewOf(chunk);
      this.#chunkUsed = 0;
    }
    buffer.copy(chunk, this.#chunkUsed, at, at + length);
    sealRecord(this.#view, this.#chunkUsed, length, this.#seed);
    this.#chunkUsed += length;
    this.bytes += length;
  }

  /** New records. */
  say(write: (sink: RecordSink) => void): void {
    const sink = new Tail(0, Number.POSITIVE_INFINITY, sayBytes);
    write(sink);
    for (const slice of sink.slices(0, sink.end)) {
      for (let at = 0; at < slice.length; at += slice.readUInt32LE(at)) this.copy(slice, at, slice.readUInt32LE(at));
    }
  }

  /** @throws errno errors */
  async flush(): Promise<void> {
    const last = this.#chunks.length - 1;
    if (last < 0) return;
    this.#chunks[last] = this.#chunks[last]!.subarray(0, this.#chunkUsed);
    const chunks = this.#chunks;
    this.#chunks = [];
    this.#written += await writeAll(this.#file, chunks, this.#written);
  }

  /**
   * Ends the records, adds the header, gets it all onto the disk.
   * @throws errno errors
   */
  async finish(header: Header, merged: Omit<MergedHeader, "tableAt">, kept: KeptBytes): Promise<MergedPlace> {
    const { base, prevEnd, firstGroup } = header;
    const table = this.#table.finish();
    const tableAt = this.bytes;
    this.say((sink) => writeMerged(sink, { ...merged, base, prevEnd, firstGroup, kept, table }));
    await this.flush();
    await writeAll(this.#file, [encodeHeader(segmentMagic, { ...header, merged: { ...merged, tableAt } })], 0);
    await this.#file.datasync();
    this.#open = false;
    await this.#file.close();
    return { generation: merged.generation, lastNumber: merged.lastNumber, table, tableAt, kept };
  }

  /** Gives it its name, for good. @throws errno errors; then it may have it or not */
  async publish(name: string): Promise<void> {
    this.#named = name;
    await this.#files.rename(this.#staged, join(this.#dir, name));
    await this.#files.syncDir(this.#dir); // the old ones go only when this cannot be undone any more
  }

  /** Of no use. Never rejects. */
  async discard(): Promise<void> {
    if (this.#open) await this.#file.close().catch(() => undefined);
    this.#open = false;
    await this.#files.unlink(this.#staged).catch(() => undefined);
    if (this.#named === undefined) return;
    await this.#files.unlink(join(this.#dir, this.#named)).catch(() => undefined);
    await this.#files.syncDir(this.#dir).catch(() => undefined);
  }
}

/** The table of a merged segment: as its last record says, or found anew when that has rotted. */
async function loadTable(
  files: Files,
  path: string,
  place: { tableAt: number; seed: number },
): Promise<{ table: PositionTable; kept: KeptBytes; damaged: boolean }> {
  const file = await files.open(path, "read");
  try {
    const said = await readTable(file, place).catch((error: unknown) => {
      if (errnoOf(error) !== "EIO") throw error;
      return undefined;
    });
    if (said !== undefined) return { table: said.table, kept: said.kept, damaged: false };
    return { table: await findTable(file, place), kept: unknownKept, damaged: true };
  } finally {
    await file.close();
  }
}

/** What recovery knows of a merged segment; `damage` says what it had to do without. */
export async function openMerged(
  files: Files,
  dir: string,
  { name, header, size }: { readonly name: string; readonly header: Header; readonly size: number },
  checkpoint: LoadedCheckpoint | undefined,
): Promise<{ segment: Segment; damage: string | undefined }> {
  const { number, base, firstGroup, prevEnd, storeId } = header;
  const { generation, lastNumber, end, tableAt } = header.merged!;
  const seed = seedOf(segmentMagic, storeId, number, generation);
  let damage: string | undefined;
  let found = { table: new PositionTable([], []), kept: unknownKept, damaged: true };
  try {
    found = await loadTable(files, join(dir, name), { tableAt, seed });
    if (found.damaged) damage = "its table is damaged";
  } catch (error) {
    damage = messageOf(error);
  }
  const merged = { generation, lastNumber, tableAt, table: found.table, kept: found.kept };
  const segment = new Segment({ number, base, firstGroup, prevEnd, seed, end, merged });
  segment.fileBytes = size;
  if (checkpoint?.whole !== true || end > checkpoint.header.base) return { segment, damage }; // its messages will be counted
  // The checkpoint may be older and know those that it replaces; together they held what it holds.
  for (const [known, { parts }] of checkpoint.segments) {
    if (known >= number && known <= lastNumber) segment.takeOver({ parts, references: 0 });
  }
  return { segment, damage };
}

const tablePieceBytes = 64 * 1024;

async function readTable(file: OpenFile, { tableAt, seed }: { tableAt: number; seed: number }) {
  const walk = new PieceWalk(file, tableAt, await file.size(), seed, tablePieceBytes);
  while (await walk.read()) {
    if (!walk.step()) continue;
    const { at, next, type } = walk.record;
    if (type !== recordType.merged || walk.offset !== tableAt) return undefined;
    try {
      return readMerged(new ByteReader(walk.buffer, at + recordHeaderBytes, next));
    } catch (error) {
      if (error instanceof FieldError) return undefined;
      throw error;
    }
  }
  return undefined;
}

async function findTable(file: OpenFile, { tableAt, seed }: { tableAt: number; seed: number }) {
  const table = new PositionTableBuilder();
  const message = new MessageReader();
  const walk = new PieceWalk(file, headerBytes, tableAt, seed, 4 * tablePieceBytes);
  for (;;) {
    const more = await walk.read().catch((error: unknown) => {
      if (errnoOf(error) === "EIO") return false; // readers go over it in small steps, from what is known
      throw error;
    });
    if (!more) return table.finish();
    while (walk.step()) {
      const { at, next, type, flags } = walk.record;
      if (type !== recordType.message) continue;
      try {
        message.start(walk.buffer, at + recordHeaderBytes, next, flags);
        table.add(message.position, walk.offset);
      } catch (error) {
        if (!(error instanceof FieldError)) throw error;
      }
    }
  }
}
