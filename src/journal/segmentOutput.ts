/**
 * The file that groups go to. While the load is light it is one that was prepared (its blocks are there already: one flush of one block a lonely
 * message); under load it just grows, since then a group's growth is shared by many messages.
 */
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Files, OpenFile } from "../base/files.ts";
import { headerBytes, segmentName } from "./format.ts";
import { writeAll } from "./groupBytes.ts";
import type { Segment } from "./segments.ts";

/** Where prepared segments come from. */
export interface PreparedSegments {
  readonly count: number;
  /** @see Spares.take */
  take(path: string): Promise<number | undefined>;
  /** @see Spares.surrender */
  surrender(): Promise<boolean>;
}

export interface OutputOptions {
  readonly dir: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly segmentBytes: number;
  readonly lightMs: number;
  readonly spares: PreparedSegments;
}

interface Current {
  readonly segment: Segment;
  readonly file: OpenFile;
  readonly prepared: boolean;
}

export class SegmentOutput {
  readonly #options: OutputOptions;
  #current: Current | undefined;
  #begunMs: number;
  /** Whether the last segment took long to fill; nothing is known at the start. */
  #wasLight = true;

  constructor(options: OutputOptions) {
    this.#options = options;
    this.#begunMs = options.clock.monotonicMs();
  }

  get isOpen(): boolean {
    return this.#current !== undefined;
  }

  isOn(segment: Segment): boolean {
    return this.#current?.segment === segment;
  }

  /** Whether a whole segment takes long to fill at the rate of now. */
  get light(): boolean {
    const used = this.#used();
    // Judged by half a segment at least; a few bytes say nothing.
    return used * 2 >= this.#options.segmentBytes ? this.#fillMs(used) >= this.#options.lightMs : this.#wasLight;
  }

  /** Whether the next segment is to be prepared now. */
  get wantsNext(): boolean {
    if (!this.light) return false;
    return this.#current?.prepared !== true || this.#used() * 2 >= this.#options.segmentBytes;
  }

  /** Whether to leave this segment, which grows, for one that is ready. */
  get shouldGoOver(): boolean {
    return this.#current?.prepared === false && this.#options.spares.count > 0 && this.light;
  }

  /** Makes the segment's file, and leaves the one before. @throws errno errors; then `segment.fileBytes` says whether there is a file */
  async begin(segment: Segment): Promise<void> {
    const { files, dir, clock, spares } = this.#options;
    const light = this.light;
    await this.leave();
    this.#wasLight = light;
    this.#begunMs = clock.monotonicMs();
    const path = join(dir, segmentName(segment.number));
    const bytes = light && !segment.large ? await spares.take(path) : undefined;
    if (bytes === undefined) {
      const file = await files.open(path, "create");
      segment.fileBytes = headerBytes;
      this.#current = { segment, file, prepared: false };
      return;
    }
    segment.fileBytes = bytes;
    await files.syncDir(dir); // before its first byte: what lies in a file called spare must be zeros, whatever a power cut undoes
    this.#current = { segment, file: await files.open(path, "write"), prepared: true };
  }

  /** Only between `begin` and `leave`. @throws errno errors */
  async write(buffers: Buffer[], offset: number): Promise<void> {
    await writeAll(this.#current!.file, buffers, offset);
  }

  /** @param fresh the file was begun since the last sync: its name goes to the disk too. @throws errno errors */
  async sync(fresh: boolean): Promise<void> {
    const { file, prepared } = this.#current!;
    await file.datasync();
    if (fresh && !prepared) await this.#options.files.syncDir(this.#options.dir); // or a power cut may undo the creation
  }

  /** Closes the file. Never rejects. */
  async leave(): Promise<void> {
    const current = this.#current;
    if (current === undefined) return;
    const used = this.#used();
    // What was left early says less the less there is in it.
    if (used * 8 >= this.#options.segmentBytes) this.#wasLight = this.#fillMs(used) >= this.#options.lightMs;
    this.#current = undefined;
    await current.file.close().catch(() => undefined);
  }

  #used(): number {
    const segment = this.#current?.segment;
    return segment === undefined ? 0 : segment.offsetOf(segment.end);
  }

  /** How long a whole segment would take at the rate of this one. */
  #fillMs(used: number): number {
    const elapsedMs = this.#options.clock.monotonicMs() - this.#begunMs;
    return (elapsedMs * this.#options.segmentBytes) / used;
  }
}
