/** When checkpoints are taken, and segments freed and merged. */
import { type CheckpointEnvironment, Checkpointer, type FoundCheckpoints } from "./checkpointer.ts";
import { Freeing, type FreeingEnvironment } from "./freeing.ts";
import { Holds } from "./holds.ts";
import { sparseBeyond, worthMerging } from "./mergeChoice.ts";
import { Merger, type MergerEnvironment } from "./merger.ts";

export type MaintenanceEnvironment = Omit<CheckpointEnvironment, "onKept" | "holds"> &
  Omit<FreeingEnvironment, "holds"> &
  Omit<MergerEnvironment, "holds" | "olderMark" | "onEnded">;

const journalBytesMax = 64 * 1024 * 1024;
const waitingSegmentsMin = 2;

/**
 * A checkpoint is due
 *  - after clamp(4 x the last one, checkpointBytes, 64 MiB) of journal: a start then replays little, and checkpoints write a quarter of the journal at most;
 *  - when two segments wait for nothing else to be freed, or merged, at most each checkpointEveryMs;
 *  - when so much waits for nothing else that giving it back is worth the same: as many bytes as the first rule asks for. Freeing takes two
 *    checkpoints, and after a drain no journal grows that would bring them; without this rule the disk came back after twenty seconds. A byte
 *    waits once and for two, so this writes half of what is given back at most, and where the state is small, next to nothing.
 */
export class Maintenance {
  readonly #env: MaintenanceEnvironment;
  readonly #checkpoints: Checkpointer;
  readonly #freeing: Freeing;
  readonly #merger: Merger;
  readonly #holds = new Holds();
  #lastMs = Number.NEGATIVE_INFINITY;
  /** Room is wanted: as long as an empty segment waits for nothing but newer checkpoints, they are made one after the other. */
  #hurried = false;
  /** And as long as a sparse one does. */
  #mergingHurried = false;

