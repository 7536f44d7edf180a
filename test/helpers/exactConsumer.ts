import { connect, type Socket } from "node:net";
import { generate, type Packet, parser } from "mqtt-packet";
import type { SeenPacket } from "./fakeCloud.ts";

const againMs = 100;

/**
 * A subscriber at QoS 2 with a session that takes each message once, as the standard has it (3.1.1 section 4.3.3), and connects again by itself.
 * libmosquitto 2.0.11 keeps a repeated PUBLISH beside the first one, and may deliver it at a repeated PUBREL.
 */
export class ExactConsumer {
  readonly got: string[] = [];
  subscribed = false;
  /** How often a broker has taken it so far. */
  connections = 0;
  readonly #id: string;
  readonly #port: number;
  readonly #filter: string;
  readonly #held = new Set<number>();
  #socket: Socket | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(id: string, port: number, filter: string) {
    this.#id = id;
    this.#port = port;
    this.#filter = filter;
    this.#connect();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.destroy();
  }

  #connect(): void {
    const socket = connect({ port: this.#port, host: "127.0.0.1", noDelay: true });
    this.#socket = socket;
    const reader = parser({ protocolVersion: 4 });
    const send = (packet: object): void => void socket.write(generate(packet as Packet, { protocolVersion: 4 }));
    socket.on("connect", () =>
      send({ cmd: "connect", protocolId: "MQTT", protocolVersion: 4, clientId: this.#id, clean: false, keepalive: 0 }),
    );
    socket.on("data", (chunk: Buffer) => reader.parse(chunk));
    reader.on("packet", (packet: Packet) => this.#take(packet as unknown as SeenPacket, send));
    socket.on("error", () => {});
    socket.on("close", () => {
      if (!this.#closed) this.#timer = setTimeout(() => this.#connect(), againMs);
    });
  }

  #take({ cmd, messageId = 0, payload, sessionPresent }: SeenPacket, send: (packet: object) => void): void {
    if (cmd === "connack") this.connections += 1;
    if (cmd === "connack" && sessionPresent !== true) {
      this.#held.clear();
      send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: this.#filter, qos: 2 }] });
    } else if (cmd === "suback") this.subscribed = true;
    else if (cmd === "publish") {
      if (!this.#held.has(messageId)) this.got.push(String(payload));
      this.#held.add(messageId);
      send({ cmd: "pubrec", messageId });
    } else if (cmd === "pubrel") {
      this.#held.delete(messageId);
      send({ cmd: "pubcomp", messageId });
    }
  }
}
