import { closeSync, openSync, readSync } from "node:fs";

/**
 * A file's bytes, whatever its size is said to be: what a pipe (`-c <(...)`) or a device gives is not known before. Undefined: more than `bytesMax`.
 * @throws errno errors
 */
export function readBounded(path: string, bytesMax: number): Buffer | undefined {
  const file = openSync(path, "r");
  try {
    const pieces: Buffer[] = [];
    let length = 0;
    for (;;) {
      const piece = Buffer.allocUnsafe(Math.min(64 * 1024, bytesMax + 1 - length));
      const read = readSync(file, piece);
      if (read === 0) return Buffer.concat(pieces, length);
      pieces.push(piece.subarray(0, read));
      length += read;
      if (length > bytesMax) return undefined;
    }
  } finally {
    closeSync(file);
  }
}