  constructor(env: MaintenanceEnvironment, found: FoundCheckpoints) {
    this.#env = env;
    const onFreed = (): void => {
      env.onFreed();
      this.#mergeInHaste();
    };
    this.#freeing = new Freeing({ ...env, holds: this.#holds, onFreed });
    this.#checkpoints = new Checkpointer({ ...env, holds: this.#holds, onKept: () => this.#onKept() }, found);
    const merging = { olderMark: () => this.olderMark, onEnded: () => this.#mergeInHaste() };
    this.#merger = new Merger({ ...env, holds: this.#holds, ...merging });
  }

  /** Of the last checkpoint. */
  get checkpointBytes(): number {
    return this.#checkpoints.lastBytes;
  }

  /** Of both kept checkpoints. */
  get bytes(): number {
    return this.#checkpoints.bytes;
  }

  /** Of what is being merged. It is no reason to drop anything: soon it gives back more. */
  get stagedBytes(): number {
    return this.#merger.bytes;
  }

  /** No checkpoint needs what lies wholly below this position: such segments may be freed or merged. */
  get olderMark(): number {
    return this.#checkpoints.olderMark;
  }

  /** Numbers of the checkpoints that are whole. */
  get checkpoints(): readonly number[] {
    return this.#checkpoints.numbers;
  }

  /** Resolves once nothing is being removed; no segment or checkpoint goes until the release, which may be called twice. */
  async hold(): Promise<() => void> {
    const release = this.#holds.take();
    await Promise.all([this.#freeing.settled(), this.#checkpoints.settled(), this.#merger.settled()]);
    return () => {
      release();
      this.#free();
    };
  }

  /** To be called once a second; does what is due. */
  tick(): void {
    this.#free();
    this.#checkpointIfDue();
    this.#merge();
  }

  #merge(): void {
    this.#merger.tick(!this.#checkpoints.isBusy && !this.#freeing.isBusy);
  }

  #checkpointIfDue(): void {
    if (this.#checkpoints.isBusy) return;
    const { clock, tuning } = this.#env;
    const worth = this.#worth;
    const nowMs = clock.monotonicMs();
    const waiting = this.#freeing.waiting(this.olderMark);
    const sparse = this.#sparse();
    waiting.segments += sparse.segments;
    waiting.bytes += sparse.bytes;
    if (
      this.#journalBytes >= worth ||
      this.#checkpoints.isUrgent ||
      (waiting.segments >= waitingSegmentsMin &&
        (waiting.bytes >= worth || nowMs - this.#lastMs >= tuning.checkpointEveryMs))
    ) {
      this.#lastMs = nowMs;
      this.#checkpoints.want();
    }
  }

  /** Room is wanted: what waits for nothing but newer checkpoints is to be freed without delay. */
  hurry(): void {
    this.#hurried = true;
    this.#free();
    this.#checkpointInHaste();
  }

  /** Room is wanted, or no longer: merging goes on without its rate limit, and checkpoints are made for it. @returns whether it may make room */
  hurryMerging(wanted: boolean): boolean {
    const { segmentBytes } = this.#env;
    const can = wanted && (this.#merger.canMerge || worthMerging(this.#sparse().bytes, 1, segmentBytes));
    if (can || this.#mergingHurried) this.#merger.hurry(can);
    this.#mergingHurried = can;
    this.#mergeInHaste();
    this.#checkpointInHaste();
    return can;
  }

  #mergeInHaste(): void {
    if (this.#mergingHurried) this.#merge();
  }

  #checkpointInHaste(): void {
    if (!(this.#hurried || this.#mergingHurried) || this.#checkpoints.isBusy) return;
    this.#hurried &&= this.#freeing.waiting(this.olderMark).segments > 0;
    if (this.#hurried || (this.#mergingHurried && this.#sparse().segments > 0)) this.#checkpoints.want();
  }

  #sparse(): { segments: number; bytes: number } {
    const { state, writer } = this.#env;
    return sparseBeyond(state.segments.list, this.olderMark, writer.openSegment);
  }

  onBoundary(): void {
    this.#checkpoints.onBoundary();
  }

  onMoved(): void {
    this.#checkpoints.onMoved();
  }

  /** A group became durable: what was waiting for it goes on. */
  onDurable(): void {
    this.#checkpoints.onDurable();
    this.#merger.onDurable();
    this.#free();
    this.#checkpointInHaste();
    // Not only each second: a fast disk writes a hundred megabytes in one, all of which a start would have to replay. After a failure, that pace is enough.
    if (this.#checkpoints.isBusy || this.#checkpoints.failedLast || this.#journalBytes < this.#worth) return;
    this.#lastMs = this.#env.clock.monotonicMs();
    this.#checkpoints.want();
  }

  /** Gives up what it is at: nothing more is written to the journal, so that what the last checkpoint says is all. Never rejects. */
  async stop(): Promise<void> {
    await this.#merger.close();
    await this.#freeing.close();
    await this.#checkpoints.stop();
  }

  /** The last checkpoint, once the writer has ended. Never rejects. */
  async close(): Promise<void> {
    await this.#checkpoints.close();
  }

  /** Since the last checkpoint. */
  get #journalBytes(): number {
    return this.#env.writer.tail.end - this.#checkpoints.lastMark;
  }

  /** Bytes of journal, or of segments to be given back, that another checkpoint is worth. */
  get #worth(): number {
    return Math.min(journalBytesMax, Math.max(this.#env.tuning.checkpointBytes, 4 * this.checkpointBytes));
  }

  #onKept(): void {
    this.#free();
    // Asked for again when it is still wanted.
    if (this.#checkpoints.failedLast) this.#hurried = this.#mergingHurried = false;
    this.#mergeInHaste();
    this.#checkpointInHaste();
  }

  #free(): void {
    this.#freeing.free(this.olderMark);
  }
}
