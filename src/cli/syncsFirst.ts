import { stat } from "node:fs/promises";
import { getPriority, setPriority } from "node:os";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";

/**
 * Of a process that was raised, as the systemd unit does it, only the threads that write and sync the journal (libuv's pool) stay so; the event loop, and
 * every thread that it starts from now on, goes to where other programs are. A flood of log-ins keeps the loop busy, and a sync that is done
 * waits for a core to say so. Linux keeps niceness by thread, and lowering needs no privilege.
 *
 * Of one that was not raised the loop stays as it is: five levels below others it took in a third of the log-ins, and its syncs were no faster.
 */
export async function putSyncsFirst(log: Log): Promise<void> {
  if (process.platform !== "linux" || getPriority() >= 0) return; // elsewhere niceness is that of the whole process
  // The pool's threads start with its first task, as nice as the loop is then, and stay so.
  await stat("/");
  try {
    setPriority(process.pid, 0); // the id of the process is its first thread's
  } catch (error) {
    log.debug({ err: messageOf(error) }, "the event loop stays at the priority of the journal's syncs"); // a sandbox
  }
}
