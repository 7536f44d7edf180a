/**
 * A disk in memory with a page cache apart from it, for the journal's tests. What was not synced may be lost in any subset of 512-byte sectors;
 * creations, renames and removals may be lost until their folder was synced. `fault` decides at every operation whether it fails, is short, or
 * whether the machine stops there; `slow`
 * says how many turns of the event loop it takes. A sync covers what was there when it was called, and nothing that came while it went on.
 */
import { normalize } from "node:path/posix";
import type { FileStat, Files, OpenFile } from "../../src/base/files.ts";

const sector = 512;

interface Inode {
  id: number;
  /** As the page cache has it. */
  cached: Buffer;
  /** As the disk has it. */
  disk: Buffer;
  /** Sectors that the disk does not have yet, and the write that was the last to touch each. */
  dirty: Map<number, number>;
  /** What the disk has from here on was cut off; until a sync a crash may bring it back. */
  cutTo: number;
}

export type Operation =
  | "open"
  | "create"
  | "write"
  | "read"
  | "datasync"
  | "truncate"
  | "rename"
  | "unlink"
  | "link"
  | "syncDir"
  | "freeBytes";

/** `stop`: the machine halts before the operation; `short`: a write takes only a part; else an errno name. */
export type Fault = "stop" | "short" | "EIO" | "ENOSPC" | "EMFILE" | "EROFS" | "EACCES" | undefined;

const errno = (code: string, operation: string): Error => Object.assign(new Error(`${code}: ${operation}`), { code });
const newInode = (id: number, content: Buffer): Inode => ({
  ...{ id, cached: Buffer.from(content), disk: Buffer.from(content) },
  dirty: new Map(),
  cutTo: Number.POSITIVE_INFINITY,
});
const never = <T>(): Promise<T> => new Promise<T>(() => undefined);

export class FaultyFiles implements Files {
  /** Names as the running system sees them, and as the disk has them. */
  #names = new Map<string, Inode>();
  #diskNames = new Map<string, Inode>();
  readonly #folders: string[] = [];
  #nextId = 1;
  /** Rises with every crash: handles of before are dead. */
  #boot = 0;
  #stopped = false;
  steps = 0;
  readonly log: string[] = [];
  free = Number.MAX_SAFE_INTEGER;
  fault: (operation: Operation, path: string, step: number) => Fault = () => undefined;
  /** Turns that an operation takes beyond the first. Stays over a crash: it is the disk's. */
  slow: (operation: Operation, path: string) => number = () => 0;
  #writes = 0;
  /** Syncs of folders that were called, and by folder the last called of those that ended. */
  #folderSyncs = 0;
  readonly #synced = new Map<string, number>();

  get stopped(): boolean {
    return this.#stopped;
  }

