/** Takes checkpoints: begins at a group's boundary, goes on in slices beside the commits, and counts only once all that it may have seen is durable. */
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import type { KeptCheckpoint } from "./checkpoint.ts";
import { CheckpointWriter } from "./checkpointWriter.ts";
import { checkpointName, stagedName } from "./format.ts";
import type { Holds } from "./holds.ts";
import type { Tuning } from "./options.ts";
import { writeCheckpointMark } from "./records.ts";
import type { State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";

export interface CheckpointEnvironment {
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly log: Log;
  readonly state: State;
  readonly writer: GroupWriter;
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly tuning: Tuning;
  readonly storeMs: () => number;
  readonly holds: Holds;
  /** Another one counts, or an attempt ended. */
  readonly onKept: () => void;
}

export interface FoundCheckpoints {
  readonly checkpoints: readonly KeptCheckpoint[];
  /** Numbers of files that are of no use once there are newer ones. */
  readonly damagedCheckpoints: readonly number[];
  readonly nextCheckpoint: number;
}

interface Capture {
  readonly number: number;
  readonly mark: number;
  readonly writer: CheckpointWriter;
  readonly clean: boolean;
  file: OpenFile | undefined;
  aborted: boolean;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Ends a capture that is of no use any more. */
class Aborted extends Error {}

export class Checkpointer {
  readonly #env: CheckpointEnvironment;
  /** Newest last; at most two. */
  #kept: KeptCheckpoint[];
  #stale: number[];
  #nextNumber: number;
  #wanted = false;
  #capture: Capture | undefined;
  #done: Promise<void> = Promise.resolve();
  #removal: Promise<void> | undefined;
  /** Resolves what waits for a group. */
  #wake: (() => void) | undefined;
  #closed = false;
  lastMark: number;
  /** The disk did not take the last one. */
  failedLast = false;

  constructor(env: CheckpointEnvironment, found: FoundCheckpoints) {
    this.#env = env;
    this.#kept = [...found.checkpoints];
    this.#stale = [...found.damagedCheckpoints];
    this.#nextNumber = found.nextCheckpoint;
    this.lastMark = this.#kept.at(-1)?.mark ?? 0;
  }

  /** Numbers of those that are whole. */
  get numbers(): readonly number[] {
    return this.#kept.map(({ number }) => number);
  }

  get lastBytes(): number {
    return this.#kept.at(-1)?.bytes ?? 0;
  }

  /** Of both kept ones. */
  get bytes(): number {
    let bytes = 0;
    for (let at = 0; at < this.#kept.length; at += 1) bytes += this.#kept[at]!.bytes; // asked for with each message
    return bytes;
  }

  /** What lies wholly below it is needed by neither kept checkpoint; 0 while there are not two. */
  get olderMark(): number {
    return this.#kept.length < 2 ? 0 : this.#kept[0]!.mark;
  }

  /** A damaged one was found: until there are two again, nothing protects from the next. */
  get isUrgent(): boolean {
    return this.#stale.length > 0 && this.#kept.length < 2;
  }

  get isBusy(): boolean {
    return this.#wanted || this.#capture !== undefined;
  }

  /** One is to be taken at the next boundary. */
  want(): void {
    if (this.isBusy || this.#closed || this.#env.writer.failed !== undefined) return;
    this.#wanted = true;
    if (this.#env.writer.isEmpty) this.onBoundary();
  }

  /** The open group is empty: the state is that of all groups before it. */
  onBoundary(): void {
    if (!this.#wanted || this.#capture !== undefined) return;
    this.#wanted = false;
    this.#begin(false);
  }

  /** Bytes moved to another segment: what was taken names the wrong one, and is taken anew. */
  onMoved(): void {
    if (this.#capture === undefined) return;
    this.#capture.aborted = true;
    this.#wanted = !this.#closed;
    this.#wake?.();
  }

  /** A group became durable. The first one of a life synced the folder, so those of which a start found too many can go. */
  onDurable(): void {
    this.#wake?.();
    if (this.#stale.length > 0 && this.#kept.length === 2 && this.#capture === undefined) void this.#removeStale();
  }

  /** Gives up what is not finished; from here on none is begun but by `close`. Never rejects. */
  async stop(): Promise<void> {
    this.#closed = true;
    this.#wanted = false;
    if (this.#capture !== undefined) this.#capture.aborted = true;
    this.#wake?.();
    await this.#done;
    await this.#removal;
  }

  /** The last one, with nothing open any more. Never rejects. */
  async close(): Promise<void> {
    const { writer } = this.#env;
    await this.stop();
    if (writer.failed !== undefined || !writer.isEmpty) return;
    this.#begin(true);
    await this.#done;
  }

  #begin(clean: boolean): void {
    const { state, writer, storeId, epoch, clock, storeMs, tuning } = this.#env;
    const [number, mark, group] = [this.#nextNumber++, writer.openStart, writer.openGroup - 1];
    const place = { storeId, epoch, number, mark, group, storeMs: storeMs(), wallMs: Math.floor(clock.wallMs()) };
    const made = new CheckpointWriter(state, place, () => capture.file!, tuning.checkpointPieceBytes);
    const capture: Capture = { number, mark, clean, writer: made, file: undefined, aborted: false };
    this.#capture = capture;
    this.#done = this.#take(capture);
  }

  /** Never rejects. */
  async #take(capture: Capture): Promise<void> {
    const { files, dir, log } = this.#env;
    const path = join(dir, checkpointName(capture.number));
    const staged = stagedName(path);
    let [named, kept] = [false, false];
    try {
      await files.unlink(staged).catch(() => undefined);
      capture.file = await files.open(staged, "create");
      await this.#write(capture);
      await capture.file.datasync();
      await files.rename(staged, path);
      named = true;
      await files.syncDir(dir); // or a power cut may undo the rename, but not the removal of what it replaces
      kept = true;
    } catch (error) {
      if (!(error instanceof Aborted)) {
        log.error({ error: messageOf(error) }, "journal: checkpoint failed, the last one stays");
      }
    }
    await capture.file?.close().catch(() => undefined);
    this.failedLast = !kept && !capture.aborted;
    if (kept) await this.#keep(capture);
    else if (named)
      this.#stale.push(capture.number); // it has its name, though a power cut may undo that: goes with the next one
    else await files.unlink(staged).catch(() => undefined);
    this.#capture = undefined;
    this.#env.onKept();
    if (this.#wanted && this.#env.writer.isEmpty) this.onBoundary();
  }

  async #write(capture: Capture): Promise<void> {
    const { writer, tuning, clock } = this.#env;
    const made = capture.writer;
    await made.flush();
    const slices = made.slices(tuning.sliceItems);
    for (let done = false; !done; ) {
      this.#check(capture);
      const startedMs = clock.monotonicMs();
      do done = slices.next().done === true;
      while (!done && !made.isFull && clock.monotonicMs() - startedMs < tuning.sliceMs);
      if (made.isFull) await made.flush();
      await turn();
    }
    this.#check(capture);
    if (!capture.clean) {
      writeCheckpointMark(writer, capture.number, capture.mark);
      writer.schedule(true);
      await this.#durable(capture, writer.openGroup);
    }
    const { nextSegment, durableGroup, durablePosition } = writer;
    await made.finish({
      ...{ clean: capture.clean, nextSegment },
      ...{ provenGroup: durableGroup, provenEnd: durablePosition },
    });
    this.#check(capture);
  }

  /** @throws Aborted */
  #check(capture: Capture): void {
    if (capture.aborted || this.#env.writer.failed !== undefined) throw new Aborted();
  }

  async #durable(capture: Capture, group: number): Promise<void> {
    while (this.#env.writer.durableGroup < group) {
      this.#check(capture);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#wake = undefined;
  }

  async #keep({ number, mark, writer }: Capture): Promise<void> {
    this.#kept.push({ number, mark, bytes: writer.bytes });
    this.lastMark = mark;
    this.#stale.push(...this.#kept.splice(0, Math.max(0, this.#kept.length - 2)).map((old) => old.number));
    if (this.#kept.length < 2) return; // a damaged one may still hold what a second damage takes
    await this.#removeStale();
  }

  /** Resolves when no file is being removed. */
  async settled(): Promise<void> {
    await this.#removal;
  }

  /** What is held, or cannot be removed now, stays until later. */
  #removeStale(): Promise<void> {
    this.#removal ??= this.#remove().finally(() => {
      this.#removal = undefined;
    });
    return this.#removal;
  }

  async #remove(): Promise<void> {
    const { files, dir, holds } = this.#env;
    while (!holds.any && this.#stale.length > 0) {
      await files.unlink(join(dir, checkpointName(this.#stale[0]!))).catch(() => undefined);
      this.#stale.shift();
    }
  }
}
