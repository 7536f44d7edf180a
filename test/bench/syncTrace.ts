import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * fdatasync of one process as the kernel's own tracepoints see it. Nothing runs beside it while it measures: a tracer such as strace needs a core
 * too, and where all are taken it is its own wait that it times.
 */

/** One fdatasync. `waitedMs` of its `ms` its thread could have run and had no core; the rest is the disk. */
export interface SyncCall {
  readonly ms: number;
  readonly waitedMs: number;
}

interface Thread {
  enteredMs: number | undefined;
  /** Since when it could run and does not. */
  runnableMs: number | undefined;
  waitedMs: number;
}

const tracing = "/sys/kernel/tracing";
const events = [
  "syscalls/sys_enter_fdatasync",
  "syscalls/sys_exit_fdatasync",
  "sched/sched_waking",
  "sched/sched_switch",
];

export class SyncTrace {
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  /**
   * Traces the threads that the process has by now, but its first, which never syncs. Undefined where that cannot be done: no root, no tracefs
   * (`mount -t tracefs tracefs /sys/kernel/tracing`), a kernel without these events.
   */
  static open(pid: number): SyncTrace | undefined {
    const trace = new SyncTrace(join(tracing, "instances", `tidegate-bench-${process.pid}`));
    try {
      mkdirSync(trace.#dir);
    } catch {
      return undefined;
    }
    try {
      trace.#begin(readdirSync(`/proc/${pid}/task`).filter((thread) => Number(thread) !== pid));
      return trace;
    } catch {
      trace.close();
      return undefined;
    }
  }

  #begin(threads: readonly string[]): void {
    const any = (field: string): string => threads.map((thread) => `${field} == ${thread}`).join(" || ");
    const filters = [any("common_pid"), any("common_pid"), any("pid"), `${any("prev_pid")} || ${any("next_pid")}`];
    this.#write("trace_clock", "mono");
    this.#write("buffer_size_kb", "8192"); // a core; some 100 bytes an event
    for (const [at, event] of events.entries()) {
      this.#write(`events/${event}/filter`, filters[at] ?? "");
      this.#write(`events/${event}/enable`, "1");
    }
  }

  /** Those that began and ended since the last time. */
  take(): SyncCall[] {
    this.#write("tracing_on", "0");
    const calls = syncCalls(readFileSync(join(this.#dir, "trace"), "latin1"));
    this.#write("trace", "");
    this.#write("tracing_on", "1");
    return calls;
  }

  close(): void {
    rmdirSync(this.#dir);
  }

  #write(name: string, text: string): void {
    writeFileSync(join(this.#dir, name), text);
  }
}

const line = /-(\d+) +\[\d+\] \S+ +([\d.]+): (sys_fdatasync|sched_waking|sched_switch)(.*)/g;

/** @param trace text of the events, in the order of time, as the kernel prints them */
export function syncCalls(trace: string): SyncCall[] {
  const calls: SyncCall[] = [];
  const threads = new Map<string, Thread>();
  const of = (id: string): Thread => {
    const thread = threads.get(id) ?? { enteredMs: undefined, runnableMs: undefined, waitedMs: 0 };
    threads.set(id, thread);
    return thread;
  };
  for (const [, id = "", seconds, event, rest = ""] of trace.matchAll(line)) {
    const atMs = Number(seconds) * 1000;
    if (event === "sys_fdatasync") {
      const thread = of(id);
      if (!rest.startsWith(" -> ")) Object.assign(thread, { enteredMs: atMs, runnableMs: undefined, waitedMs: 0 });
      else if (thread.enteredMs !== undefined) {
        calls.push({ ms: atMs - thread.enteredMs, waitedMs: thread.waitedMs });
        thread.enteredMs = undefined;
      }
    } else if (event === "sched_waking") {
      const [, woken = ""] = / pid=(\d+)/.exec(rest) ?? [];
      of(woken).runnableMs ??= atMs;
    } else {
      const [, left = "", state = "", came = ""] =
        /prev_pid=(\d+) .*prev_state=(\S+) .*next_pid=(\d+)/.exec(rest) ?? [];
      if (state.startsWith("R")) of(left).runnableMs = atMs;
      const next = of(came);
      if (next.runnableMs !== undefined) next.waitedMs += atMs - next.runnableMs;
      next.runnableMs = undefined;
    }
  }
  return calls;
}
