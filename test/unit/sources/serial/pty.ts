import { createRequire } from "node:module";

/** What is used of @lydell/node-pty. Its own types are not, so that this compiles where npm left the package out. */
interface PtyProcess {
  readonly pid: number;
  /** The slave's path. */
  readonly _pty: string;
  onData(listener: (data: Buffer) => void): unknown;
  onExit(listener: () => void): unknown;
  write(data: Buffer): void;
  pause(): void;
  resume(): void;
}

interface PtyModule {
  spawn(file: string, args: string[], options: { encoding: null }): PtyProcess;
}

/** The device's side of a pseudo-terminal whose other side is a serial port. */
export interface PtyDevice {
  readonly path: string;
  /** All bytes that the port's side wrote, as latin1. */
  received(): string;
  send(data: Uint8Array | string): void;
  /** Stops reading. */
  block(): void;
  /**
   * The port's side sees a hangup, as when a USB adapter is pulled. Not while a device plugged in later is there: its child inherited
   * this one's master, which must be closed everywhere.
   */
  unplug(): Promise<void>;
}

/** Undefined on a platform for which node-pty has no binary. */
export function loadPty(): (() => Promise<PtyDevice>) | undefined {
  let pty: PtyModule;
  try {
    pty = createRequire(import.meta.url)("@lydell/node-pty") as PtyModule;
  } catch {
    return undefined;
  }
  return () => plugIn(pty);
}

async function plugIn(pty: PtyModule): Promise<PtyDevice> {
  const ready = "ready";
  const child = pty.spawn("/bin/sh", ["-c", `stty raw -echo; printf ${ready}; exec sleep 600`], { encoding: null });
  const exited = new Promise<void>((resolve) => child.onExit(() => resolve()));
  let received = "";
  await new Promise<void>((resolve) => {
    child.onData((data) => {
      received += data.toString("latin1");
      if (received === ready) resolve();
    });
  });
  received = "";
  return {
    path: child._pty,
    received: () => received,
    send: (data) => child.write(Buffer.from(data as string, "latin1")),
    block: () => child.pause(),
    async unplug() {
      // Never kill() of node-pty itself: with a pid of -1 it would signal every process of the user.
      if (child.pid <= 1) throw new Error("no child");
      try {
        process.kill(child.pid, "SIGKILL");
      } catch {
        // gone already
      }
      child.resume(); // the hangup comes when this side has read to the end
      await exited;
    },
  };
}
