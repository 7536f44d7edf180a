/**
 * node-pty leaves the master side inheritable, and a line hangs up only when its last master is closed: a process that is spawned while
 * a pseudo-terminal is open would keep it alive, and an unplug would go unnoticed. So whoever spawns next to a SerialDevice covers those
 * descriptors. (Two SerialDevices do not go into one process for the same reason: each one's shell would hold the other's line.)
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readdirSync, readlinkSync } from "node:fs";

/** Descriptors of this process that are masters of pseudo-terminals. */
function masters(): number[] {
  return readdirSync("/proc/self/fd")
    .map(Number)
    .filter((fd) => {
      try {
        return /^\/dev\/(pts\/)?ptmx$/.test(readlinkSync(`/proc/self/fd/${fd}`));
      } catch {
        return false; // the descriptor of this very readdir, closed by now
      }
    });
}

/** Spawns with stdout and stderr piped, no stdin, and /dev/null in the place of every pseudo-terminal that is open here. */
export function spawnWithoutPtys(file: string, args: readonly string[]): ChildProcess {
  const nothing = openSync("/dev/null", "r+");
  try {
    const stdio: Array<"ignore" | "pipe" | number> = ["ignore", "pipe", "pipe"];
    for (const fd of masters()) {
      while (stdio.length < fd) stdio.push("ignore"); // from 3 on that means: left as it is
      stdio[fd] = nothing;
    }
    return spawn(file, args, { stdio });
  } finally {
    closeSync(nothing);
  }
}
