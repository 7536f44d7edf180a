import { ProtocolError } from "./protocolError.ts";

const nothing = Buffer.alloc(0);
const noView = new DataView(new ArrayBuffer(0));
const headerBytesMax = 5;
const firstReserve = 1024;

/**
 * Cuts a connection's byte stream into control packets (MQTT 5 section 2.1), reading from the socket's chunk itself. Only an incomplete
 * packet at the end of a chunk is copied, into memory that belongs to that packet alone, so views of it stay true as long as they are held.
 *
 *     scanner.push(chunk);
 *     while (scanner.next()) handle(decodePacket(scanner.buffer, scanner.first, scanner.body, scanner.end, version, "client"));
 *
 * After a ProtocolError the stream cannot be followed any more: drop the scanner with its connection.
 */
export class FrameScanner {
  /** Largest packet taken, in bytes, fixed header included. Holds for every packet whose header is read from now on. */
  maxPacketSize: number;
  /** After `next()` was true: where the packet lies. Empty otherwise, so that an idle connection holds no chunk. */
  buffer: Buffer = nothing;
  /** First byte of the fixed header: type and flags. */
  first = 0;
  start = 0;
  /** Where the variable header begins. */
  body = 0;
  end = 0;
  /** Of the buffer that was asked for last. */
  #view: DataView = noView;
  #viewed: Buffer = nothing;
  #chunk: Buffer = nothing;
  #at = 0;
  #tail: Buffer = nothing;
  #tailLength = 0;
  /** Whole size of the packet in #tail; 0 until its fixed header is complete. */
  #tailTotal = 0;

  constructor(maxPacketSize: number) {
    this.maxPacketSize = maxPacketSize;
  }

  /** Of `buffer`: the same one for all packets of a chunk. */
  get view(): DataView {
    const { buffer } = this;
    if (this.#viewed !== buffer) {
      this.#viewed = buffer;
      this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    }
    return this.#view;
  }

  /** Memory held for an incomplete packet; never more than maxPacketSize (or the 5 bytes of a fixed header). */
  get bufferedBytes(): number {
    return this.#tail.length;
  }

  /** Memory held for packets that `next()` has not come to. */
  get unreadBytes(): number {
    return this.#at < this.#chunk.length ? this.#chunk.length : 0;
  }

  /** A packet has begun and is not whole yet. */
  get partial(): boolean {
    return this.#tailLength > 0;
  }

  /** Gives the next chunk; then call `next()` until it is false. Whatever was left unread comes first. */
  push(chunk: Buffer): void {
    this.#chunk = this.#at < this.#chunk.length ? Buffer.concat([this.#chunk.subarray(this.#at), chunk]) : chunk;
    this.#at = 0;
  }

  /**
   * Steps to the next whole packet. False: none is complete yet.
   * @throws ProtocolError 0x81 for a remaining length of 5 bytes or longer than needed, 0x95 for a packet above maxPacketSize
   */
  next(): boolean {
    if (this.#tailLength > 0) return this.#completeTail();
    const chunk = this.#chunk;
    const start = this.#at;
    const available = chunk.length - start;
    if (available === 0) return this.#idle();
    const total = this.#measure(chunk, start, chunk.length);
    if (total === 0 || total > available) return this.#keepTail(start, total);
    this.buffer = chunk;
    this.first = chunk[start]!; // available > 0
    this.start = start;
    this.end = start + total;
    this.#at = this.end;
    return true;
  }

  /** How far the bytes that have come go on in `buffer` behind the current packet; `end` where they do not, as behind one that came in parts. */
  get limit(): number {
    return this.buffer === this.#chunk ? this.buffer.length : this.end;
  }

  /** The packets up to `end` in `buffer`, which lie behind the current one, were looked at there: `next()` goes on after them. */
  skipTo(end: number): void {
    this.#at = end;
  }

  /** Whole size of the packet at `start`, or 0 while its header is incomplete. Sets `body`. */
  #measure(bytes: Buffer, start: number, limit: number): number {
    let length = 0;
    let shift = 0;
    let at = start + 1;
    for (;;) {
      if (at >= limit) return 0;
      const byte = bytes[at]!; // at < limit
      at += 1;
      length |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (byte === 0 && shift > 0) throw new ProtocolError(0x81, "the remaining length is longer than needed"); // [MQTT-1.5.5-1]
        break;
      }
      shift += 7;
      if (shift > 21) throw new ProtocolError(0x81, "the remaining length has more than 4 bytes");
    }
    const total = at - start + length;
    if (total > this.maxPacketSize)
      throw new ProtocolError(0x95, `a packet of ${total} bytes: ${this.maxPacketSize} is the most`);
    this.body = at;
    return total;
  }

  #keepTail(start: number, total: number): boolean {
    const length = this.#chunk.length - start;
    const wanted = total === 0 ? headerBytesMax : Math.min(total, Math.max(length, firstReserve));
    this.#tail = Buffer.allocUnsafe(wanted);
    this.#chunk.copy(this.#tail, 0, start);
    this.#tailLength = length;
    this.#tailTotal = total;
    this.body -= start; // where it is in #tail; without a whole header it is set later
    return this.#idle();
  }

  #completeTail(): boolean {
    const chunk = this.#chunk;
    while (this.#tailTotal === 0) {
      if (this.#at === chunk.length) return this.#idle();
      this.#tail[this.#tailLength++] = chunk[this.#at++]!; // at < length
      this.#tailTotal = this.#measure(this.#tail, 0, this.#tailLength);
    }
    const total = this.#tailTotal;
    const taken = Math.min(total - this.#tailLength, chunk.length - this.#at);
    this.#reserve(this.#tailLength + taken);
    chunk.copy(this.#tail, this.#tailLength, this.#at, this.#at + taken);
    this.#tailLength += taken;
    this.#at += taken;
    if (this.#tailLength < total) return this.#idle();
    this.buffer = this.#tail;
    this.first = this.#tail[0]!; // a tail has a byte at least
    this.start = 0;
    this.end = total;
    this.#tail = nothing; // the packet's views own it now
    this.#tailLength = 0;
    this.#tailTotal = 0;
    return true;
  }

  /** Doubling, so that a large packet that comes in drops is copied twice at most; never past the packet's own size. */
  #reserve(needed: number): void {
    if (needed <= this.#tail.length) return;
    const grown = Buffer.allocUnsafe(Math.min(this.#tailTotal, Math.max(needed, this.#tail.length * 2, firstReserve)));
    this.#tail.copy(grown, 0, 0, this.#tailLength);
    this.#tail = grown;
  }

  /** Lets go of the packet of the last `next()`, where it was the last one. */
  rest(): void {
    if (this.#at === this.#chunk.length) this.#idle();
  }

  /** Lets go of all that was not read; for a stream that is not read any more. The packet of the last `next()` stays. */
  drop(): void {
    this.#chunk = this.#tail = nothing;
    this.#forgetView();
    this.#at = 0;
    this.#tailLength = this.#tailTotal = 0;
  }

  #idle(): false {
    this.#chunk = nothing;
    this.#at = 0;
    this.buffer = nothing;
    this.#forgetView();
    return false;
  }

  #forgetView(): void {
    if (this.#viewed === nothing) return;
    this.#viewed = nothing;
    this.#view = noView;
  }
}
