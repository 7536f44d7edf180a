import { execFile } from "node:child_process";
import { readlink } from "node:fs/promises";
import { setPriority } from "node:os";
import { basename } from "node:path";
import { promisify } from "node:util";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";

/** Where the real-time policy is not allowed. */
const niceness = -10;
const run = promisify(execFile);

/**
 * Lets the threads that write and sync the journal (libuv's pool) have a core as soon as they want one: a flood of log-ins keeps all cores busy, and a
 * sync that is done waits for one to say so. They get the lowest real-time priority; passwords, the only long work, are not hashed there.
 * It takes a privilege, which the systemd unit gives (LimitRTPRIO, LimitNICE); without it all stays as it was. Never rejects.
 */
export async function putSyncsFirst(log: Log): Promise<void> {
  if (process.platform !== "linux") return; // elsewhere priorities are those of whole processes
  let threads: readonly string[] = [];
  try {
    threads = await poolThreads();
    // Node itself can only set niceness. chrt is of util-linux, which every Debian has. One after the other: each start of it is a turn of the loop.
    for (const thread of threads) await run("chrt", ["--fifo", "--pid", "1", thread]);
    log.debug({ threads: threads.length }, "the journal's threads run at real-time priority");
  } catch (error) {
    log.debug({ err: messageOf(error) }, "no real-time priority for the journal's threads");
    raise(threads, log);
  }
}

function raise(threads: readonly string[], log: Log): void {
  try {
    for (const thread of threads) setPriority(Number(thread), niceness);
  } catch (error) {
    log.debug({ err: messageOf(error) }, "the journal's threads have the priority of all others");
  }
}

/** Ids of the threads of libuv's pool: each says its own, as often as it takes until all of them came to a turn. */
async function poolThreads(): Promise<string[]> {
  const size = Number(process.env["UV_THREADPOOL_SIZE"] ?? 4);
  const found = new Set<string>();
  for (let attempt = 0; attempt < 20 && found.size < size; attempt += 1) {
    const links = await Promise.all(Array.from({ length: 8 * size }, () => readlink("/proc/thread-self")));
    for (const link of links) found.add(basename(link));
  }
  return [...found];
}
