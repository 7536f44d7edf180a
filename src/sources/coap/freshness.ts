/** One notification's place in the order of an observation. */
export interface Stamp {
  /** Observe option, 24 bits. */
  readonly sequence: number;
  readonly arrivedMs: number;
}

const halfRange = 2 ** 23;
const clockSkewMs = 128_000;

/** Whether `next` is newer than `last` (RFC 7641 section 3.4): by the wrapping sequence, or because so much time lies between. */
export function isFresher(last: Stamp, next: Stamp): boolean {
  if (next.arrivedMs > last.arrivedMs + clockSkewMs) return true;
  const ahead = next.sequence - last.sequence;
  return (ahead > 0 && ahead < halfRange) || ahead < -halfRange;
}
