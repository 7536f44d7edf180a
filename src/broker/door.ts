import { createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Place } from "./admission.ts";
import { Arrival, type ArrivalDeps, type Step } from "./arrival.ts";
import type { ListenerTls, PeerInfo } from "./options.ts";
import { plainAddress } from "./peerAddress.ts";
import { readProxyHeader } from "./proxyProtocol.ts";
import { TlsDoor } from "./tlsDoor.ts";
import { type MqttUpgrade, WebSocketDoor } from "./webSocketDoor.ts";

export interface DoorDeps extends ArrivalDeps {
  /** A connection that may speak MQTT, and its place, which the taker gives back when its socket closes at the latest. */
  readonly accept: (stream: Duplex, peer: PeerInfo, place: Place) => void;
}

export interface DoorOptions {
  /** As the operator wrote it. */
  readonly url: string;
  readonly proxyProtocol: boolean;
  readonly tls: ListenerTls | undefined;
  /** Where WebSockets are answered, and what answers them; undefined for a listener without them. */
  readonly webSocket: { readonly path: string; readonly upgrade: MqttUpgrade } | undefined;
}

/** Of the "error" events of sockets: "close" follows, and says all there is to know. */
const ignore = (): void => {};

/** One listener's way in: accept, PROXY header, TLS handshake, WebSocket handshake, as far as it has them, and then MQTT. */
export class Door {
  /** The one that listens. */
  readonly server: Server;
  readonly #options: DoorOptions;
  readonly #deps: DoorDeps;
  readonly #tls: TlsDoor | undefined;
  readonly #webSocket: WebSocketDoor | undefined;
  /** Those that do not speak MQTT yet. */
  readonly #arrivals = new Set<Arrival>();

  /** @throws Error when a certificate or key cannot be used */
  constructor(options: DoorOptions, deps: DoorDeps) {
    const { tls, webSocket } = options;
    this.#options = options;
    this.#deps = deps;
    if (tls !== undefined) {
      // Twice, so that the arrival's own time, which counts from accept, is the one that ends it.
      this.#tls = new TlsDoor(tls, 2 * deps.limits.connectTimeoutMs, (socket, arrival) =>
        this.#shaken(socket, arrival),
      );
    }
    if (webSocket !== undefined) {
      this.#webSocket = new WebSocketDoor(webSocket.path, webSocket.upgrade, {
        open: (stream, arrival) => this.#enter(stream, arrival),
        broken: () => {
          deps.metrics.protocolError("websocket").value += 1;
        },
      });
    }
    this.server = createServer({ noDelay: true }, (raw) => this.#arrived(raw));
  }

  /** Other certificates for new connections. @throws Error when they cannot be used, or the listener has none */
  setTls(tls: ListenerTls): void {
    if (this.#tls === undefined) throw new Error("a listener without TLS");
    this.#tls.replace(tls);
  }

  /** Ends those that do not speak MQTT yet; else the server would wait for them. */
  close(): void {
    for (const arrival of [...this.#arrivals]) {
      arrival.arrived(); // our doing: not to be counted
      arrival.raw.destroy();
    }
  }

  #arrived(raw: Socket): void {
    raw.on("error", ignore);
    const place = this.#deps.admission.enter();
    if (place === undefined) {
      raw.destroy();
      return;
    }
    const { proxyProtocol, url } = this.#options;
    const step = proxyProtocol ? "proxy" : this.#afterHeader;
    if (step === undefined) {
      this.#enterAtOnce(raw, place);
      return;
    }
    const arrival = new Arrival(raw, url, step, place, this.#deps);
    if (!proxyProtocol && !arrival.comesFrom(raw.remoteAddress)) {
      place.leave();
      return;
    }
    this.#arrivals.add(arrival);
    raw.once("close", () => {
      this.#arrivals.delete(arrival);
      arrival.closed();
      place.leave();
    });
    if (proxyProtocol) this.#takeHeader(arrival);
    else this.#begin(arrival);
  }

  /** It may speak MQTT as it comes: whoever takes it gives the place back. */
  #enterAtOnce(raw: Socket, place: Place): void {
    const { remoteAddress } = raw;
    if (!place.from(remoteAddress === undefined ? undefined : plainAddress(remoteAddress))) {
      raw.destroy();
      place.leave();
      return;
    }
    const { address } = place;
    const peer = { address, listener: this.#options.url, certified: false, certificateName: undefined, waitedMs: 0 };
    this.#deps.accept(raw, peer, place);
  }

  get #afterHeader(): Step | undefined {
    if (this.#tls !== undefined) return "tls";
    return this.#webSocket === undefined ? undefined : "websocket";
  }

  /** Reads until the PROXY header is whole; what came behind it goes back into the socket. */
  #takeHeader(arrival: Arrival): void {
    const { raw } = arrival;
    let kept: Buffer = Buffer.alloc(0);
    const look = (): void => {
      for (let chunk = raw.read(); chunk !== null; chunk = raw.read()) {
        kept = kept.length === 0 ? chunk : Buffer.concat([kept, chunk]);
        const header = readProxyHeader(kept);
        if (header.kind === "part") continue;
        raw.off("readable", look);
        if (header.kind === "fault") return arrival.end(header.why);
        if (header.bytes < kept.length) raw.unshift(kept.subarray(header.bytes));
        if (arrival.comesFrom(header.address)) this.#begin(arrival);
        return;
      }
    };
    raw.on("readable", look);
  }

  #begin(arrival: Arrival): void {
    arrival.step = this.#afterHeader;
    if (this.#tls === undefined) this.#shaken(arrival.raw, arrival);
    else this.#tls.shake(arrival);
  }

  #shaken(socket: Duplex, arrival: Arrival): void {
    if (this.#webSocket === undefined) return this.#enter(socket, arrival);
    arrival.step = "websocket";
    this.#webSocket.shake(socket, arrival);
  }

  #enter(stream: Duplex, arrival: Arrival): void {
    this.#arrivals.delete(arrival);
    const waitedMs = arrival.arrived();
    const { address, listener, certified, certificateName } = arrival;
    this.#deps.accept(stream, { address, listener, certified, certificateName, waitedMs }, arrival.place);
  }
}
