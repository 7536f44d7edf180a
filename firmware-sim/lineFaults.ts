/** What a bad cable does to a frame. Every fault is counted; the gateway must find the next good frame after each. */
import type { Random } from "./random.ts";

export interface FaultOptions {
  /** Probability that garbage bytes come before a frame. */
  readonly noise?: number;
  /** Probability that a frame is cut somewhere, its end lost. */
  readonly tornFrames?: number;
  /** Probability that one bit of a frame is flipped. */
  readonly corrupt?: number;
}

export class LineFaults {
  readonly #random: Random;
  readonly #options: FaultOptions;
  noisy = 0;
  torn = 0;
  flipped = 0;

  constructor(random: Random, options: FaultOptions) {
    this.#random = random;
    this.#options = options;
  }

  /** The frame as it arrives at the other end; never changes the one given. */
  pass(frame: Buffer): Buffer {
    let wire = frame;
    if (this.#random.chance(this.#options.corrupt ?? 0)) {
      wire = Buffer.from(wire);
      const at = this.#random.below(wire.length);
      wire[at] = (wire[at] ?? 0) ^ (1 << this.#random.below(8));
      this.flipped += 1;
    }
    if (this.#random.chance(this.#options.tornFrames ?? 0)) {
      wire = wire.subarray(0, 1 + this.#random.below(wire.length - 1));
      this.torn += 1;
    }
    if (this.#random.chance(this.#options.noise ?? 0)) {
      const garbage = Buffer.from(Array.from({ length: 1 + this.#random.below(24) }, () => this.#random.below(256)));
      wire = Buffer.concat([garbage, wire]);
      this.noisy += 1;
    }
    return wire;
  }
}
