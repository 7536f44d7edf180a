/**
 * Segments prepared ahead of need: files full of zeros whose blocks the disk has written already, so that a lonely message costs one block and one
 * flush instead of the growth of a file besides. They are also the reserve of a full disk: taken away first, then the write is tried again.
 *
 *   spare-<n>.tmp  being filled, or half filled when the power went: of no use     spare-<n>.log  all zeros, and synced: ready
 *
 * A spare is renamed to a segment's name and the folder synced before its first byte is written: no file called spare-<n>.log ever held a record.
 */
import { join } from "node:path";
import type { Clock, Timer } from "../base/clock.ts";
import { errnoOf, messageOf } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { writeAll } from "./groupBytes.ts";
import type { Segment } from "./segments.ts";

export interface SparesOptions {
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly log: Log;
  /** Length of a new one. */
  readonly segmentBytes: number;
  /** It is zeroed in pieces of so much. */
  readonly pieceBytes: number;
  /** Ready ones that are kept at most; 0: none are made. */
  readonly max: number;
  /** Whether so many more bytes may be taken from the disk now, and are worth it (the load is light). */
  readonly mayTake: (bytes: number) => boolean;
}

interface Spare {
  readonly number: number;
  readonly bytes: number;
}

const namePattern = /^spare-(\d{6,16})\.(log|tmp)$/;
const nameOf = (number: number, end: "log" | "tmp"): string => `spare-${String(number).padStart(6, "0")}.${end}`;

const zeros = Buffer.alloc(4096);
const syncEveryBytes = 1024 * 1024;
/** Between two pieces, so that filling never stands in the way of a group. */
const pauseMs = 15;

export class Spares {
  readonly #options: SparesOptions;
  #ready: Spare[] = [];
  #next = 1;
  /** The one being filled. */
  #filling: Spare | undefined;
  /** Rises when what is being filled is to be given up. */
  #given = 0;
  #wake: (() => void) | undefined;
  #closed = false;
  #idle: Promise<void> = Promise.resolve();

  constructor(options: SparesOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#ready.length;
  }

