import { closeSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";

const pieceBytes = 64 * 1024;

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
      const piece = Buffer.allocUnsafe(Math.min(pieceBytes, bytesMax + 1 - length));
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

/** `readBounded` that lets others run meanwhile. Rejects with errno errors. */
export async function readBoundedLater(path: string, bytesMax: number): Promise<Buffer | undefined> {
  const file = await open(path, "r");
  try {
    const pieces: Buffer[] = [];
    let length = 0;
    for (;;) {
      const piece = Buffer.allocUnsafe(Math.min(pieceBytes, bytesMax + 1 - length));
      const { bytesRead } = await file.read(piece);
      if (bytesRead === 0) return Buffer.concat(pieces, length);
      pieces.push(piece.subarray(0, bytesRead));
      length += bytesRead;
      if (length > bytesMax) return undefined;
    }
  } finally {
    await file.close();
  }
}
