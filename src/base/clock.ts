/** Time as a parameter, so that everything below the end-to-end tests runs on a clock that the test moves. */
export interface Clock {
  /** Milliseconds since an arbitrary moment; never goes back. For timeouts, ages, rates. */
  monotonicMs(): number;
  /** Milliseconds since 1970 as the machine believes; may jump. For what people read, never for ages. */
  wallMs(): number;
  /** Calls back once after at least `ms` milliseconds. Does not keep the process alive. */
  setTimer(ms: number, callback: () => void): Timer;
}

export interface Timer {
  cancel(): void;
}

/** Node's timers cut a delay above this to 1 ms. */
const timerMsMax = 2 ** 31 - 1;

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer(ms, callback) {
    const timer = setTimeout(callback, Math.min(Math.max(0, ms), timerMsMax));
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};
