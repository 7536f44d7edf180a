/**
 * A stand-in for the cloud: a broker (aedes) at 127.0.0.1 whose link can go down and come back. It records every message that it was
 * given, before it acknowledges it, so that "acknowledged and not recorded" cannot happen here.
 */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { Aedes } from "aedes";

export interface CloudMessage {
  readonly topic: string;
  readonly payload: Buffer;
  /** Who published it. */
  readonly clientId: string;
  /** MQTT 5 user properties, should the broker pass them on (aedes speaks 3.1.1 only). */
  readonly userProperties: Readonly<Record<string, string | string[]>>;
}

export interface CloudOptions {
  /** 0 (default): any free one; kept over `down` and `up`. */
  readonly port?: number;
  /** Messages kept at most; default 1,000,000. Later ones are counted only. */
  readonly messagesMax?: number;
}

export class Cloud {
  /** In the order of arrival. */
  readonly messages: CloudMessage[] = [];
  readonly #messagesMax: number;
  readonly #sockets = new Set<Socket>();
  readonly #clients = new Set<string>();
  #port: number;
  #broker: Aedes | undefined;
  #server: Server | undefined;
  #received = 0;

  constructor(options: CloudOptions = {}) {
    this.#port = options.port ?? 0;
    this.#messagesMax = options.messagesMax ?? 1_000_000;
  }

  get port(): number {
    return this.#port;
  }

  /** All that ever arrived, the unrecorded too. */
  get received(): number {
    return this.#received;
  }

  get isUp(): boolean {
    return this.#server !== undefined;
  }

  /** Opens the link; the first time, makes the broker. Sessions and subscriptions outlive `down`. */
  async up(): Promise<void> {
    if (this.#server !== undefined) return;
    this.#broker ??= await this.#makeBroker();
    const broker = this.#broker;
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => {}); // aedes hears of it too; without a listener it would end the process
      broker.handle(socket);
    });
    server.listen(this.#port, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (address !== null && typeof address === "object") this.#port = address.port;
    this.#server = server;
  }

  /** The link is cut: nobody can connect, and whoever is connected is thrown out without a word. */
  async down(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = once(server, "close");
    server.close();
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  /** Down for good. */
  async close(): Promise<void> {
    await this.down();
    const broker = this.#broker;
    this.#broker = undefined;
    if (broker !== undefined) await new Promise<void>((resolve) => broker.close(resolve));
  }

  /** Whether a client with this id is connected now. */
  isConnected(clientId: string): boolean {
    return this.#clients.has(clientId);
  }

  /** A command to whoever subscribes; QoS 1. */
  async publish(topic: string, payload: string | Buffer): Promise<void> {
    const broker = this.#broker;
    if (broker === undefined) throw new Error("the cloud was never up");
    await new Promise<void>((resolve, reject) => {
      broker.publish({ cmd: "publish", topic, payload, qos: 1, retain: false, dup: false }, (error) =>
        error ? reject(error) : resolve(),
      );
    });
  }

  async #makeBroker(): Promise<Aedes> {
    const { Aedes } = await import("aedes");
    const broker = await Aedes.createBroker({ heartbeatInterval: 60_000 });
    // Not the `publish` event: aedes sends the PUBACK of QoS 1 before it, this hook runs before both.
    broker.authorizePublish = (client, packet, callback) => {
      if (client !== null) {
        this.#received += 1;
        if (this.messages.length < this.#messagesMax) {
          const payload = Buffer.from(packet.payload as Buffer | string); // a copy: the parser's is a view of the socket's chunk
          const userProperties = { ...packet.properties?.userProperties };
          this.messages.push({ topic: packet.topic, payload, clientId: client.id, userProperties });
        }
      }
      callback(null);
    };
    broker.on("clientReady", (client) => this.#clients.add(client.id));
    broker.on("clientDisconnect", (client) => this.#clients.delete(client.id));
    broker.on("clientError", () => {});
    broker.on("connectionError", () => {});
    return broker;
  }
}
