import { isUtf8 } from "node:buffer";
import { decodeFault } from "./fault.ts";

/**
 * Walks over one CBOR item (RFC 8949) before cbor-x decodes it, and refuses what is malformed or what we do not want to be built:
 *
 *   what cbor-x would do                                          here
 *   bignum tags 2 and 3 in quadratic time (128 KB: 2.5 s)         refused
 *   records, shared references, packed values, bundled strings,   refused: only the tags below pass. An extension that throws could
 *   typed arrays, Error, RegExp, Set, Map                         not close 0xdff9-0xdfff, which cbor-x handles before extensions
 *   recursion until the stack overflows                           depth limit
 *   U+FFFD for invalid UTF-8                                      refused, as in JSON
 *
 * Tags that pass: 0 and 1 (time), 4 (decimal fraction of two integers), 21-24 and 32-37 (hints; the content counts), 55799 (marks CBOR).
 */
export class CborScan {
  readonly #payload: Uint8Array;
  readonly #where: string;
  readonly #maxDepth: number;
  #at = 0;
  #plain = true;

  constructor(payload: Uint8Array, where: string, maxDepth: number) {
    this.#payload = payload;
    this.#where = where;
    this.#maxDepth = maxDepth;
  }

  /** True when cbor-x's value is plain JSON as it is. @throws TidegateError TG_DECODE, also for bytes after the item */
  run(): boolean {
    this.#item(0);
    if (this.#at !== this.#payload.length) throw this.#fault(`${this.#payload.length - this.#at} bytes after the item`);
    return this.#plain;
  }

  #item(depth: number): void {
    const initial = this.#next();
    const major = initial >> 5;
    const info = initial & 0x1f;
    if (info === 31) return this.#indefinite(major, depth);
    if (major === 7) return this.#simple(info);
    const argument = this.#argument(info);
    switch (major) {
      case 0:
      case 1:
        if (info === 27) this.#plain = false; // cbor-x makes a BigInt of every 8-byte integer
        return;
      case 2:
        this.#plain = false;
        return this.#skip(argument);
      case 3:
        return this.#text(argument);
      case 4:
        return this.#container(argument, 1, depth);
      case 5:
        return this.#container(argument, 2, depth);
      default:
        return this.#tag(argument, depth);
    }
  }

  /** @param perEntry 1: array, 2: map. Each entry takes that many bytes at least, so a huge claim ends here. */
  #container(entries: number, perEntry: 1 | 2, depth: number): void {
    if (entries > (this.#payload.length - this.#at) / perEntry)
      throw this.#fault("more entries claimed than bytes are left");
    this.#checkDepth(depth);
    for (let left = entries; left > 0; left -= 1) {
      if (perEntry === 2) this.#key();
      this.#item(depth + 1);
    }
  }

  #indefinite(major: number, depth: number): void {
    if (major === 7) throw this.#fault("break outside of an indefinite-length item");
    if (major === 2 || major === 3) throw this.#fault("strings of indefinite length are not supported");
    if (major !== 4 && major !== 5) throw this.#fault("malformed length");
    this.#checkDepth(depth);
    while (this.#peek() !== 0xff) {
      if (major === 5) this.#key();
      this.#item(depth + 1);
    }
    this.#at += 1;
  }

  /** Keys that have one obvious text: strings, integers, floats, true, false, null. */
  #key(): void {
    const major = this.#peek() >> 5;
    if (major !== 0 && major !== 1 && major !== 3 && major !== 7)
      throw this.#fault("map key is neither text nor a number");
    const wasPlain = this.#plain;
    this.#item(this.#maxDepth); // cannot nest
    this.#plain = wasPlain; // a key is made a string whatever it was
  }

  #tag(tag: number, depth: number): void {
    this.#checkDepth(depth); // tags nest as arrays do
    const next = this.#peek();
    this.#plain = false;
    if (tag === 0) {
      if (next >> 5 !== 3) throw this.#fault("tag 0 wants text");
    } else if (tag === 1) {
      if (next >> 5 > 1 && !(next >= 0xf9 && next <= 0xfb)) throw this.#fault("tag 1 wants a number");
    } else if (tag === 4) {
      if (next !== 0x82) throw this.#fault("tag 4 wants an array of two integers");
      this.#at += 1;
      this.#integer();
      this.#integer();
      return;
    } else if (!((tag >= 21 && tag <= 24) || (tag >= 32 && tag <= 37) || tag === 55_799)) {
      throw this.#fault(`tag ${tag} is not supported`);
    }
    this.#item(depth + 1);
  }

  #integer(): void {
    if (this.#peek() >> 5 > 1) throw this.#fault("tag 4 wants an array of two integers");
    this.#item(this.#maxDepth);
  }

  #simple(info: number): void {
    if (info < 20 || info === 24) throw this.#fault("unassigned simple value");
    if (info <= 22) return;
    if (info === 23) {
      this.#plain = false; // undefined
      return;
    }
    if (info > 27) throw this.#fault("reserved initial byte");
    const at = this.#at;
    this.#skip(2 ** (info - 24));
    const head = ((this.#payload[at] ?? 0) << 8) | (this.#payload[at + 1] ?? 0);
    const exponent = info === 25 ? 0x7c00 : info === 26 ? 0x7f80 : 0x7ff0;
    if ((head & exponent) === exponent) this.#plain = false; // NaN or infinite
  }

  #text(length: number): void {
    const from = this.#at;
    this.#skip(length);
    for (let at = from; at < this.#at; at += 1) {
      if ((this.#payload[at] ?? 0) < 0x80) continue;
      if (!isUtf8(this.#payload.subarray(at, this.#at))) throw this.#fault("text is not valid UTF-8");
      return;
    }
  }

  /** The number after the initial byte; beyond 2^53 not exact, which is enough for a comparison with what is left. */
  #argument(info: number): number {
    if (info < 24) return info;
    if (info > 27) throw this.#fault("reserved initial byte");
    let value = 0;
    for (let bytes = 2 ** (info - 24); bytes > 0; bytes -= 1) value = value * 256 + this.#next();
    return value;
  }

  #peek(): number {
    const byte = this.#payload[this.#at];
    if (byte === undefined) throw this.#fault("truncated");
    return byte;
  }

  #next(): number {
    const byte = this.#peek();
    this.#at += 1;
    return byte;
  }

  #skip(bytes: number): void {
    if (bytes > this.#payload.length - this.#at) throw this.#fault("truncated");
    this.#at += bytes;
  }

  #checkDepth(depth: number): void {
    if (depth >= this.#maxDepth) throw this.#fault(`nested deeper than ${this.#maxDepth} levels`);
  }

  #fault(what: string): Error {
    return decodeFault(`${this.#where}: CBOR at offset ${this.#at}: ${what}`);
  }
}
