/** The store: commits, queues, references and reads over one journal. `openStore` makes it. */

import type { Timer } from "../base/clock.ts";
import type {
  Admission,
  BackupInfo,
  BackupRequest,
  RecoveryReport,
  ReferenceQueue,
  Store,
  StoredMessage,
  StoreStats,
  Txn,
  UplinkLimits,
  UplinkQueue,
} from "../base/contracts.ts";
import { TidegateError } from "../base/errors.ts";
import { Backups } from "./backups.ts";
import type { KeptCheckpoint } from "./checkpoint.ts";
import { writeDefinitions } from "./checkpoint.ts";
import type { Lane } from "./lane.ts";
import { LaneReader } from "./laneReader.ts";
import { Maintenance } from "./maintenance.ts";
import { StoreMetrics } from "./metrics.ts";
import { moveBytes } from "./moveBytes.ts";
import type { ResolvedOptions } from "./options.ts";
import { writeLane, writeLaneState, writeRule } from "./records.ts";
import { JournalReferences, ReferenceReader } from "./referenceReader.ts";
import { SegmentReader } from "./segmentReader.ts";
import type { Segment } from "./segments.ts";
import { Space } from "./space.ts";
import { ruleKey, type State } from "./state.ts";
import { JournalTxn } from "./txn.ts";
import { JournalQueue } from "./uplinkQueue.ts";
import { GroupWriter } from "./writer.ts";

/** A commit that would leave more than this unwritten is refused as "full": the disk does not keep up. */
const pendingBytesMax = 64 * 1024 * 1024;
const laneStateEveryMs = 100;
const laneStateSyncMs = 1000;
const proveAfterMs = 1000;
const tickMs = 1000;

export interface StoreParts {
  readonly options: ResolvedOptions;
  readonly state: State;
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly storeMs: () => number;
  readonly from: { position: number; prevEnd: number; group: number; segment: number };
  readonly checkpoints: KeptCheckpoint[];
  readonly damagedCheckpoints: readonly number[];
  readonly nextCheckpoint: number;
  readonly recovery: RecoveryReport;
  readonly unlock: () => Promise<void>;
}

export class JournalStore implements Store {
  readonly epoch: number;
  readonly nowMs: () => number;
  readonly #parts: StoreParts;
  readonly #state: State;
  readonly #writer: GroupWriter;
  readonly #reader: SegmentReader;
  readonly #lanes: LaneReader;
  readonly #references: ReferenceReader;
  readonly #maintenance: Maintenance;
  readonly #backups: Backups;
  readonly #space: Space;
  readonly #metrics: StoreMetrics;
  readonly #txn: JournalTxn;
  readonly #queues = new Map<string, JournalQueue>();
  readonly #durable: Array<(group: number) => void> = [];
  readonly #failed: Array<(error: TidegateError) => void> = [];
  #inCommit = false;
  #definedInCommit: Array<() => void> = [];
  #laneTimer: Timer | undefined;
  #tickTimer: Timer | undefined;
  #lastWriteMs = 0;
  #closed: Promise<void> | undefined;

