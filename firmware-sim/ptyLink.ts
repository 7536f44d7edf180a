/**
 * A serial port made of a pseudo-terminal: the device holds the master, the gateway opens the slave's path. The slave is kept open by
 * a shell that put it into raw mode. Killing that shell makes node-pty close the master (after 200 ms), and that hangs the line up, as
 * pulling a USB plug does in the kernel. A process spawned meanwhile would hold the master too: see ptyInheritance.ts.
 */
import { writeSync } from "node:fs";
import type { ReadStream } from "node:tty";

export interface SerialLink {
  /** What the gateway opens. */
  readonly path: string;
  /** Returns how many bytes went out. The rest is lost: a UART does not wait for a reader. */
  write(bytes: Buffer): number;
  /** Hangs the line up; resolves when it is gone. */
  close(): Promise<void>;
}

export interface SerialLinkEvents {
  readonly onData: (chunk: Buffer) => void;
  /** The line went away although `close` was not called. */
  readonly onLost: () => void;
}

export type OpenSerialLink = (events: SerialLinkEvents) => Promise<SerialLink>;

/** Parts of @lydell/node-pty's terminal that its types leave out. */
interface SpawnedPty {
  readonly pid: number;
  readonly fd: number;
  readonly _pty: string;
  readonly _socket: ReadStream;
  onData(listener: (data: string | Buffer) => void): { dispose(): void };
  onExit(listener: () => void): { dispose(): void };
}

type Spawn = (file: string, args: string[], options: { encoding: null }) => unknown;

const readyMark = 0x52; // "R"
const readyMsMax = 5000;

/** @throws Error, in words for people, where there is no node-pty (it has prebuilt binaries for linux x64 and arm64). */
export async function loadPtySpawn(): Promise<Spawn> {
  try {
    const module = (await import("@lydell/node-pty")) as unknown as { spawn?: Spawn; default?: { spawn?: Spawn } };
    const spawn = module.spawn ?? module.default?.spawn;
    if (spawn === undefined) throw new Error("it exports no spawn");
    return spawn;
  } catch (cause) {
    throw new Error(
      `no pseudo-terminals on ${process.platform}-${process.arch}: the optional package @lydell/node-pty is not installed or has no binary here`,
      { cause },
    );
  }
}

/** Whether `openPtyLink` can work here, and if not why. */
export async function ptyProblem(): Promise<string | undefined> {
  if (process.platform !== "linux") return "the serial device needs Linux";
  try {
    await loadPtySpawn();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Only a child of our own: pid -1 or 0 would signal every process of the user, or our whole group. */
function killChild(pid: number): void {
  if (!Number.isInteger(pid) || pid <= 1) return;
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // already gone
  }
}

export const openPtyLink: OpenSerialLink = async (events) => {
  const spawn = await loadPtySpawn();
  // The mark says that raw mode is on: what is written before would be echoed back. Spelt in octal, so that no echo looks like it.
  const script = "stty raw -echo && printf '\\122' && exec sleep 99999999";
  const pty = spawn("/bin/sh", ["-c", script], { encoding: null }) as SpawnedPty;
  let state: "starting" | "open" | "closed" = "starting";
  const gone = new Promise<void>((resolve) => {
    pty.onExit(() => {
      const lost = state === "open";
      state = "closed";
      resolve();
      if (lost) events.onLost();
    });
  });
  let markSeen: () => void = () => {};
  const ready = new Promise<void>((resolve) => {
    markSeen = resolve;
  });
  pty.onData((data) => {
    const chunk = Buffer.isBuffer(data) ? data : Buffer.from(data, "latin1");
    if (state === "open") events.onData(chunk);
    else if (state === "starting" && chunk.includes(readyMark)) {
      state = "open";
      markSeen();
    }
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, readyMsMax);
  });
  await Promise.race([ready, gone, late]);
  clearTimeout(timer);
  if ((state as string) !== "open") {
    state = "closed";
    killChild(pty.pid);
    throw new Error("the pseudo-terminal's shell did not come up (is there an stty?)");
  }
  return {
    path: pty._pty,
    write(bytes) {
      // Straight to the descriptor: libuv would wait for a reader, with the whole event loop, once the kernel's buffer is full.
      if (state !== "open" || pty._socket.destroyed) return 0;
      try {
        return writeSync(pty.fd, bytes);
      } catch {
        return 0; // EAGAIN: nobody reads. EIO: just unplugged
      }
    },
    async close() {
      if (state !== "closed") {
        state = "closed";
        killChild(pty.pid);
      }
      await gone;
    },
  };
};
