import type { Delimiter } from "./delimiter.ts";

/**
 * Text lines:   text | [CR] | LF
 * One CR before the LF is part of the line end, any other belongs to the line. The bytes are not checked: that is the codec's business.
 */
const lf = 0x0a;
const cr = 0x0d;

export const lines: Delimiter = {
  byte: lf,
  wireBytesMax: (bytes) => bytes + 1,

  decode(raw, from, to, out) {
    const end = to > from && raw[to - 1] === cr ? to - 1 : to;
    for (let at = from; at < end; at += 1) out[at - from] = raw[at]!;
    return end - from;
  },

  encode(body, { leading = false } = {}) {
    // Two lines are two frames: whoever may send one command must not be able to hide a second one in it.
    if (body.includes(lf)) throw new RangeError("a line must not contain a line feed");
    const head = leading ? 1 : 0;
    const wire = new Uint8Array(head + body.length + 1);
    wire.set(body, head);
    if (leading) wire[0] = lf;
    wire[wire.length - 1] = lf;
    return wire;
  },
};
