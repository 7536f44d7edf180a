/** Reads sealed and growing segments. Handles are kept open a while, because drains read a segment gulp by gulp. */
import { join } from "node:path";
import { errnoOf } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";
import { segmentName } from "./format.ts";
import type { Segment } from "./segments.ts";

interface Slot {
  readonly number: number;
  readonly file: Promise<OpenFile>;
  users: number;
  stale: boolean;
}

const slotsMax = 8;

export class SegmentReader {
  readonly #files: Files;
  readonly #dir: string;
  readonly #slots = new Map<number, Slot>();

  constructor(files: Files, dir: string) {
    this.#files = files;
    this.#dir = dir;
  }

  /**
   * Fills as much of `target` as the file has from `position` on. 0: the file ends there or is gone. -1: it could not be opened or read now.
   * A sector that the disk cannot read becomes zeros, which no record validates with. Never rejects.
   */
  read(segment: Segment, position: number, target: Buffer): Promise<number> {
    return this.readFrom(segment, segment.offsetOf(position), target);
  }

  /** The same by the file's own offset. */
  async readFrom(segment: Segment, offset: number, target: Buffer): Promise<number> {
    const slot = this.#slot(segment.number);
    slot.users += 1;
    try {
      const file = await slot.file;
      let filled = 0;
      while (filled < target.length) {
        const { count } = await readPiece(file, target.subarray(filled), offset + filled);
        if (count === 0) break;
        filled += count;
      }
      return filled;
    } catch (error) {
      this.forget(segment.number);
      return errnoOf(error) === "ENOENT" ? 0 : -1;
    } finally {
      slot.users -= 1;
      this.#closeUnused(slot);
    }
  }

  /** The file is gone, or failed: its handle is closed once nobody reads. */
  forget(number: number): void {
    const slot = this.#slots.get(number);
    if (slot === undefined) return;
    this.#slots.delete(number);
    slot.stale = true;
    this.#closeUnused(slot);
  }

  close(): void {
    for (const number of [...this.#slots.keys()]) this.forget(number);
  }

  #slot(number: number): Slot {
    let slot = this.#slots.get(number);
    if (slot === undefined) {
      slot = { number, file: this.#files.open(join(this.#dir, segmentName(number)), "read"), users: 0, stale: false };
      slot.file.catch(() => undefined);
      const oldest = this.#slots.keys().next();
      if (this.#slots.size >= slotsMax && !oldest.done) this.forget(oldest.value);
    } else this.#slots.delete(number);
    this.#slots.set(number, slot); // last used, last to go
    return slot;
  }

  #closeUnused(slot: Slot): void {
    if (!slot.stale || slot.users > 0) return;
    slot.users = Number.NEGATIVE_INFINITY; // closed once only
    slot.file.then((file) => file.close()).catch(() => undefined);
  }
}

const badPieceBytes = 4096;

/**
 * Reads at least a byte, unless the file ends. What the disk cannot read any more becomes zeros, 4 KiB at most at a time, and is `bad`.
 * @throws errno errors but EIO
 */
export async function readPiece(
  file: OpenFile,
  target: Uint8Array,
  offset: number,
): Promise<{ count: number; bad: boolean }> {
  try {
    return { count: await file.read(target, offset), bad: false };
  } catch (error) {
    if (errnoOf(error) !== "EIO") throw error;
    const piece = target.subarray(0, badPieceBytes);
    if (target.length > badPieceBytes) return await readPiece(file, piece, offset);
    piece.fill(0);
    return { count: Math.max(0, Math.min(piece.length, (await file.size()) - offset)), bad: true };
  }
}
