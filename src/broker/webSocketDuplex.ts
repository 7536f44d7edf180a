import { Duplex } from "node:stream";
import type { WebSocket } from "ws";

/** As much as Node reads from a socket at once. */
const readBytes = 64 * 1024;
const normalClosure = 1000;
const unsupportedData = 1003;
const binary = { binary: true, compress: false, fin: true };

/**
 * A WebSocket as the byte stream that Connection takes: each write is one binary frame, how frames were cut on the way in is forgotten
 * [MQTT-6.0.0-2], and who does not take from it lets the TCP connection fill up. As fast as ws's createWebSocketStream, which takes text for bytes
 * and stays open after `destroy` until the peer has answered. Emits `partial` with the bytes of a message that has not all come, 0 once it has.
 */
export class WebSocketDuplex extends Duplex {
  readonly #ws: WebSocket;
  /** The connection under it. */
  readonly below: Duplex;
  #stopped = false;

  /** @param socket under `ws` @param broken called when the peer breaks the rules of RFC 6455 or of MQTT section 6; it is closed then */
  constructor(ws: WebSocket, socket: Duplex, broken: () => void) {
    super({ allowHalfOpen: false, readableHighWaterMark: readBytes });
    this.#ws = ws;
    this.below = socket;
    let partial = 0;
    // Before ws sees them: what is whole with this chunk counts no more. What begins in its rest counts from the next one on.
    socket.prependListener("data", (chunk: Buffer) => {
      partial += chunk.length;
      this.emit("partial", partial);
    });
    ws.on("message", (data, isBinary) => {
      partial = 0;
      this.emit("partial", partial);
      if (this.destroyed || this.readableEnded) return;
      if (!isBinary) {
        broken();
        ws.close(unsupportedData, "MQTT goes in binary frames"); // [MQTT-6.0.0-1]
        socket.end(); // as ws does for faults that it finds: the peer's close frame is not waited for
        this.destroy();
      } else if (!this.push(data)) ws.pause();
    });
    ws.on("error", () => {
      if (!this.destroyed) broken();
      this.destroy(); // ws has sent its close frame
    });
    ws.on("close", () => {
      if (!this.destroyed) this.push(null);
    });
  }

  /** Takes no further messages until `go`, but for those of the chunk that is read now. `pause` alone takes as many as fill its buffer. */
  stop(): void {
    this.#stopped = true;
    this.#ws.pause();
  }

  go(): void {
    this.#stopped = false;
    this._read();
  }

  override _read(): void {
    if (!this.#stopped && this.#ws.isPaused) this.#ws.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    // Who has said that it closes takes no answer, but what it sent before is still heard: an error would throw that away. "close" follows.
    this.#ws.send(chunk, binary, () => done());
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#ws.close(normalClosure);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#ws.readyState === this.#ws.OPEN) this.#ws.terminate();
    else this.#ws.resume(); // the peer's close frame is still to be read; ws ends it after closeTimeout
    done(error);
  }
}
