import { stat } from "node:fs/promises";
import { getPriority, setPriority } from "node:os";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";

/** Levels of niceness: where both want the same core, the event loop gets a quarter of it. */
const levels = 5;
const nicenessMax = 19;

/**
 * Lets the threads that write and sync the journal (libuv's pool) have a core before the event loop, and before every thread that it starts from now
 * on: a flood of log-ins keeps the loop busy, and a sync that is done waits for a core to say so. Linux keeps niceness by thread, and lowering
 * the loop needs no privilege. Of a process that was raised, as the systemd unit does it, the loop goes to 0 at least, where other programs are.
 */
export async function putSyncsFirst(log: Log): Promise<void> {
  if (process.platform !== "linux") return; // elsewhere it would be the whole process
  // The pool's threads start with its first task, as nice as the loop is then, and stay so.
  await stat("/");
  try {
    const niceness = Math.min(nicenessMax, Math.max(0, getPriority() + levels));
    setPriority(process.pid, niceness); // the id of the process is its first thread's
  } catch (error) {
    log.debug({ err: messageOf(error) }, "the event loop stays at the priority of the journal's syncs"); // a sandbox
  }
}
