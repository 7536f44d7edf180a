/**
 * Checkpoints and the freeing of segments. A segment's file goes only when nothing in it waits, that is durably known, and both kept checkpoints
 * are newer than it: either of them must be able to start the store without it.
 */
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { encodeCheckpoint, type KeptCheckpoint, writeCheckpoint } from "./checkpoint.ts";
import { checkpointName } from "./format.ts";
import { isSparse } from "./mergeChoice.ts";
import type { Tuning } from "./options.ts";
import type { SegmentReader } from "./segmentReader.ts";
import type { Segment } from "./segments.ts";
import type { State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";

export interface MaintenanceEnvironment {
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly log: Log;
  readonly state: State;
  readonly writer: GroupWriter;
  readonly reader: SegmentReader;
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly tuning: Tuning;
  readonly storeMs: () => number;
  /** Puts every changed lane state into the open group. */
  readonly writeLaneStates: () => void;
}

const journalBytesMax = 64 * 1024 * 1024;
const waitingSegmentsMin = 2;

interface Encoded {
  readonly number: number;
  readonly mark: number;
  readonly group: number;
  readonly buffers: Buffer[];
}

export class Maintenance {
  readonly #env: MaintenanceEnvironment;
  /** Newest last; at most two. */
  #kept: KeptCheckpoint[];
  /** Numbers of files that are of no use any more. */
  #stale: number[];
  #nextNumber: number;
  #wanted = false;
  #encoded: Encoded | undefined;
  #writing = false;
  #freeing = false;
  #closed = false;
  #lastMs = Number.NEGATIVE_INFINITY;
  #lastMark: number;

  constructor(
    env: MaintenanceEnvironment,
    found: { checkpoints: readonly KeptCheckpoint[]; damagedCheckpoints: readonly number[]; nextCheckpoint: number },
  ) {
    this.#env = env;
    this.#kept = [...found.checkpoints];
    this.#stale = [...found.damagedCheckpoints];
    this.#nextNumber = found.nextCheckpoint;
    this.#lastMark = this.#kept.at(-1)?.mark ?? 0;
  }

  get checkpointBytes(): number {
    return this.#kept.at(-1)?.bytes ?? 0;
  }

  get bytes(): number {
    return this.#kept.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Neither is a checkpoint being made nor anything freed. */
  get isIdle(): boolean {
    return !this.#wanted && this.#encoded === undefined && !this.#writing && !this.#freeing;
  }

  /** Below it no segment is needed to start. */
  get olderMark(): number {
    return this.#kept.length < 2 ? 0 : this.#kept[0]!.mark;
  }

  /** To be called now and then; does what is due. */
  tick(): void {
    this.#free();
    if (this.#wanted || this.#writing || this.#encoded !== undefined || this.#env.writer.failed !== undefined) return;
    const { writer, clock, tuning } = this.#env;
    const due = Math.min(journalBytesMax, Math.max(tuning.checkpointBytes, 4 * this.checkpointBytes));
    const nowMs = clock.monotonicMs();
    if (
      writer.tail.end - this.#lastMark >= due ||
      (nowMs - this.#lastMs >= tuning.checkpointEveryMs && this.#segmentsWait())
    ) {
      this.#lastMs = nowMs;
      this.#wanted = true;
      if (writer.isEmpty) this.onBoundary();
    }
  }

  /** The open group is empty: the state is that of all groups before it. */
  onBoundary(): void {
    if (!this.#wanted) return;
    this.#wanted = false;
    this.#encoded = this.#encode(false);
    this.onDurable();
  }

  /** Bytes moved to another segment: what was encoded names the wrong one, and is taken anew. */
  onMoved(): void {
    if (this.#encoded === undefined) return;
    this.#encoded = undefined;
    this.#wanted = true;
  }

  /** A group became durable: what was waiting for it goes on. */
  onDurable(): void {
    const encoded = this.#encoded;
    if (encoded !== undefined && !this.#writing && this.#env.writer.durableGroup >= encoded.group) {
      this.#encoded = undefined;
      void this.#write(encoded);
    }
    this.#free();
  }

  /** The last one, with nothing open any more. Never rejects. */
  async close(): Promise<void> {
    const { writer } = this.#env;
    this.#encoded = undefined;
    this.#closed = true;
    while (this.#writing || this.#freeing) await new Promise<void>((resolve) => setImmediate(resolve));
    if (writer.failed !== undefined || !writer.isEmpty) return;
    await this.#write(this.#encode(true));
  }

  #encode(clean: boolean): Encoded {
    const { state, writer, storeId, epoch, clock, storeMs } = this.#env;
    writer.refresh(); // or what is replayed after the mark would say older things than the checkpoint
    const [number, mark, group] = [this.#nextNumber++, writer.openStart, writer.closedGroup];
    const place = {
      storeId,
      epoch,
      number,
      mark,
      group,
      storeMs: storeMs(),
      wallMs: Math.floor(clock.wallMs()),
      clean,
    };
    return { number, mark, group, buffers: encodeCheckpoint(state, { ...place, nextSegment: writer.nextSegment }) };
  }

  async #write({ number, mark, buffers }: Encoded): Promise<void> {
    const { files, dir, log } = this.#env;
    this.#writing = true;
    try {
      const bytes = await writeCheckpoint(files, dir, number, buffers);
      this.#kept.push({ number, mark, bytes });
      this.#lastMark = mark;
      this.#stale.push(...this.#kept.splice(0, Math.max(0, this.#kept.length - 2)).map((old) => old.number));
      for (const old of this.#stale) await files.unlink(join(dir, checkpointName(old))).catch(() => undefined);
      this.#stale = [];
    } catch (error) {
      log.error({ error: messageOf(error) }, "journal: checkpoint failed, the last one stays");
    } finally {
      this.#writing = false;
    }
    this.#free();
  }

  /** Whether segments are kept, or kept larger than need be, for nothing but the want of newer checkpoints. */
  #segmentsWait(): boolean {
    const { list } = this.#env.state.segments;
    const open = this.#env.writer.openSegment;
    const waiting = list.filter(
      (segment) => (!segment.pinned || isSparse(segment)) && segment !== open && segment.end > this.olderMark,
    );
    return waiting.length >= waitingSegmentsMin;
  }

  #free(): void {
    const { state, writer } = this.#env;
    if (this.#freeing || this.#closed || writer.failed !== undefined) return;
    const mark = this.olderMark;
    const ready: Segment[] = [];
    for (const [index, segment] of state.segments.list.entries()) {
      if (state.segments.list[index - 1]?.cut === true) continue; // its header is what keeps the one before cut
      if (segment.pinned || segment.held || segment === writer.openSegment || segment.end > mark) continue;
      if (segment.end > writer.durablePosition) continue;
      if (segment.freeAfterGroup === 0) {
        // What emptied it must be on the disk first, or a crash would look for what is gone.
        this.#env.writeLaneStates();
        segment.freeAfterGroup = writer.openGroup;
        writer.schedule(true);
      } else if (segment.freeAfterGroup <= writer.durableGroup) ready.push(segment);
    }
    if (ready.length > 0) void this.#unlink(ready);
  }

  async #unlink(segments: Segment[]): Promise<void> {
    const { files, dir, state, reader, log } = this.#env;
    this.#freeing = true;
    for (const segment of segments) {
      state.segments.remove(segment);
      reader.forget(segment.name);
      await files.unlink(join(dir, segment.name)).catch((error: unknown) => {
        log.warn({ segment: segment.number, error: messageOf(error) }, "journal: segment could not be removed");
      });
    }
    this.#freeing = false;
  }
}
