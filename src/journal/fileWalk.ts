/** Walks the records of a file in gulps through one buffer, which grows only for a record larger than it: a start needs little memory. */
import { errnoOf } from "../base/errors.ts";
import type { OpenFile } from "../base/files.ts";
import { workBegins } from "../base/frugal.ts";
import { RecordWalker } from "./walk.ts";

const gulpBytes = 256 * 1024;
const badPieceBytes = 4096;

/** What cannot be opened or read now for want of descriptors or memory may be there in a minute: it must not pass for damage. @throws it */
export function throwUnlessDamage(error: unknown): void {
  if (!["", "EIO", "ENOENT"].includes(errnoOf(error))) throw error;
}

/** One at a time. */
export class FileWalk {
  readonly #gulp = Buffer.allocUnsafeSlow(gulpBytes);
  /** Where in the file the walker's buffer begins. */
  bufferAt = 0;
  /** Offset after the last byte of the last walk that was not zero. */
  writtenEnd = 0;

  /**
   * Calls for each valid record from offset `from` up to `to`, which is in the walker then.
   * @returns the walker, for the damage it met
   * @throws errno errors; a sector that the disk cannot read counts as zeros
   */
  async run(
    file: OpenFile,
    from: number,
    to: number,
    seed: number,
    visit: (walker: RecordWalker) => void,
  ): Promise<RecordWalker> {
    const walker = new RecordWalker();
    let wanted = gulpBytes;
    this.writtenEnd = from;
    for (let at = from; at < to; ) {
      const size = Math.min(Math.max(wanted, gulpBytes), to - at);
      const buffer = size > gulpBytes ? Buffer.allocUnsafeSlow(size) : this.#gulp.subarray(0, size);
      const count = await fill(file, buffer, at);
      if (count === 0) break;
      this.bufferAt = at;
      const end = lastWritten(buffer, count);
      if (end > 0) this.writtenEnd = Math.max(this.writtenEnd, at + end);
      if (end > 0 && at > from) workBegins(); // a long walk, and not of prepared space: a start with much to recover
      walker.start(buffer, 0, count, count < size ? 0 : to - at - count, seed);
      let step = walker.step();
      for (; step === "record"; step = walker.step()) visit(walker);
      at += walker.next;
      if (step === "end") break;
      wanted = walker.wanted;
    }
    return walker;
  }

  /** Feeds the bytes from offset `from` up to `to` piece by piece. */
  async pieces(file: OpenFile, from: number, to: number, take: (piece: Buffer) => void): Promise<void> {
    for (let at = from; at < to; ) {
      const piece = this.#gulp.subarray(0, Math.min(gulpBytes, to - at));
      const count = await fill(file, piece, at);
      if (count === 0) return;
      take(piece.subarray(0, count));
      at += count;
    }
  }
}

function lastWritten(buffer: Buffer, count: number): number {
  let end = count;
  while (end > 0 && buffer[end - 1] === 0) end -= 1;
  return end;
}

/** Fills as much of `target` as the file has. @returns the bytes */
async function fill(file: OpenFile, target: Buffer, offset: number): Promise<number> {
  let filled = 0;
  while (filled < target.length) {
    const count = await readPiece(file, target.subarray(filled), offset + filled);
    if (count === 0) break;
    filled += count;
  }
  return filled;
}

async function readPiece(file: OpenFile, target: Buffer, offset: number): Promise<number> {
  try {
    return await file.read(target, offset);
  } catch (error) {
    if (errnoOf(error) !== "EIO") throw error;
    const piece = target.subarray(0, badPieceBytes);
    if (target.length > badPieceBytes) return await readPiece(file, piece, offset);
    piece.fill(0);
    return Math.max(0, Math.min(piece.length, (await file.size()) - offset));
  }
}
