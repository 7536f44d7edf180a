/** Reads the messages that references and retained values point at: from the tail in RAM, else from disk, neighbours with one read. */
import type { ReferencedMessage, ReferenceQueue, StoredMessage } from "../base/contracts.ts";
import { TidegateError } from "../base/errors.ts";
import { FieldError } from "./bytes.ts";
import { plausibleLength, recordHeaderBytes, recordIsValid, recordType } from "./format.ts";
import { MessageReader } from "./messageRecord.ts";
import { tableStepBytes } from "./positionTable.ts";
import type { References } from "./references.ts";
import type { SegmentReader } from "./segmentReader.ts";
import type { Segment } from "./segments.ts";
import type { State } from "./state.ts";
import type { Tail } from "./tail.ts";
import { RecordWalker } from "./walk.ts";

export interface ReferenceSource {
  readonly state: State;
  readonly tail: Tail;
  readonly reader: SegmentReader;
  /** The message of a reference cannot be read any more: the reference is to be released. */
  readonly onRotten: (queue: string, ordinal: number) => void;
  /** See agingCommands. */
  readonly aged: (stored: StoredMessage) => StoredMessage;
}

/** A piece of a segment that was read, from the offset `start` on, kept for the next message of the same batch. */
interface Window {
  segment: Segment;
  start: number;
  bytes: Buffer;
}

const windowBytes = 64 * 1024;
const loneBytes = 4096;

export class ReferenceReader {
  readonly #source: ReferenceSource;
  readonly #message = new MessageReader();
  readonly #walker = new RecordWalker();
  #wanted = 0;

  constructor(source: ReferenceSource) {
    this.#source = source;
  }

  /** @param bytes the record's length, 0 when not known */
  async message(position: number, bytes: number): Promise<StoredMessage | undefined> {
    const found = await this.#find(position, bytes || loneBytes, { window: undefined });
    return found === "later" ? undefined : found;
  }

  /** The first of these, at least one and about so many bytes. */
  async messages(positions: readonly number[], bytesMax: number): Promise<Array<StoredMessage | "later" | undefined>> {
    const messages: Array<StoredMessage | "later" | undefined> = [];
    const cache: { window: Window | undefined } = { window: undefined };
    let bytes = 0;
    for (const [index, position] of positions.entries()) {
      if (index > 0 && bytes >= bytesMax) break;
      const next = positions[index + 1] ?? 0;
      const near = next > position && next - position < windowBytes;
      const found = await this.#find(position, near ? windowBytes : loneBytes, cache);
      messages.push(found);
      bytes += found === "later" || found === undefined ? loneBytes : found.message.payload.length;
    }
    return messages;
  }

  async batch(
    queue: References,
    after: number,
    limits: { messages: number; bytes: number },
  ): Promise<ReferencedMessage[]> {
    const batch: ReferencedMessage[] = [];
    const cache: { window: Window | undefined } = { window: undefined };
    let bytes = 0;
    let ordinal = queue.nextAfter(after);
    while (ordinal > 0 && (batch.length === 0 || batch.length < limits.messages)) {
      const position = queue.positionOf(ordinal);
      const size = queue.bytesOf(ordinal) || loneBytes;
      if (batch.length > 0 && bytes + size > limits.bytes) break;
      const next = queue.nextAfter(ordinal);
      const nextPosition = next === 0 ? 0 : queue.positionOf(next);
      const near = nextPosition > position && nextPosition - position < windowBytes && limits.messages > 1;
      const found = await this.#find(position, near ? Math.max(size, windowBytes) : size, cache);
      if (found === "later") {
        if (batch.length > 0) break;
        throw new TidegateError("TG_STORE_READ", `queue ${queue.name}: nothing can be read now`, { retriable: true });
      }
      // Released, or its queue dropped, while it was read.
      if (queue.positionOf(ordinal) === position) {
        if (found === undefined) this.#source.onRotten(queue.name, ordinal);
        else {
          bytes += size;
          batch.push({ ...found, ordinal, meta: queue.metaOf(ordinal), group: queue.groupOf(ordinal) });
        }
      }
      ordinal = queue.nextAfter(ordinal);
    }
    return batch;
  }

