/** Reading checkpoints: a whole one as it is; when both kept ones are damaged, what is valid in either. */
import { join } from "node:path";
import type { Files, OpenFile } from "../base/files.ts";
import { ByteReader, FieldError } from "./bytes.ts";
import { FileWalk, throwUnlessDamage } from "./fileWalk.ts";
import {
  checkpointMagic,
  checkpointName,
  decodeHeader,
  type Header,
  headerBytes,
  recordHeaderBytes,
  recordType,
  seedOf,
} from "./format.ts";
import type { RecordSink } from "./records.ts";
import {
  applyRecord,
  readSegment,
  type SegmentRecord,
  writeLane,
  writeLaneState,
  writeRule,
  writeUplink,
} from "./records.ts";
import { State } from "./state.ts";
import { RecordWalker } from "./walk.ts";

/** What a kept checkpoint is known by. */
export interface KeptCheckpoint {
  readonly number: number;
  readonly mark: number;
  readonly bytes: number;
}

/** Uplinks, lanes, their state and the rules: also what every segment begins with, so that segments can be understood without a checkpoint. */
export function writeDefinitions(sink: RecordSink, state: State, intervalsMax?: number): void {
  for (const account of state.uplinks.values()) writeUplink(sink, account);
  for (const lane of state.lanes.values()) writeLane(sink, lane);
  for (const lane of state.lanes.values()) writeLaneState(sink, lane, intervalsMax);
  for (const [id, rule] of state.rules) writeRule(sink, id, rule.uplink, rule.definition);
}

/** A segment that a checkpoint knew. */
export interface KnownSegment extends SegmentRecord {
  /** It was not being written to any more: its end is its end. */
  readonly sealed: boolean;
}

export interface LoadedCheckpoint {
  readonly state: State;
  readonly segments: Map<number, KnownSegment>;
  /** Of the older one, where it was put together from two. */
  readonly header: Header;
  readonly records: number;
  readonly storeMs: number;
  readonly wallMs: number;
  readonly clean: boolean;
  readonly nextSegment: number;
  readonly provenGroup: number;
  readonly provenEnd: number;
  readonly bytes: number;
  /** False: put together from what is valid of two damaged ones. */
  readonly whole: boolean;
}

interface Footer {
  readonly storeMs: number;
  readonly wallMs: number;
  readonly clean: boolean;
  readonly nextSegment: number;
  readonly provenGroup: number;
  readonly provenEnd: number;
}

/** Takes the records of one checkpoint file. */
class Loader {
  readonly header: Header;
  /** Undefined: nothing is taken over, the file is only looked through. */
  readonly #state: State | undefined;
  readonly #from = new ByteReader(Buffer.alloc(0));
  readonly segments = new Map<number, SegmentRecord>();
  footer: Footer | undefined;
  records = 0;
  #expected = headerBytes;
  #broken = false;

  constructor(header: Header, state: State | undefined) {
    this.header = header;
    this.#state = state;
  }

  get seed(): number {
    return seedOf(checkpointMagic, this.header.storeId, this.header.number);
  }

  get whole(): boolean {
    return !this.#broken && this.footer !== undefined;
  }

