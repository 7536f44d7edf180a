/**
 * Preloaded into the gateway (`node --import`): writes to stderr, on SIGUSR2, the longest stretch of CPU time that the main thread used between
 * two runs of a 1 ms timer: an upper bound of its longest turn. CPU time, because a busy machine takes the processor away in the middle of turns.
 */
import { openSync, readSync, writeSync } from "node:fs";

const file = openSync(`/proc/self/task/${process.pid}/schedstat`, "r");
const buffer = Buffer.alloc(64);
const cpuNs = () => Number(buffer.toString("latin1", 0, readSync(file, buffer, 0, 64, 0)).split(" ")[0]);

let before = cpuNs();
let longest = 0;
setInterval(() => {
  const now = cpuNs();
  longest = Math.max(longest, now - before);
  before = now;
}, 1).unref();
process.on("SIGUSR2", () => {
  writeSync(2, `longest turn ${(longest / 1e6).toFixed(1)} ms\n`);
  longest = 0;
  before = cpuNs();
});