  /** The power goes: what was not synced survives as `random` says (0 to 1, below 0.5 survives). */
  crash(random: () => number): void {
    const inodes = new Set([...this.#names.values(), ...this.#diskNames.values()]);
    for (const inode of inodes) {
      if (inode.cutTo < inode.disk.length && random() < 0.5) inode.disk = inode.disk.subarray(0, inode.cutTo);
      let size = inode.disk.length;
      const kept = [...inode.dirty.keys()].filter(() => random() < 0.5);
      for (const at of kept) size = Math.max(size, Math.min(inode.cached.length, (at + 1) * sector));
      const disk = Buffer.alloc(size);
      inode.disk.copy(disk);
      for (const at of kept) inode.cached.copy(disk, at * sector, at * sector, Math.min(size, (at + 1) * sector));
      inode.disk = disk;
    }
    // Each change of a name since the folder's last sync is there or not.
    for (const path of new Set([...this.#names.keys(), ...this.#diskNames.keys()])) {
      const now = this.#names.get(path);
      if (now === this.#diskNames.get(path) || random() < 0.5) continue;
      if (now === undefined) this.#diskNames.delete(path);
      else this.#diskNames.set(path, now);
    }
    this.kill();
    this.#names = new Map(this.#diskNames);
    for (const inode of inodes) {
      inode.cached = Buffer.from(inode.disk);
      inode.dirty.clear();
      inode.cutTo = Number.POSITIVE_INFINITY;
    }
  }

  /** The process goes, the page cache stays. */
  kill(): void {
    this.#boot += 1;
    this.#stopped = false;
    this.fault = () => undefined;
    this.steps = 0;
  }

  /** The file system as one process sees it: after a crash nothing that the process still calls ever answers. */
  mount(): Files {
    const boot = this.#boot;
    const alive = <T>(call: () => Promise<T>): Promise<T> => (boot === this.#boot ? call() : never());
    return {
      open: (path, mode) => alive(() => this.open(path, mode)),
      rename: (from, to) => alive(() => this.rename(from, to)),
      unlink: (path) => alive(() => this.unlink(path)),
      link: (from, to) => alive(() => this.link(from, to)),
      readdir: (path) => alive(() => this.readdir(path)),
      mkdir: () => alive(() => this.mkdir()),
      stat: (path) => alive(() => this.stat(path)),
      syncDir: (path) => alive(() => this.syncDir(path)),
      freeBytes: (path) => alive(() => this.freeBytes(path)),
    };
  }

  /** A deep copy of what the system sees, all of it synced. */
  clone(): FaultyFiles {
    const copy = new FaultyFiles();
    for (const [path, inode] of this.#names) {
      const made = newInode(inode.id, inode.cached);
      copy.#names.set(path, made);
      copy.#diskNames.set(path, made);
    }
    copy.#nextId = this.#nextId;
    return copy;
  }

  paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  content(path: string): Buffer {
    return this.#inode(path).cached;
  }

  replace(path: string, content: Buffer): void {
    const made = newInode(this.#nextId++, content);
    this.#names.set(path, made);
    this.#diskNames.set(path, made);
  }

  remove(path: string): void {
    this.#names.delete(path);
    this.#diskNames.delete(path);
  }

  async open(path: string, mode: "read" | "write" | "create"): Promise<OpenFile> {
    await this.#step(mode === "create" ? "create" : "open", path);
    if (mode === "create") {
      if (this.#names.has(path)) throw errno("EEXIST", path);
      this.#names.set(path, newInode(this.#nextId++, Buffer.alloc(0)));
    }
    const inode = this.#inode(path);
    const boot = this.#boot;
    return {
      write: async (buffers, position) => {
        if (boot !== this.#boot) return await never();
        return await this.#write(path, inode, buffers, position);
      },
      read: async (target, position) => {
        if (boot !== this.#boot) return await never();
        await this.#step("read", path);
        return inode.cached.copy(target, 0, position, Math.min(inode.cached.length, position + target.length));
      },
      datasync: async () => {
        if (boot !== this.#boot) return await never();
        const last = this.#writes;
        const covered = (): number[] => [...inode.dirty.keys()].filter((at) => inode.dirty.get(at)! <= last);
        try {
          await this.#step("datasync", path);
        } catch (error) {
          for (const at of covered()) inode.dirty.delete(at); // as Linux does: they count as clean, and the next sync "succeeds"
          throw error;
        }
        const disk = Buffer.alloc(inode.cached.length);
        inode.disk.subarray(0, inode.cutTo).copy(disk);
        for (const at of covered()) {
          inode.cached.copy(disk, at * sector, at * sector, (at + 1) * sector);
          inode.dirty.delete(at);
        }
        inode.disk = disk;
        inode.cutTo = Number.POSITIVE_INFINITY;
      },
      truncate: async (size) => {
        if (boot !== this.#boot) return await never();
        await this.#step("truncate", path);
        inode.cached = Buffer.concat([inode.cached.subarray(0, size)], size);
        inode.cutTo = Math.min(inode.cutTo, size);
        for (const at of inode.dirty.keys()) if (at * sector >= size) inode.dirty.delete(at);
      },
      size: async () => inode.cached.length,
      close: async () => undefined,
    };
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#step("rename", to);
    const inode = this.#inode(from);
    this.#names.set(to, inode);
    this.#names.delete(from);
  }

  async unlink(path: string): Promise<void> {
    await this.#step("unlink", path);
    this.#inode(path);
    this.#names.delete(path);
  }

  async link(from: string, to: string): Promise<void> {
    await this.#step("link", to);
    if (this.#names.has(to)) throw errno("EEXIST", to);
    this.#names.set(to, this.#inode(from));
  }

  async readdir(path: string): Promise<string[]> {
    return this.paths()
      .filter((name) => name.startsWith(`${path}/`))
      .map((name) => name.slice(path.length + 1));
  }

  async mkdir(): Promise<void> {}

  async stat(path: string): Promise<FileStat> {
    const inode = this.#names.get(path);
    const links = [...this.#names.values()].filter((named) => named === inode).length;
    if (inode !== undefined) return { size: inode.cached.length, device: 1, inode: inode.id, links, isFile: true };
    return { size: 0, device: 1, inode: this.#folderId(path), links: 2, isFile: false };
  }

  async syncDir(path: string): Promise<void> {
    const within = (name: string): boolean => name.startsWith(`${path}/`);
    const names = [...this.#names].filter(([name]) => within(name));
    const begun = ++this.#folderSyncs;
    await this.#step("syncDir", path);
    if (begun < (this.#synced.get(path) ?? 0)) return; // one that was called later ended earlier: it knew more
    this.#synced.set(path, begun);
    for (const name of this.#diskNames.keys()) if (within(name)) this.#diskNames.delete(name);
    for (const [name, inode] of names) this.#diskNames.set(name, inode);
  }

  /** Folders are only names here; `..` at their end is followed, as the kernel would. */
  #folderId(path: string): number {
    const real = normalize(path);
    const known = this.#folders.indexOf(real);
    return -(known < 0 ? this.#folders.push(real) : known + 1);
  }

  async freeBytes(path: string): Promise<number> {
    await this.#step("freeBytes", path);
    return this.free;
  }

  async #write(path: string, inode: Inode, buffers: readonly Uint8Array[], position: number): Promise<number> {
    const boot = this.#boot;
    const fault = this.#ask("write", path);
    // The bytes are taken when the call is made, as the kernel may; a torn part of them stays whatever comes after.
    let data = Buffer.concat(buffers);
    if (fault === "short" && data.length > 1) data = data.subarray(0, Math.ceil(data.length / 3));
    if (fault === "stop" || fault === "ENOSPC") data = data.subarray(0, Math.floor(data.length / 2));
    if (!["EIO", "EROFS", "EACCES"].includes(fault ?? "") && !(this.#stopped && fault !== "stop")) {
      const size = Math.max(inode.cached.length, position + data.length);
      if (size > inode.cached.length) inode.cached = Buffer.concat([inode.cached], size);
      data.copy(inode.cached, position);
      this.#writes += 1;
      for (let at = Math.floor(position / sector); at * sector < position + data.length; at += 1)
        inode.dirty.set(at, this.#writes);
    }
    await this.#settle(fault, "write", path, boot);
    return data.length;
  }

  async #step(operation: Operation, path: string): Promise<void> {
    await this.#settle(this.#ask(operation, path), operation, path, this.#boot);
  }

  #ask(operation: Operation, path: string): Fault {
    if (this.#stopped) return "stop";
    this.steps += 1;
    const fault = this.fault(operation, path, this.steps);
    this.log.push(`${operation} ${path.slice(path.lastIndexOf("/") + 1)}${fault === undefined ? "" : ` ${fault}`}`);
    if (fault === "stop") this.#stopped = true;
    return fault;
  }

  async #settle(fault: Fault, operation: Operation, path: string, boot: number): Promise<void> {
    if (fault === "stop") return await never();
    for (let left = this.slow(operation, path); left >= 0 && this.#boot === boot; left -= 1)
      await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.#boot !== boot || this.#stopped) return await never();
    if (fault !== undefined && fault !== "short") throw errno(fault, operation);
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw errno("ENOENT", path);
    return inode;
  }
}
