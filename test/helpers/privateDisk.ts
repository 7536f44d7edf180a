/**
 * A disk of a few megabytes, or one that takes no writes, without touching the machine's own: a mount that only one holder process and what is
 * started through `prefix` can see. Linux, as root or where users may make namespaces.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";

const root = process.getuid?.() === 0;
const namespaces = root ? ["-m"] : ["-r", "-m"];

/** For `before`: skips, saying so; where CI runs as root it is a failure, for there it has to work. */
export function needNamespaces(context: Mocha.Context): void {
  if (process.platform === "linux" && spawnSync("unshare", [...namespaces, "true"]).status === 0) return;
  if (process.env["CI"] !== undefined && root)
    throw new Error("mount namespaces are not to be had, where they have to be");
  process.stdout.write("      skipped: mount namespaces are not to be had here (unshare -m)\n");
  context.skip();
}

export class PrivateDisk {
  readonly #holder: ChildProcess;

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  /** @param mount shell commands that mount something; `$1` is `dir` */
  static async #mount(dir: string, mount: string): Promise<PrivateDisk> {
    const holder = spawn("unshare", [...namespaces, "sh", "-ec", `${mount}\necho mounted\nexec cat`, "sh", dir]);
    let stderr = "";
    holder.stderr.on("data", (chunk) => (stderr += chunk));
    const ended = once(holder, "close").then(() => Promise.reject(new Error(`no private disk: ${stderr}`)));
    await Promise.race([once(holder.stdout, "data"), ended]);
    ended.catch(() => {}); // later, when it is told to
    return new PrivateDisk(holder);
  }

  /** A new, empty disk at `dir`, which must be there. */
  static small(dir: string, megabytes: number): Promise<PrivateDisk> {
    return PrivateDisk.#mount(dir, `mount -t tmpfs -o size=${megabytes}m,mode=0700 tidegate "$1"`);
  }

  /** `dir` as it is, for reading only. */
  static readOnly(dir: string): Promise<PrivateDisk> {
    return PrivateDisk.#mount(dir, 'mount --bind "$1" "$1"\nmount -o remount,bind,ro "$1"');
  }

  /** Before a command that shall see the disk. */
  get prefix(): string[] {
    const user = root ? [] : ["-U", "--preserve-credentials"];
    return ["nsenter", "-t", String(this.#holder.pid), ...user, "-m", "--"];
  }

  /** The disk's path as everybody sees it. */
  seen(path: string): string {
    return `/proc/${this.#holder.pid}/root${path}`;
  }

  async close(): Promise<void> {
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return;
    const ended = once(this.#holder, "close");
    this.#holder.kill("SIGKILL");
    await ended;
  }
}
