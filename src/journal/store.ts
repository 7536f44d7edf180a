/** The store: commits, queues, references and reads over one journal. `openStore` makes it. */
import type { Timer } from "../base/clock.ts";
import type {
  Admission,
  BackupInfo,
  BackupRequest,
  PeekedMessage,
  QueuedMessage,
  ReferenceQueue,
  Store,
  StoredMessage,
  StoreStats,
  Taker,
  Txn,
  UplinkLimits,
  UplinkQueue,
} from "../base/contracts.ts";
import { TidegateError } from "../base/errors.ts";
import type { PlainMessage } from "../base/message.ts";
import { AdmissionControl } from "./admission.ts";
import { Backups } from "./backups.ts";
import { ChangedStates } from "./changedStates.ts";
import { writeDefinitions } from "./checkpoint.ts";
import { Definitions } from "./definitions.ts";
import { LaneReader } from "./laneReader.ts";
import { Maintenance } from "./maintenance.ts";
import { MessageWriter, messageOf } from "./messageWriter.ts";
import { StoreMetrics } from "./metrics.ts";
import { moveBytes } from "./moveBytes.ts";
import type { StoreParts } from "./parts.ts";
import { peekUplink } from "./peek.ts";
import { readingTwice } from "./readTwice.ts";
import { ReferenceReader, viewOf } from "./referenceReader.ts";
import { Room } from "./room.ts";
import { SegmentReader } from "./segmentReader.ts";
import type { Segment } from "./segments.ts";
import { agingCommands } from "./staleCommands.ts";
import type { State } from "./state.ts";
import { JournalTxn } from "./txn.ts";
import { JournalQueue } from "./uplinkQueue.ts";
import { GroupWriter } from "./writer.ts";
import { counting } from "./written.ts";

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
  readonly #admission: AdmissionControl;
  readonly #changed: ChangedStates;
  readonly #metrics: StoreMetrics;
  readonly #room: Room;
  readonly #messages: MessageWriter;
  readonly #txn: JournalTxn;
  readonly #queues = new Map<string, JournalQueue>();
  readonly #durable: Array<(group: number) => void> = [];
  readonly #failed: Array<(error: TidegateError) => void> = [];
  readonly #definitions: Definitions;
  #inCommit = false;
  #ticking: Timer | undefined;
  #closed: Promise<void> | undefined;

  constructor(parts: StoreParts) {
    const { state, storeMs } = parts;
    const { dir, files, clock, meter } = parts.options;
    this.#state = state;
    this.epoch = parts.epoch;
    this.nowMs = storeMs;
    this.#metrics = new StoreMetrics(meter, parts, () => this.#room.view(parts.recovery));
    this.#metrics.corruptRecords.value += parts.recovery.corruptRecords;
    const options = { ...parts.options, files: counting(files, this.#metrics.written) };
    this.#parts = { ...parts, options };
    this.#room = new Room({
      ...{ options, state },
      writer: () => this.#writer,
      checkpoints: () => this.#maintenance,
      admission: () => this.#admission,
    });
    this.#writer = this.#makeWriter();
    this.#changed = new ChangedStates({
      ...{ clock: options.clock, writer: this.#writer, state, written: this.#metrics.written },
    });
    this.#reader = new SegmentReader(readingTwice(files), dir);
    const source = { state, tail: this.#writer.tail, reader: this.#reader };
    this.#lanes = new LaneReader({
      ...{ ...source, tuning: options.tuning },
      durablePosition: () => this.#writer.durablePosition,
      onLost: (lane, messages) => this.#onLost(messages, lane.uplink),
    });
    this.#references = new ReferenceReader({
      ...{ ...source, aged: agingCommands(clock, storeMs, parts.from.position) },
      onRotten: (queue, ordinal) => {
        this.#onLost(1);
        this.commit((txn) => txn.release(queue, ordinal));
      },
    });
    this.#maintenance = this.#makeMaintenance();
    this.#admission = this.#makeAdmission();
    const held = { writer: this.#writer, maintenance: this.#maintenance, segments: state.segments };
    this.#backups = new Backups({ ...parts, ...options, ...held });
    this.#messages = new MessageWriter({
      ...{ state, writer: this.#writer, storeMs, ...options, ...options.tuning },
      wallMs: () => clock.wallMs(),
    });
    this.#definitions = new Definitions(state, this.#writer);
    const { compactedMin } = options.tuning;
    this.#txn = new JournalTxn({ state, writer: this.#writer, messages: this.#messages, compactedMin });
  }

  #makeWriter(): GroupWriter {
    const { options, state, storeMs, storeId, epoch, from } = this.#parts;
    return new GroupWriter({
      ...{ ...options, ...options.tuning, storeMs, storeId, epoch, from },
      ...{ spares: this.#room.spares, segments: state.segments, index: state.index },
      ...{ preamble: (sink) => writeDefinitions(sink, state), ending: (sink) => state.unwritten.write(sink, state) },
      onDurable: (group, records, ms) => this.#onDurable(group, records, ms),
      onFailed: (error) => this.#onFailed(error),
      onBoundary: () => this.#maintenance.onBoundary(),
      onMoved: (moved, to, position) => this.#onMoved(moved, to, position),
    });
  }

  #makeMaintenance(): Maintenance {
    const { options, state, storeMs, storeId, epoch } = this.#parts;
    const writeLaneStates = (): void => void this.#changed.write();
    const onFreed = (): void => this.#admission.onDurable();
    const { freed } = this.#room;
    const room = (): number => this.#admission.spareBytes;
    const made = { writer: this.#writer, reader: this.#reader, metrics: this.#metrics };
    const hooks = { writeLaneStates, freed, onFreed, room };
    return new Maintenance({ ...options, state, storeMs, storeId, epoch, ...made, ...hooks }, this.#parts);
  }

  #makeAdmission(): AdmissionControl {
    const { options, state } = this.#parts;
    return new AdmissionControl({
      ...{ ...options, state, limits: options, spares: this.#room.spares },
      ...{ writer: this.#writer, metrics: this.#metrics },
      fileBytes: () => this.#room.usedBytes,
      checkpointBytes: () => this.#maintenance.checkpointBytes,
      stagedBytes: () => this.#maintenance.stagedBytes,
      maintenance: () => this.#maintenance,
      onRelieved: () => this.#tellDurable(this.durableGroup),
      onDirty: () => this.#changed.arm(),
    });
  }

  /** Writes the new segment's beginning, so that what recovery cut off stays cut off; starts the timers. */
  async begin(): Promise<void> {
    await this.#room.begin();
    await this.#admission.begin();
    this.#writer.schedule(true);
    // A full disk must not keep the gateway from starting: the writer goes on trying.
    await Promise.race([this.#writer.flush(), this.#writer.whenFull()]);
    this.#tick();
    this.#ticking = this.#parts.options.seconds.each(() => this.#tick());
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

  get crowded(): boolean {
    return this.#admission.crowded;
  }

  admit(request: Admission): "ok" | "full" | "failed" {
    return this.#admission.admit(request);
  }

  admittedTo(rejectNewest: readonly string[]): number {
    return this.head + this.#admission.spareFor(rejectNewest);
  }

  onCrowded(listener: (bytes: number) => number): void {
    this.#admission.onCrowded(listener);
  }

  configured(): void {
    this.#admission.configured();
  }

  async purgeUplink(name: string): Promise<{ messages: number; bytes: number }> {
    await this.#writer.flush(); // what is not durable yet must not come back by way of a roll
    if (this.failed !== undefined) throw this.failed;
    const purged = this.#admission.purge(name);
    this.#changed.write();
    await this.#writer.flush();
    if (this.failed !== undefined) throw this.failed;
    return purged;
  }

  peekUplink(name: string, count: number): Promise<{ messages: PeekedMessage[]; more: boolean } | undefined> {
    return peekUplink({ ...this.#parts, reader: this.#lanes, queue: this.#queues.get(name) }, name, count);
  }

  commit<T>(fn: (txn: Txn) => T): { value: T; group: number } {
    if (this.#inCommit) throw new TidegateError("TG_INTERNAL", "commit inside a commit");
    const writer = this.#writer;
    const savepoint = writer.savepoint();
    this.#txn.reset();
    this.#inCommit = true;
    this.#definitions.begin();
    let value: T;
    try {
      value = fn(this.#txn);
    } catch (error) {
      this.#txn.undo();
      writer.cut(savepoint);
      this.#definitions.again();
      throw error;
    } finally {
      this.#inCommit = false;
    }
    if (this.#txn.leaving.length > 0) this.#leave(this.#txn.leaving);
    if (this.#txn.statesOf !== undefined) this.#changed.writeLanes(this.#state.uplink(this.#txn.statesOf).lanes);
    if (writer.wroteNothing(savepoint)) return { value, group: writer.durableGroup };
    this.#txn.compact();
    const group = writer.openGroup;
    writer.schedule(true);
    return { value, group };
  }

  append(message: PlainMessage, takers: readonly Taker[], atMs: number): number {
    // What may begin a segment is taken back by a commit.
    if (this.#inCommit || !this.#messages.writeSmall(message, takers, atMs))
      return this.commit((txn) => txn.message(messageOf(message), takers)).group;
    const group = this.#writer.openGroup;
    this.#writer.schedule(true);
    return group;
  }

  /** They leave their queues in the open group, with what the commit wrote: a crash keeps both or neither. */
  #leave(messages: readonly QueuedMessage[]): void {
    for (const message of messages) {
      const lane = this.#state.lanes.get(message.lane);
      if (lane !== undefined) this.#queues.get(lane.uplink)?.settle(message, "dead-letter");
    }
    this.#changed.write();
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
        makeLane: (uplink, priority) => this.#definitions.lane(uplink, priority),
        onDirty: () => this.#changed.arm(),
        onDropped: (uplink, reason, count) => this.#admission.note(uplink, reason, count),
        drops: () => this.#admission.drops,
      });
      this.#queues.set(name, queue);
    }
    return queue;
  }

  rule(uplink: string, definition: string): number {
    return this.#definitions.rule(uplink, definition);
  }

  ruleDefinition(id: number): string | undefined {
    return this.#state.rules.get(id)?.definition;
  }

  references(name: string): ReferenceQueue | undefined {
    const queue = this.#state.queues.get(name);
    return queue === undefined ? undefined : viewOf(queue, this.#references);
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
    const { room } = this.#admission;
    return { ...this.#metrics.stats(), room, orphaned: this.#admission.orphaned() };
  }

  backup(request: BackupRequest): Promise<BackupInfo> {
    return this.#backups.make(request);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#ticking?.cancel();
    await this.#backups.close();
    this.#changed.close();
    await this.#maintenance.stop();
    if (!this.#writer.isEmpty) this.#writer.schedule(true);
    await this.#writer.close();
    await this.#room.close();
    await this.#maintenance.close();
    this.#reader.close();
    await this.#parts.unlock();
  }

  #onDurable(group: number, records: number, syncMs: number): void {
    this.#metrics.syncSeconds.observe(syncMs / 1000);
    this.#metrics.groupRecords.observe(records);
    this.#changed.onDurable();
    this.#tellDurable(group);
    for (const queue of this.#queues.values()) queue.wake();
    this.#admission.onDurable();
    this.#maintenance.onDurable();
  }

  #tellDurable(group: number): void {
    for (const listener of this.#durable) listener(group);
  }

  /** Stored messages cannot be read any more. @param uplink whose they were; undefined for a reference */
  #onLost(messages: number, uplink?: string): void {
    this.#metrics.lost(messages, uplink);
    this.#parts.options.log.error({ messages, uplink }, "journal: stored messages cannot be read any more");
    if (uplink === undefined) return;
    this.#admission.drops.several(uplink, "corrupt", messages);
    this.#admission.note(uplink, "corrupt", messages);
    const { dropped } = this.#state.uplink(uplink);
    dropped["corrupt"] = (dropped["corrupt"] ?? 0) + messages;
  }

  #onFailed(error: TidegateError): void {
    this.#parts.options.log.error({ error: error.message }, "journal: failed");
    for (const listener of this.#failed) listener(error);
  }

  #onMoved(from: Segment[], to: Segment, position: number): void {
    moveBytes(this.#writer.tail, from, to, position);
    this.#state.index.abandon(to);
    this.#state.recountPins();
    this.#maintenance.onMoved();
  }

  /** Once a second: expiry, space, checkpoints, and the proof or sync of what was written last. */
  #tick(): void {
    if (this.#closed !== undefined) return;
    for (const queue of this.#queues.values()) queue.sweep();
    this.#admission.tick();
    this.#maintenance.tick();
    this.#changed.tick();
    this.#room.tick();
  }
}
