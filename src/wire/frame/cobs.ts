import { type Delimiter, malformed } from "./delimiter.ts";

/**
 * Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999):   block* | 00
 *
 *   block   code | code - 1 bytes, none of them 00        code 01 to FE: a 00 follows the bytes, unless the frame ends here
 *                                                         code FF:       254 bytes, no 00 follows
 */
export const cobs: Delimiter = {
  byte: 0,
  wireBytesMax: (bytes) => bytes + Math.floor(bytes / 254) + 1,

  decode(raw, from, to, out) {
    let length = 0;
    let at = from;
    while (at < to) {
      const code = raw[at]!;
      const end = at + code;
      // A code that points past the end: bytes were lost, or a code byte was hit.
      if (code === 0 || end > to) return malformed;
      for (at += 1; at < end; at += 1) out[length++] = raw[at]!;
      if (code !== 0xff && end < to) out[length++] = 0;
    }
    return length;
  },

  encode(body, { leading = false } = {}) {
    const wire = new Uint8Array(body.length + Math.floor(body.length / 254) + 3);
    let codeAt = leading ? 1 : 0;
    let to = codeAt + 1;
    for (let at = 0; at < body.length; at += 1) {
      const byte = body[at]!;
      if (byte !== 0) wire[to++] = byte;
      if (byte === 0 || (to - codeAt === 0xff && at + 1 < body.length)) {
        wire[codeAt] = to - codeAt;
        codeAt = to++;
      }
    }
    wire[codeAt] = to - codeAt;
    return wire.subarray(0, to + 1);
  },
};
