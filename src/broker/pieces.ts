/**
 * Numbers kept of a piece: start, end, where in each packet its packet id goes (-1: nowhere; the frame is shared, the id is not), the first packet id,
 * the size of each packet.
 */
const marksEach = 5;

/**
 * What one write is made of: ranges of somebody's buffers, and acknowledgements. Nothing is copied before it is joined. Packets that follow on each other
 * are one piece: ranges of one buffer, PUBLISH of one size side by side in it with ids that count up, acknowledgements of one kind with such ids.
 */
export class Pieces {
  /** Of each piece; undefined: acknowledgements, whose `start` is their first byte and `end` how many bytes they are. */
  readonly #sources: Array<Buffer | undefined> = [];
  readonly #marks: number[] = [];
  #count = 0;
  /** What the last piece goes on with: bytes of this buffer with a packet id here, or acknowledgements of this first byte; nothing: 0. */
  #last: Buffer | undefined;
  #lastIdAt = -1;
  #lastAck = 0;
  #nextId = 0;

  /** Room for so many has been made, which lasts. */
  get room(): number {
    return this.#sources.length;
  }

  /**
   * Adds bytes start..end of `source`; where they continue the last range, that only gets longer. False: it did.
   * @param idAt where in them, which are a PUBLISH then, `packetId` goes @param count so many PUBLISH of one size, the ids after it in those after the first
   */
  append(source: Buffer, start: number, end: number, idAt = -1, packetId = 0, count = 1): boolean {
    const size = (end - start) / count;
    const mark = (this.#count - 1) * marksEach;
    if (source === this.#last && idAt === this.#lastIdAt && this.#marks[mark + 1] === start) {
      if (idAt < 0 || (packetId === this.#nextId && this.#marks[mark + 4] === size)) {
        this.#marks[mark + 1] = end;
        this.#nextId = packetId + count;
        return false;
      }
    }
    this.#add(source, start, end, idAt, packetId, size);
    this.#last = source;
    this.#lastIdAt = idAt;
    this.#nextId = packetId + count; // 65,536 is none: ids go on with 1
    return true;
  }

  /** Adds acknowledgements of four bytes, of `packetId` and the ids after it. */
  appendAck(firstByte: number, packetId: number, count = 1): void {
    if (this.#lastAck === firstByte && this.#nextId === packetId) {
      this.#marks[(this.#count - 1) * marksEach + 1]! += 4 * count; // there is a piece
    } else {
      this.#add(undefined, firstByte, 4 * count, 2, packetId, 4);
      this.#lastAck = firstByte;
    }
    this.#nextId = packetId + count;
  }

  #add(source: Buffer | undefined, start: number, end: number, idAt: number, packetId: number, size: number): void {
    this.#last = undefined;
    this.#lastAck = 0;
    const at = this.#count * marksEach;
    this.#sources[this.#count] = source;
    this.#count += 1;
    this.#marks[at] = start;
    this.#marks[at + 1] = end;
    this.#marks[at + 2] = idAt;
    this.#marks[at + 3] = packetId;
    this.#marks[at + 4] = size;
  }

  /** Takes all out. */
  forget(): void {
    this.#last = undefined;
    this.#lastAck = 0;
    for (let at = 0; at < this.#count; at += 1) this.#sources[at] = undefined; // the marks are written over
    this.#count = 0;
  }

  /** The only piece, to go out as it is; undefined when it cannot, or would keep a much larger buffer alive in a slow socket. */
  whole(): Buffer | undefined {
    const source = this.#sources[0];
    const [start = 0, end = 0, idAt = -1] = this.#marks;
    if (this.#count !== 1 || source === undefined || idAt >= 0) return undefined;
    if ((end - start) * 8 < source.buffer.byteLength) return undefined;
    return start === 0 && end === source.length ? source : source.subarray(start, end);
  }

  /** @param out has room for all of them */
  joinInto(out: Buffer): void {
    let at = 0;
    let copied = 0; // of `out`: all bytes before it are there but for packet ids
    for (let index = 0; index < this.#count; index += 1) {
      const source = this.#sources[index];
      const mark = index * marksEach;
      const start = this.#marks[mark]!; // each piece has its marks
      const end = this.#marks[mark + 1]!;
      const idAt = this.#marks[mark + 2]!;
      const id = this.#marks[mark + 3]!;
      if (source === undefined) {
        at = writeAcks(out, at, end, start, id);
        continue;
      }
      if (at >= copied) copied = at + copyRange(source, start, this.#endOfRun(index), out, at);
      const next = at + end - start;
      if (idAt >= 0) writeIds(out, at + idAt, next, this.#marks[mark + 4]!, id);
      at = next;
    }
  }

  /** Where the bytes end that begin with this piece and go on in the pieces after it: a chunk of PUBLISH that differ in their packet ids only. */
  #endOfRun(index: number): number {
    const source = this.#sources[index];
    let end = this.#marks[index * marksEach + 1] ?? 0;
    for (let next = index + 1; next < this.#count; next += 1) {
      if (this.#sources[next] !== source || this.#marks[next * marksEach] !== end) break;
      end = this.#marks[next * marksEach + 1] ?? end;
    }
    return end;
  }
}

/** `id` and those after it at `at` and every `size` bytes from there up to `end`. */
function writeIds(out: Buffer, at: number, end: number, size: number, id: number): void {
  for (let next = id; at < end; at += size, next += 1) {
    out[at] = next >> 8;
    out[at + 1] = next & 0xff;
  }
}

/** Acknowledgements that begin with `first`, of `id` and those after it, `bytes` together. @returns where they end */
function writeAcks(out: Buffer, start: number, bytes: number, first: number, id: number): number {
  const end = start + bytes;
  for (let at = start, next = id; at < end; at += 4, next += 1) {
    out[at] = first;
    out[at + 1] = 2;
    out[at + 2] = next >> 8;
    out[at + 3] = next & 0xff;
  }
  return end;
}

/**
 * A loop is faster than the call into C++ for the short packets that are most of the traffic (measured: up to about 100 bytes).
 * @returns how many bytes
 */
function copyRange(source: Buffer, start: number, end: number, target: Buffer, at: number): number {
  if (end - start > 96) return source.copy(target, at, start, end);
  let to = at;
  for (let from = start; from < end; from += 1) target[to++] = source[from] as number;
  return end - start;
}
