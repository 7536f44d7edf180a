/** A store on a disk in memory, a clock that the test moves, and what the journal's tests share. */

import type { Clock, Timer } from "../../../src/base/clock.ts";
import type { Store, Taker } from "../../../src/base/contracts.ts";
import type { Files } from "../../../src/base/files.ts";
import { silentLog } from "../../../src/base/log.ts";
import type { Message } from "../../../src/base/message.ts";
import { Meter } from "../../../src/base/meter.ts";
import { openStore, type StoreOptions } from "../../../src/journal/open.ts";

export class TestClock implements Clock {
  #nowMs = 1000;
  wall = Date.UTC(2026, 0, 1);
  #timers: Array<{ atMs: number; callback: () => void; cancelled: boolean }> = [];

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.wall;
  }

  setTimer(ms: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + ms, callback, cancelled: false };
    this.#timers.push(timer);
    return {
      cancel: () => {
        timer.cancelled = true;
      },
    };
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    this.wall += ms;
    const due = this.#timers.filter((timer) => timer.atMs <= this.#nowMs);
    this.#timers = this.#timers.filter((timer) => timer.atMs > this.#nowMs);
    for (const timer of due.sort((a, b) => a.atMs - b.atMs)) if (!timer.cancelled) timer.callback();
  }

  /** The process that set them is gone. */
  forgetTimers(): void {
    this.#timers = [];
  }
}

export const dir = "/data";

export const optionsOn = (files: Files, clock: Clock, more: Partial<StoreOptions> = {}): StoreOptions => ({
  ...{ dir, files, clock, log: silentLog, meter: new Meter() },
  ...{ maxBytes: 64 * 1024 * 1024, minFreeBytes: 0, maxMessageBytes: 1024 * 1024 },
  lock: async () => async () => undefined,
  tuning: { spares: 0 }, // what they are for has tests of its own
  ...more,
});

export const open = (files: Files, clock: Clock, more: Partial<StoreOptions> = {}): Promise<Store> =>
  openStore(optionsOn(files, clock, more));

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Waits turn by turn. @throws after many turns, so that a test fails instead of hanging */
export async function until(condition: () => boolean, what = "condition"): Promise<void> {
  for (let turns = 0; !condition(); turns += 1) {
    if (turns > 20_000) throw new Error(`${what} never became true`);
    await turn();
  }
}

export const durable = (store: Store, group: number): Promise<void> =>
  until(() => store.durableGroup >= group, "durable");

export function message(text: string, more: Partial<Message> = {}): Message {
  return {
    topic: `t/${text.slice(0, 20)}`,
    payload: Buffer.from(text),
    qos: 1,
    retain: false,
    source: "mqtt:test",
    ...more,
  };
}

export const taker = (lane: number, rule = 1, ttlMs?: number): Taker => ({ lane, rule, ttlMs });

export const textOf = (of: { message: Message }): string => Buffer.from(of.message.payload).toString();

export const generous = { maxBytes: 2 ** 40, maxAgeMs: 2 ** 40, whenFull: "drop-oldest" } as const;

/** mulberry32: small, and the same everywhere. */
export function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
