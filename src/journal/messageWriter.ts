/** Writes messages into the open group, and makes them wait in their lanes. */
import type { Taker } from "../base/contracts.ts";
import { TidegateError } from "../base/errors.ts";
import type { Message, PlainMessage } from "../base/message.ts";
import type { ByteWriter } from "./bytes.ts";
import { recordType } from "./format.ts";
import type { Lane } from "./lane.ts";
import { MessageEncoder, messageBound, messageFlags, plainBound } from "./messageRecord.ts";
import type { State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";

export interface MessageEnvironment {
  readonly state: State;
  readonly writer: GroupWriter;
  readonly storeMs: () => number;
  readonly wallMs: () => number;
  readonly maxMessageBytes: number;
  readonly largeRecordBytes: number;
}

/** What the newest message did to one lane. */
export interface Taken {
  lane: Lane;
  seq: number;
  /** What `State.take` said. */
  before: number;
}

export class MessageWriter {
  readonly #env: MessageEnvironment;
  readonly #encoder = new MessageEncoder();
  /** By taker: of the newest message. The same objects serve all. */
  readonly taken: Taken[] = [];
  position = 0;
  /** Of its record. */
  bytes = 0;
  /** Whose lane is in the first of them. */
  #taker: Taker | undefined;
  #storeMs = -1;
  #wallMs = 0;

  constructor(env: MessageEnvironment) {
    this.#env = env;
  }

  /**
   * What it throws leaves no trace, but for a segment of its own where the message is large.
   * @param takenMs on the wall clock: now @returns its position
   */
  write(message: Message, takers: readonly Taker[], takenMs?: number): number {
    // One that was taken before, and moves, may be larger than what is accepted by now.
    if (takenMs === undefined) this.#check(message.payload.length);
    const atMs = this.#env.storeMs();
    const wallMs = takenMs === undefined ? this.#wallAt(atMs) : Math.max(0, Math.floor(takenMs));
    const to = this.#begin(messageFlags(message), messageBound(message, takers.length), takers, atMs, wallMs);
    this.#encoder.writeMessage(to, message);
    return this.#finish(takers, atMs);
  }

  /** The same, of one that is small. @param atMs on the store's clock @returns false, and nothing is done: it is not */
  writeSmall(message: PlainMessage, takers: readonly Taker[], atMs: number): boolean {
    const bytes = message.to - message.from;
    const bound = plainBound(message.source, message.topic, bytes, takers.length);
    if (bound > this.#env.largeRecordBytes) return false;
    this.#check(bytes);
    this.#encoder.writePlain(this.#begin(message.qos, bound, takers, atMs, this.#wallAt(atMs)), message);
    this.#finish(takers, atMs);
    return true;
  }

  #check(bytes: number): void {
    if (bytes > this.#env.maxMessageBytes)
      throw new TidegateError("TG_INTERNAL", `a message of ${bytes} bytes exceeds maxMessageBytes`);
  }

  #begin(flags: number, bound: number, takers: readonly Taker[], atMs: number, wallMs: number): ByteWriter {
    const { writer } = this.#env;
    this.#find(takers);
    const to = writer.begin(recordType.message, flags, bound);
    this.position = writer.tail.end; // only now: a large one may have begun a segment
    this.#encoder.writeTakers(to, this.position, atMs, wallMs, takers, this.taken);
    return to;
  }

  #finish(takers: readonly Taker[], atMs: number): number {
    const { state, writer } = this.#env;
    const { position } = this;
    const bytes = writer.finish();
    this.bytes = bytes;
    const segment = writer.openSegment;
    for (let at = 0; at < takers.length; at += 1) {
      const taken = this.taken[at]!;
      const { lane } = taken;
      const { ttlMs } = takers[at]!;
      const expiresAtMs = ttlMs === undefined ? Number.POSITIVE_INFINITY : atMs + Math.max(0, Math.ceil(ttlMs));
      lane.account.nextSeq = taken.seq + 1;
      taken.before = state.take(segment, lane, position, bytes, atMs, expiresAtMs);
      state.index.add(segment, lane.id, position, bytes);
    }
    segment.freeAfterGroup = 0;
    return position;
  }

  /** Each taker's lane, and the number that the message gets there; nothing is changed yet. */
  #find(takers: readonly Taker[]): void {
    const { taken } = this;
    // Most have the takers of the one before, which are made when the configuration is read.
    if (takers.length === 1 && takers[0] === this.#taker) {
      taken[0]!.seq = taken[0]!.lane.account.nextSeq;
      return;
    }
    this.#taker = undefined;
    for (let at = 0; at < takers.length; at += 1) {
      const lane = this.#env.state.lanes.get(takers[at]!.lane);
      if (lane === undefined)
        throw new TidegateError("TG_INTERNAL", `lane ${takers[at]!.lane} is not known to the store`);
      let seq = lane.account.nextSeq;
      for (let other = 0; other < at; other += 1) if (taken[other]!.lane.account === lane.account) seq += 1;
      const one = taken[at];
      if (one === undefined) taken.push({ lane, seq, before: 0 });
      else {
        one.lane = lane;
        one.seq = seq;
      }
    }
    this.#taker = takers[0];
  }

  /** One look at the wall clock serves all messages of a millisecond of the store's. */
  #wallAt(storeMs: number): number {
    if (storeMs !== this.#storeMs) {
      this.#storeMs = storeMs;
      this.#wallMs = Math.max(0, Math.floor(this.#env.wallMs()));
    }
    return this.#wallMs;
  }
}

export function messageOf({ topic, source, qos, bytes, from, to }: PlainMessage): Message {
  const payload = new Uint8Array(bytes.buffer, bytes.byteOffset + from, to - from);
  return { topic, payload, qos, retain: false, source };
}
