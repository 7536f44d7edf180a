/** What runs inside `commit`: each call encodes its record and changes the state at once; `undo` takes back what a throwing function did. */
import type { QueuedMessage, Taker, Txn } from "../base/contracts.ts";
import type { Message } from "../base/message.ts";
import { recordType } from "./format.ts";
import type { Lane } from "./lane.ts";
import type { MessageWriter } from "./messageWriter.ts";
import { writeNamed, writeNames, writePut, writeRelease } from "./records.ts";
import type { References } from "./references.ts";
import type { State } from "./state.ts";
import { copiesOf } from "./unwritten.ts";
import type { GroupWriter } from "./writer.ts";

/** A change that is not made with every message. */
type Rare =
  | { kind: "drop"; queue: References }
  | { kind: "retained"; topic: string; before: number | undefined }
  | { kind: "map"; map: string; key: string; before: Uint8Array | undefined };

/** What undoing a change needs. The same objects serve all commits: there are several of them to each message. */
interface Change {
  kind: "take" | "reference" | "release" | "rare";
  lane: Lane | undefined;
  queue: References | undefined;
  rare: Rare | undefined;
  /** Of a reference or release: the message's. Of a take: the newest of the lane's part before it. */
  position: number;
  /** Of a release the ordinal, of a take its sequence number. */
  number: number;
  bytes: number;
}

/** The value of what only has to be there. */
const noBytes = Buffer.alloc(0);

/** More than a commit has but for rare ones, whose objects are not kept. */
const keptChanges = 2048;

const newChange = (): Change => ({
  kind: "rare",
  ...{ lane: undefined, queue: undefined, rare: undefined },
  ...{ position: 0, number: 0, bytes: 0 },
});

/** Lets go of what it points at: a queue may be dropped long before its object is used again. */
function forget(change: Change): void {
  change.lane = change.queue = change.rare = undefined;
}

export interface TxnEnvironment {
  readonly state: State;
  readonly writer: GroupWriter;
  readonly messages: MessageWriter;
  readonly compactedMin: number;
}

export class JournalTxn implements Txn {
  readonly #env: TxnEnvironment;
  /** The first `#changed` of them are this commit's. */
  #changes: Change[] = [];
  #changed = 0;
  /** The newest message of this commit. */
  #newest = 0;
  /** The queue of the last reference or release: many in a row are of one. */
  #last: References | undefined;
  #leaving: QueuedMessage[] = [];
  #statesOf: string | undefined;

  constructor(env: TxnEnvironment) {
    this.#env = env;
  }

