/** What runs inside `commit`: each call encodes its record and changes the state at once; `undo` takes back what a throwing function did. */
import type { QueuedMessage, Taker, Txn } from "../base/contracts.ts";
import { TidegateError } from "../base/errors.ts";
import type { Message } from "../base/message.ts";
import { recordType } from "./format.ts";
import { messageBound, messageFlags, writeMessage } from "./messageRecord.ts";
import { writeNamed, writeNames, writePut, writeReference } from "./records.ts";
import type { References } from "./references.ts";
import type { State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";

/** What undoing needs; one small object a change, dropped with the commit. */
type Change =
  | { kind: "take"; lane: number; bytes: number; seq: number; last: number }
  | { kind: "reference"; queue: References; position: number }
  | { kind: "release"; queue: References; ordinal: number; position: number }
  | { kind: "drop"; queue: References }
  | { kind: "retained"; topic: string; before: number | undefined }
  | { kind: "map"; map: string; key: string; before: Uint8Array | undefined };

export interface TxnEnvironment {
  readonly state: State;
  readonly writer: GroupWriter;
  readonly storeMs: () => number;
  readonly wallMs: () => number;
  readonly maxMessageBytes: number;
}

export class JournalTxn implements Txn {
  readonly #env: TxnEnvironment;
  #changes: Change[] = [];
  #leaving: QueuedMessage[] = [];
  #statesOf: string | undefined;
  readonly #nextSeq: (lane: number) => number;

  constructor(env: TxnEnvironment) {
    this.#env = env;
    this.#nextSeq = (id) => {
      const lane = env.state.lanes.get(id);
      if (lane === undefined) throw new TidegateError("TG_INTERNAL", `lane ${id} is not known to the store`);
      return env.state.uplink(lane.uplink).nextSeq++;
    };
  }

  /** To be called before each commit. */
  reset(): void {
    if (this.#changes.length > 0) this.#changes = [];
    if (this.#leaving.length > 0) this.#leaving = [];
    this.#statesOf = undefined;
  }

  /** The uplink whose lane states are to be in this commit's group. */
  get statesOf(): string | undefined {
    return this.#statesOf;
  }

  laneStates(uplink: string): void {
    this.#statesOf = uplink;
  }

  /** Messages of uplinks that leave their queues with this commit, once its function has not thrown. */
  get leaving(): readonly QueuedMessage[] {
    return this.#leaving;
  }

  settle(message: QueuedMessage): void {
    this.#leaving.push(message);
  }

  message(message: Message, takers: readonly Taker[], takenMs?: number): number {
    const { state, writer, maxMessageBytes } = this.#env;
    // One that was taken before, and moves, may be larger than what is accepted by now.
    if (takenMs === undefined && message.payload.length > maxMessageBytes) {
      throw new TidegateError("TG_INTERNAL", `a message of ${message.payload.length} bytes exceeds maxMessageBytes`);
    }
    const acceptedAtMs = this.#env.storeMs();
    const to = writer.begin(recordType.message, messageFlags(message), messageBound(message, takers.length));
    const position = writer.tail.end; // only now: a large one may have begun a segment
    const firstSeq = this.#changes.length;
    for (const taker of takers) {
      const lane = state.lanes.get(taker.lane);
      const seq = lane === undefined ? 0 : state.uplink(lane.uplink).nextSeq;
      this.#changes.push({ kind: "take", lane: taker.lane, bytes: 0, seq, last: 0 });
    }
    writeMessage(
      to,
      message,
      takers,
      { position, acceptedAtMs, wallMs: Math.max(0, Math.floor(takenMs ?? this.#env.wallMs())) },
      this.#nextSeq,
    );
    const bytes = writer.finish();
    takers.forEach((taker, index) => {
      const lane = state.lanes.get(taker.lane)!;
      const expiresAtMs =
        taker.ttlMs === undefined ? Number.POSITIVE_INFINITY : acceptedAtMs + Math.max(0, Math.ceil(taker.ttlMs));
      const last = writer.openSegment.parts.get(lane.id)?.last ?? 0;
      state.take(writer.openSegment, lane, position, bytes, acceptedAtMs, expiresAtMs);
      state.index.add(writer.openSegment, lane.id, position, bytes);
      const change = this.#changes[firstSeq + index] as { bytes: number; last: number };
      change.bytes = bytes;
      change.last = last;
    });
    writer.openSegment.freeAfterGroup = 0;
    return position;
  }

  reference(queue: string, position: number, meta: number, known = 0): number {
    const { state, writer } = this.#env;
    const bytes = this.#bytesOf(position) || known;
    const ordinal = state.reference(queue, position, meta, bytes, writer.openGroup);
    this.#changes.push({ kind: "reference", queue: state.queue(queue), position });
    writeReference(writer, queue, { ordinal, position, meta, bytes });
    return ordinal;
  }

  release(queue: string, ordinal: number): void {
    const { state, writer } = this.#env;
    const references = state.queues.get(queue);
    const position = state.release(queue, ordinal);
    if (references === undefined || position === 0) return;
    this.#changes.push({ kind: "release", queue: references, ordinal, position });
    writeNamed(writer, recordType.release, queue, ordinal);
  }

  dropQueue(queue: string): void {
    const { state, writer } = this.#env;
    const dropped = state.dropQueue(queue);
    if (dropped === undefined) return;
    this.#changes.push({ kind: "drop", queue: dropped });
    // Twice: without it, a queue made anew under that name would seem to repeat the old one's ordinals, and lose its messages.
    writeNames(writer, recordType.dropQueue, [queue]);
    writeNames(writer, recordType.dropQueue, [queue]);
  }

  retain(topic: string, position: number): void {
    const before = this.#env.state.retain(topic, position);
    this.#changes.push({ kind: "retained", topic, before });
    writeNamed(this.#env.writer, recordType.retain, topic, position);
  }

  unretain(topic: string): void {
    const before = this.#env.state.unretain(topic);
    if (before === undefined) return;
    this.#changes.push({ kind: "retained", topic, before });
    writeNames(this.#env.writer, recordType.unretain, [topic]);
  }

  put(map: string, key: string, value: Uint8Array): void {
    const before = this.#env.state.put(map, key, Buffer.from(value)); // a copy: the caller may reuse it
    this.#changes.push({ kind: "map", map, key, before });
    writePut(this.#env.writer, map, key, value);
  }

  delete(map: string, key: string): void {
    const before = this.#env.state.delete(map, key);
    if (before === undefined) return;
    this.#changes.push({ kind: "map", map, key, before });
    writeNames(this.#env.writer, recordType.delete, [map, key]);
  }

  /** Gives holes back; after a commit that succeeded. */
  compact(): void {
    for (const change of this.#changes) if (change.kind === "release") change.queue.compact();
  }

  undo(): void {
    for (let change = this.#changes.pop(); change !== undefined; change = this.#changes.pop()) this.#undo(change);
  }

  #undo(change: Change): void {
    const { state } = this.#env;
    switch (change.kind) {
      case "take": {
        const lane = state.lanes.get(change.lane);
        if (lane === undefined) return;
        if (change.bytes > 0) {
          const { openSegment } = this.#env.writer;
          state.untake(openSegment, lane, 1, change.bytes);
          const part = openSegment.parts.get(lane.id);
          // Else it might reach into the next segment, and what is dropped with it takes what lies there along.
          if (part !== undefined) part.last = change.last;
          state.index.undo(openSegment, lane.id, change.bytes);
        }
        state.uplink(lane.uplink).nextSeq = change.seq;
        return;
      }
      case "reference":
        change.queue.undoAdd();
        state.pin(change.position, -1);
        state.referenceCount -= 1;
        if (change.queue.nextOrdinal === 1 && state.queues.get(change.queue.name) === change.queue)
          state.queues.delete(change.queue.name);
        return;
      case "release":
        change.queue.undoRelease(change.ordinal, change.position);
        state.pin(change.position, 1);
        state.referenceCount += 1;
        return;
      case "drop":
        state.queues.set(change.queue.name, change.queue);
        state.countQueue(change.queue, 1);
        return;
      case "retained":
        if (change.before === undefined) state.unretain(change.topic);
        else state.retain(change.topic, change.before);
        return;
      case "map":
        if (change.before === undefined) state.delete(change.map, change.key);
        else state.put(change.map, change.key, change.before);
        return;
      default:
        change satisfies never;
    }
  }

  /** Size of the record at `position`; 0 once it is on disk only. */
  #bytesOf(position: number): number {
    const piece = this.#env.writer.tail.at(position);
    return piece === undefined ? 0 : piece.buffer.readUInt32LE(piece.from);
  }
}
