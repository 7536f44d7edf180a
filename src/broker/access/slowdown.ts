import type { Clock, Timer } from "../../base/clock.ts";
import { Fifo } from "../fifo.ts";

/** One log-in that wants to be tried. */
export interface Attempt {
  /** Its turn. `done` must be called once when it is decided. */
  go(done: () => void): void;
  /** There are too many of its address already. */
  busy(): void;
  /** False when its connection is gone. */
  wanted(): boolean;
}

interface Slowed {
  failures: number;
  lastMs: number;
  /** No attempt of this address is tried before. */
  untilMs: number;
  trying: boolean;
  readonly held: Fifo<Attempt>;
  timer: Timer | undefined;
}

const addressesMax = 4096;
/** The first failure is a slip of somebody's finger. */
const secondDelayMs = 100;
const delayMsMax = 5000;
/** After so long without a failure an address starts anew. */
const forgottenMs = 10 * 60_000;
/** Attempts that wait for their address; behind one may be a whole site. */
const heldPerAddress = 8;
const heldMax = 256;

/**
 * Slows down addresses from which log-ins fail: after the first each failure doubles the time until the refusal is sent and the next attempt of the address is
 * tried, one after the other. Attempts wait meanwhile and are not refused, so that one device with an old password, behind the same router as a
 * hundred good ones, shuts nobody out.
 */
export class Slowdown {
  readonly #clock: Clock;
  readonly #delayMsMax: number;
  readonly #slowed = new Map<string, Slowed>();
  #held = 0;

  /** @param delayMsMax never longer than this, e.g. so that the refusal comes before the connection's own time is over */
  constructor(clock: Clock, delayMsMaxOfOwner: number) {
    this.#clock = clock;
    this.#delayMsMax = Math.min(delayMsMax, delayMsMaxOfOwner);
  }

  /** Addresses known. */
  get size(): number {
    return this.#slowed.size;
  }

  /** Attempts that wait. */
  get held(): number {
    return this.#held;
  }

  enter(key: string, attempt: Attempt): void {
    const slowed = this.#slowed.get(key);
    if (slowed === undefined) attempt.go(() => {});
    else if (this.#isFull(slowed)) attempt.busy();
    else {
      slowed.held.push(attempt);
      this.#held += 1;
      this.#next(slowed);
    }
  }

  /** Whoever of the address is gone gives its place up first. */
  #isFull(slowed: Slowed): boolean {
    if (slowed.held.size < heldPerAddress && this.#held < heldMax) return false;
    for (let left = slowed.held.size; left > 0; left -= 1) {
      const attempt = slowed.held.shift();
      if (attempt?.wanted() === true) slowed.held.push(attempt);
      else this.#held -= 1;
    }
    return slowed.held.size >= heldPerAddress || this.#held >= heldMax;
  }

  /** A log-in of this address failed. @returns after how many ms it is to be told so; 0: at once */
  failed(key: string): number {
    const nowMs = this.#clock.monotonicMs();
    const slowed = this.#slowed.get(key) ?? this.#add();
    if (nowMs - slowed.lastMs > forgottenMs) slowed.failures = 0;
    slowed.failures += 1;
    slowed.lastMs = nowMs;
    const doublings = Math.min(slowed.failures - 2, 20);
    const delayMs = doublings < 0 ? 0 : Math.min(this.#delayMsMax, secondDelayMs * 2 ** doublings);
    slowed.untilMs = nowMs + delayMs;
    this.#slowed.delete(key); // the one that failed last is forgotten last
    this.#slowed.set(key, slowed);
    return delayMs;
  }

  #add(): Slowed {
    if (this.#slowed.size >= addressesMax) {
      const [oldest] = this.#slowed;
      if (oldest !== undefined) this.#forget(...oldest);
    }
    return { failures: 0, lastMs: 0, untilMs: 0, trying: false, held: new Fifo(), timer: undefined };
  }

  #forget(key: string, slowed: Slowed): void {
    this.#slowed.delete(key);
    slowed.timer?.cancel();
    for (let attempt = slowed.held.shift(); attempt !== undefined; attempt = slowed.held.shift()) {
      this.#held -= 1;
      attempt.busy();
    }
  }

  #next(slowed: Slowed): void {
    if (slowed.trying) return;
    const waitMs = slowed.untilMs - this.#clock.monotonicMs();
    if (waitMs > 0) {
      slowed.timer ??= this.#clock.setTimer(waitMs, () => {
        slowed.timer = undefined;
        this.#next(slowed);
      });
      return;
    }
    for (let attempt = slowed.held.shift(); attempt !== undefined; attempt = slowed.held.shift()) {
      this.#held -= 1;
      if (!attempt.wanted()) continue;
      slowed.trying = true;
      attempt.go(() => {
        slowed.trying = false;
        this.#next(slowed);
      });
      return;
    }
  }
}