  /** To be called before each commit. */
  reset(): void {
    if (this.#changed > keptChanges) this.#changes = [];
    else for (let at = 0; at < this.#changed; at += 1) forget(this.#changes[at]!);
    this.#changed = 0;
    this.#newest = 0;
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
    const { messages } = this.#env;
    const position = messages.write(message, takers, takenMs);
    for (let at = 0; at < takers.length; at += 1) {
      const { lane, seq, before } = messages.taken[at]!;
      const change = this.#change("take");
      change.lane = lane;
      change.number = seq;
      change.bytes = messages.bytes;
      change.position = before;
    }
    this.#newest = position;
    return position;
  }

  reference(queue: string, position: number, meta: number, known = 0): number {
    const { state, writer, messages } = this.#env;
    const bytes = position === this.#newest ? messages.bytes : this.#bytesOf(position) || known;
    const references = this.#known(queue) ?? state.queue(queue);
    this.#last = references;
    const ordinal = state.reference(references, position, meta, bytes, writer.openGroup);
    const change = this.#change("reference");
    change.queue = references;
    change.position = position;
    writer.noteLater();
    return ordinal;
  }

  release(queue: string, ordinal: number, wanted = 1): void {
    const { state, writer } = this.#env;
    const references = this.#known(queue) ?? state.queues.get(queue);
    if (references === undefined) return;
    this.#last = references;
    const before = this.#changed;
    // No record may name what is yet to come: a checkpoint that has seen it would have it taken away by what came before it.
    const count = Math.min(wanted, references.nextOrdinal - ordinal);
    for (let at = ordinal; at < ordinal + count; at += 1) {
      const position = state.releaseFrom(references, at);
      if (position === 0) continue;
      const change = this.#change("release");
      change.queue = references;
      change.number = at;
      change.position = position;
    }
    if (this.#changed === before) return;
    const written = references.writtenOf(ordinal, count);
    if (written > 0)
      for (let copies = copiesOf(written); copies > 0; copies -= 1) writeRelease(writer, queue, ordinal, written);
    if (written < count) writer.noteLater();
  }

  #known(queue: string): References | undefined {
    return this.#last?.name === queue && !this.#last.ended ? this.#last : undefined;
  }

  dropQueue(queue: string): void {
    const { state, writer } = this.#env;
    const dropped = state.dropQueue(queue);
    if (dropped === undefined) return;
    this.#change("rare").rare = { kind: "drop", queue: dropped };
    // Twice: without it, a queue made anew under that name would seem to repeat the old one's ordinals, and lose its messages.
    writeNames(writer, recordType.dropQueue, [queue]);
    writeNames(writer, recordType.dropQueue, [queue]);
  }

  retain(topic: string, position: number): void {
    const before = this.#env.state.retain(topic, position);
    this.#change("rare").rare = { kind: "retained", topic, before };
    writeNamed(this.#env.writer, recordType.retain, topic, position);
  }

  unretain(topic: string): void {
    const before = this.#env.state.unretain(topic);
    if (before === undefined) return;
    this.#change("rare").rare = { kind: "retained", topic, before };
    writeNames(this.#env.writer, recordType.unretain, [topic]);
  }

  put(map: string, key: string, value: Uint8Array): void {
    // A copy: the caller may reuse it.
    const before = this.#env.state.put(map, key, value.length === 0 ? noBytes : Buffer.from(value));
    this.#change("rare").rare = { kind: "map", map, key, before };
    writePut(this.#env.writer, map, key, value);
  }

  delete(map: string, key: string): void {
    const before = this.#env.state.delete(map, key);
    if (before === undefined) return;
    this.#change("rare").rare = { kind: "map", map, key, before };
    writeNames(this.#env.writer, recordType.delete, [map, key]);
  }

  /** Gives holes back; after a commit that succeeded. */
  compact(): void {
    let last: References | undefined; // those of a queue come together
    for (let at = 0; at < this.#changed; at += 1) {
      const { kind, queue } = this.#changes[at]!;
      if (kind !== "release" || queue === last) continue;
      last = queue;
      queue?.compact(this.#env.compactedMin);
    }
  }

  undo(): void {
    for (; this.#changed > 0; this.#changed -= 1) {
      const change = this.#changes[this.#changed - 1]!;
      this.#undo(change);
      forget(change);
    }
  }

  #change(kind: Change["kind"]): Change {
    let change = this.#changes[this.#changed];
    if (change === undefined) {
      change = newChange();
      this.#changes.push(change);
    }
    this.#changed += 1;
    change.kind = kind;
    return change;
  }

  #undo({ kind, lane, queue, rare, position, number, bytes }: Change): void {
    const { state } = this.#env;
    if (rare !== undefined) this.#undoRare(rare);
    else if (lane !== undefined) {
      const { openSegment } = this.#env.writer;
      state.untake(openSegment, lane, 1, bytes);
      const part = openSegment.parts.get(lane.id);
      // Else it might reach into the next segment, and what is dropped with it takes what lies there along.
      if (part !== undefined) part.last = position;
      state.index.undo(openSegment, lane.id, bytes);
      lane.account.nextSeq = number;
    } else if (queue === undefined) return;
    else if (kind === "release") {
      queue.undoRelease(number, position);
      state.pin(position, 1);
      state.referenceCount += 1;
    } else {
      queue.undoAdd();
      state.pin(position, -1);
      state.referenceCount -= 1;
      if (queue.nextOrdinal === 1 && state.queues.get(queue.name) === queue) state.forget(queue);
    }
  }

  #undoRare(change: Rare): void {
    const { state } = this.#env;
    switch (change.kind) {
      case "drop":
        state.restore(change.queue);
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
