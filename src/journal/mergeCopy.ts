/** Copies what is live of a run of segments to a new file, piece by piece. */
import { join } from "node:path";
import type { Files, OpenFile } from "../base/files.ts";
import { ByteReader, FieldError } from "./bytes.ts";
import { writeDefinitions } from "./checkpoint.ts";
import { headerBytes, recordHeaderBytes, recordType } from "./format.ts";
import type { MergedFile } from "./mergedFile.ts";
import { LanesDone, Pins, StatementFilter } from "./mergeFilter.ts";
import { MessageReader } from "./messageRecord.ts";
import type { Pace } from "./pace.ts";
import { PieceWalk } from "./pieceWalk.ts";
import { writeNamed, writeReferences } from "./records.ts";
import { type KeptBytes, type Segment, unknownKept } from "./segments.ts";
import type { State } from "./state.ts";

export interface CopyEnvironment {
  readonly dir: string;
  readonly files: Files;
  readonly state: State;
  readonly pace: Pace;
  /** The new file. */
  readonly file: MergedFile;
  /** So much is read, and written, at once. */
  readonly pieceBytes: number;
  /** More live bytes than this end the run early. */
  readonly liveBytes: number;
  /** @throws when there is no sense in going on */
  readonly check: () => void;
}

export const definitionCopies = 2;

/**
 * Counts what references and retained values point at in the run. From now on `state.pinWatch` tells what is pinned meanwhile.
 * @param perTurn positions looked at before the event loop turns
 */
export async function countPins(state: State, run: readonly Segment[], perTurn: number): Promise<Pins> {
  const from = Math.min(...run.map(({ base }) => base));
  const to = Math.max(...run.map(({ end }) => end));
  const watch = { from, to, pinned: new Set<number>() };
  state.pinWatch = watch;
  const pinned: number[] = [];
  let looked = 0;
  const look = (position: number): boolean => {
    if (position >= from && position < to) pinned.push(position);
    looked += 1;
    return looked % perTurn === 0;
  };
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  for (const queue of state.queues.values()) {
    for (const position of queue.positions()) if (look(position)) await turn();
  }
  for (const position of state.retained.values()) if (look(position)) await turn();
  return new Pins(Float64Array.from(pinned), watch);
}

export class RunCopy {
  readonly #env: CopyEnvironment;
  readonly #pins: Pins;
  readonly #lanes: LanesDone;
  readonly #statements: StatementFilter;
  readonly #message = new MessageReader();
  readonly #from = new ByteReader(Buffer.alloc(0));
  #bytes = { statements: 0, pinned: 0, pinnedCount: 0 };
  /** The segments that are in the file. */
  readonly done: Segment[] = [];
  readonly #total = { statements: 0, pinned: 0, pinnedCount: 0 };

  /** To be made in the turn in which every changed lane state is written. @param first nothing lies before the run */
  constructor(env: CopyEnvironment, pins: Pins, first: boolean) {
    this.#env = env;
    this.#pins = pins;
    this.#lanes = new LanesDone(env.state);
    this.#statements = new StatementFilter(env.state, first);
  }

  /** What the new file keeps. */
  get kept(): KeptBytes {
    return keptOf(this.#total);
  }

  /** Whether something was pinned that the file does not have. */
  get missed(): boolean {
    return this.#pins.missed(this.done.at(-1)?.end ?? 0);
  }

  /** @throws errno errors; what `check` throws */
  async run(segments: readonly Segment[]): Promise<void> {
    const { file, state, liveBytes } = this.#env;
    // Twice: without any checkpoint one rotten definition would take every message of its lane with it.
    for (let copies = 0; copies < definitionCopies; copies += 1) file.say((sink) => void writeDefinitions(sink, state));
    const before = file.bytes;
    for (const segment of segments) {
      await this.#segment(segment);
      this.done.push(segment);
      if (file.bytes - before > liveBytes) break;
    }
    file.say((sink) => {
      for (const [queue, next] of this.#statements.ordinals()) writeNamed(sink, recordType.queue, queue, next);
    });
  }

  async #segment(segment: Segment): Promise<void> {
    const { files, dir, file, pace, pieceBytes, check } = this.#env;
    this.#bytes = { statements: 0, pinned: 0, pinnedCount: 0 };
    const input: OpenFile = await files.open(join(dir, segment.name), "read");
    try {
      const walk = new PieceWalk(input, headerBytes, segment.recordsTo, segment.seed, pieceBytes);
      while (await walk.read()) {
        while (walk.step()) this.#record(walk);
        const written = file.pending;
        if (written >= pieceBytes) await file.flush();
        await pace.spend(walk.pieceBytes + (written >= pieceBytes ? written : 0));
        check();
      }
    } finally {
      await input.close();
    }
    segment.kept = keptOf(this.#bytes);
    this.#total.statements += this.#bytes.statements;
    this.#total.pinned += this.#bytes.pinned;
    this.#total.pinnedCount += this.#bytes.pinnedCount;
  }

  #copy(buffer: Buffer, at: number, length: number): void {
    this.#env.file.copy(buffer, at, length);
    this.#bytes.statements += length;
  }

  /** Those that still hold: a start without a checkpoint would not see that the others do not. */
  #references(buffer: Buffer, at: number, length: number): void {
    const { queue, count, batch } = this.#statements.references(this.#from);
    if (batch.length === 0) return;
    if (batch.length === count) this.#copy(buffer, at, length);
    else {
      const { file } = this.#env;
      const before = file.bytes;
      file.say((sink) => writeReferences(sink, queue, batch));
      this.#bytes.statements += file.bytes - before;
    }
  }

  #record({ buffer, record }: PieceWalk): void {
    const { at, next, length, type, flags } = record;
    if (type !== recordType.message) {
      this.#from.reset(buffer, at + recordHeaderBytes, next);
      if (type === recordType.references) this.#references(buffer, at, length);
      else if (this.#statements.keeps(type, this.#from)) this.#copy(buffer, at, length);
      return;
    }
    const message = this.#message;
    try {
      message.start(buffer, at + recordHeaderBytes, next, flags);
      const { position } = message;
      const pinned = this.#pins.has(position);
      if (!pinned && !this.#lanes.waits(message)) return;
      if (pinned) {
        this.#bytes.pinned += length;
        this.#bytes.pinnedCount += 1;
      }
      this.#env.file.copy(buffer, at, length, position);
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
    }
  }
}

const keptOf = (bytes: { statements: number; pinned: number; pinnedCount: number }): KeptBytes => ({
  statements: bytes.statements,
  pinnedMean: bytes.pinnedCount === 0 ? unknownKept.pinnedMean : Math.ceil(bytes.pinned / bytes.pinnedCount),
});
