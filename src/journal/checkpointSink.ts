/** Where a checkpoint's records go: sealed as they are made, written to the staged file piece by piece, so that it never lies in RAM whole. */
import type { OpenFile } from "../base/files.ts";
import { ByteWriter, dataViewOf } from "./bytes.ts";
import { recordHeaderBytes, sealRecord } from "./format.ts";
import { writeAll } from "./groupBytes.ts";
import type { RecordSink } from "./records.ts";

/** So much may be dirty in the page cache: a commit's sync may have to wait for it. */
const unsyncedMaxBytes = 256 * 1024;

export class CheckpointSink implements RecordSink {
  readonly #file: () => OpenFile;
  readonly #seed: number;
  readonly #writer = new ByteWriter(Buffer.alloc(0));
  readonly #pieceBytes: number;
  #buffer: Buffer;
  #view: DataView;
  #used = 0;
  /** Filled, not written. */
  #full: Buffer[] = [];
  #unsynced = 0;
  #waiting = 0;
  /** Bytes written to the file. */
  bytes = 0;
  records = 0;

  /** @param file asked for at each write: the first records are encoded before it is there */
  constructor(file: () => OpenFile, seed: number, pieceBytes: number) {
    this.#file = file;
    this.#seed = seed;
    this.#pieceBytes = pieceBytes;
    this.#buffer = Buffer.allocUnsafeSlow(pieceBytes);
    this.#view = dataViewOf(this.#buffer);
  }

  /** Whether there is enough for a write. */
  get isFull(): boolean {
    return this.#waiting + this.#used >= this.#pieceBytes / 2;
  }

  begin(type: number, flags: number, bound: number): ByteWriter {
    const wanted = bound + recordHeaderBytes;
    if (this.#buffer.length - this.#used < wanted) {
      this.#full.push(this.#buffer.subarray(0, this.#used));
      this.#waiting += this.#used;
      this.#renew(Math.max(this.#pieceBytes, wanted));
      this.#used = 0;
    }
    const writer = this.#writer;
    writer.goTo(this.#buffer, this.#view, this.#used + 8);
    writer.u8(type);
    writer.u8(flags);
    return writer;
  }

  finish(): number {
    const length = this.#writer.at - this.#used;
    this.#buffer.writeUInt32LE(length, this.#used);
    sealRecord(this.#view, this.#used, length, this.#seed);
    this.#used += length;
    this.records += 1;
    return length;
  }

  /** Writes what is there; nothing may be begun meanwhile. @throws errno errors */
  async flush(first?: Buffer): Promise<void> {
    const buffers = [...(first === undefined ? [] : [first]), ...this.#full, this.#buffer.subarray(0, this.#used)];
    const wanted = buffers.filter(({ length }) => length > 0);
    const written = await writeAll(this.#file(), wanted, this.bytes);
    this.#full = [];
    this.#waiting = 0;
    this.#used = 0;
    if (this.#buffer.length > this.#pieceBytes) this.#renew(this.#pieceBytes);
    this.bytes += written;
    this.#unsynced += written;
    if (this.#unsynced < unsyncedMaxBytes) return;
    await this.#file().datasync();
    this.#unsynced = 0;
  }

  #renew(bytes: number): void {
    this.#buffer = Buffer.allocUnsafeSlow(bytes);
    this.#view = dataViewOf(this.#buffer);
  }
}
