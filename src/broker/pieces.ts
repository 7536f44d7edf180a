/** Numbers kept of a piece: start, end, where its packet id goes (-1: nowhere; the frame is shared, the id is not), packet id. */
const marksEach = 4;

/** What one write is made of: ranges of somebody's buffers, and acknowledgements. Nothing is copied before it is joined. */
export class Pieces {
  /** Of each piece; undefined: an acknowledgement, whose `start` is its first byte. */
  readonly #sources: Array<Buffer | undefined> = [];
  readonly #marks: number[] = [];
  #count = 0;
  /** A range of it came last, which may go on. */
  #last: Buffer | undefined;

  /** Room for so many has been made, which lasts. */
  get room(): number {
    return this.#sources.length;
  }

  /** Adds bytes start..end of `source`; where they continue the last range, that only gets longer. False: it did. */
  append(source: Buffer, start: number, end: number): boolean {
    const lastEnd = (this.#count - 1) * marksEach + 1;
    if (source === this.#last && this.#marks[lastEnd] === start) {
      this.#marks[lastEnd] = end;
      return false;
    }
    this.add(source, start, end, -1, 0);
    this.#last = source;
    return true;
  }

  /** @param source undefined: an acknowledgement with `start` as its first byte @param idAt where in it `packetId` is put; -1: nowhere */
  add(source: Buffer | undefined, start: number, end: number, idAt: number, packetId: number): void {
    this.#last = undefined;
    const at = this.#count * marksEach;
    this.#sources[this.#count] = source;
    this.#count += 1;
    this.#marks[at] = start;
    this.#marks[at + 1] = end;
    this.#marks[at + 2] = idAt;
    this.#marks[at + 3] = packetId;
  }

  /** Takes all out. */
  forget(): void {
    this.#last = undefined;
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
      const start = this.#marks[mark] ?? 0;
      const id = this.#marks[mark + 3] ?? 0;
      if (source === undefined) {
        out[at] = start;
        out[at + 1] = 2;
        out[at + 2] = id >> 8;
        out[at + 3] = id & 0xff;
        at += 4;
        continue;
      }
      const end = this.#marks[mark + 1] ?? 0;
      if (at >= copied) copied = at + copyRange(source, start, this.#endOfRun(index), out, at);
      const idAt = this.#marks[mark + 2] ?? -1;
      if (idAt >= 0) {
        out[at + idAt] = id >> 8;
        out[at + idAt + 1] = id & 0xff;
      }
      at += end - start;
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
