import type { Duplex } from "node:stream";
import type { Clock } from "../base/clock.ts";
import type { Counter } from "../base/meter.ts";
import { Pieces } from "./pieces.ts";
import type { TopicAliases } from "./topicAliases.ts";

/**
 * With so much collected a write costs no more for each message than at the end of the turn, and a turn can bring far more than `limit`: libuv
 * reads up to 2 MB of each publisher in one. Only while the socket takes it, else the pieces would just pile up there.
 */
const earlyBytes = 64 * 1024;

/**
 * What is to be written to one connection, collected during an event-loop turn and written with one call. Bytes are not copied when
 * they come: a piece is a range of somebody's buffer, and a range that continues the last one only moves its end. So when
 * everything that one publisher sent goes to a subscriber, its whole chunk is passed on as one piece.
 */
export class Outbox {
  readonly #socket: Duplex;
  readonly #flusher: Flusher;
  readonly #limit: number;
  /** Lent by the flusher while there is something to be written. */
  #pieces: Pieces | undefined;
  #queued = 0;
  #unsent = 0;
  /** The socket took the last write at once, so that the bytes of the next one may be lent to it. TLS and WebSockets never do. */
  #prompt = false;
  #closed = false;
  /** Undefined: the client takes none. */
  aliases: TopicAliases | undefined;

  readonly #sent: Counter;
  readonly #owner: { onRoom(): void };
  /** Somebody was told that it is full and waits for room. */
  #blocked = false;
  readonly #onWritten = (): void => this.#written();

  /** @param limit bytes; see `full`. @param sent counts the bytes written. @param owner told when it is no longer full */
  constructor(socket: Duplex, flusher: Flusher, limit: number, sent: Counter, owner: { onRoom(): void }) {
    this.#socket = socket;
    this.#flusher = flusher;
    this.#limit = limit;
    this.#sent = sent;
    this.#owner = owner;
  }

  /** Bytes that the socket has not got rid of yet. */
  get bytes(): number {
    return this.#queued + this.#socket.writableLength;
  }

