/**
 * Payloads copied out of what was read, many to a buffer of 8 KiB. A copy, not a slice of the gulp: one message that stays in flight would keep
 * 256 KiB alive, and a window of a thousand of them all the memory there is. Here it keeps 8 KiB at worst.
 */
const slabBytes = 8192;
/** A larger payload gets a buffer of its own. */
const sharedMax = 2048;

export class PayloadSlab {
  #slab = new Uint8Array(0);
  #used = 0;

  keep(source: Uint8Array, from: number, to: number): Uint8Array {
    const length = to - from;
    const bytes = new Uint8Array(source.buffer, source.byteOffset + from, length);
    if (length > sharedMax) return new Uint8Array(bytes);
    if (this.#used + length > this.#slab.length) {
      this.#slab = Buffer.allocUnsafeSlow(slabBytes);
      this.#used = 0;
    }
    const at = this.#used;
    this.#slab.set(bytes, at);
    this.#used += length;
    return new Uint8Array(this.#slab.buffer, at, length);
  }
}
