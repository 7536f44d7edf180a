/**
 * A backup of a folder in use. What it holds is fixed in one turn: the checkpoints, and of every segment the bytes that were durable then. Sealed
 * segments are hard-linked where the target is on the same file system, the rest is copied. Until it is done nothing is freed.
 *
 * A hard link is one file with two names: a segment that is sealed is never written to again, and one with more than one name (`FileStat.links`)
 * is unlinked when it is freed, never recycled.
 */
import { dirname, join } from "node:path";
import type { BackupInfo, BackupRequest } from "../base/contracts.ts";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import type { Files, OpenFile } from "../base/files.ts";
import type { Log } from "../base/log.ts";
import { type BackedUpFile, encodeManifest, manifestName, readThrough, stagedManifestName } from "./backupManifest.ts";
import { isNoSpace, writeAll } from "./groupBytes.ts";

/** A file of the data folder and how much of it belongs into the backup. */
export interface BackupItem {
  readonly name: string;
  readonly bytes: number;
  /** Nothing is written to it any more: a second name for it will do. */
  readonly sealed: boolean;
}

/** What one turn saw. */
export interface BackupPlan {
  readonly items: readonly BackupItem[];
  readonly store: string;
  readonly epoch: number;
  readonly group: number;
  readonly position: number;
}

export interface BackupPlace {
  readonly dir: string;
  readonly files: Files;
  readonly clock: { monotonicMs(): number; wallMs(): number };
  readonly log: Log;
  /** Of the disk, left to others. */
  readonly minFreeBytes: number;
}

export const backupError = (message: string, cause?: unknown): TidegateError =>
  new TidegateError("TG_BACKUP", message, { cause, retriable: true });

/** What may lie in an "empty" folder: the root of a file system made for backups. */
const ignored = new Set(["lost+found"]);

export class BackupWriter {
  readonly #place: BackupPlace;
  readonly #request: BackupRequest;
  /** Names made in the target, to be removed when it fails. */
  readonly #made: string[] = [];
  #linkedBytes = 0;
  #unreadable = 0;
  #links = true;
  #staged: OpenFile | undefined;

  constructor(place: BackupPlace, request: BackupRequest) {
    this.#place = place;
    this.#request = request;
  }

  /**
   * Makes the folder and the staged manifest, so that what follows is known as unfinished.
   * @throws TidegateError TG_BACKUP
   */
  async begin(): Promise<void> {
    const { files, dir: source } = this.#place;
    const { dir } = this.#request;
    try {
      await refuseInside(files, dir, source);
      const missing = await missingFolders(files, dir);
      await files.mkdir(dir);
      const found = (await files.readdir(dir)).filter((name) => !ignored.has(name));
      if (found.length > 0)
        throw backupError(`backup folder ${dir} is not empty: give a new one, nothing is overwritten`);
      for (const folder of missing) await files.syncDir(dirname(folder));
      this.#staged = await files.open(join(dir, stagedManifestName), "create");
      this.#made.push(stagedManifestName);
      await files.syncDir(dir);
    } catch (error) {
      await this.remove();
      throw this.#explain(error);
    }
  }

