import type { SimClock } from "../../../firmware-sim/simClock.ts";
import { comesMsMax } from "../../helpers/wait.ts";

interface Job {
  dueMs: number;
  everyMs: number | undefined;
  callback: () => void;
}

/** A clock that moves only when told to. */
export class FakeClock implements SimClock {
  #nowMs = 0;
  readonly #jobs = new Set<Job>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(ms: number, callback: () => void): () => void {
    return this.#add({ dueMs: this.#nowMs + ms, everyMs: undefined, callback });
  }

  every(ms: number, callback: () => void): () => void {
    return this.#add({ dueMs: this.#nowMs + ms, everyMs: ms, callback });
  }

  /** Runs what falls due on the way, in the order of time. */
  advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      let next: Job | undefined;
      for (const job of this.#jobs)
        if (job.dueMs <= endMs && (next === undefined || job.dueMs < next.dueMs)) next = job;
      if (next === undefined) break;
      this.#nowMs = next.dueMs;
      if (next.everyMs === undefined) this.#jobs.delete(next);
      else next.dueMs += next.everyMs;
      next.callback();
    }
    this.#nowMs = endMs;
  }

  #add(job: Job): () => void {
    this.#jobs.add(job);
    return () => this.#jobs.delete(job);
  }
}

/** Waits until `condition` holds, looking often; fails with `what` after `ms`. For real sockets, where no clock can be moved. */
export async function eventually(what: string, condition: () => boolean, ms = comesMsMax): Promise<void> {
  const deadlineMs = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
