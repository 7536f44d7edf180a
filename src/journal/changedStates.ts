/**
 * What waits for no sync of its own: lane states and drop counts, each 100 ms, what the card had to write, each hour, the proof of the last group, and
 * the clock, which each group carries.
 */
import type { Clock, Timer } from "../base/clock.ts";
import { intervalsMax, type Lane } from "./lane.ts";
import { writeLaneState, writePut, writeUplink } from "./records.ts";
import type { State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";
import { Written } from "./written.ts";

const everyMs = 100;
const syncAfterMs = 1000;
const proveAfterMs = 1000;
/** After a kill and a wall clock set back, the store clock stands behind by no more. */
const clockEveryMs = 60_000;

interface ChangedEnvironment {
  readonly clock: Clock;
  readonly writer: GroupWriter;
  readonly state: State;
  readonly written: Written;
}

export class ChangedStates {
  readonly #env: ChangedEnvironment;
  #timer: Timer | undefined;
  #lastWriteMs: number;
  #closed = false;

  constructor(env: ChangedEnvironment) {
    this.#env = env;
    this.#lastWriteMs = env.clock.monotonicMs();
  }

  /** Something changed: it is written soon, without a sync. A kill -9 cannot lose it; a power cut repeats a second's messages at most. */
  arm(): void {
    if (this.#timer !== undefined || this.#closed) return;
    this.#timer = this.#env.clock.setTimer(everyMs, () => {
      this.#timer = undefined;
      if (!this.write()) return;
      const { writer, clock } = this.#env;
      const since = writer.unsyncedSinceMs;
      writer.schedule(since !== undefined && clock.monotonicMs() - since >= syncAfterMs);
    });
  }

  /**
   * Puts it into the open group. What was dropped is counted in the same group as the marks that say so, so that a crash loses or keeps both.
   * @returns whether something had changed
   */
  write(): boolean {
    const { state, writer } = this.#env;
    let any = false;
    for (const account of state.uplinks.values()) {
      if (!account.dirty) continue;
      account.dirty = false;
      writeUplink(writer, account);
      any = true;
    }
    for (const lane of state.lanes.values()) {
      if (!lane.dirty) continue;
      lane.dirty = false;
      writeLaneState(writer, lane);
      any = true;
    }
    return any;
  }

  /** The same for some lanes, with all of their done intervals: what is said next must not be undone by their being forgotten. */
  writeLanes(lanes: readonly Lane[]): void {
    const { writer } = this.#env;
    for (const lane of lanes) {
      if (!lane.dirty && lane.intervals().length <= intervalsMax) continue; // said already
      lane.dirty = false;
      writeLaneState(writer, lane, Number.POSITIVE_INFINITY);
    }
  }

  #writeWritten(ending: boolean): void {
    const { state, writer, written } = this.#env;
    const bytes = written.due(ending);
    if (bytes === undefined) return;
    state.put(Written.map, Written.key, bytes);
    writePut(writer, Written.map, Written.key, bytes);
  }

  onDurable(): void {
    this.#lastWriteMs = this.#env.clock.monotonicMs();
  }

  /** Once a second. */
  tick(): void {
    const { writer, clock } = this.#env;
    const nowMs = clock.monotonicMs();
    this.#writeWritten(false);
    if (writer.unsyncedSinceMs !== undefined && nowMs - writer.unsyncedSinceMs >= syncAfterMs) writer.schedule(true);
    else if (writer.unproven && writer.isEmpty && nowMs - this.#lastWriteMs >= proveAfterMs) writer.schedule(false);
    else if (nowMs - this.#lastWriteMs >= clockEveryMs) writer.schedule(true);
  }

  /** The last ones go into the open group. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.write();
    this.#writeWritten(true);
  }
}
