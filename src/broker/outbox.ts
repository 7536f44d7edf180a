import type { Duplex } from "node:stream";
import type { Counter } from "../base/meter.ts";
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
  #sources: Array<Buffer | undefined> = [];
  #starts: number[] = [];
  #ends: number[] = [];
  /** Where in the piece the packet id goes; -1: nowhere. The frame is shared, the id is not. */
  #patchAt: number[] = [];
  #patchIds: number[] = [];
  #last: Buffer | undefined;
  #queued = 0;
  #unsent = 0;
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
    const last = this.#sources.length - 1;
    if (source === this.#last && this.#ends[last] === start) {
      this.#ends[last] = end;
    } else {
      this.#last = source;
      this.#piece(source, start, end, -1, 0);
    }
    if (this.#queued >= earlyBytes && this.#unsent === 0) this.flush();
  }

  /** Adds a shared PUBLISH of QoS 1 or 2 with its own packet id. */
  appendWithId(frame: Buffer, idAt: number, packetId: number): void {
    this.#queued += frame.length;
    this.#last = undefined;
    this.#piece(frame, 0, frame.length, idAt, packetId);
  }

  /** Adds a four-byte acknowledgement: the only packets so frequent that a buffer for each would show. */
  appendAck(firstByte: number, packetId: number): void {
    this.#queued += 4;
    this.#last = undefined;
    this.#piece(undefined, firstByte, 4, -1, packetId);
  }

  /** Writes now. Called by the flusher, and before the end. */
  flush(): void {
    this.#dirty = false;
    if (this.#queued === 0 || this.#closed) return;
    const bytes = this.#queued;
    this.#queued = 0;
    this.#last = undefined;
    const out = this.#sources.length === 1 ? this.#single() : this.#joined(bytes);
    this.#sources.length = this.#starts.length = this.#ends.length = 0;
    this.#patchAt.length = this.#patchIds.length = 0;
    this.#socket.write(out, this.#onWritten); // not the drain event: below the socket's own mark there is none
    this.#sent.value += bytes;
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
    this.#starts = [];
    this.#ends = [];
    this.#patchAt = [];
    this.#patchIds = [];
  }

  #piece(source: Buffer | undefined, start: number, end: number, patchAt: number, patchId: number): void {
    if (this.#closed) return;
    this.#sources.push(source);
    this.#starts.push(start);
    this.#ends.push(end);
    this.#patchAt.push(patchAt);
    this.#patchIds.push(patchId);
    if (this.aliases !== undefined) this.aliases.taken(source);
    if (!this.#dirty) {
      this.#dirty = true;
      this.#flusher.add(this);
    }
  }

  /** One piece goes out as it is, unless it would keep a much larger buffer alive in a slow socket. */
  #single(): Buffer {
    const source = this.#sources[0];
    const start = this.#starts[0] ?? 0;
    const end = this.#ends[0] ?? 0;
    const keepsTooMuch = source !== undefined && (end - start) * 8 < source.buffer.byteLength;
    if (source === undefined || (this.#patchAt[0] ?? -1) >= 0 || keepsTooMuch) {
      return this.#joined(source === undefined ? 4 : end - start);
    }
    return start === 0 && end === source.length ? source : source.subarray(start, end);
  }

  #joined(bytes: number): Buffer {
    const out = Buffer.allocUnsafeSlow(bytes); // from no pool: a small slice must not keep others' bytes alive
    let at = 0;
    for (let index = 0; index < this.#sources.length; index += 1) {
      const source = this.#sources[index];
      const start = this.#starts[index] ?? 0;
      const end = this.#ends[index] ?? 0;
      const id = this.#patchIds[index] ?? 0;
      if (source === undefined) {
        out[at] = start;
        out[at + 1] = 2;
        out[at + 2] = id >> 8;
        out[at + 3] = id & 0xff;
        at += 4;
        continue;
      }
      copyRange(source, start, end, out, at);
      const patchAt = this.#patchAt[index] ?? -1;
      if (patchAt >= 0) {
        out[at + patchAt] = id >> 8;
        out[at + patchAt + 1] = id & 0xff;
      }
      at += end - start;
    }
    return out;
  }
}

/** A loop is faster than the call into C++ for the short packets that are most of the traffic (measured: up to about 100 bytes). */
function copyRange(source: Buffer, start: number, end: number, target: Buffer, at: number): void {
  if (end - start > 96) {
    source.copy(target, at, start, end);
    return;
  }
  let to = at;
  for (let from = start; from < end; from += 1) target[to++] = source[from] as number;
}

/** Writes all outboxes that got something in this turn of the event loop, after its poll phase. One per broker. */
export class Flusher {
  #outboxes: Outbox[] = [];
  #spare: Outbox[] = [];
  #scheduled = false;
  readonly #run = (): void => this.#flush();

  add(outbox: Outbox): void {
    this.#outboxes.push(outbox);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#run);
  }

  #flush(): void {
    this.#scheduled = false;
    const outboxes = this.#outboxes;
    this.#outboxes = this.#spare;
    for (const outbox of outboxes) outbox.flush();
    outboxes.length = 0;
    this.#spare = outboxes;
  }
}
