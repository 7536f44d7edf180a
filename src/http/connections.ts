/** The connections that speak HTTP: how many there are, and what one of them can have us hold for it. */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

const connectionsMax = 64;
/** Requests of a connection that wait for the answers before theirs. Browsers, curl and Prometheus send one at a time. */
const waitingMax = 8;

interface Asked {
  /** Requests that are not answered. */
  count: number;
  /** The newest of them is. */
  last: Promise<void>;
}

export class HttpConnections {
  readonly #asked = new Map<Duplex, Asked>();
  readonly #answerMsMax: number;

  /** One connection too many is ended. `server.maxConnections` would count WebSockets as well, and shut the dashboard out. */
  constructor(server: Server, answerMsMax: number) {
    this.#answerMsMax = answerMsMax;
    server.on("connection", (socket: Duplex) => {
      if (this.#asked.size >= connectionsMax) {
        socket.destroy();
        return;
      }
      this.#asked.set(socket, { count: 0, last: Promise.resolve() });
      socket.once("close", () => this.#asked.delete(socket));
    });
  }

  /**
   * Resolves when all answers before this one are with the kernel: made as they are asked for, a thousand of one packet would be held for a client that
   * reads none of them. From then on the client has so much time to take it. False: there is nobody to answer.
   */
  async turn({ socket }: IncomingMessage, response: ServerResponse): Promise<boolean> {
    const asked = this.#asked.get(socket);
    if (asked === undefined || asked.count >= waitingMax) {
      socket.destroy();
      return false;
    }
    const before = asked.last;
    asked.count += 1;
    asked.last = new Promise((resolve) => {
      response.once("close", () => {
        asked.count -= 1;
        resolve();
      });
    });
    await before;
    if (socket.destroyed) return false;
    const late = setTimeout(() => socket.destroy(), this.#answerMsMax);
    response.once("close", () => clearTimeout(late));
    return true;
  }

  /** Gives a connection away that is to speak something else. False: it waits for answers, which would come in between. */
  release(socket: Duplex): boolean {
    const idle = this.#asked.get(socket)?.count === 0;
    this.#asked.delete(socket);
    return idle;
  }

  /** Ends all of them. */
  destroy(): void {
    for (const socket of this.#asked.keys()) socket.destroy();
  }
}
