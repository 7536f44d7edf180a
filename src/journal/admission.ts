/** Whether something more may be stored, what gives way when not, and what is told of that. */
import type { Clock } from "../base/clock.ts";
import type { OrphanedUplink, Admission as Request } from "../base/contracts.ts";
import type { Files } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { DropLog } from "./dropLog.ts";
import { GivingWay } from "./givingWay.ts";
import { dropAll } from "./laneDrop.ts";
import type { StoreMetrics } from "./metrics.ts";
import { type Room, Space, type SpaceLimits } from "./space.ts";
import type { State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";

/** A commit that would leave more than this unwritten is refused as "full": the disk does not keep up. */
const pendingBytesMax = 64 * 1024 * 1024;

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
  /** Of all files. */
  readonly fileBytes: () => number;
  readonly checkpointBytes: () => number;
  readonly hurry: () => void;
  /** Lane states changed: they are to be written soon. */
  readonly onDirty: () => void;
}

export class AdmissionControl {
  readonly #env: AdmissionEnvironment;
  readonly #space: Space;
  readonly #givingWay: GivingWay;
  readonly #dropLog: DropLog;
  #looking = false;
  #askSessions: (bytes: number) => number = () => 0;

  constructor(env: AdmissionEnvironment) {
    this.#env = env;
    const nowMs = (): number => env.clock.monotonicMs();
    this.#space = new Space(env.files, env.dir, env.limits);
    this.#dropLog = new DropLog(env.log, nowMs);
    this.#givingWay = new GivingWay({
      ...{ state: env.state, segmentBytes: env.segmentBytes, hurry: env.hurry, monotonicMs: nowMs },
      durablePosition: () => env.writer.durablePosition,
      usedBytes: () => this.#usedBytes(),
      room: () => this.#room(),
      onDropped: (account, messages) => this.#onDropped(account.name, messages),
      askSessions: (bytes) => this.#askSessions(bytes),
    });
  }

  get crowded(): boolean {
    return this.#givingWay.crowded;
  }

  /** Before the first message: how much room the disk has. */
  async begin(): Promise<void> {
    await this.#space.check(this.#env.clock.monotonicMs(), this.#env.fileBytes());
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
    if (writer.full || writer.pendingBytes + request.bytes > pendingBytesMax) return "full";
    if (this.#usedBytes() + request.bytes > this.#room().limit) {
      metrics.refused.value += 1;
      this.#lookSoon();
      return "full";
    }
    for (const name of request.rejectNewest) {
      const account = state.uplinks.get(name);
      if (account?.limits !== undefined && account.bytes + request.bytes > account.limits.maxBytes) return "full";
    }
    return "ok";
  }

  /** Without a sync nobody else would look before the next second; not at once, since whoever asks may be about to commit. */
  #lookSoon(): void {
    if (this.#looking) return;
    this.#looking = true;
    setImmediate(() => {
      this.#looking = false;
      this.#givingWay.look();
    });
  }

  onDurable(): void {
    this.#givingWay.glance();
  }

  /** Once a second. */
  tick(): void {
    const looked = this.#space.check(this.#env.clock.monotonicMs(), this.#env.fileBytes());
    void looked.then(() => this.#givingWay.look());
    this.#dropLog.tick();
  }

  /** Counted already by its account: said and shown here. */
  note(uplink: string, reason: string, messages: number): void {
    this.#env.metrics.dropped(uplink, reason).value += messages;
    this.#env.state.uplink(uplink).dirty = true;
    this.#dropLog.note(uplink, reason, messages);
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
    this.note(name, "purged", purged.messages);
    onDirty();
    return purged;
  }

  #onDropped(uplink: string, messages: number): void {
    const { dropped } = this.#env.state.uplink(uplink);
    dropped["store-full"] = (dropped["store-full"] ?? 0) + messages;
    this.note(uplink, "store-full", messages);
    this.#dropLog.tick();
    this.#env.onDirty();
  }

  #usedBytes(): number {
    return this.#env.fileBytes() + this.#env.writer.pendingBytes;
  }

  #room(): Room {
    return this.#space.room(this.#env.checkpointBytes());
  }
}
