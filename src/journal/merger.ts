/**
 * Merging: one old retained value, or one message of a session that never comes back, would pin 8 MiB. A run of neighbouring segments of which
 * little is still needed becomes one file. It is off the commit stream and slow on purpose; whatever goes wrong, the old files stay.
 *
 *   choose -> count pins -> copy what is live -> wait until all that was so is durable -> sync -> rename, sync the folder (now it counts)
 *          -> when nobody reads them: swap in RAM -> remove the old files, sync the folder
 */
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { errnoOf, messageOf } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { writeDefinitions } from "./checkpoint.ts";
import { seedOf, segmentMagic, segmentName } from "./format.ts";
import type { Holds } from "./holds.ts";
import { chooseRun, worthMerging } from "./mergeChoice.ts";
import { countPins, definitionCopies, RunCopy } from "./mergeCopy.ts";
import { MergedFile } from "./mergedFile.ts";
import type { StoreMetrics } from "./metrics.ts";
import type { Tuning } from "./options.ts";
import { Pace } from "./pace.ts";
import type { SegmentReader } from "./segmentReader.ts";
import { Segment } from "./segments.ts";
import type { State } from "./state.ts";
import { Tail } from "./tail.ts";
import type { GroupWriter } from "./writer.ts";

export interface MergerEnvironment {
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly log: Log;
  readonly tuning: Tuning;
  readonly segmentBytes: number;
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly state: State;
  readonly writer: GroupWriter;
  readonly reader: SegmentReader;
  /** Puts every changed lane state into the open group. */
  readonly writeLaneStates: () => void;
  /** Below it no segment is needed to start. */
  readonly olderMark: () => number;
  readonly holds: Holds;
  /** Bytes that may be taken for a while without harm to what must always find room. */
  readonly room: () => number;
  readonly metrics: StoreMetrics;
  /** Files are gone. */
  readonly onFreed: () => void;
  /** A run was merged or given up: there may be another. */
  readonly onEnded: () => void;
}

/** A run that could not be merged is left alone for so long. */
const leaveAloneMs = 60_000;
const readerPollMs = 10;
const readerPollsMax = 3000;

/** There is no sense in going on; nothing failed. */
class GivenUp extends Error {}

/** The segment that is being made. */
interface Making {
  readonly number: number;
  readonly generation: number;
  readonly seed: number;
  readonly file: MergedFile;
}

export class Merger {
  readonly #env: MergerEnvironment;
  readonly #pace: Pace;
  readonly #leftAlone = new WeakMap<Segment, number>();
  #running: Promise<void> | undefined;
  #file: MergedFile | undefined;
  #awaited: { group: number; settle: () => void } | undefined;
  /** Old files that are not surely gone; until they are, what replaces them stays. */
  #leftover: { names: string[]; merged: Segment } | undefined;
  /** From the choice to the swap. */
  #merging = false;
  /** Names are being changed. */
  #changing = false;
  #closed = false;
  #complained = false;

  constructor(env: MergerEnvironment) {
    this.#env = env;
    this.#pace = new Pace(env.clock, env.tuning.mergeRate);
  }

  /** Of the file that is being made. */
  get bytes(): number {
    return this.#file?.bytes ?? 0;
  }

  /** Once a second. @param idle no checkpoint is being made, nothing is being freed */
  tick(idle: boolean): void {
    if (this.#stuck()) this.#awaited?.settle();
    if (!idle || this.#running !== undefined || this.#stuck() || this.#env.holds.any) return;
    this.#running = this.#run().then((chosen) => {
      this.#running = undefined;
      this.#changing = false;
      if (chosen) this.#env.onEnded();
    });
  }

