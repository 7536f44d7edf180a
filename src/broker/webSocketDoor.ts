import { createServer, type IncomingMessage, type Server, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import type { WebSocketServer } from "ws";
import type { Arrival } from "./arrival.ts";
import { WebSocketDuplex } from "./webSocketDuplex.ts";

const headerBytesMax = 8192;
const headersMax = 64;
/** How long a peer may take for its own close frame, as for the last bytes of a TCP connection. */
const closeMs = 1000;
/** A message may carry the largest packet and others beside it; ws keeps it until it is whole. */
const besideBytes = 1024 * 1024;
/** Pieces in which a message may come: each costs some hundred bytes of memory, however short. */
const piecesMin = 4096;
const bytesOfPiece = 256;
/** In the order of our preference: 3.1.1 and 5; what the clients of 2014 ask for. */
const subprotocols = ["mqtt", "mqttv3.1"];

export interface UpgradeOutcome {
  /** The WebSocket is open. */
  open(stream: Duplex): void;
  /** The handshake is refused; the answer is on its way, and the socket ends with it. */
  refused(why: string): void;
  /** The open WebSocket broke the rules. */
  broken(): void;
}

/** The opening handshake (RFC 6455 section 4.2) for MQTT (section 6). */
export class MqttUpgrade {
  readonly #server: WebSocketServer;

  /** Reads the library with the first: a gateway that nobody asks for WebSockets does without its 2 MB. @param maxPacketSize bytes */
  static async load(maxPacketSize: number): Promise<MqttUpgrade> {
    const library = await import("ws");
    return new MqttUpgrade(maxPacketSize, library.WebSocketServer);
  }

  private constructor(maxPacketSize: number, Server: typeof WebSocketServer) {
    const maxPayload = maxPacketSize + besideBytes;
    const pieces = Math.max(piecesMin, Math.ceil(maxPayload / bytesOfPiece));
    const options = {
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false, // memory for each connection that a small machine does not have
      maxPayload,
      maxFragments: pieces,
      maxBufferedChunks: pieces,
      closeTimeout: closeMs,
      handleProtocols: (offered: ReadonlySet<string>) => subprotocols.find((name) => offered.has(name)) ?? false, // [MQTT-6.0.0-4]
    };
    this.#server = new Server(options);
  }

  /** @param head what came behind the request; goes first */
  take(request: IncomingMessage, socket: Duplex, head: Buffer, outcome: UpgradeOutcome): void {
    const { "sec-websocket-protocol": offered = "" } = request.headers;
    if (!offered.split(",").some((name) => subprotocols.includes(name.trim()))) {
      refuseUpgrade(socket, 400, "the WebSocket subprotocol mqtt must be offered"); // [MQTT-6.0.0-3]
      outcome.refused("WebSocket: the subprotocol mqtt was not offered");
      return;
    }
    let opened = false;
    this.#server.handleUpgrade(request, socket, head, (ws) => {
      opened = true;
      outcome.open(new WebSocketDuplex(ws, socket, outcome.broken));
    });
    if (!opened) outcome.refused("WebSocket: a wrong opening handshake"); // ws has answered 400, 405 or 503
  }
}

/** Answers an upgrade request that is not granted, and ends its connection. */
export function refuseUpgrade(socket: Duplex, status: number, why: string): void {
  const body = `${why}\n`;
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    "Connection: close",
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(body)}`,
  ];
  socket.on("error", () => socket.destroy());
  socket.once("finish", () => socket.destroy());
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}

/** HTTP for connections that a plain server has accepted (and TLS secured): nothing but the handshake at one path. */
export class WebSocketDoor {
  readonly #http: Server;
  readonly #path: string;
  readonly #upgrade: MqttUpgrade;
  readonly #arrivals = new Map<Duplex, Arrival>();
  readonly #open: (stream: Duplex, arrival: Arrival) => void;
  readonly #broken: () => void;

  /** @param open the handshake is done @param broken an open WebSocket broke the rules */
  constructor(
    path: string,
    upgrade: MqttUpgrade,
    hooks: { open: (stream: Duplex, arrival: Arrival) => void; broken: () => void },
  ) {
    this.#path = path;
    this.#upgrade = upgrade;
    this.#open = hooks.open;
    this.#broken = hooks.broken;
    this.#http = createServer({ maxHeaderSize: headerBytesMax }, (request, response) => {
      const status = pathOf(request) === this.#path ? 426 : 404;
      this.#arrivals.get(request.socket)?.refuse(`WebSocket: not a request to upgrade (${status})`);
      const body = `MQTT over WebSocket is at ${this.#path}\n`;
      response.writeHead(status, { Connection: "close", Upgrade: "websocket", "Content-Type": "text/plain" }).end(body);
    });
    this.#http.maxHeadersCount = headersMax;
    this.#http.on("upgrade", (request, socket, head) => this.#asked(request, socket, head));
    this.#http.on("clientError", (error, socket) => {
      this.#arrivals.get(socket)?.refuse(`WebSocket: ${error.message.slice(0, 200)}`);
      if (socket.writable) refuseUpgrade(socket, 400, "not an HTTP request");
      else socket.destroy();
    });
  }

  /** Begins a handshake. @param socket the arrival's, or the secured one on it */
  shake(socket: Duplex, arrival: Arrival): void {
    this.#arrivals.set(socket, arrival);
    socket.once("close", () => this.#arrivals.delete(socket));
    this.#http.emit("connection", socket);
  }

  #asked(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const arrival = this.#arrivals.get(socket);
    if (arrival === undefined) {
      socket.destroy(); // it has closed in between
      return;
    }
    if (pathOf(request) !== this.#path) {
      arrival.refuse("WebSocket: another path");
      refuseUpgrade(socket, 404, `MQTT over WebSocket is at ${this.#path}`);
      return;
    }
    this.#upgrade.take(request, socket, head, {
      open: (stream) => {
        this.#arrivals.delete(socket);
        this.#open(stream, arrival);
      },
      refused: (why) => arrival.refuse(why),
      broken: this.#broken,
    });
  }
}

const pathOf = ({ url }: IncomingMessage): string => (url ?? "/").split("?", 1)[0] ?? "/";
