import type { Duplex } from "node:stream";
import type { Clock } from "../base/clock.ts";
import type { Counter } from "../base/meter.ts";
import type { TopicAliases } from "./topicAliases.ts";

/**
 * With so much collected a write costs no more for each message than at the end of the turn, and a turn can bring far more than `limit`: libuv
 * reads up to 2 MB of each publisher in one. Only while the socket takes it, else the pieces would just pile up there.
 */
const earlyBytes = 64 * 1024;
/** Numbers kept of a piece: start, end, where its packet id goes (-1: nowhere; the frame is shared, the id is not), packet id. */
const marksEach = 4;
/** The lists of so many pieces are kept for the next turn: making them anew for each was a tenth of the garbage. */
const keptPieces = 64;

/**
 * What is to be written to one connection, collected during an event-loop turn and written with one call. Bytes are not copied when
 * they come: a piece is a range of somebody's buffer, and a range that continues the last one only moves its end. So when
 * everything that one publisher sent goes to a subscriber, its whole chunk is passed on as one piece.
 */
export class Outbox {
  readonly #socket: Duplex;
  readonly #flusher: Flusher;
  readonly #limit: number;
  /** Of each piece; undefined: an acknowledgement, whose `start` is its first byte. */
  #sources: Array<Buffer | undefined> = [];
  #marks: number[] = [];
  #count = 0;
  #last: Buffer | undefined;
  #queued = 0;
  #unsent = 0;
  /** The socket took the last write at once, so that the bytes of the next one may be lent to it. TLS and WebSockets never do. */
  #prompt = false;
  #dirty = false;
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

  /** There is room, and what is passed on needs no alias. */
  get plain(): boolean {
    return this.aliases === undefined && !this.full;
  }

  /** Adds bytes start..end of `source`, which must never change again. */
  append(source: Buffer, start: number, end: number): void {
    this.#queued += end - start;
    const lastEnd = (this.#count - 1) * marksEach + 1;
    if (source === this.#last && this.#marks[lastEnd] === start) {
      this.#marks[lastEnd] = end;
    } else {
      this.#piece(source, start, end, -1, 0);
      this.#last = source;
    }
    if (this.#queued >= earlyBytes && this.#unsent === 0) this.flush();
  }

  /** Adds a PUBLISH of QoS 1 or 2, bytes start..end of `source`, with a packet id of its own at `idAt` of the packet. */
  appendWithId(source: Buffer, start: number, end: number, idAt: number, packetId: number): void {
    this.#queued += end - start;
    this.#piece(source, start, end, idAt, packetId);
  }

  /** Adds a four-byte acknowledgement: the only packets so frequent that a buffer for each would show. */
  appendAck(firstByte: number, packetId: number): void {
    this.#queued += 4;
    this.#piece(undefined, firstByte, 4, -1, packetId);
  }

  /** Writes now. Called by the flusher, and before the end. */
  flush(): void {
    this.#dirty = false;
    if (this.#queued === 0 || this.#closed) return;
    const bytes = this.#queued;
    const out = (this.#count === 1 ? this.#whole() : undefined) ?? this.#joined(bytes);
    this.#queued = 0;
    this.#forget();
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
    this.#last = undefined;
    this.#sources = [];
    this.#marks = [];
    this.#count = 0;
  }

  #piece(source: Buffer | undefined, start: number, end: number, patchAt: number, patchId: number): void {
    if (this.#closed) return;
    this.#last = undefined;
    const at = this.#count * marksEach;
    this.#sources[this.#count] = source;
    this.#count += 1;
    this.#marks[at] = start;
    this.#marks[at + 1] = end;
    this.#marks[at + 2] = patchAt;
    this.#marks[at + 3] = patchId;
    if (this.aliases !== undefined) this.aliases.taken(source);
    if (!this.#dirty) {
      this.#dirty = true;
      this.#flusher.add(this);
    }
  }

  #forget(): void {
    this.#last = undefined;
    if (this.#count > keptPieces) {
      this.#sources = [];
      this.#marks = [];
    } else for (let at = 0; at < this.#count; at += 1) this.#sources[at] = undefined; // the marks are written over
    this.#count = 0;
  }

  /** The only piece, to go out as it is; undefined when it cannot, or would keep a much larger buffer alive in a slow socket. */
  #whole(): Buffer | undefined {
    const source = this.#sources[0];
    const [start = 0, end = 0, patchAt = -1] = this.#marks;
    if (source === undefined || patchAt >= 0 || (end - start) * 8 < source.buffer.byteLength) return undefined;
    return start === 0 && end === source.length ? source : source.subarray(start, end);
  }

  #joined(bytes: number): Buffer {
    // From no pool where the socket may hold it: a small slice must not keep others' bytes alive.
    const out = (this.#prompt ? this.#flusher.lend(bytes) : undefined) ?? Buffer.allocUnsafeSlow(bytes);
    let at = 0;
    let copied = 0; // of `out`: all bytes before it are there but for packet ids
    for (let index = 0; index < this.#count; index += 1) {
      const source = this.#sources[index];
      const start = this.#marks[index * marksEach] ?? 0;
      const end = this.#marks[index * marksEach + 1] ?? 0;
      const id = this.#marks[index * marksEach + 3] ?? 0;
      if (source === undefined) {
        out[at] = start;
        out[at + 1] = 2;
        out[at + 2] = id >> 8;
        out[at + 3] = id & 0xff;
        at += 4;
        continue;
      }
      if (at >= copied) copied = at + copyRange(source, start, this.#endOfRun(index), out, at);
      const patchAt = this.#marks[index * marksEach + 2] ?? -1;
      if (patchAt >= 0) {
        out[at + patchAt] = id >> 8;
        out[at + patchAt + 1] = id & 0xff;
      }
      at += end - start;
    }
    return out;
  }

  /** Where the bytes end that begin with this piece and go on in the pieces after it: a chunk of PUBLISH that differ in their packet ids only. */
  #endOfRun(index: number): number {
    const source = this.#sources[index];
    let end = this.#marks[index * marksEach + 1] ?? 0;
    for (let next = index + 1; next < this.#count; next += 1) {
      if (this.#sources[next] !== source || this.#marks[next * marksEach] !== end) break;
      end = this.#marks[next * marksEach + 1] ?? end;
    }
    return end;
  }
}

/**
 * A loop is faster than the call into C++ for the short packets that are most of the traffic (measured: up to about 100 bytes).
 * @returns how many bytes
 */
function copyRange(source: Buffer, start: number, end: number, target: Buffer, at: number): number {
  if (end - start > 96) return source.copy(target, at, start, end);
  let to = at;
  for (let from = start; from < end; from += 1) target[to++] = source[from] as number;
  return end - start;
}

/** How long writes may take in one turn of the event loop, and after how many the clock is asked. */
const turnMs = 4;
const askEvery = 64;

/** What may be lent for one write: what makes a write early, and a packet of some size more. */
const slabBytes = earlyBytes + 16 * 1024;

/**
 * Writes all outboxes that got something in this turn of the event loop, after its poll phase. One per broker. It lends them the bytes that they
 * write: a socket with room takes them before `write` returns, so the same memory serves the next write.
 */
export class Flusher {
  #outboxes: Outbox[] = [];
  #spare: Outbox[] | undefined;
  #scheduled = false;
  #slab: Buffer | undefined;
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
