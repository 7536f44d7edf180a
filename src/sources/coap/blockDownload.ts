import { type Block, blockOffset, blockSize, decodeBlock } from "../../wire/coap/block.ts";
import type { CoapMessage } from "../../wire/coap/message.ts";
import { firstOption, optionNumbers } from "../../wire/coap/options.ts";

export type DownloadStep =
  | { readonly kind: "complete"; readonly body: Buffer }
  /** The block to ask for next. */
  | { readonly kind: "next"; readonly block: Block }
  | { readonly kind: "too-large" }
  | { readonly kind: "broken"; readonly why: string };

/** A response's body, put together of the blocks that it came in (RFC 7959 section 2.4, Block2). */
export class BlockDownload {
  readonly #blocks: Buffer[] = [];
  readonly #maxBytes: number;
  #etag: string | undefined;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  add(message: CoapMessage): DownloadStep {
    const option = firstOption(message, optionNumbers.block2);
    const begins = this.#blocks.length === 0;
    const block = option === undefined ? { num: 0, more: false, szx: 6 } : decodeBlock(option);
    if (block === undefined || block.szx === 7) return { kind: "broken", why: "a wrong Block2 option" };
    if (option === undefined && !begins) return { kind: "broken", why: "no Block2 option in a later block" };
    const size = blockSize(block.szx);
    const wrongSize = block.more
      ? message.payload.length !== size
      : option !== undefined && message.payload.length > size;
    if (wrongSize) return { kind: "broken", why: "a block of a wrong size" };
    if (blockOffset(block) !== this.#bytes) return { kind: "broken", why: "not the block that was asked for" };
    const etag = firstOption(message, optionNumbers.etag)?.toString("hex");
    // Blocks of two representations must not be mixed (section 2.4).
    if (!begins && etag !== this.#etag) return { kind: "broken", why: "the value changed while it was read" };
    this.#etag = etag;
    if (this.#bytes + message.payload.length > this.#maxBytes) return { kind: "too-large" };
    this.#blocks.push(message.payload);
    this.#bytes += message.payload.length;
    if (block.more) return { kind: "next", block: { num: this.#bytes / size, more: false, szx: block.szx } };
    return { kind: "complete", body: this.#blocks.length === 1 ? message.payload : Buffer.concat(this.#blocks) };
  }
}
