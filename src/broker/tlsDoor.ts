import { createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from "node:tls";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits, ListenerTls } from "./options.ts";

export interface TlsDoorDeps {
  readonly metrics: BrokerMetrics;
  readonly limits: Pick<BrokerLimits, "connectTimeoutMs" | "maxConnections" | "maxConnectionsPerAddress">;
  /** Its handshake is done. @param certified it showed a certificate that `ca` has signed @param waitedMs since it arrived */
  readonly accept: (socket: Socket, certified: boolean, waitedMs: number) => void;
}

/**
 * TLS behind a plain server of our own, so that the limits on connections hold from the first byte on: a handshake costs more memory and work
 * than a connection, and whoever never ends it would be counted nowhere.
 */
export class TlsDoor {
  /** The one that listens. */
  readonly server: Server;
  readonly #tls: TlsServer;
  readonly #optional: boolean;
  readonly #deps: TlsDoorDeps;
  /** Every connection of this door, in handshake or past it. */
  readonly #sockets = new Set<Socket>();
  /** By address and port of the peer: the secured socket is another object. */
  readonly #shaking = new Map<string, { readonly raw: Socket; readonly arrivedMs: number }>();
  readonly #byAddress = new Map<string, number>();

  /** @throws Error when certificate or key cannot be used */
  constructor(tls: ListenerTls, deps: TlsDoorDeps) {
    this.#deps = deps;
    this.#optional = tls.clientCert === "optional";
    this.#tls = createTlsServer(
      {
        cert: tls.cert,
        key: tls.key,
        ...(tls.ca === undefined ? {} : { ca: tls.ca }),
        requestCert: tls.clientCert !== "none",
        rejectUnauthorized: tls.clientCert === "required",
        handshakeTimeout: deps.limits.connectTimeoutMs,
        minVersion: "TLSv1.2",
      },
      (socket) => this.#secured(socket),
    );
    this.#tls.on("tlsClientError", (_error: Error, socket: TLSSocket) => {
      deps.metrics.refused("tls").value += 1;
      socket.destroy();
    });
    this.server = createServer((raw) => this.#arrived(raw));
  }

  /** Ends what is still in its handshake; else the server would wait for it. */
  close(): void {
    for (const { raw } of this.#shaking.values()) raw.destroy();
  }

  #arrived(raw: Socket): void {
    const { limits, metrics } = this.#deps;
    const { remoteAddress: address = "" } = raw;
    const ofAddress = this.#byAddress.get(address) ?? 0;
    const tooMany = this.#sockets.size >= limits.maxConnections;
    if (tooMany || ofAddress >= limits.maxConnectionsPerAddress) {
      metrics.refused(tooMany ? "max-connections" : "max-per-address").value += 1;
      raw.on("error", () => {});
      raw.destroy();
      return;
    }
    this.#sockets.add(raw);
    const key = peerKey(raw);
    this.#shaking.set(key, { raw, arrivedMs: performance.now() });
    this.#byAddress.set(address, ofAddress + 1);
    raw.once("close", () => {
      this.#sockets.delete(raw);
      if (this.#shaking.get(key)?.raw === raw) this.#shaking.delete(key);
      const left = (this.#byAddress.get(address) ?? 1) - 1;
      if (left > 0) this.#byAddress.set(address, left);
      else this.#byAddress.delete(address);
    });
    this.#tls.emit("connection", raw);
  }

  #secured(socket: TLSSocket): void {
    const key = peerKey(socket);
    const nowMs = performance.now();
    const waitedMs = nowMs - (this.#shaking.get(key)?.arrivedMs ?? nowMs);
    this.#shaking.delete(key);
    // A certificate that is shown but not ours is refused even where none is needed.
    const shown = this.#optional && Object.keys(socket.getPeerCertificate() ?? {}).length > 0;
    if (shown && !socket.authorized) {
      this.#deps.metrics.refused("tls").value += 1;
      socket.destroy();
      return;
    }
    this.#deps.accept(socket, socket.authorized, waitedMs);
  }
}

const peerKey = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`;
