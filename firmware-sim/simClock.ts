/** Time as the devices see it; tests put one here that they move themselves. */
export interface SimClock {
  /** Milliseconds since an arbitrary moment; never goes back. */
  nowMs(): number;
  /** Once, after `ms`. Returns what cancels it. */
  after(ms: number, callback: () => void): () => void;
  /** Again and again. Returns what cancels it. */
  every(ms: number, callback: () => void): () => void;
}

export const systemSimClock: SimClock = {
  nowMs: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
  every(ms, callback) {
    const timer = setInterval(callback, ms);
    return () => clearInterval(timer);
  },
};