  /** True beyond the limit: QoS 0 is dropped, QoS 1 and 2 wait. */
  get full(): boolean {
    if (this.#queued + this.#unsent < this.#limit) return false;
    this.#unsent = this.#socket.writableLength;
    if (this.#queued + this.#unsent < this.#limit) return false;
    this.#blocked = true;
    return true;
  }

  /** So many bytes may be added before it is full; there may be room for more than was seen last. */
  get room(): number {
    return this.#limit - this.#queued - this.#unsent;
  }

  /** There is room, and what is passed on needs no alias. */
  get plain(): boolean {
    return this.aliases === undefined && !this.full;
  }

  /** Adds bytes start..end of `source`, which must never change again. */
  append(source: Buffer, start: number, end: number): void {
    if (this.#closed) return;
    this.#queued += end - start;
    const pieces = this.#open();
    if (pieces.append(source, start, end)) this.aliases?.taken(source);
    if (this.#queued >= earlyBytes && this.#unsent === 0) this.flush();
  }

  /**
   * Adds a PUBLISH of QoS 1 or 2, bytes start..end of `source`, with a packet id of its own at `idAt` of the packet.
   * @param count so many of one size side by side: those after the first get the ids after `packetId`
   */
  appendWithId(source: Buffer, start: number, end: number, idAt: number, packetId: number, count = 1): void {
    if (this.#closed) return;
    this.#queued += end - start;
    if (this.#open().append(source, start, end, idAt, packetId, count)) this.aliases?.taken(source);
  }

  /**
   * Adds a four-byte acknowledgement: the only packets so frequent that a buffer for each would show.
   * @param count so many, of `packetId` and the ids after it
   */
  appendAck(firstByte: number, packetId: number, count = 1): void {
    if (this.#closed) return;
    this.#queued += 4 * count;
    this.#open().appendAck(firstByte, packetId, count);
  }

  /** Writes now. Called by the flusher, and before the end. */
  flush(): void {
    const pieces = this.#pieces;
    if (pieces === undefined) return;
    const bytes = this.#queued;
    const out = pieces.whole() ?? this.#joined(pieces, bytes);
    this.#queued = 0;
    this.#forget(pieces);
    this.#socket.write(out, this.#onWritten); // not the drain event: below the socket's own mark there is none
    this.#sent.value += bytes;
    this.#prompt = this.#socket.writableLength === 0;
    if (!this.#prompt) this.#flusher.lent(out);
    this.#written();
  }

  #written(): void {
    this.#unsent = this.#socket.writableLength;
    if (!this.#blocked || this.#closed || this.#queued + this.#unsent >= this.#limit) return;
    this.#blocked = false;
    this.#owner.onRoom();
  }

  /** Drops what is queued; nothing is written any more. */
  close(): void {
    this.#closed = true;
    this.#queued = 0;
    if (this.#pieces !== undefined) this.#forget(this.#pieces);
  }

  #open(): Pieces {
    if (this.#pieces === undefined) {
      this.#pieces = this.#flusher.borrow();
      this.#flusher.add(this);
    }
    return this.#pieces;
  }

  #forget(pieces: Pieces): void {
    this.#pieces = undefined;
    this.#flusher.giveBack(pieces);
  }

  #joined(pieces: Pieces, bytes: number): Buffer {
    // From no pool where the socket may hold it: a small slice must not keep others' bytes alive.
    const out = (this.#prompt ? this.#flusher.lend(bytes) : undefined) ?? Buffer.allocUnsafeSlow(bytes);
    pieces.joinInto(out);
    return out;
  }
}

/** How long writes may take in one turn of the event loop, and after how many the clock is asked. */
const turnMs = 4;
const askEvery = 64;

/** What may be lent for one write: what makes a write early, and a packet of some size more. */
const slabBytes = earlyBytes + 16 * 1024;
/** Lists for so many pieces are kept for the next turns: making them anew was a tenth of the garbage. Kept here, not by each of many clients. */
const keptPieces = 32 * 1024;

/**
 * Writes all outboxes that got something in this turn of the event loop, after its poll phase. One per broker. It lends them the bytes that they
 * write: a socket with room takes them before `write` returns, so the same memory serves the next write. And the lists of what is to be written.
 */
export class Flusher {
  #outboxes: Outbox[] = [];
  #spare: Outbox[] | undefined;
  #scheduled = false;
  #slab: Buffer | undefined;
  readonly #lists: Pieces[] = [];
  /** Of `lists`, together. */
  #room = 0;
  readonly #run = (): void => {
    this.#scheduled = false;
    this.flush();
  };
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(outbox: Outbox): void {
    this.#outboxes.push(outbox);
    this.#schedule();
  }

  /** Bytes to be filled and written before anything else is asked for, or undefined: so many are not lent. */
  lend(bytes: number): Buffer | undefined {
    if (bytes > slabBytes) return undefined;
    this.#slab ??= Buffer.allocUnsafeSlow(slabBytes);
    return this.#slab.subarray(0, bytes);
  }

  /** A socket has kept `bytes`: if they were lent, their slab is its now. That happens once to a socket that becomes slow, not at each of its writes. */
  lent(bytes: Buffer): void {
    if (bytes.buffer === this.#slab?.buffer) this.#slab = undefined;
  }

  borrow(): Pieces {
    const pieces = this.#lists.pop();
    if (pieces === undefined) return new Pieces();
    this.#room -= pieces.room;
    return pieces;
  }

  giveBack(pieces: Pieces): void {
    pieces.forget();
    if (this.#room + pieces.room > keptPieces) return;
    this.#room += pieces.room;
    this.#lists.push(pieces);
  }

  /** Writes what there is now, not at the end of the turn; what takes too long is left for the next one. */
  flush(): void {
    const outboxes = this.#outboxes;
    this.#outboxes = this.#spare ?? [];
    this.#spare = undefined; // a stream that is no socket may bring more in the middle of its write
    const written = this.#writeSome(outboxes);
    if (written < outboxes.length) {
      this.#outboxes = [...outboxes.slice(written), ...this.#outboxes];
      this.#schedule();
    }
    outboxes.length = 0;
    this.#spare = outboxes;
  }

  /** Returns how many. A write is a system call, and a message to ten thousand subscribers is as many of them. */
  #writeSome(outboxes: readonly Outbox[]): number {
    let endMs = Number.POSITIVE_INFINITY;
    for (let at = 0; at < outboxes.length; at += 1) {
      if (at > 0 && at % askEvery === 0) {
        const nowMs = this.#clock.monotonicMs();
        if (nowMs >= endMs) return at;
        if (at === askEvery) endMs = nowMs + turnMs;
      }
      outboxes[at]?.flush();
    }
    return outboxes.length;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#run);
  }
}
