import { type Delimiter, malformed } from "./delimiter.ts";

/**
 * SLIP (RFC 1055):   [C0] | bytes | C0         C0 inside is sent as DB DC, DB as DB DD
 * Strict: DB before anything else, or at the end, is malformed. RFC 1055's sample code lets it pass, which hands out a damaged frame.
 */
const end = 0xc0;
const escapeByte = 0xdb;
const escapedEnd = 0xdc;
const escapedEscape = 0xdd;

export const slip: Delimiter = {
  byte: end,
  wireBytesMax: (bytes) => bytes * 2,

  decode(raw, from, to, out) {
    let length = 0;
    for (let at = from; at < to; at += 1) {
      let byte = raw[at]!;
      if (byte === escapeByte) {
        at += 1;
        if (at === to) return malformed;
        const escaped = raw[at]!;
        if (escaped === escapedEnd) byte = end;
        else if (escaped !== escapedEscape) return malformed;
      }
      out[length++] = byte;
    }
    return length;
  },

  encode(body, { leading = false } = {}) {
    const wire = new Uint8Array(body.length * 2 + 2);
    let to = 0;
    if (leading) wire[to++] = end;
    for (let at = 0; at < body.length; at += 1) {
      const byte = body[at]!;
      if (byte === end || byte === escapeByte) {
        wire[to++] = escapeByte;
        wire[to++] = byte === end ? escapedEnd : escapedEscape;
      } else wire[to++] = byte;
    }
    wire[to++] = end;
    return wire.subarray(0, to);
  },
};
