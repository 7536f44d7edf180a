import { createServer, type TLSSocket, type TlsOptions, type Server as TlsServer } from "node:tls";
import type { Arrival } from "./arrival.ts";
import { certificateName, serverContexts } from "./certificates.ts";
import type { ListenerTls } from "./options.ts";

/**
 * TLS for connections that a plain server has accepted, so that the limits on connections hold from the first byte on: a handshake costs more
 * memory and work than a connection, and whoever never ends it would be counted nowhere.
 */
export class TlsDoor {
  #tls: TlsServer;
  readonly #handshakeMsMax: number;
  readonly #secured: (socket: TLSSocket, arrival: Arrival) => void;
  /** By both ends' addresses: the secured socket is another object. */
  readonly #shaking = new Map<string, Arrival>();

  /**
   * @param handshakeMsMax of ours: whoever calls `shake` has a shorter one @param secured a handshake is done; the arrival has its certificate's name
   * @throws Error when a certificate or key cannot be used
   */
  constructor(tls: ListenerTls, handshakeMsMax: number, secured: (socket: TLSSocket, arrival: Arrival) => void) {
    this.#handshakeMsMax = handshakeMsMax;
    this.#secured = secured;
    this.#tls = this.#serverOf(tls);
  }

  /**
   * Other certificates for the handshakes that begin from now on. The tickets of earlier sessions are worth nothing with them: nobody comes back
   * with what an authority has vouched for that is asked no more.
   * @throws Error when they cannot be used; those before them then stay
   */
  replace(tls: ListenerTls): void {
    this.#tls = this.#serverOf(tls);
  }

  /** Begins a handshake. `arrival.raw` may have bytes in its buffer; nobody else reads it. */
  shake(arrival: Arrival): void {
    const key = endsOf(arrival.raw);
    this.#shaking.set(key, arrival);
    arrival.raw.once("close", () => {
      if (this.#shaking.get(key) === arrival) this.#shaking.delete(key);
    });
    this.#tls.emit("connection", arrival.raw);
  }

  /** A server that never listens: Node's way to have TLS of this kind on a socket that is already there. */
  #serverOf(tls: ListenerTls): TlsServer {
    const { clientCert } = tls;
    if (clientCert !== "none" && tls.ca === undefined) throw new Error(`clientCert: ${clientCert} needs a ca`);
    const contexts = serverContexts(tls);
    const options: TlsOptions = {
      ...contexts.fallback,
      SNICallback: (name, answer) => answer(null, contexts.forName(name)),
      requestCert: clientCert !== "none",
      rejectUnauthorized: clientCert === "required",
      handshakeTimeout: this.#handshakeMsMax,
    };
    const server = createServer(options, (socket) => this.#done(socket, clientCert));
    server.on("tlsClientError", (error: Error, socket: TLSSocket) => {
      this.#shaking.get(endsOf(socket))?.refuse(`TLS: ${error.message.slice(0, 200)}`);
      socket.destroy();
    });
    return server;
  }

  #done(socket: TLSSocket, clientCert: ListenerTls["clientCert"]): void {
    const key = endsOf(socket);
    const arrival = this.#shaking.get(key);
    if (arrival === undefined) {
      socket.destroy(); // it has closed in between
      return;
    }
    this.#shaking.delete(key);
    socket.on("error", () => {}); // "close" follows
    const shown = clientCert === "none" ? undefined : socket.getPeerCertificate();
    const subject = shown?.subject; // none without a certificate: an empty object
    // What OpenSSL's SSL_VERIFY_PEER does: who needs no certificate, and shows one that is not ours, is refused all the same.
    if (subject !== undefined && !socket.authorized) {
      arrival.end(`TLS: the client's certificate is refused (${String(socket.authorizationError)})`);
      return;
    }
    arrival.certified = subject !== undefined && socket.authorized;
    arrival.certificateName = arrival.certified ? certificateName(subject) : undefined;
    this.#secured(socket, arrival);
  }
}

interface Ends {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
}

const endsOf = ({ remoteAddress, remotePort, localAddress, localPort }: Ends): string =>
  `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