  constructor(parts: StoreParts) {
    const { options, state, storeMs } = parts;
    const { dir, files, clock } = options;
    this.#parts = parts;
    this.#state = state;
    this.epoch = parts.epoch;
    this.nowMs = storeMs;
    this.#metrics = new StoreMetrics(options.meter, {
      bytes: () => this.#bytes(),
      segments: () => state.segments.list.length,
      pending: () => this.#writer.pendingBytes,
      written: () => this.#writer.writtenBytes,
    });
    this.#metrics.corruptRecords.value += parts.recovery.corruptRecords;
    this.#writer = this.#makeWriter();
    this.#reader = new SegmentReader(files, dir);
    const source = { state, tail: this.#writer.tail, reader: this.#reader };
    this.#lanes = new LaneReader({
      ...source,
      durablePosition: () => this.#writer.durablePosition,
      onLost: (lane, messages) => this.#onLost(messages, lane.uplink),
    });
    this.#references = new ReferenceReader({
      ...source,
      onRotten: (queue, ordinal) => {
        this.#onLost(1);
        this.commit((txn) => txn.release(queue, ordinal));
      },
    });
    this.#space = new Space(files, dir, options);
    this.#maintenance = this.#makeMaintenance();
    const { storeId, epoch } = parts;
    const { segments } = state;
    const held = { writer: this.#writer, maintenance: this.#maintenance };
    this.#backups = new Backups({ ...options, ...held, segments, storeId, epoch });
    this.#txn = new JournalTxn({
      ...{ state, writer: this.#writer, storeMs, maxMessageBytes: options.maxMessageBytes },
      wallMs: () => clock.wallMs(),
    });
  }

  #makeWriter(): GroupWriter {
    const { options, state, storeMs, storeId, epoch, from } = this.#parts;
    const { dir, files, clock, log, segmentBytes, commitWindowMs } = options;
    return new GroupWriter({
      ...{ dir, files, clock, log, segmentBytes, commitWindowMs, storeMs, storeId, epoch, from },
      segments: state.segments,
      preamble: (sink) => void writeDefinitions(sink, state),
      onDurable: (group, records, ms) => this.#onDurable(group, records, ms),
      onFailed: (error) => this.#onFailed(error),
      onBoundary: () => this.#maintenance.onBoundary(),
      onMoved: (moved, to, position) => this.#onMoved(moved, to, position),
    });
  }

  #makeMaintenance(): Maintenance {
    const { options, state, storeMs, storeId, epoch } = this.#parts;
    const { dir, files, clock, log, tuning } = options;
    const writeLaneStates = (): void => void this.#writeLaneStates();
    const made = { writer: this.#writer, reader: this.#reader, writeLaneStates };
    return new Maintenance({ dir, files, clock, log, tuning, state, storeMs, storeId, epoch, ...made }, this.#parts);
  }

  /** Writes the new segment's beginning, so that what recovery cut off stays cut off; starts the timers. */
  async begin(): Promise<void> {
    const { clock } = this.#parts.options;
    await this.#space.check(clock.monotonicMs(), this.#bytes());
    this.#writer.schedule(true);
    // A full disk must not keep the gateway from starting: the writer goes on trying.
    await Promise.race([this.#writer.flush(), this.#writer.whenFull()]);
    this.#tick();
  }

  get head(): number {
    return this.#writer.tail.end;
  }

  get durableGroup(): number {
    return this.#writer.durableGroup;
  }

  get failed(): TidegateError | undefined {
    return this.#writer.failed;
  }

  admit(request: Admission): "ok" | "full" | "failed" {
    const writer = this.#writer;
    if (writer.failed !== undefined) return "failed";
    if (writer.full || writer.pendingBytes + request.bytes > pendingBytesMax) return "full";
    const used = this.#bytes();
    if (this.#space.wouldFill(used + writer.pendingBytes, request.bytes, this.#maintenance.checkpointBytes)) {
      this.#metrics.refused.value += 1;
      return "full";
    }
    for (const name of request.rejectNewest) {
      const account = this.#state.uplinks.get(name);
      if (account?.limits !== undefined && account.bytes + request.bytes > account.limits.maxBytes) return "full";
    }
    return "ok";
  }

  commit<T>(fn: (txn: Txn) => T): { value: T; group: number } {
    if (this.#inCommit) throw new TidegateError("TG_INTERNAL", "commit inside a commit");
    const writer = this.#writer;
    const savepoint = writer.savepoint();
    this.#txn.reset();
    this.#inCommit = true;
    let value: T;
    try {
      value = fn(this.#txn);
    } catch (error) {
      this.#txn.undo();
      writer.cut(savepoint);
      for (const write of this.#definedInCommit) write(); // a lane or rule made meanwhile stays made
      if (this.#definedInCommit.length > 0) writer.schedule(true);
      throw error;
    } finally {
      this.#inCommit = false;
      if (this.#definedInCommit.length > 0) this.#definedInCommit = [];
    }
    if (writer.tail.end === savepoint.end) return { value, group: writer.durableGroup }; // nothing was written
    this.#txn.settle();
    const group = writer.openGroup;
    writer.schedule(true);
    return { value, group };
  }

  onDurable(listener: (group: number) => void): void {
    this.#durable.push(listener);
  }

  onFailed(listener: (error: TidegateError) => void): void {
    this.#failed.push(listener);
    if (this.failed !== undefined) listener(this.failed);
  }

  uplink(name: string, limits: UplinkLimits): UplinkQueue {
    let queue = this.#queues.get(name);
    if (queue !== undefined) queue.setLimits(limits);
    else {
      queue = new JournalQueue(this.#state.uplink(name), limits, {
        state: this.#state,
        reader: this.#lanes,
        storeMs: this.nowMs,
        durablePosition: () => this.#writer.durablePosition,
        makeLane: (uplink, priority) => this.#makeLane(uplink, priority),
        onDirty: () => this.#armLaneTimer(),
        onDropped: (uplink, reason, count) => this.#countDropped(uplink, reason, count),
      });
      this.#queues.set(name, queue);
    }
    return queue;
  }

  rule(uplink: string, definition: string): number {
    const known = this.#state.ruleIds.get(ruleKey(uplink, definition));
    if (known !== undefined) return known;
    const id = this.#state.nextRule;
    this.#state.defineRule(id, uplink, definition);
    this.#define(() => writeRule(this.#writer, id, uplink, definition));
    return id;
  }

  ruleDefinition(id: number): string | undefined {
    return this.#state.rules.get(id)?.definition;
  }

  references(name: string): ReferenceQueue | undefined {
    const queue = this.#state.queues.get(name);
    return queue === undefined ? undefined : new JournalReferences(queue, this.#references);
  }

  referenceNames(): Iterable<string> {
    return this.#state.queues.keys();
  }

  retained(): Iterable<readonly [topic: string, position: number]> {
    return this.#state.retained.entries();
  }

  read(position: number): Promise<StoredMessage | undefined> {
    return this.#references.message(position, 0);
  }

  readMany(positions: readonly number[], bytes: number): Promise<Array<StoredMessage | "later" | undefined>> {
    return this.#references.messages(positions, bytes);
  }

  get(map: string, key: string): Uint8Array | undefined {
    return this.#state.maps.get(map)?.get(key);
  }

  entries(map: string): Iterable<readonly [key: string, value: Uint8Array]> {
    return this.#state.maps.get(map)?.entries() ?? [];
  }

  stats(): StoreStats {
    return {
      bytes: this.#bytes(),
      segments: this.#state.segments.list.length,
      pendingBytes: this.#writer.pendingBytes,
      recovery: this.#parts.recovery,
    };
  }

  backup(request: BackupRequest): Promise<BackupInfo> {
    return this.#backups.make(request);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#tickTimer?.cancel();
    this.#laneTimer?.cancel();
    await this.#backups.close();
    this.#writeLaneStates();
    if (!this.#writer.isEmpty) this.#writer.schedule(true);
    await this.#writer.close();
    await this.#maintenance.close();
    this.#reader.close();
    await this.#parts.unlock();
  }

  #makeLane(uplink: string, priority: number): Lane {
    const lane = this.#state.defineLane(this.#state.nextLane, uplink, priority);
    this.#define(() => writeLane(this.#writer, lane));
    return lane;
  }

  /** Written twice, side by side: a rotten definition would take every message of its lane with it until the next segment repeats it. */
  #define(writeOnce: () => void): void {
    const write = (): void => {
      writeOnce();
      writeOnce();
    };
    write();
    if (this.#inCommit) this.#definedInCommit.push(write);
    this.#writer.schedule(true);
  }

  #onDurable(group: number, records: number, syncMs: number): void {
    this.#metrics.syncSeconds.observe(syncMs / 1000);
    this.#metrics.groupRecords.observe(records);
    this.#lastWriteMs = this.#parts.options.clock.monotonicMs();
    for (const listener of this.#durable) listener(group);
    for (const queue of this.#queues.values()) queue.wake();
    this.#maintenance.onDurable();
  }

  /** Stored messages cannot be read any more. @param uplink whose they were; undefined for a reference */
  #onLost(messages: number, uplink?: string): void {
    this.#metrics.corruptRecords.value += messages;
    this.#parts.options.log.error({ messages, uplink }, "journal: stored messages cannot be read any more");
    if (uplink === undefined) return;
    this.#countDropped(uplink, "corrupt", messages);
    const { dropped } = this.#state.uplink(uplink);
    dropped["corrupt"] = (dropped["corrupt"] ?? 0) + messages;
  }

  #onFailed(error: TidegateError): void {
    this.#parts.options.log.error({ error: error.message }, "journal: failed");
    for (const listener of this.#failed) listener(error);
  }

  #onMoved(from: Segment[], to: Segment, position: number): void {
    moveBytes(this.#writer.tail, from, to, position);
    this.#state.recountPins();
    this.#maintenance.onMoved();
  }

  #armLaneTimer(): void {
    if (this.#laneTimer !== undefined || this.#closed !== undefined) return;
    this.#laneTimer = this.#parts.options.clock.setTimer(laneStateEveryMs, () => {
      this.#laneTimer = undefined;
      if (!this.#writeLaneStates()) return;
      // Without a sync: a kill -9 cannot lose it. A power cut repeats at most a second.
      const since = this.#writer.unsyncedSinceMs;
      const nowMs = this.#parts.options.clock.monotonicMs();
      this.#writer.schedule(since !== undefined && nowMs - since >= laneStateSyncMs);
    });
  }

  #writeLaneStates(): boolean {
    let any = false;
    for (const lane of this.#state.lanes.values()) {
      if (!lane.dirty) continue;
      lane.dirty = false;
      writeLaneState(this.#writer, lane);
      any = true;
    }
    return any;
  }

  /** Once a second: expiry, space, checkpoints, and the proof or sync of what was written last. */
  #tick(): void {
    if (this.#closed !== undefined) return;
    const { clock } = this.#parts.options;
    const nowMs = clock.monotonicMs();
    const writer = this.#writer;
    for (const queue of this.#queues.values()) queue.sweep();
    void this.#space.check(nowMs, this.#bytes());
    this.#maintenance.tick();
    if (writer.unsyncedSinceMs !== undefined && nowMs - writer.unsyncedSinceMs >= laneStateSyncMs)
      writer.schedule(true);
    else if (writer.unproven && writer.isEmpty && nowMs - this.#lastWriteMs >= proveAfterMs) writer.schedule(false);
    this.#tickTimer = clock.setTimer(tickMs, () => this.#tick());
  }

  #bytes(): number {
    return this.#state.segments.fileBytes + this.#maintenance.bytes;
  }

  #countDropped(uplink: string, reason: string, count: number): void {
    this.#metrics.dropped(uplink, reason).value += count;
  }
}
