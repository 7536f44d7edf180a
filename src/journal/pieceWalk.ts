/** Walks the records of a file that may be larger than what should be in RAM, piece by piece. */
import type { OpenFile } from "../base/files.ts";
import { RecordWalker } from "./walk.ts";

export class PieceWalk {
  readonly #file: OpenFile;
  readonly #walker = new RecordWalker();
  readonly #seed: number;
  readonly #pieceBytes: number;
  #to: number;
  /** Offset of the first byte in RAM, and of the one after the last. */
  #start: number;
  #end: number;
  #buffer = Buffer.alloc(0);
  #wanted = 0;

  /** @param to offset where the records end */
  constructor(file: OpenFile, from: number, to: number, seed: number, pieceBytes: number) {
    this.#file = file;
    this.#start = from;
    this.#end = from;
    this.#to = to;
    this.#seed = seed;
    this.#pieceBytes = pieceBytes;
  }

  /** The piece in RAM; `step` is over it. Valid until `read`. */
  get buffer(): Buffer {
    return this.#buffer;
  }

  /** The record that `step` found. */
  get record(): RecordWalker {
    return this.#walker;
  }

  /** Offset of that record in the file. */
  get offset(): number {
    return this.#start + this.#walker.at;
  }

  /** Bytes in RAM. */
  get pieceBytes(): number {
    return this.#end - this.#start;
  }

  /** Fetches the next piece. False: the records have ended. @throws errno errors */
  async read(): Promise<boolean> {
    const from = this.#start + this.#walker.next;
    const wanted = Math.min(Math.max(this.#pieceBytes, this.#wanted), this.#to - from);
    if (wanted <= 0) return false;
    if (this.#buffer.length < wanted) this.#buffer = Buffer.allocUnsafeSlow(wanted);
    let filled = 0;
    while (filled < wanted) {
      const count = await this.#file.read(this.#buffer.subarray(filled, wanted), from + filled);
      if (count === 0) {
        this.#to = from + filled; // cut short: what is missing was counted when it was found
        break;
      }
      filled += count;
    }
    this.#start = from;
    this.#end = from + filled;
    this.#wanted = 0;
    this.#walker.start(this.#buffer, 0, filled, this.#to - this.#end, this.#seed);
    return filled > 0;
  }

  /** The next record of the piece in RAM. */
  step(): boolean {
    const found = this.#walker.step();
    if (found === "more") this.#wanted = this.#walker.wanted;
    return found === "record";
  }
}
