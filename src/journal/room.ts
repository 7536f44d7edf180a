/** What the store takes of the disk and may still take: segments, checkpoints, and the prepared segments that give way first. */
import type { RecoveryReport } from "../base/contracts.ts";
import type { Files } from "../base/files.ts";
import { type StoreView, stateOf } from "./metrics.ts";
import type { ResolvedOptions } from "./options.ts";
import type { Segment } from "./segments.ts";
import { Space } from "./space.ts";
import { Spares } from "./spares.ts";
import type { State } from "./state.ts";
import { UnusedTails } from "./unusedTail.ts";
import type { GroupWriter } from "./writer.ts";

/** Segments are prepared where storage.maxBytes holds so many at least: a small store has better use for the space. */
const sparesFromSegments = 8;

interface RoomParts {
  readonly options: ResolvedOptions;
  readonly state: State;
  /** What is written through it is counted. */
  readonly files: Files;
  readonly writer: () => GroupWriter;
  readonly checkpoints: () => { readonly bytes: number; readonly checkpointBytes: number };
}

export class Room {
  readonly #parts: RoomParts;
  readonly #space: Space;
  readonly #tails: UnusedTails;
  readonly spares: Spares;

  constructor(parts: RoomParts) {
    const { options, files, state } = parts;
    const { dir, clock, log, segmentBytes, tuning, maxBytes } = options;
    this.#parts = parts;
    this.#space = new Space(files, dir, options);
    this.#tails = new UnusedTails({ dir, files, log, segments: state.segments });
    const max = maxBytes >= sparesFromSegments * segmentBytes ? tuning.spares : 0;
    const mayTake = (bytes: number): boolean => this.#mayTake(bytes);
    this.spares = new Spares({ dir, files, clock, log, segmentBytes, max, mayTake });
  }

  /** Of all files. */
  get bytes(): number {
    return this.#parts.state.segments.fileBytes + this.#parts.checkpoints().bytes + this.spares.bytes;
  }

  /** Takes stock, before the first write. Never rejects. */
  async begin(): Promise<void> {
    await this.spares.load();
    await this.#check();
  }

  /** Once a second: asks the disk, gives back what a segment does not use, prepares the next one. */
  tick(): void {
    const writer = this.#parts.writer();
    void this.#check();
    this.#tails.next(writer.durablePosition, writer.openSegment);
    if (writer.output.wantsNext) this.spares.prepare();
  }

  /** Whether so many bytes more have no room. Prepared segments are given up before that is said. */
  lacks(bytes: number): boolean {
    const used = this.bytes + this.#parts.writer().pendingBytes;
    const { checkpointBytes } = this.#parts.checkpoints();
    if (!this.#space.wouldFill(used, bytes, checkpointBytes)) return false;
    const spare = this.spares.bytes;
    if (spare === 0) return true;
    void this.spares.surrender();
    return this.#space.wouldFill(used - spare, bytes, checkpointBytes);
  }

  /** What is told about it. */
  view(recovery: RecoveryReport): StoreView {
    const { failed, pendingBytes, full } = this.#parts.writer();
    return {
      bytes: this.bytes,
      segments: this.#parts.state.segments.list.length,
      spares: this.spares.count,
      pendingBytes,
      ...stateOf(failed, full || this.lacks(1)),
      recovery,
    };
  }

  /** A segment's file is of no use any more. False: it is not used again, and to be removed. */
  readonly freed = (segment: Segment): Promise<boolean> => this.spares.freed(segment);

  /** Never rejects. */
  async close(): Promise<void> {
    await this.spares.close();
    await this.#tails.close();
  }

  async #check(): Promise<void> {
    await this.#space.check(this.#parts.options.clock.monotonicMs(), this.bytes);
  }

  #mayTake(bytes: number): boolean {
    const { failed, full, output, pendingBytes } = this.#parts.writer();
    if (failed !== undefined || full || !output.light) return false;
    const wanted = bytes + this.#parts.options.segmentBytes; // or it would have to give way at once
    return !this.#space.wouldFill(this.bytes + pendingBytes, wanted, this.#parts.checkpoints().checkpointBytes);
  }
}