  /** Of all, ready or not. */
  get bytes(): number {
    let bytes = this.#filling?.bytes ?? 0;
    for (let at = 0; at < this.#ready.length; at += 1) bytes += this.#ready[at]!.bytes; // asked for with each message
    return bytes;
  }

  /** Takes over what an earlier run prepared; half filled ones, and what is too many, go. Never rejects. */
  async load(): Promise<void> {
    const { dir, files, max } = this.#options;
    const names = await files.readdir(dir).catch((): string[] => []);
    for (const name of names.sort()) {
      const [, digits, end] = namePattern.exec(name) ?? [];
      if (digits === undefined) continue;
      const number = Number(digits);
      this.#next = Math.max(this.#next, number + 1);
      const found = await files.stat(join(dir, name)).catch(() => undefined);
      // Twice in the folder (a rename that a power cut undid by half): what another name counts on must not be overwritten.
      const usable = end === "log" && found?.isFile === true && found.links === 1 && found.size > 0;
      if (usable && this.#ready.length < max) this.#ready.push({ number, bytes: found.size });
      else await files.unlink(join(dir, name)).catch(() => undefined);
    }
  }

  /** Begins another if none is ready. To be called now and then. */
  prepare(): void {
    const { max, segmentBytes, mayTake, dir, files } = this.#options;
    if (this.#closed || this.#filling !== undefined || this.#ready.length >= Math.min(1, max)) return;
    if (!mayTake(segmentBytes)) return;
    const spare = { number: this.#next++, bytes: segmentBytes };
    this.#fill(spare, () => files.open(join(dir, nameOf(spare.number, "tmp")), "create"));
  }

  /** Renames the oldest ready one to `path` and makes that durable. @returns its bytes; undefined when there is none. @throws errno errors */
  async take(path: string): Promise<number | undefined> {
    const { dir, files, log } = this.#options;
    for (let spare = this.#ready.shift(); spare !== undefined; spare = this.#ready.shift()) {
      try {
        await files.rename(join(dir, nameOf(spare.number, "log")), path);
      } catch (error) {
        log.warn({ spare: spare.number, error: messageOf(error) }, "journal: prepared segment could not be used");
        if (errnoOf(error) === "ENOENT") continue; // somebody removed it
        throw error;
      }
      return spare.bytes;
    }
    return undefined;
  }

  /** Takes a segment's file that is of no use any more, to be zeroed and used again. False: it does not, and the file is to be removed. */
  async freed(segment: Segment): Promise<boolean> {
    const { max, dir, files, segmentBytes, mayTake } = this.#options;
    const bytes = segment.fileBytes;
    if (this.#closed || this.#filling !== undefined || this.#ready.length >= max || segment.busy) return false;
    if (segment.merged !== undefined || bytes < segmentBytes || bytes > segmentBytes * 1.25 || !mayTake(0))
      return false;
    const spare = { number: this.#next++, bytes: segmentBytes };
    const staged = join(dir, nameOf(spare.number, "tmp"));
    this.#filling = spare;
    try {
      await files.rename(join(dir, segment.name), staged);
    } catch {
      this.#filling = undefined;
      return false;
    }
    this.#filling = undefined;
    this.#fill(spare, async () => {
      if ((await files.stat(staged)).links !== 1) throw new Error("somebody else counts on its bytes");
      await files.syncDir(dir); // or a power cut would bring the segment back, with zeros in it
      const file = await files.open(staged, "write");
      await file.truncate(0); // what the kernel caches of it, in large folios, goes with its bytes
      return file;
    });
    return true;
  }

  /** All of them go, for the disk's sake. @returns whether there were any */
  async surrender(): Promise<boolean> {
    const { dir, files } = this.#options;
    const any = this.bytes > 0;
    const ready = this.#ready;
    this.#ready = [];
    this.#giveUp();
    for (const { number } of ready) await files.unlink(join(dir, nameOf(number, "log"))).catch(() => undefined);
    await this.#idle;
    return any;
  }

  /** Gives up what is being filled. Never rejects. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#giveUp();
    await this.#idle;
  }

  #giveUp(): void {
    this.#given += 1;
    this.#wake?.();
  }

  #fill(spare: Spare, open: () => Promise<OpenFile>): void {
    this.#filling = spare;
    this.#idle = this.#run(spare, open).then(
      (whole) => {
        this.#filling = undefined;
        if (whole) this.#ready.push(spare);
      },
      async (error: unknown) => {
        const { dir, files, log } = this.#options;
        log.warn({ error: messageOf(error) }, "journal: no segment could be prepared, going on without");
        await files.unlink(join(dir, nameOf(spare.number, "tmp"))).catch(() => undefined);
        this.#filling = undefined;
      },
    );
  }

  /** False: given up, and removed. */
  async #run(spare: Spare, open: () => Promise<OpenFile>): Promise<boolean> {
    const { dir, files, mayTake, pieceBytes } = this.#options;
    const given = this.#given;
    const staged = join(dir, nameOf(spare.number, "tmp"));
    const file = await open();
    try {
      for (let at = 0; at < spare.bytes; at += pieceBytes) {
        if (at > 0 && given === this.#given) await this.#pause(); // whoever waits for the end must not wait for a timer
        if (given !== this.#given || !mayTake(0)) {
          await files.unlink(staged).catch(() => undefined);
          return false;
        }
        const to = Math.min(at + pieceBytes, spare.bytes);
        await fillWithZeros(file, at, to);
        // Now and then, or a slow card would have all of it to write when a group wants to be synced.
        if (to % syncEveryBytes === 0 || to === spare.bytes) await file.datasync();
      }
    } finally {
      await file.close().catch(() => undefined);
    }
    if (given !== this.#given) {
      await files.unlink(staged).catch(() => undefined);
      return false;
    }
    await files.rename(staged, join(dir, nameOf(spare.number, "log")));
    return true;
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer: Timer = this.#options.clock.setTimer(pauseMs, resolve);
      this.#wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }
}

/**
 * A page a call: Linux caches what one call writes as one folio, and a small record put into a large folio later counts (on some file systems: is
 * written) as all of it.
 */
async function fillWithZeros(file: OpenFile, from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += zeros.length) {
    await writeAll(file, [zeros.subarray(0, Math.min(zeros.length, to - at))], at);
  }
}