  /** Whether there is a run to merge, or one is being merged. */
  get canMerge(): boolean {
    if (this.#merging) return true;
    return !this.#stuck() && !this.#env.holds.any && this.#leftover === undefined && this.#choose() !== undefined;
  }

  /** With or without its rate limit. */
  hurry(wanted: boolean): void {
    this.#pace.lift(wanted);
  }

  /** A group became durable. */
  onDurable(): void {
    const awaited = this.#awaited;
    if (awaited !== undefined && this.#env.writer.durableGroup >= awaited.group) awaited.settle();
  }

  /** Resolves when no file gets its name or is removed. */
  async settled(): Promise<void> {
    if (this.#changing) await this.#running;
  }

  /** Gives up what is not finished. Never rejects. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#pace.hurry();
    this.#awaited?.settle();
    await this.#running;
  }

  #stuck(): boolean {
    const { writer } = this.#env;
    return this.#closed || writer.failed !== undefined || writer.full;
  }

  /** @returns whether there was a run to merge */
  async #run(): Promise<boolean> {
    if (this.#leftover !== undefined) this.#changing = true;
    if (this.#leftover !== undefined) await this.#removeOld(this.#leftover.names, this.#leftover.merged);
    const run = this.#leftover === undefined ? this.#choose() : undefined;
    if (run === undefined) return false;
    const { state, log, clock, metrics } = this.#env;
    for (const segment of run) segment.held = true;
    this.#merging = true;
    let merged: { segment: Segment; names: string[] } | undefined;
    try {
      merged = await this.#merge(run);
      this.#complained = false;
    } catch (error) {
      await this.#file?.discard();
      for (const segment of run) this.#leftAlone.set(segment, clock.monotonicMs() + leaveAloneMs);
      if (!(error instanceof GivenUp)) {
        metrics.mergeFailures.value += 1;
        const line = { segments: run.map(({ name }) => name), error: messageOf(error) };
        if (!this.#complained) log.warn(line, "journal: merging failed, the segments stay as they are");
        this.#complained = true;
      }
    } finally {
      this.#file = undefined;
      this.#merging = false;
      state.pinWatch = undefined;
      for (const segment of run) segment.held = false;
    }
    if (merged !== undefined) await this.#removeOld(merged.names, merged.segment);
    return true;
  }

  #choose(): Segment[] | undefined {
    const { state, writer, clock, tuning, segmentBytes, olderMark, room } = this.#env;
    const mark = Math.min(olderMark(), writer.durablePosition);
    const nowMs = clock.monotonicMs();
    const mayMerge = (segment: Segment, before: Segment | undefined): boolean => {
      if (segment.end > mark || segment === writer.openSegment || segment.held || segment.fileBytes === 0) return false;
      if ((this.#leftAlone.get(segment) ?? nowMs) > nowMs) return false;
      // What nothing pins is freed without our help, unless it has to outlive a pinned one whose file it cuts.
      return segment.pinned || before?.cut === true;
    };
    const limits = { liveBytes: tuning.mergeBytes, roomBytes: room(), segmentBytes, mayMerge };
    const { list } = state.segments;
    if (chooseRun(list, { ...limits, definitionBytes: 0 }) === undefined) return undefined;
    const sink = new Tail(0, Number.POSITIVE_INFINITY);
    writeDefinitions(sink, state);
    return chooseRun(list, { ...limits, definitionBytes: definitionCopies * sink.end });
  }

  async #merge(run: readonly Segment[]): Promise<{ segment: Segment; names: string[] }> {
    const { dir, files, state, storeId, tuning, segmentBytes, room, writeLaneStates } = this.#env;
    const { number } = run[0]!;
    const generation = Math.max(...run.map((segment) => segment.generation)) + 1;
    const seed = seedOf(segmentMagic, storeId, number, generation);
    const roomBytes = room();
    const pins = await countPins(state, run, tuning.pinsPerTurn);
    const file = await MergedFile.create(files, dir, { number, generation, seed });
    this.#file = file;
    const check = (): void => {
      if (this.#stuck()) throw new GivenUp("the journal takes no writes");
      if (file.bytes > roomBytes) throw new GivenUp("not enough room");
    };
    writeLaneStates();
    const [pieceBytes, liveBytes] = [tuning.mergePieceBytes, tuning.mergeBytes];
    const copyEnv = { dir, files, state, file, check, pace: this.#pace, pieceBytes, liveBytes };
    const copy = new RunCopy(copyEnv, pins, state.segments.list[0] === run[0]);
    await copy.run(run);
    const givesBack = copy.done.reduce((sum, segment) => sum + segment.fileBytes, -file.bytes);
    if (!worthMerging(givesBack, copy.done.length, segmentBytes)) throw new GivenUp("too little would be given back");
    return await this.#publish(copy, { number, generation, seed, file });
  }

  /** @returns the merged segment, which is in the table now */
  async #publish(copy: RunCopy, making: Making): Promise<{ segment: Segment; names: string[] }> {
    const { epoch, storeId, clock, writeLaneStates, writer } = this.#env;
    const { file, number, generation } = making;
    const run = copy.done;
    // What was left out must be known to be done before the old files can go.
    writeLaneStates();
    await this.#durable(writer.openGroup);
    const base = Math.min(...run.map((segment) => segment.base));
    // A later header in the run may cut what lies before the run further back than the first one does.
    const prevEnd = Math.min(...run.map((segment) => segment.prevEnd));
    const [{ firstGroup }, end, lastNumber] = [run[0]!, run.at(-1)!.end, run.at(-1)!.lastNumber];
    const header = { storeId, epoch, number, base, firstGroup, prevEnd, wallMs: clock.wallMs() };
    const place = await file.finish(header, { generation, lastNumber, end }, copy.kept);
    if (copy.missed) throw new GivenUp("pinned meanwhile");
    if (this.#env.holds.any) throw new GivenUp("the files are being copied");
    this.#changing = true;
    await file.publish(segmentName(number, generation));
    for (let turns = 0; turns === 0 || run.some(({ readers }) => readers > 0); turns += 1) await this.#turn(turns);
    if (copy.missed) throw new GivenUp("pinned meanwhile");
    const merged = new Segment({ number, base, firstGroup, prevEnd, seed: making.seed, end, merged: place });
    merged.fileBytes = file.bytes;
    this.#swap(run, merged);
    return { segment: merged, names: run.map(({ name }) => name) };
  }

  /** In one turn: what waits in the run waits in the merged one. Reads of the old files have ended. */
  #swap(run: readonly Segment[], merged: Segment): void {
    const { state, log, metrics } = this.#env;
    let bytes = 0;
    for (const segment of run) {
      merged.takeOver({ parts: segment.parts.values(), references: segment.references });
      bytes += segment.fileBytes;
    }
    merged.held = true;
    state.segments.replace(run, merged);
    this.#file = undefined;
    metrics.segmentsMerged.value += run.length;
    metrics.bytesGivenBack.value += bytes - merged.fileBytes;
    const line = { file: merged.name, segments: run.length, bytes, now: merged.fileBytes };
    log.info(line, "journal: segments merged");
  }

  /** The merged one counts; until this is done it must stay, or what it replaces could come back without it. Never rejects. */
  async #removeOld(names: readonly string[], merged: Segment): Promise<void> {
    const { dir, files, reader, log, onFreed } = this.#env;
    const left: string[] = [];
    for (const name of names) {
      reader.forget(name);
      await files.unlink(join(dir, name)).catch((error: unknown) => {
        if (errnoOf(error) !== "ENOENT") left.push(name);
      });
    }
    const synced = await files.syncDir(dir).then(
      () => true,
      () => false,
    );
    if (synced && left.length === 0) {
      merged.held = false;
      this.#leftover = undefined;
      onFreed();
      return;
    }
    if (this.#leftover === undefined)
      log.warn({ files: left, synced }, "journal: merged segments could not be removed");
    this.#leftover = { names: left, merged };
  }

  /** Resolves in a turn of its own, so that whoever was given what he read has dealt with it. @throws GivenUp */
  async #turn(turns: number): Promise<void> {
    await (turns === 0 ? new Promise<void>((resolve) => setImmediate(resolve)) : this.#pace.pause(readerPollMs));
    if (this.#closed || turns > readerPollsMax) throw new GivenUp("closing, or read all the time");
  }

  /** Gets all that was said so far onto the disk. @throws GivenUp */
  async #durable(group: number): Promise<void> {
    const { writer } = this.#env;
    writer.schedule(true);
    while (writer.durableGroup < group) {
      if (this.#stuck()) throw new GivenUp("the journal takes no writes");
      await new Promise<void>((settle) => {
        this.#awaited = { group, settle };
      });
      this.#awaited = undefined;
    }
  }
}