  /** @throws TidegateError TG_BACKUP; what was written is removed */
  async write(plan: BackupPlan): Promise<BackupInfo> {
    const { clock, log, files } = this.#place;
    const { dir, gateway, version } = this.#request;
    const startedMs = clock.monotonicMs();
    try {
      const saved = await this.#saveAll(plan.items);
      await files.syncDir(dir);
      const takenAt = new Date(clock.wallMs()).toISOString();
      const { store, epoch, group, position } = plan;
      await this.#finish(encodeManifest({ store, epoch, gateway, version, takenAt, group, position, files: saved }));
      const bytes = saved.reduce((sum, file) => sum + file.bytes, 0);
      const ms = Math.round(clock.monotonicMs() - startedMs);
      const linked = { linkedBytes: this.#linkedBytes, unreadableBytes: this.#unreadable };
      const info: BackupInfo = { dir, files: saved.length, bytes, ...linked, position, epoch, ms };
      log.info({ ...info }, "journal: backup made");
      return info;
    } catch (error) {
      await this.remove();
      throw this.#explain(error);
    }
  }

  /** Takes back what was made. The manifest goes first: half of a backup must not look whole. */
  async remove(): Promise<void> {
    const { files } = this.#place;
    const { dir } = this.#request;
    await this.#close();
    for (const name of this.#made.reverse()) await files.unlink(join(dir, name)).catch(() => undefined);
    if (this.#made.length > 0) await files.syncDir(dir).catch(() => undefined);
    this.#made.length = 0;
  }

  /** Links first, so that it is known how much room the rest needs. */
  async #saveAll(items: readonly BackupItem[]): Promise<BackedUpFile[]> {
    const { files, minFreeBytes, dir: source } = this.#place;
    const { dir } = this.#request;
    const copies = new Set<BackupItem>();
    let copiedBytes = 0;
    for (const item of items) {
      this.#goOn();
      if (await this.#link(item)) continue;
      copies.add(item);
      copiedBytes += item.bytes;
    }
    const sameDisk = (await files.stat(source)).device === (await files.stat(dir)).device;
    const onDisk = await files.freeBytes(dir).catch(() => Number.POSITIVE_INFINITY); // not every file system tells
    const free = onDisk - (sameDisk ? minFreeBytes : 0);
    if (free < copiedBytes) {
      const reserve = sameDisk && minFreeBytes > 0 ? ", storage.minFreeBytes apart" : "";
      throw backupError(
        `backup folder ${dir}: not enough space on its disk: ${mib(copiedBytes)} are needed, ${mib(Math.max(0, free))} are free${reserve}`,
      );
    }
    const saved: BackedUpFile[] = [];
    for (const item of items) saved.push(copies.has(item) ? await this.#copy(item) : await this.#readLinked(item));
    return saved;
  }

  /** Only a sealed file whose every byte belongs to the backup. */
  async #link({ name, bytes, sealed }: BackupItem): Promise<boolean> {
    const { files, dir } = this.#place;
    const from = join(dir, name);
    if (!this.#links || !sealed || (await files.stat(from)).size !== bytes) return false;
    try {
      await files.link(from, join(this.#request.dir, name));
    } catch (error) {
      // Another file system, or one that has no links: all are copied then.
      if (["ENOENT", "EEXIST"].includes(errnoOf(error))) throw error;
      this.#links = false;
      return false;
    }
    this.#made.push(name);
    return true;
  }

  async #readLinked(item: BackupItem): Promise<BackedUpFile> {
    const { files } = this.#place;
    const path = join(this.#request.dir, item.name);
    const read = await readThrough(files, path, item.bytes, () => this.#goOn());
    if (read.unreadable > 0) {
      // A copy with zeros stays readable; a second name of a dying file does not.
      await files.unlink(path);
      this.#made.splice(this.#made.indexOf(item.name), 1);
      return await this.#copy(item);
    }
    this.#linkedBytes += read.bytes;
    return { name: item.name, bytes: read.bytes, crc32: read.crc32 };
  }

  async #copy({ name, bytes }: BackupItem): Promise<BackedUpFile> {
    const { files, dir, log } = this.#place;
    const target = await files.open(join(this.#request.dir, name), "create");
    this.#made.push(name);
    try {
      const read = await readThrough(files, join(dir, name), bytes, async (piece, at) => {
        this.#goOn();
        await writeAll(target, [piece], at);
      });
      await target.datasync();
      if (read.unreadable > 0) {
        this.#unreadable += read.unreadable;
        log.error({ file: name, bytes: read.unreadable }, "journal: backup has zeros where the disk cannot be read");
      }
      return { name, bytes: read.bytes, crc32: read.crc32 };
    } finally {
      await target.close();
    }
  }

  /** The staged manifest stays under its name until it is whole: without it, half a backup would pass for a data folder. */
  async #finish(manifest: Buffer): Promise<void> {
    const { files } = this.#place;
    const { dir } = this.#request;
    await writeAll(this.#staged!, [manifest], 0);
    await this.#staged!.datasync();
    await this.#close();
    this.#goOn();
    await files.rename(join(dir, stagedManifestName), join(dir, manifestName));
    this.#made.push(manifestName);
    await files.syncDir(dir); // or a power cut may undo the rename
  }

  async #close(): Promise<void> {
    const staged = this.#staged;
    this.#staged = undefined;
    await staged?.close().catch(() => undefined);
  }

  #goOn(): undefined {
    if (this.#request.signal?.aborted === true)
      throw backupError(`backup to ${this.#request.dir} was given up before it was whole, and removed`);
  }

  #explain(error: unknown): TidegateError {
    if (error instanceof TidegateError) return error;
    const { dir } = this.#request;
    const why: Record<string, string> = {
      EACCES: "the gateway's user may not write there",
      EPERM: "the gateway's user may not write there",
      EROFS: "it cannot be written to (mounted read-only, or not among the service's ReadWritePaths)",
      ENOTDIR: "it is not a folder",
      EEXIST: "it is not a folder, or something else writes into it",
      ENAMETOOLONG: "its name is too long",
    };
    const text = isNoSpace(error) ? "no space left on its disk" : why[errnoOf(error)];
    return backupError(`backup folder ${dir}: ${text ?? messageOf(error)}`, error);
  }
}

const mib = (bytes: number): string => `${(bytes / 1048576).toFixed(1)} MiB`;

/** The folders of a path that are not there yet, innermost last. */
async function missingFolders(files: Files, dir: string): Promise<string[]> {
  const missing: string[] = [];
  for (let folder = dir; dirname(folder) !== folder; folder = dirname(folder)) {
    const there = await files.stat(folder).then(
      () => true,
      (error: unknown) => errnoOf(error) !== "ENOENT",
    );
    if (there) break;
    missing.unshift(folder);
  }
  return missing;
}

/** Links and mounts considered: the folder, or what of it is there, is followed upwards by the kernel. @throws TidegateError TG_BACKUP */
async function refuseInside(files: Files, dir: string, source: string): Promise<void> {
  const data = await files.stat(source);
  const [outermost] = await missingFolders(files, dir);
  let at = outermost === undefined ? dir : dirname(outermost);
  if (!(await isFolder(files, at))) return; // what is wrong with it is said when it is used
  for (let before = -1; ; at = `${at}/..`) {
    const { device, inode } = await files.stat(at);
    if (device === data.device && inode === data.inode)
      throw backupError(`backup folder ${dir} lies inside the data folder ${source}: give one outside of it`);
    if (inode === before) return;
    before = inode;
  }
}

const isFolder = async (files: Files, path: string): Promise<boolean> => !(await files.stat(path)).isFile;
