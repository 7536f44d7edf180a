/**
 * Walks the records of a piece of a segment and finds the next valid one after damage: it slides a byte at a time, because a length that rotted says
 * nothing about where the next record begins.
 */
import { isZero } from "./bytes.ts";
import { plausibleLength, recordHeaderBytes, recordIsValid } from "./format.ts";

const zeroBlock = 4096;

export class RecordWalker {
  #buffer: Buffer = Buffer.alloc(0);
  #to = 0;
  #beyond = 0;
  #seed = 0;
  /** Where the walk goes on, in the buffer. */
  next = 0;
  /** The record found: from where, how long, what. */
  at = 0;
  length = 0;
  type = 0;
  flags = 0;
  /** Bytes that the caller should read from `next` on when `step` says "more". */
  wanted = 0;
  /** Damaged stretches passed so far, and their bytes. */
  gaps = 0;
  gapBytes = 0;
  #inGap = false;

  /**
   * @param to end of the valid bytes in `buffer`
   * @param beyond bytes of the segment that come after them
   */
  start(buffer: Buffer, from: number, to: number, beyond: number, seed: number): void {
    this.#buffer = buffer;
    this.next = from;
    this.#to = to;
    this.#beyond = beyond;
    this.#seed = seed;
  }

  /** Forgets damage that the walk was in the middle of; for a new stretch that does not join the last. */
  restart(): void {
    this.#inGap = false;
  }

  get buffer(): Buffer {
    return this.#buffer;
  }

  step(): "record" | "more" | "end" {
    for (;;) {
      const left = this.#to - this.next;
      if (left < recordHeaderBytes) {
        if (this.#beyond > 0) return this.#more(recordHeaderBytes);
        for (; this.next < this.#to; this.next += 1) this.#slide();
        return "end";
      }
      const length = plausibleLength(this.#buffer, this.next, left + this.#beyond);
      if (length > left) return this.#more(length);
      if (length > 0 && recordIsValid(this.#buffer, this.next, length, this.#seed)) {
        this.at = this.next;
        this.length = length;
        this.type = this.#buffer[this.at + 8]!;
        this.flags = this.#buffer[this.at + 9]!;
        this.next += length;
        this.#inGap = false;
        return "record";
      }
      this.#slide();
      this.next += 1;
      if (this.#buffer[this.next] === 0) this.#skipZeros();
    }
  }

  /** Prepared space is megabytes of zeros: passed over in blocks. A record's length may begin with zeros, so the last three are looked at again. */
  #skipZeros(): void {
    while (this.next + zeroBlock <= this.#to && isZero(this.#buffer.subarray(this.next, this.next + zeroBlock))) {
      if (this.#inGap) this.gapBytes += zeroBlock - 3;
      this.next += zeroBlock - 3;
    }
  }

  #more(wanted: number): "more" {
    this.wanted = wanted;
    return "more";
  }

  /** Zeros are space that was never written, not damage. */
  #slide(): void {
    if (this.#buffer[this.next] === 0 && !this.#inGap) return;
    if (!this.#inGap) this.gaps += 1;
    this.#inGap = true;
    this.gapBytes += 1;
  }
}
