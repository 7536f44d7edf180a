/** A framing whose frames end with one byte that cannot occur inside them, so that a reader finds the next frame after any noise. */
export interface Delimiter {
  /** The byte that ends a frame. */
  readonly byte: number;
  /** Longest form on the wire of `bytes` bytes, the ending delimiter not counted. */
  wireBytesMax(bytes: number): number;
  /**
   * Decodes raw[from, to), which holds no delimiter, into `out` (at least to - from bytes).
   * @returns the number of bytes written, or `malformed`. Never throws.
   */
  decode(raw: Uint8Array, from: number, to: number, out: Uint8Array): number;
  /** The frame on the wire, with the ending delimiter. @throws RangeError when `body` cannot be framed. */
  encode(body: Uint8Array, options?: EncodeOptions): Uint8Array;
}

export interface EncodeOptions {
  /** Puts a delimiter in front as well: it ends whatever noise the receiver has collected. Receivers skip the empty frame. */
  readonly leading?: boolean;
}

/** What `decode` returns for bytes that break the framing's rules. */
export const malformed = -1;
