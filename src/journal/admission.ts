/** Whether something more may be stored, what gives way when not, and what is told of that. */
import type { Clock } from "../base/clock.ts";
import type { OrphanedUplink, Admission as Request } from "../base/contracts.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { Rate, secondsUntil } from "../base/rate.ts";
import { DropLog } from "./dropLog.ts";
import { Drops } from "./drops.ts";
import { GivingWay } from "./givingWay.ts";
import { dropAll } from "./laneDrop.ts";
import type { StoreMetrics } from "./metrics.ts";
import { type Limit, type Room, Space, type SpaceLimits } from "./space.ts";
import type { State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";

/** A commit that would leave more than this unwritten is refused as "full": the disk does not keep up. */
const pendingBytesMax = 64 * 1024 * 1024;

const growthMs = 300_000;

export interface AdmissionEnvironment {
  readonly files: Files;
  readonly dir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: SpaceLimits;
  readonly segmentBytes: number;
  readonly state: State;
  readonly writer: GroupWriter;
  readonly metrics: StoreMetrics;
  /** Prepared segments: room for messages, as soon as it is wanted. */
  readonly spares: { readonly bytes: number; surrender(): Promise<boolean> };
  /** Of all files but those. */
  readonly fileBytes: () => number;
  readonly checkpointBytes: () => number;
  /** Of files that are only there for a while. */
  readonly stagedBytes: () => number;
  readonly maintenance: () => {
    hurry(): void;
    hurryMerging(wanted: boolean): boolean;
    /** Numbers of those that are whole. */
    readonly checkpoints: readonly number[];
  };
  /** `crowded` was true for somebody, and is not any more. */
  readonly onRelieved: () => void;
  /** Lane states changed: they are to be written soon. */
  readonly onDirty: () => void;
}

export class AdmissionControl {
  readonly #env: AdmissionEnvironment;
  readonly #space: Space;
  readonly #givingWay: GivingWay;
  readonly #dropLog: DropLog;
  readonly drops: Drops;
  /** Bytes of records: positions count them. */
  readonly #growth = new Rate(growthMs);
  #askSessions: (bytes: number) => number = () => 0;

  constructor(env: AdmissionEnvironment) {
    this.#env = env;
    const nowMs = (): number => env.clock.monotonicMs();
    this.#space = new Space(env.files, env.dir, env.limits);
    this.#dropLog = new DropLog(env.log, nowMs);
    this.drops = new Drops({
      state: env.state,
      wallMs: () => env.clock.wallMs(),
      counter: (uplink, rule, reason) => env.metrics.droppedByRule(uplink, rule, reason),
    });
    this.#givingWay = new GivingWay({
      ...{ state: env.state, segmentBytes: env.segmentBytes, onRelieved: env.onRelieved, monotonicMs: nowMs },
      durablePosition: () => env.writer.durablePosition,
      usedBytes: () => this.#usedBytes(),
      room: () => this.#room(),
      hurry: () => env.maintenance().hurry(),
      hurryMerging: (wanted) => env.maintenance().hurryMerging(wanted),
      pendingBytes: () => this.#pendingBytes,
      isWriting: () => env.writer.isWriting,
      progress: () => env.writer.durableGroup + (env.maintenance().checkpoints.at(-1) ?? 0) + env.stagedBytes(),
      onDropped: (account, messages) => this.#onDropped(account.name, messages),
      askSessions: (bytes) => this.#askSessions(bytes),
    });
  }

  /** There will be room; who can wait should. Never while nothing can be written: then publishers are told. */
  get crowded(): boolean {
    const { failed, full } = this.#env.writer;
    return failed === undefined && !full && this.#givingWay.crowded;
  }

  /** Before the first message: how much room the disk has. */
  async begin(): Promise<void> {
    await this.#check();
  }

  /** Every uplink of the configuration has its limits: what is left belongs to nobody. */
  configured(): void {
    for (const { name, messages, bytes } of this.orphaned()) {
      this.#env.log.warn(
        { uplink: name, messages, bytes },
        "journal: messages wait for an uplink that is not configured",
      );
    }
    const used = this.#usedBytes();
    const { limit } = this.#room();
    if (used > limit) this.#env.log.warn({ bytes: used, limit }, "journal: more is stored than there is room for now");
    this.#givingWay.begin();
  }

  onCrowded(listener: (bytes: number) => number): void {
    this.#askSessions = listener;
  }

  admit(request: Request): "ok" | "full" | "failed" {
    const { writer, state, metrics } = this.#env;
    if (writer.failed !== undefined) return "failed";
    if (writer.full || this.#pendingBytes + request.bytes > pendingBytesMax) return "full";
    if (this.lacks(request.bytes)) {
      if (request.tentative !== true) metrics.refused.value += 1;
      this.#givingWay.lookSoon(); // without a sync nobody else would before the next second
      return "full";
    }
    for (const name of request.rejectNewest) {
      const account = state.uplinks.get(name);
      if (account?.limits !== undefined && account.bytes + request.bytes > account.limits.maxBytes) return "full";
    }
    return "ok";
  }

  /** So many bytes more would be admitted for certain, without giving anything up; 0: that has to be asked. */
  spareFor(rejectNewest: readonly string[]): number {
    const { writer, state, spares } = this.#env;
    if (writer.failed !== undefined || writer.full) return 0;
    let bytes = Math.min(pendingBytesMax - this.#pendingBytes, this.#room().limit - this.#usedBytes() - spares.bytes);
    for (const name of rejectNewest) {
      const account = state.uplinks.get(name);
      if (account?.limits !== undefined) bytes = Math.min(bytes, account.limits.maxBytes - account.bytes);
    }
    return Math.max(0, bytes);
  }

  /** Whether so many bytes more have no room. Prepared segments are given up before that is said. */
  lacks(bytes: number): boolean {
    const { spares } = this.#env;
    const missing = this.#usedBytes() + bytes - this.#room().limit;
    const prepared = spares.bytes;
    if (missing + prepared > 0 && prepared > 0) void spares.surrender();
    return missing > 0;
  }

  /** What refuses so many bytes more; undefined: nothing. */
  refusing(bytes: number): Limit | undefined {
    if (this.#env.writer.full) return "disk";
    const { limit, by } = this.#room();
    return this.#usedBytes() + bytes > limit ? by : undefined;
  }

  /** Whether so many bytes more could be taken besides all that is there. */
  hasSpare(bytes: number): boolean {
    return this.#usedBytes() + this.#env.spares.bytes + bytes <= this.#room().limit;
  }

  /** A group became durable, or files went. */
  onDurable(): void {
    this.#givingWay.glance();
  }

  /** Once a second. */
  tick(): void {
    void this.#check().then(() => {
      this.lacks(0);
      this.#givingWay.look();
    });
    this.#dropLog.tick();
    this.#growth.look(this.#env.writer.tail.end, this.#env.clock.monotonicMs());
  }

  /** Counted already by its account, and by `drops`: said and shown here. */
  note(uplink: string, reason: string, messages: number): void {
    this.#env.metrics.dropped(uplink, reason).value += messages;
    this.#env.state.uplink(uplink).dirty = true;
    if (reason !== "dead-letter") this.#dropLog.note(uplink, reason, messages); // not lost, and said by the dead letters
  }

  orphaned(): OrphanedUplink[] {
    const found: OrphanedUplink[] = [];
    if (!this.#givingWay.ready) return found;
    for (const { name, messages, bytes, limits, dropped } of this.#env.state.uplinks.values()) {
      if (limits === undefined && messages > 0)
        found.push({ name, orphaned: true, messages, bytes, dropped: { ...dropped } });
    }
    return found;
  }

  /** Only what is durable: the caller has seen to that. */
  purge(name: string): { messages: number; bytes: number } {
    const { state, onDirty } = this.#env;
    const purged = { messages: 0, bytes: 0 };
    const account = state.uplinks.get(name);
    if (account === undefined) return purged;
    for (const lane of account.lanes) {
      const { messages, bytes } = dropAll(state, lane);
      purged.messages += messages;
      purged.bytes += bytes;
    }
    if (purged.messages === 0) return purged;
    account.dropped["purged"] = (account.dropped["purged"] ?? 0) + purged.messages;
    this.#noteUnread(name, "purged", purged.messages);
    onDirty();
    return purged;
  }

  /** Until something has to give way, or is refused. */
  get room(): { bytes: number; seconds: number | null } {
    const bytes = this.#givingWay.roomBytes;
    return { bytes, seconds: secondsUntil(bytes, this.#growth.perSecond) };
  }

  /** Bytes that merging may take until it gives more back. */
  get spareBytes(): number {
    return this.#space.spare(this.#usedBytes(), this.#env.checkpointBytes());
  }

  #onDropped(uplink: string, messages: number): void {
    const { dropped } = this.#env.state.uplink(uplink);
    dropped["store-full"] = (dropped["store-full"] ?? 0) + messages;
    this.#noteUnread(uplink, "store-full", messages);
    this.#dropLog.tick();
    this.#env.onDirty();
  }

  #noteUnread(uplink: string, reason: string, messages: number): void {
    this.drops.several(uplink, reason, messages);
    this.note(uplink, reason, messages);
  }

  async #check(): Promise<void> {
    const { clock, fileBytes, stagedBytes, spares } = this.#env;
    await this.#space.check(clock.monotonicMs(), fileBytes() + stagedBytes() + spares.bytes);
  }

  /** Not on the disk yet, with what is still to be written to the open group. */
  get #pendingBytes(): number {
    const { state, writer } = this.#env;
    return writer.pendingBytes + state.unwritten.bytes;
  }

  /** Of files, and what will make them grow: what is written and not synced yet must not count twice. Few segments are not durable. */
  #usedBytes(): number {
    const { fileBytes, state, writer } = this.#env;
    let bytes = fileBytes();
    if (writer.failed !== undefined) return bytes;
    bytes += state.unwritten.bytes;
    const { list } = state.segments;
    for (let at = list.length - 1; at >= 0 && list[at]!.end > writer.durablePosition; at -= 1) {
      const segment = list[at]!;
      bytes += Math.max(0, segment.offsetOf(segment.end) - segment.fileBytes);
    }
    return bytes;
  }

  #room(): Room {
    return this.#space.room(this.#env.checkpointBytes());
  }
}
