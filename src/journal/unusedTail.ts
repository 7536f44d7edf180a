/**
 * A prepared segment that was left early (a restart, a failed write) holds zeros behind its end that would count against storage.maxBytes: they are
 * given back. Only zeros beyond the end are ever cut off; torn bytes there stay.
 */
import { join } from "node:path";
import type { Files, OpenFile } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { isZero } from "./bytes.ts";
import type { Segment } from "./segments.ts";

const gulpBytes = 256 * 1024;
/** Less is not worth a write. */
const worthBytes = 4096;

export interface TailPlace {
  readonly dir: string;
  readonly files: Files;
  readonly log: Log;
  readonly segments: { readonly list: readonly Segment[] };
}

export class UnusedTails {
  readonly #place: TailPlace;
  #running: Promise<void> | undefined;

  constructor(place: TailPlace) {
    this.#place = place;
  }

  /** Sees to one segment, if one has something to give back. To be called now and then. @param durable nothing at or beyond it is touched */
  next(durable: number, open: Segment): void {
    if (this.#running !== undefined) return;
    const { list } = this.#place.segments;
    const segment = list.find((one) => !one.trimmed && one !== open && one.end <= durable && one.fileBytes > 0);
    if (segment === undefined) return;
    segment.trimmed = true;
    if (segment.merged !== undefined || segment.fileBytes - segment.offsetOf(segment.end) < worthBytes) return;
    segment.busy = true;
    this.#running = this.#giveBack(segment).finally(() => {
      segment.busy = false;
      this.#running = undefined;
    });
  }

  /** Never rejects. */
  async close(): Promise<void> {
    await this.#running;
  }

  async #giveBack(segment: Segment): Promise<void> {
    const { dir, files, log } = this.#place;
    const path = join(dir, segment.name);
    try {
      if ((await files.stat(path)).links !== 1) return; // a backup counts on it
      const file = await files.open(path, "write");
      try {
        const end = segment.offsetOf(segment.end);
        const size = await lastWritten(file, end, await file.size());
        if (segment.fileBytes - size < worthBytes) return;
        await file.truncate(size);
        await file.datasync();
        segment.fileBytes = size;
        if (size <= end) segment.cut = false; // nothing is left there that must never be read
      } finally {
        await file.close();
      }
    } catch (error) {
      log.debug({ segment: segment.number, error: String(error) }, "journal: unused space was not given back");
    }
  }
}

/** Offset after the last byte that is not zero; not below `from`. */
async function lastWritten(file: OpenFile, from: number, size: number): Promise<number> {
  const gulp = Buffer.allocUnsafe(gulpBytes);
  for (let to = size; to > from; ) {
    const start = Math.max(from, to - gulpBytes);
    const piece = gulp.subarray(0, to - start);
    let filled = 0;
    for (let count = 1; count > 0 && filled < piece.length; filled += count) {
      count = await file.read(piece.subarray(filled), start + filled);
    }
    if (filled < piece.length) throw new Error("the file became shorter");
    if (!isZero(piece)) {
      let last = piece.length;
      while (piece[last - 1] === 0) last -= 1;
      return start + last;
    }
    to = start;
  }
  return from;
}
