import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocketDuplex } from "./webSocketDuplex.ts";

/** Who hears what happens on a socket. */
export interface SocketUser {
  received(chunk: Buffer): void;
  /** So much of a WebSocket message has come, and it is not whole; 0: it is. Bytes. */
  framed(bytes: number): void;
  /** Nothing more comes. The socket can still be written to, until `its` user ends it. */
  ended(): void;
  closed(): void;
}

const user = Symbol("user");
type Used = Duplex & { [user]: SocketUser };

/** The same for all sockets, with the socket as `this`: closures for each were a sixth of what an idle connection took (7 kB). */
const listeners = {
  data(this: Used, chunk: Buffer): void {
    this[user].received(chunk);
  },
  partial(this: Used, bytes: number): void {
    this[user].framed(bytes);
  },
  end(this: Used): void {
    this[user].ended();
  },
  close(this: Used): void {
    this[user].closed();
  },
  /** "close" follows, and says all there is to know. */
  error(): void {},
};

/**
 * In place of a socket's `push`: what comes while nothing else waits goes straight to its user. By Node's way each chunk is also followed by a next tick,
 * with all that Node does after one, in which the stream is asked whether it should read more; a socket reads on by itself.
 */
function pushStraight(this: Used, chunk: Buffer | null, encoding?: BufferEncoding): boolean {
  if (chunk === null || this.readableFlowing !== true || this.readableLength > 0)
    return Socket.prototype.push.call(this, chunk, encoding);
  this[user].received(chunk);
  return true;
}

/**
 * What comes is told at once, with nothing kept in the stream: so who waits and has little more, as a rule, need not be stopped before it comes. To stop and
 * to read on again are two system calls (measured, 1000 clients with one message in flight each: up to a tenth of what a message cost).
 */
export function readsStraight(socket: Duplex): boolean {
  return socket.push === pushStraight;
}

/** Tells `its` from now on what happens on `socket`, which must not be used by another. */
export function useSocket(socket: Duplex, its: SocketUser): void {
  (socket as Used)[user] = its;
  socket.allowHalfOpen = true; // or it closes while what came before its end waits for its turn
  socket.on("data", listeners.data);
  socket.on("end", listeners.end);
  socket.on("close", listeners.close);
  if (socket.listenerCount("error") === 0) socket.on("error", listeners.error);
  if (socket instanceof Socket) socket.push = pushStraight;
  if (socket instanceof WebSocketDuplex) socket.on("partial", listeners.partial);
}

const stopped = Symbol("stopped");

interface Stoppable {
  [stopped]?: boolean;
  /** What Node reads with; it has no public way to stop it. */
  readonly _handle?: { reading?: boolean; readStop?: () => unknown } | null;
  _read(size: number): void;
}

/** Node asks for more than it was let, to have something in its buffer. */
function readUnlessStopped(this: Stoppable, size: number): void {
  if (this[stopped] !== true) Socket.prototype._read.call(this as unknown as Socket, size);
}

/**
 * Until `readOn`. `pause` alone lets a socket read once more, and what it read lies in it: 64 KiB of each connection, counted nowhere. It takes two system calls, which are 3 to 7 % of what a
 * hundred clients with small packets cost: not for those who have hardly more.
 */
export function stopReading(socket: Duplex): void {
  socket.pause();
  if (socket instanceof WebSocketDuplex) socket.stop();
  if (!(socket instanceof Socket)) return;
  const its = socket as unknown as Stoppable;
  const handle = its._handle;
  if (typeof handle?.readStop !== "function") return;
  its[stopped] = true;
  its._read = readUnlessStopped;
  if (handle.reading === false) return;
  handle.reading = false;
  handle.readStop();
}

/** What has come and lies in it, or in what a WebSocket reads from. Of a TLS socket it was read before it was stopped; of a WebSocket the rest of the chunk lies here, and what is below it reads once more. */
export function bytesIn(socket: Duplex): number {
  return socket.readableLength + (socket instanceof WebSocketDuplex ? socket.below.readableLength : 0);
}

export function readOn(socket: Duplex): void {
  const its = socket as unknown as Stoppable;
  if (its[stopped] === true && !socket.destroyed) {
    its[stopped] = false;
    its._read(0); // `resume` would not: for it, the one that was not let has not ended
  }
  if (socket instanceof WebSocketDuplex) socket.go();
  socket.resume();
}
