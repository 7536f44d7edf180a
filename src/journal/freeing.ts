/**
 * The freeing of segments. A segment's file goes only when nothing in it waits, that is durably known, and both kept checkpoints are newer than
 * it: either of them must be able to start the store without it. Looks only at segments without a pin, so that a sync costs the same with a
 * thousand segments as with ten.
 */
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { segmentName } from "./format.ts";
import type { Holds } from "./holds.ts";
import type { SegmentReader } from "./segmentReader.ts";
import type { Segment } from "./segments.ts";
import type { State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";

export interface FreeingEnvironment {
  readonly dir: string;
  readonly files: Files;
  readonly log: Log;
  readonly state: State;
  readonly writer: GroupWriter;
  readonly reader: SegmentReader;
  readonly holds: Holds;
  /** Puts every changed lane state into the open group. */
  readonly writeLaneStates: () => void;
  /** Files were removed. */
  readonly onFreed: () => void;
}

export class Freeing {
  readonly #env: FreeingEnvironment;
  #done: Promise<void> | undefined;
  #closed = false;

  constructor(env: FreeingEnvironment) {
    this.#env = env;
  }

  /** Segments that nothing but the want of newer checkpoints keeps, and their bytes. */
  waiting(olderMark: number): { segments: number; bytes: number } {
    const open = this.#env.writer.openSegment;
    let [segments, bytes] = [0, 0];
    for (const segment of this.#env.state.segments.idle) {
      if (segment.pinned || segment === open || segment.end <= olderMark) continue;
      segments += 1;
      bytes += segment.fileBytes;
    }
    return { segments, bytes };
  }

  /** Removes what may go. */
  free(olderMark: number): void {
    const { state, writer } = this.#env;
    if (this.#done !== undefined || this.#closed || this.#env.holds.any || writer.failed !== undefined) return;
    const { idle } = state.segments;
    let ready: Segment[] | undefined;
    for (const segment of idle) {
      if (segment.pinned) {
        idle.delete(segment); // it comes back when it is emptied
        continue;
      }
      if (segment === writer.openSegment || segment.end > olderMark || segment.end > writer.durablePosition) continue;
      if (segment.freeAfterGroup === 0) {
        // What emptied it must be on the disk first, or a crash would look for what is gone.
        this.#env.writeLaneStates();
        segment.freeAfterGroup = writer.openGroup;
        writer.schedule(true);
      } else if (segment.freeAfterGroup <= writer.durableGroup && !this.#keepsCut(segment)) {
        ready ??= [];
        ready.push(segment);
      }
    }
    if (ready !== undefined) this.#done = this.#unlink(ready);
  }

  /** Resolves when nothing is being removed. */
  async settled(): Promise<void> {
    await this.#done;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#done;
  }

  /** Whether its header is what keeps the one before it cut: without it, and without a checkpoint, what was declared absent would come back. */
  #keepsCut(segment: Segment): boolean {
    const { list } = this.#env.state.segments;
    return list[list.indexOf(segment) - 1]?.cut === true;
  }

  /** Never rejects. */
  async #unlink(segments: Segment[]): Promise<void> {
    const { files, dir, state, reader, log } = this.#env;
    for (const segment of segments) {
      state.segments.remove(segment);
      reader.forget(segment.number);
      await files.unlink(join(dir, segmentName(segment.number))).catch((error: unknown) => {
        log.warn({ segment: segment.number, error: messageOf(error) }, "journal: segment could not be removed");
      });
    }
    this.#done = undefined;
    this.#env.onFreed();
  }
}
