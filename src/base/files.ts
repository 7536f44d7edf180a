/**
 * The file system as the journal sees it: everything goes through this one interface, so that tests can tear, lose, delay and refuse.
 * Paths are absolute. Every call may reject with a Node errno error.
 */
import {
  close,
  fdatasync,
  fsync,
  link,
  mkdir,
  open,
  read,
  readdir,
  rename,
  stat,
  statfs,
  unlink,
  write,
  writev,
} from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { errnoOf } from "./errors.ts";

export interface OpenFile {
  /** Writes the buffers one after the other from `position` on. Resolves to the bytes written, which may be fewer than given. */
  write(buffers: readonly Uint8Array[], position: number): Promise<number>;
  /** Resolves to the bytes read; 0 at the end of the file. */
  read(target: Uint8Array, position: number): Promise<number>;
  /** fdatasync(2): data and the file's length are on the disk once it resolves; the file's name is not (see `syncDir`). */
  datasync(): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

export interface FileStat {
  readonly size: number;
  readonly device: number;
  readonly inode: number;
  /** Names that this file has. With more than one, writing to it or truncating it would change what the others (a backup) show. */
  readonly links: number;
  readonly isFile: boolean;
}

export interface Files {
  /** `read`: must exist. `create`: must not exist; opened for reading and writing. */
  open(path: string, mode: "read" | "create"): Promise<OpenFile>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** A second name for the same file; durable once its folder is synced. EXDEV on another file system, EEXIST when `to` is there. */
  link(from: string, to: string): Promise<void>;
  /** Names, without the path. */
  readdir(path: string): Promise<string[]>;
  /** With its parents; no error when it is there. */
  mkdir(path: string): Promise<void>;
  stat(path: string): Promise<FileStat>;
  /** Makes creations, renames and removals in this folder survive a power cut. */
  syncDir(path: string): Promise<void>;
  /** Bytes of the disk that an unprivileged process may still take. */
  freeBytes(path: string): Promise<number>;
}

const fsOpen = promisify(open);
const fsClose = promisify(close);
const fsSync = promisify(fsync);
const fsDatasync = promisify(fdatasync);
const fsStat = promisify(stat);
const fsMkdir = promisify(mkdir);
const fsStatfs = promisify(statfs);

class NodeFile implements OpenFile {
  readonly #fd: number;
  readonly #path: string;

  constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  write(buffers: readonly Uint8Array[], position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (error: Error | null, written: number): void => (error ? reject(error) : resolve(written));
      const [first] = buffers;
      if (first !== undefined && buffers.length === 1) write(this.#fd, first, 0, first.length, position, done);
      else writev(this.#fd, buffers as Uint8Array[], position, done);
    });
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.#fd, target, 0, target.length, position, (error, count) => (error ? reject(error) : resolve(count)));
    });
  }

  datasync(): Promise<void> {
    return fsDatasync(this.#fd);
  }

  async size(): Promise<number> {
    return (await fsStat(this.#path)).size;
  }

  close(): Promise<void> {
    return fsClose(this.#fd);
  }
}

/** Not node's own `recursive`: where a folder cannot have children (/proc) that tries for ever. */
async function makeFolder(path: string, parents: boolean): Promise<void> {
  try {
    await fsMkdir(path, { mode: 0o700 });
  } catch (error) {
    const code = errnoOf(error);
    if (code === "ENOENT" && parents) {
      const parent = dirname(path);
      await makeFolder(parent, dirname(parent) !== parent);
      await makeFolder(path, false);
    } else if (!(await fsStat(path).catch(() => undefined))?.isDirectory()) throw error;
  }
}

/** The real disk. */
export const nodeFiles: Files = {
  async open(path, mode) {
    return new NodeFile(await fsOpen(path, mode === "create" ? "wx+" : "r", 0o600), path);
  },
  rename: promisify(rename),
  unlink: promisify(unlink),
  link: promisify(link),
  readdir: promisify(readdir) as (path: string) => Promise<string[]>,
  async mkdir(path) {
    await makeFolder(path, dirname(path) !== path);
  },
  async stat(path) {
    const found = await fsStat(path);
    return { size: found.size, device: found.dev, inode: found.ino, links: found.nlink, isFile: found.isFile() };
  },
  async syncDir(path) {
    const fd = await fsOpen(path, "r");
    try {
      await fsSync(fd);
    } finally {
      await fsClose(fd);
    }
  },
  async freeBytes(path) {
    const found = await fsStatfs(path);
    return found.bavail * found.bsize;
  },
};
