import type { Clock } from "../../base/clock.ts";
import { type Block, blockOffset, blockSize } from "../../wire/coap/block.ts";
import type { DropReason } from "./tally.ts";
import { exchangeLifetimeMs } from "./transmission.ts";

interface Upload {
  readonly key: string;
  readonly blocks: Buffer[];
  readonly contentFormat: number | undefined;
  bytes: number;
  untilMs: number;
}

export type UploadStep =
  | { readonly kind: "continue" }
  | { readonly kind: "complete"; readonly body: Buffer }
  /** Not the block that comes next, or of another Content-Format: 4.08 (RFC 7959 section 2.9.2). */
  | { readonly kind: "gap" }
  | { readonly kind: "too-large" }
  /** A block that contradicts its own option: 4.00 (section 2.2). */
  | { readonly kind: "broken" };

export interface UploadLimits {
  /** Of one body. */
  readonly maxPayloadBytes: number;
  readonly maxUploads: number;
  /** Of all unfinished bodies together. */
  readonly maxUploadBytes: number;
}

/**
 * Bodies that arrive block by block (RFC 7959 section 2.5, Block1). The key is made of endpoint and resource, not of the token: libcoap
 * rightly uses a new token for each block. Unfinished ones end with EXCHANGE_LIFETIME after their last block; beyond
 * the limits the one that waits longest is given up, so a sensor can always begin.
 */
export class BlockUploads {
  /** Least recently touched first. */
  readonly #uploads = new Map<string, Upload>();
  readonly #clock: Clock;
  readonly #limits: UploadLimits;
  readonly #onDropped: (reason: DropReason) => void;
  #bytes = 0;

  constructor(options: { clock: Clock; limits: UploadLimits; onDropped: (reason: DropReason) => void }) {
    this.#clock = options.clock;
    this.#limits = options.limits;
    this.#onDropped = options.onDropped;
  }

  get size(): number {
    return this.#uploads.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** @param key endpoint, method, path, query and Request-Tag. @param payload is kept as it is, not copied */
  add(key: string, block: Block, payload: Buffer, contentFormat: number | undefined): UploadStep {
    const nowMs = this.#clock.monotonicMs();
    this.#expire(nowMs);
    const size = blockSize(block.szx);
    // Only the last block may be short, and none may be empty but the only one (RFC 7959 section 2.3).
    if (block.szx === 7 || payload.length > size || (block.more && payload.length !== size)) return { kind: "broken" };
    const known = this.#uploads.get(key);
    if (known !== undefined) this.#remove(known); // put back below, as the most recently touched
    const begins = block.num === 0;
    if (!begins && known === undefined) return { kind: "gap" };
    const upload: Upload =
      begins || known === undefined ? { key, blocks: [], contentFormat, bytes: 0, untilMs: 0 } : known;
    if (blockOffset(block) !== upload.bytes || contentFormat !== upload.contentFormat) {
      this.#keep(upload, nowMs); // a copy that lost its way must not end the upload
      return { kind: "gap" };
    }
    if (upload.bytes + payload.length > this.#limits.maxPayloadBytes) return { kind: "too-large" };
    upload.blocks.push(payload);
    upload.bytes += payload.length;
    if (!block.more)
      return { kind: "complete", body: upload.blocks.length === 1 ? payload : Buffer.concat(upload.blocks) };
    this.#keep(upload, nowMs);
    return { kind: "continue" };
  }

  clear(): void {
    this.#uploads.clear();
    this.#bytes = 0;
  }

  #keep(upload: Upload, nowMs: number): void {
    upload.untilMs = nowMs + exchangeLifetimeMs;
    this.#uploads.set(upload.key, upload);
    this.#bytes += cost(upload);
    while (this.#uploads.size > this.#limits.maxUploads || this.#bytes > this.#limits.maxUploadBytes) {
      const oldest = this.#uploads.values().next();
      if (oldest.done) return;
      this.#remove(oldest.value);
      this.#onDropped("block-evicted");
    }
  }

  #expire(nowMs: number): void {
    for (const upload of this.#uploads.values()) {
      if (upload.untilMs > nowMs) return;
      this.#remove(upload);
      this.#onDropped("block-expired");
    }
  }

  #remove(upload: Upload): void {
    if (this.#uploads.delete(upload.key)) this.#bytes -= cost(upload);
  }
}

/** Blocks of 16 bytes cost more in objects than in content. */
const cost = (upload: Upload): number => upload.bytes + 100 * upload.blocks.length + upload.key.length + 200;
