/**
 * The newest bytes of the journal in RAM: what is not durable yet, and up to `keepBytes` of what just became so, so that readers need no disk for it.
 * Chunks cover one unbroken range of positions; a record never spans two.
 *
 *   chunks  [ durable ... | durable, being written | open .......free ]
 */
import { ByteWriter, dataViewOf } from "./bytes.ts";
import { recordHeaderBytes } from "./format.ts";

interface Chunk {
  readonly buffer: Buffer;
  readonly view: DataView;
  /** Position of its first byte. */
  readonly start: number;
  used: number;
}

const spareChunksMax = 4;

export class Tail {
  readonly #chunks: Chunk[] = [];
  readonly #spare: Buffer[] = [];
  readonly #writer = new ByteWriter(Buffer.alloc(0));
  readonly #keepBytes: number;
  readonly #chunkBytes: number;
  #end: number;
  #capacity = 0;

  constructor(start: number, keepBytes: number, chunkBytes = 256 * 1024) {
    this.#end = start;
    this.#keepBytes = keepBytes;
    this.#chunkBytes = chunkBytes;
  }

  /** Position of the next record. */
  get end(): number {
    return this.#end;
  }

  /** Lowest position that is still here. */
  get start(): number {
    return this.#chunks[0]?.start ?? this.#end;
  }

  /** Begins a record of at most `bound` bytes of fields; `finish` ends it. Its checksum is set later, by whoever knows the segment. */
  begin(type: number, flags: number, bound: number): ByteWriter {
    const chunk = this.#room(bound + recordHeaderBytes);
    const writer = this.#writer;
    writer.goTo(chunk.buffer, chunk.view, chunk.used + 8);
    writer.u8(type);
    writer.u8(flags);
    return writer;
  }

  /** @returns the record's length in bytes */
  finish(): number {
    const chunk = this.#chunks[this.#chunks.length - 1]!;
    const length = this.#writer.at - chunk.used;
    chunk.view.setUint32(chunk.used, length, true);
    chunk.used += length;
    this.#end += length;
    return length;
  }

  /** Forgets everything from `position` (the start of a record) on. */
  cut(position: number): void {
    for (let last = this.#chunks.at(-1); last !== undefined && last.start > position; last = this.#chunks.at(-1)) {
      this.#chunks.pop();
      this.#recycle(last);
    }
    const last = this.#chunks.at(-1);
    if (last !== undefined) last.used = position - last.start;
    this.#end = position;
  }

  /** The bytes from `from` up to `to`, in order; views, valid until evicted. */
  slices(from: number, to: number): Buffer[] {
    const slices: Buffer[] = [];
    for (const chunk of this.#chunks) {
      const start = Math.max(from, chunk.start);
      const end = Math.min(to, chunk.start + chunk.used);
      if (start < end) slices.push(chunk.buffer.subarray(start - chunk.start, end - chunk.start));
    }
    return slices;
  }

  /** The bytes from `position` to the end of its chunk, or undefined when they are no longer (or not yet) here. */
  at(position: number): { buffer: Buffer; from: number; to: number } | undefined {
    for (let index = this.#chunks.length - 1; index >= 0; index -= 1) {
      const chunk = this.#chunks[index]!;
      if (position < chunk.start) continue;
      if (position >= chunk.start + chunk.used) return undefined;
      return { buffer: chunk.buffer, from: position - chunk.start, to: chunk.used };
    }
    return undefined;
  }

  /** Lets go of chunks that lie wholly below `position`, while more than `keepBytes` are held. */
  evict(position: number): void {
    while (this.#capacity > this.#keepBytes) {
      const oldest = this.#chunks[0];
      if (oldest === undefined || this.#chunks.length < 2 || oldest.start + oldest.used > position) return;
      this.#chunks.shift(); // at most keepBytes / chunkBytes of them
      this.#recycle(oldest);
    }
  }

  #room(bytes: number): Chunk {
    const last = this.#chunks[this.#chunks.length - 1]; // once for each record: at(-1) is a call
    if (last !== undefined && last.buffer.length - last.used >= bytes) return last;
    const chunkBytes = this.#chunkBytes;
    const buffer =
      bytes <= chunkBytes ? (this.#spare.pop() ?? Buffer.allocUnsafeSlow(chunkBytes)) : Buffer.allocUnsafeSlow(bytes);
    const chunk: Chunk = { buffer, view: dataViewOf(buffer), start: this.#end, used: 0 };
    this.#chunks.push(chunk);
    this.#capacity += buffer.length;
    return chunk;
  }

  #recycle(chunk: Chunk): void {
    this.#capacity -= chunk.buffer.length;
    if (chunk.buffer.length === this.#chunkBytes && this.#spare.length < spareChunksMax) this.#spare.push(chunk.buffer);
  }
}
