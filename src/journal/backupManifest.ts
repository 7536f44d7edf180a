/**
 * What a backup holds. Its manifest is the last thing to be written, so a backup that was cut short has none; while it is being made, the staged
 * name is there instead, so that nobody takes half of it for a data folder.
 */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Files } from "../base/files.ts";
import { checkpointNamePattern, segmentNamePattern } from "./format.ts";
import { readPiece } from "./segmentReader.ts";

export const manifestName = "backup.json";
export const stagedManifestName = "backup.json.tmp";
const manifestFormat = 1;
/** A manifest has 80 bytes a file; the store's segment numbers end long before. */
const manifestBytesMax = 16 * 1024 * 1024;
export const pieceBytes = 256 * 1024;

export interface BackedUpFile {
  readonly name: string;
  readonly bytes: number;
  /** Of all its bytes, 8 hex digits. */
  readonly crc32: string;
}

export interface Manifest {
  /** Of this file and of how a backup is laid out. */
  readonly format: number;
  /** Store id, hex. */
  readonly store: string;
  readonly epoch: number;
  readonly gateway: string;
  readonly version: string;
  /** RFC 3339. */
  readonly takenAt: string;
  /** The last group in it, and the position after its last record. */
  readonly group: number;
  readonly position: number;
  readonly files: readonly BackedUpFile[];
}

const hex = (crc: number): string => crc.toString(16).padStart(8, "0");

/** With a checksum of its own, or a flipped bit in an epoch would go unseen. */
export function encodeManifest(manifest: Omit<Manifest, "format">): Buffer {
  const content = { format: manifestFormat, ...manifest };
  return Buffer.from(`${JSON.stringify({ ...content, crc32: hex(crc32(JSON.stringify(content))) }, undefined, 2)}\n`);
}

/** What is wrong with it, or the manifest. @throws TidegateError TG_STORE_FOREIGN when a newer version wrote it */
function decodeManifest(text: string): Manifest | string {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return `${manifestName} is not JSON any more`;
  }
  if (typeof parsed !== "object" || parsed === null) return `${manifestName} is not a manifest`;
  const { crc32: crc, ...content } = parsed as Record<string, unknown>;
  if (crc !== hex(crc32(JSON.stringify(content)))) return `${manifestName} was changed since it was written`;
  if (typeof content["format"] === "number" && content["format"] > manifestFormat) {
    throw new TidegateError(
      "TG_STORE_FOREIGN",
      `this backup was made by a newer tidegate (${String(content["version"])}): run that version. Nothing was changed`,
    );
  }
  return content as unknown as Manifest; // its checksum says that we wrote it
}

export interface ReadCheck {
  readonly bytes: number;
  readonly crc32: string;
  /** Of `bytes`, those that the disk could not read; zeros in the checksum. */
  readonly unreadable: number;
}

/**
 * Reads a file up to `bytes`, in pieces, and hands each of them on.
 * @throws errno errors; whatever `take` throws
 */
export async function readThrough(
  files: Files,
  path: string,
  bytes: number,
  take: (piece: Buffer, at: number) => Promise<void> | undefined,
): Promise<ReadCheck> {
  const file = await files.open(path, "read");
  const piece = Buffer.allocUnsafeSlow(Math.max(1, Math.min(pieceBytes, bytes)));
  let [at, crc, unreadable] = [0, 0, 0];
  try {
    while (at < bytes) {
      const wanted = Math.min(piece.length, bytes - at);
      const { count, bad } = await readPiece(file, piece.subarray(0, wanted), at);
      if (count === 0) break;
      if (bad) unreadable += count;
      const read = piece.subarray(0, count);
      crc = crc32(read, crc);
      await take(read, at);
      at += count;
    }
  } finally {
    await file.close();
  }
  return { bytes: at, crc32: hex(crc), unreadable };
}

async function readWhole(files: Files, path: string): Promise<Buffer> {
  const file = await files.open(path, "read");
  try {
    const buffer = Buffer.alloc(await file.size());
    let filled = 0;
    for (let count = 1; count > 0 && filled < buffer.length; filled += count) {
      count = await file.read(buffer.subarray(filled), filled);
    }
    return buffer.subarray(0, filled);
  } finally {
    await file.close();
  }
}

/** @returns undefined when there is none. @throws TidegateError TG_BACKUP_BROKEN, TG_STORE_FOREIGN; errno errors */
export async function readManifest(files: Files, dir: string): Promise<Manifest | undefined> {
  const names = await files.readdir(dir);
  if (!names.includes(manifestName)) {
    if (!names.includes(stagedManifestName)) return undefined;
    throw broken(dir, ["it was never finished (there is no manifest)"]);
  }
  const path = join(dir, manifestName);
  if ((await files.stat(path)).size > manifestBytesMax) throw broken(dir, [`${manifestName} is too large`]);
  const read = decodeManifest((await readWhole(files, path)).toString("utf8"));
  if (typeof read === "string") throw broken(dir, [read]);
  return read;
}

/**
 * Reads every byte of the backup. @param debris files that a start from it, cut short, left half made
 * @throws TidegateError TG_BACKUP_BROKEN, naming what is wrong
 */
export async function verifyBackup(
  files: Files,
  dir: string,
  manifest: Manifest,
  debris: readonly string[],
): Promise<void> {
  const faults: string[] = [];
  for (const { name, bytes, crc32: crc } of manifest.files) {
    const fault = await checkFile(files, join(dir, name), bytes, crc);
    if (fault !== undefined) faults.push(`${name} ${fault}`);
  }
  const known = new Set([...debris, ...manifest.files.map(({ name }) => name)]);
  for (const name of await files.readdir(dir)) {
    const ours = segmentNamePattern.test(name) || checkpointNamePattern.test(name);
    if (ours && !known.has(name)) faults.push(`${name} is not part of the backup (another store's files lie here too)`);
  }
  if (faults.length > 0) throw broken(dir, faults);
}

async function checkFile(files: Files, path: string, bytes: number, crc: string): Promise<string | undefined> {
  const { isFile, size } = await files.stat(path).catch(() => ({ isFile: false, size: 0 }));
  if (!isFile) return "is missing";
  if (size !== bytes) return `has ${size} bytes, not ${bytes}`;
  try {
    const read = await readThrough(files, path, bytes, () => undefined);
    return read.crc32 === crc ? undefined : "has other bytes than were saved";
  } catch (error) {
    return `cannot be read (${messageOf(error)})`;
  }
}

const faultsShown = 5;

function broken(dir: string, faults: readonly string[]): TidegateError {
  const shown = faults.slice(0, faultsShown).join("; ");
  const more = faults.length > faultsShown ? `; and ${faults.length - faultsShown} more` : "";
  return new TidegateError(
    "TG_BACKUP_BROKEN",
    `data folder ${dir} is a backup that is not whole: ${shown}${more}. Nothing was changed. Copy the backup again into an empty folder, or start from another one`,
  );
}
