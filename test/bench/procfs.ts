import { readdirSync, readFileSync } from "node:fs";

/** What the kernel says of a process. */

/** CPU time of all threads of a process so far, seconds: the kernel's own count in ns, not clock ticks. Threads that have ended are not in it. */
export function cpuSeconds(pid: number): number {
  let ns = 0;
  for (const task of readdirSync(`/proc/${pid}/task`))
    ns += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "latin1").split(" ")[0]);
  return ns / 1e9;
}

/** How often its threads have gone to sleep so far, and so were woken: what costs an idle process most, and differs least between machines. */
export function wakeUps(pid: number): number {
  let count = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${task}/status`, "latin1");
    count += Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1]);
  }
  return count;
}

/** Of /proc/PID/status, kB. */
export function statusKb(pid: number, field: "VmRSS" | "VmHWM"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1]);
}

/** Twelve seconds after a start V8 gives back seven megabytes: measured earlier, they would be taken off what comes then. */
const settledMs = 20_000;

/** Resident memory once it has not moved by more than 256 kB for twenty seconds, or after ninety; kB. */
export async function settledKb(pid: number): Promise<number> {
  let kept = statusKb(pid, "VmRSS");
  let sinceMs = performance.now();
  for (const endMs = sinceMs + 90_000; performance.now() < endMs && performance.now() - sinceMs < settledMs; ) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    const now = statusKb(pid, "VmRSS");
    if (Math.abs(now - kept) <= 256) continue;
    kept = now;
    sinceMs = performance.now();
  }
  return statusKb(pid, "VmRSS");
}
