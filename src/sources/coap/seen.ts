import type { Clock } from "../../base/clock.ts";

/** A message that was received, and how a copy of it is to be answered. */
export interface SeenMessage {
  readonly key: string;
  readonly digest: number;
  readonly untilMs: number;
  /** What answers a copy: an acknowledgement or a Reset. Undefined: nothing yet, a copy is swallowed. Set with `answer`. */
  reply: Buffer | undefined;
}

/** Rough cost of an entry besides its key and reply: map slot, object, Buffer header. */
const entryBytes = 250;

/**
 * Deduplication (RFC 7252 section 4.5): a message of the same endpoint with the same message id within its lifetime is a copy, and gets
 * the same answer without being handled again. Small sensors begin with the same message id after each reset, from the same port,
 * and their new reading must not pass for a copy; so the bytes must be the same as well (a retransmission is identical).
 *
 * Bounded by count and bytes: beyond, the oldest are forgotten. Whoever floods us from spoofed addresses can so make us take a copy twice,
 * but not refuse anyone.
 */
export class SeenMessages {
  readonly #entries = new Map<string, SeenMessage>();
  readonly #clock: Clock;
  readonly #entriesMax: number;
  readonly #bytesMax: number;
  readonly #onForgotten: () => void;
  #bytes = 0;

  constructor(options: { clock: Clock; entriesMax: number; bytesMax: number; onForgotten?: () => void }) {
    this.#clock = options.clock;
    this.#entriesMax = options.entriesMax;
    this.#bytesMax = options.bytesMax;
    this.#onForgotten = options.onForgotten ?? (() => {});
  }

  get size(): number {
    return this.#entries.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The message that this one is a copy of. @param digest of all its bytes */
  find(key: string, digest: number): SeenMessage | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || entry.digest !== digest || entry.untilMs <= this.#clock.monotonicMs()) return undefined;
    return entry;
  }

  /** Remembers a message that is no copy; an older one with the same key is forgotten. */
  note(key: string, digest: number, lifetimeMs: number): SeenMessage {
    const older = this.#entries.get(key);
    if (older !== undefined) this.#remove(older);
    const nowMs = this.#clock.monotonicMs();
    this.#expire(nowMs);
    const entry: SeenMessage = { key, digest, untilMs: nowMs + lifetimeMs, reply: undefined };
    this.#entries.set(key, entry);
    this.#bytes += entryBytes + key.length;
    this.#trim();
    return entry;
  }

  answer(entry: SeenMessage, reply: Buffer): void {
    const known = this.#entries.get(entry.key) === entry;
    if (known) this.#bytes += reply.length - (entry.reply?.length ?? 0);
    entry.reply = reply;
    if (known) this.#trim();
  }

  /** Its next copy is handled as if it were the first. */
  forget(entry: SeenMessage): void {
    if (this.#entries.get(entry.key) === entry) this.#remove(entry);
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  /** From the oldest on; a Non-confirmable entry behind a longer-lived one waits for it, `find` knows its age. */
  #expire(nowMs: number): void {
    for (const entry of this.#entries.values()) {
      if (entry.untilMs > nowMs) return;
      this.#remove(entry);
    }
  }

  #trim(): void {
    while (this.#entries.size > this.#entriesMax || this.#bytes > this.#bytesMax) {
      const oldest = this.#entries.values().next();
      if (oldest.done) return;
      this.#remove(oldest.value);
      this.#onForgotten();
    }
  }

  #remove(entry: SeenMessage): void {
    this.#entries.delete(entry.key);
    this.#bytes -= entryBytes + entry.key.length + (entry.reply?.length ?? 0);
  }
}