  /** @param bufferAt offset of the walker's buffer in the file */
  take(walker: RecordWalker, bufferAt: number): void {
    if (this.footer !== undefined) return;
    if (bufferAt + walker.at !== this.#expected) this.#broken = true;
    this.#expected = bufferAt + walker.next;
    const from = this.#from;
    from.reset(walker.buffer, walker.at + recordHeaderBytes, walker.next);
    try {
      if (walker.type === recordType.segment) {
        const segment = readSegment(from);
        this.segments.set(segment.number, segment);
      } else if (walker.type === recordType.footer) this.#takeFooter(from);
      else if (this.#state !== undefined) applyRecord(this.#state, walker.type, from);
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.#broken = true;
    }
    this.records += 1;
  }

  #takeFooter(from: ByteReader): void {
    if (from.uvarint() !== this.records) this.#broken = true;
    const [storeMs, wallMs, clean, nextSegment] = [from.uvarint(), from.uvarint(), from.uvarint(), from.uvarint()];
    // Not in the first checkpoints, which were taken when their group was durable.
    const later = from.at < from.end;
    const provenGroup = later ? from.uvarint() : this.header.firstGroup;
    const provenEnd = later ? from.uvarint() : this.header.base;
    this.footer = { storeMs, wallMs, clean: clean === 1, nextSegment, provenGroup, provenEnd };
  }
}

function assemble(loaders: readonly Loader[], state: State, bytes: number): LoadedCheckpoint {
  const [oldest] = loaders;
  const segments = new Map<number, KnownSegment>();
  for (const loader of loaders) {
    const last = Math.max(0, ...loader.segments.keys()); // it may have been written to
    for (const [number, segment] of loader.segments) segments.set(number, { ...segment, sealed: number < last });
  }
  const noFooter = { storeMs: 0, wallMs: 0 };
  const footers = loaders.flatMap(({ footer }) => footer ?? []);
  const most = (of: (footer: Footer) => number): number => Math.max(0, ...footers.map(of));
  return {
    ...{ state, segments, bytes },
    header: oldest!.header,
    records: loaders.reduce((sum, { records }) => sum + records, 0),
    storeMs: most(({ storeMs }) => storeMs),
    wallMs: footers.reduce((last, footer) => (footer.storeMs >= last.storeMs ? footer : last), noFooter).wallMs,
    clean: loaders.every(({ whole, footer }) => whole && footer?.clean === true),
    nextSegment: most(({ nextSegment }) => nextSegment),
    provenGroup: Math.max(
      ...loaders.map(({ header }) => header.firstGroup),
      most(({ provenGroup }) => provenGroup),
    ),
    provenEnd: Math.max(
      ...loaders.map(({ header }) => header.base),
      most(({ provenEnd }) => provenEnd),
    ),
    whole: loaders.every(({ whole }) => whole),
  };
}

/** Undefined when a byte of it is wrong. */
export function loadCheckpoint(buffer: Buffer): LoadedCheckpoint | "newer" | undefined {
  const header = decodeHeader(checkpointMagic, buffer);
  if (header === undefined || header === "newer") return header;
  const state = new State();
  const loader = new Loader(header, state);
  const walker = new RecordWalker();
  walker.start(buffer, headerBytes, buffer.length, 0, loader.seed);
  while (walker.step() === "record") loader.take(walker, 0);
  return loader.whole ? assemble([loader], state, buffer.length) : undefined;
}

async function open<T>(files: Files, path: string, use: (file: OpenFile) => Promise<T>): Promise<T> {
  const file = await files.open(path, "read");
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

export interface CheckpointFile {
  readonly number: number;
  /** Undefined: neither copy of it is intact. */
  readonly header: Header | "newer" | undefined;
  readonly bytes: number;
}

/** Never rejects. */
export async function readCheckpointHeader(files: Files, dir: string, number: number): Promise<CheckpointFile> {
  try {
    return await open(files, join(dir, checkpointName(number)), async (file) => {
      const head = Buffer.alloc(headerBytes);
      let filled = 0;
      for (let count = 1; count > 0 && filled < head.length; filled += count) {
        count = await file.read(head.subarray(filled), filled);
      }
      const header = decodeHeader(checkpointMagic, head.subarray(0, filled));
      // Copied under another name: not to be gone by.
      const foreign = header !== undefined && header !== "newer" && header.number !== number;
      return { number, header: foreign ? undefined : header, bytes: await file.size() };
    });
  } catch (error) {
    throwUnlessDamage(error);
    return { number, header: undefined, bytes: 0 };
  }
}

/** Those of our store, oldest first; which of them are whole; and the state that they lead to. */
export class CheckpointReader {
  readonly #files: Files;
  readonly #dir: string;
  readonly #walk = new FileWalk();

  constructor(files: Files, dir: string) {
    this.#files = files;
    this.#dir = dir;
  }

  /** The newest one if it is whole, else the one before. Undefined: neither is. */
  async load(candidates: readonly CheckpointFile[]): Promise<LoadedCheckpoint | undefined> {
    for (const one of [...candidates].reverse()) {
      const state = fresh();
      const loader = await this.#read(one, state);
      if (loader?.whole) return assemble([loader], state, one.bytes);
    }
    return undefined;
  }

  async isWhole(one: CheckpointFile): Promise<boolean> {
    return (await this.#read(one, undefined))?.whole ?? false;
  }

  /**
   * The valid records of the older, over them those of the newer. What is replayed after the older's mark makes up the rest: a checkpoint may have
   * seen anything at or after its mark, so a record of the newer is what the older might have seen.
   */
  async merge(candidates: readonly CheckpointFile[]): Promise<LoadedCheckpoint | undefined> {
    const state = fresh();
    state.patching = true;
    const loaders: Loader[] = [];
    for (const one of candidates) {
      const loader = await this.#read(one, state);
      if (loader !== undefined) loaders.push(loader);
    }
    return loaders.length === 0 ? undefined : { ...assemble(loaders, state, 0), whole: false, clean: false };
  }

  async #read({ number, header, bytes }: CheckpointFile, state: State | undefined): Promise<Loader | undefined> {
    if (header === undefined || header === "newer") return undefined;
    const loader = new Loader(header, state);
    const walk = this.#walk;
    try {
      await open(this.#files, join(this.#dir, checkpointName(number)), (file) =>
        walk.run(file, headerBytes, bytes, loader.seed, (walker) => loader.take(walker, walk.bufferAt)),
      );
    } catch (error) {
      throwUnlessDamage(error);
      return undefined; // cannot be read: as if it were not there
    }
    return loader;
  }
}

function fresh(): State {
  const state = new State();
  state.counting = false;
  return state;
}
