/** What the store takes of the disk and may still take: segments, checkpoints, and the prepared segments that give way first. */
import type { RecoveryReport } from "../base/contracts.ts";
import type { AdmissionControl } from "./admission.ts";
import { type StoreView, stateOf } from "./metrics.ts";
import type { ResolvedOptions } from "./options.ts";
import type { Segment } from "./segments.ts";
import { Spares } from "./spares.ts";
import type { State } from "./state.ts";
import { UnusedTails } from "./unusedTail.ts";
import type { GroupWriter } from "./writer.ts";

/** Segments are prepared where storage.maxBytes holds so many at least: a small store has better use for the space. */
const sparesFromSegments = 8;
const typicalBytesMax = 64 * 1024;

interface RoomParts {
  readonly options: ResolvedOptions;
  readonly state: State;
  readonly writer: () => GroupWriter;
  readonly checkpoints: () => { readonly bytes: number };
  readonly admission: () => AdmissionControl;
}

export class Room {
  readonly #parts: RoomParts;
  readonly #tails: UnusedTails;
  readonly spares: Spares;

  constructor(parts: RoomParts) {
    const { options, state } = parts;
    const { dir, files, clock, log, segmentBytes, tuning, maxBytes } = options;
    this.#parts = parts;
    this.#tails = new UnusedTails({ dir, files, log, segments: state.segments });
    const max = maxBytes >= sparesFromSegments * segmentBytes ? tuning.spares : 0;
    const mayTake = (bytes: number): boolean => this.#mayTake(bytes);
    const pieceBytes = tuning.sparePieceBytes;
    this.spares = new Spares({ dir, files, clock, log, segmentBytes, pieceBytes, max, mayTake });
  }

  /** Of segments and checkpoints. */
  get usedBytes(): number {
    return this.#parts.state.segments.fileBytes + this.#parts.checkpoints().bytes;
  }

  /** Of all files. */
  get bytes(): number {
    return this.usedBytes + this.spares.bytes;
  }

  /** Takes stock, before the first write. Never rejects. */
  async begin(): Promise<void> {
    await this.spares.load();
  }

  /** Once a second: gives back what a segment does not use, prepares the next one. */
  tick(): void {
    const writer = this.#parts.writer();
    this.#tails.next(writer.durablePosition, writer.openSegment);
    if (writer.output.wantsNext) this.spares.prepare();
  }

  /** What is told about it. */
  view(recovery: RecoveryReport): StoreView {
    const { failed, pendingBytes } = this.#parts.writer();
    return {
      bytes: this.bytes,
      segments: this.#parts.state.segments.list.length,
      spares: this.spares.count,
      pendingBytes,
      ...stateOf(failed, this.#parts.admission().refusing(this.#typicalBytes)),
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

  /** What there must be room for: that one byte still fits says nothing to who sends more. */
  get #typicalBytes(): number {
    return Math.min(typicalBytesMax, this.#parts.options.maxMessageBytes);
  }

  #mayTake(bytes: number): boolean {
    const { failed, full, output } = this.#parts.writer();
    if (failed !== undefined || full || !output.light) return false;
    return this.#parts.admission().hasSpare(bytes + this.#parts.options.segmentBytes); // or it would have to give way at once
  }
}
