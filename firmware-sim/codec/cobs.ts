/**
 * Consistent Overhead Byte Stuffing (Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999): bytes without any zero, so
 * that 0x00 can end a frame. Written here a second time on purpose: the devices are an oracle and share no code with the gateway.
 *
 *   code c | c - 1 bytes without zero | (a zero, unless c = 0xff or the frame ends)
 */
const runMax = 254;

/** Without the delimiter. One byte of overhead for every 254 begun, at least one. */
export function cobsEncode(bytes: Uint8Array): Buffer {
  const out = Buffer.alloc(bytes.length + Math.floor(bytes.length / runMax) + 1);
  let codeAt = 0;
  let end = 1;
  let code = 1;
  bytes.forEach((byte, at) => {
    if (byte !== 0) {
      out[end++] = byte;
      code += 1;
    }
    // A full run needs no group after it when nothing follows.
    if (byte === 0 || (code === runMax + 1 && at + 1 < bytes.length)) {
      out[codeAt] = code;
      codeAt = end++;
      code = 1;
    }
  });
  out[codeAt] = code;
  return out.subarray(0, end);
}

/** The bytes of a frame (its delimiter already taken off), or undefined when it was cut or holds a zero. */
export function cobsDecode(frame: Uint8Array): Buffer | undefined {
  const out = Buffer.alloc(frame.length);
  let end = 0;
  let at = 0;
  while (at < frame.length) {
    const code = frame[at] ?? 0;
    const next = at + code;
    if (code === 0 || next > frame.length) return undefined;
    for (let from = at + 1; from < next; from += 1) {
      const byte = frame[from] ?? 0;
      if (byte === 0) return undefined;
      out[end++] = byte;
    }
    at = next;
    if (code <= runMax && at < frame.length) out[end++] = 0;
  }
  return out.subarray(0, end);
}