  async #find(
    position: number,
    bytes: number,
    cache: { window: Window | undefined },
  ): Promise<StoredMessage | undefined | "later"> {
    const { tail, state, reader } = this.#source;
    const recent = tail.at(position);
    if (recent !== undefined) return this.#decode(recent.buffer, recent.from, position, undefined);
    const segment = state.segments.find(position);
    if (segment === undefined) return undefined;
    const offset = segment.offsetOf(position);
    const { window } = cache;
    if (window?.segment === segment && offset >= window.start) {
      const found = this.#search(window, offset - window.start, position);
      if (found !== undefined) return found; // else it may only reach beyond the window
    }
    const left = segment.recordsTo - offset;
    let wanted = Math.min(left, segment.merged === undefined ? bytes : bytes + tableStepBytes);
    for (;;) {
      const target = Buffer.allocUnsafe(Math.max(0, wanted));
      const count = await reader.readFrom(segment, offset, target);
      if (count < 0) return "later";
      cache.window = { segment, start: offset, bytes: target.subarray(0, count) };
      const found = this.#search(cache.window, 0, position);
      const more = Math.min(left, this.#wanted);
      if (found !== undefined || count < wanted || more <= count) return found;
      wanted = more;
    }
  }

  /** The message, if the window has it from `from` on. Sets `#wanted` when it may reach beyond: to how large a window is needed. */
  #search({ bytes, start, segment }: Window, from: number, position: number): StoredMessage | undefined {
    this.#wanted = 0;
    if (segment.merged === undefined) {
      if (from + recordHeaderBytes > bytes.length) return undefined;
      this.#wanted = from + plausibleLength(bytes, from, segment.end - position);
      return this.#wanted > bytes.length ? undefined : this.#decode(bytes, from, position, segment);
    }
    const walker = this.#walker;
    walker.start(
      bytes,
      Math.min(from, bytes.length),
      bytes.length,
      segment.recordsTo - start - bytes.length,
      segment.seed,
    );
    for (let step = walker.step(); step !== "end"; step = walker.step()) {
      if (step === "more") {
        this.#wanted = walker.next + walker.wanted;
        return undefined;
      }
      if (walker.type !== recordType.message) continue;
      const found = this.#decode(bytes, walker.at, position, undefined);
      if (found !== undefined || this.#message.position > position) return found;
    }
    return undefined;
  }

  /** @param segment undefined: its checksum was looked at, or is not set yet, as in the tail */
  #decode(buffer: Buffer, at: number, position: number, segment: Segment | undefined): StoredMessage | undefined {
    if (at + recordHeaderBytes > buffer.length) return undefined;
    const length = plausibleLength(buffer, at, buffer.length - at);
    if (length === 0 || buffer[at + 8] !== recordType.message) return undefined;
    if (segment !== undefined && !recordIsValid(buffer, at, length, segment.seed)) return undefined;
    const message = this.#message;
    try {
      message.start(buffer, at + recordHeaderBytes, at + length, buffer[at + 9]!);
      return message.position === position ? this.#source.aged(message.stored()) : undefined;
    } catch (error) {
      if (error instanceof FieldError) return undefined;
      throw error;
    }
  }
}

/** What the other stages see of a queue of references. */
export function viewOf(queue: References, reader: ReferenceReader): ReferenceQueue {
  queue.view ??= new JournalReferences(queue, reader);
  return queue.view;
}

class JournalReferences implements ReferenceQueue {
  readonly #queue: References;
  readonly #reader: ReferenceReader;

  constructor(queue: References, reader: ReferenceReader) {
    this.#queue = queue;
    this.#reader = reader;
  }

  get name(): string {
    return this.#queue.name;
  }

  get ended(): boolean {
    return this.#queue.ended;
  }

  get size(): number {
    return this.#queue.size;
  }

  get bytes(): number {
    return this.#queue.bytes;
  }

  get nextOrdinal(): number {
    return this.#queue.nextOrdinal;
  }

  oldest(): { readonly ordinal: number; readonly meta: number } | undefined {
    const ordinal = this.#queue.nextAfter(0);
    return ordinal === 0 ? undefined : { ordinal, meta: this.#queue.metaOf(ordinal) };
  }

  nextAfter(after: number): number {
    return this.#queue.nextAfter(after);
  }

  read(after: number, limits: { messages: number; bytes: number }): Promise<ReferencedMessage[]> {
    return this.#reader.batch(this.#queue, after, limits);
  }
}
