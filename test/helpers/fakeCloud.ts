import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import { generate, type Packet, parser } from "mqtt-packet";

/** A packet as mqtt-packet read it. `any` of that library, made harmless: every field may be there. */
export interface SeenPacket {
  readonly cmd: string;
  readonly messageId?: number;
  readonly topic?: string;
  readonly payload?: Buffer;
  readonly qos?: number;
  readonly dup?: boolean;
  readonly retain?: boolean;
  readonly reasonCode?: number;
  readonly properties?: Readonly<Record<string, unknown>>;
  readonly subscriptions?: ReadonlyArray<Readonly<Record<string, unknown>>>;
  readonly [field: string]: unknown;
}

/** One connection of a client to the fake cloud. */
export class CloudConnection {
  readonly packets: SeenPacket[] = [];
  closed = false;
  readonly #socket: Socket;
  readonly #version: 4 | 5;

  constructor(socket: Socket, version: 4 | 5, onPacket: (connection: CloudConnection, packet: SeenPacket) => void) {
    this.#socket = socket;
    this.#version = version;
    const reader = parser({ protocolVersion: version });
    reader.on("packet", (packet: Packet) => {
      const seen = packet as unknown as SeenPacket;
      this.packets.push(seen);
      onPacket(this, seen);
    });
    reader.on("error", (error: Error) => this.packets.push({ cmd: "unreadable", why: error.message }));
    socket.on("data", (chunk: Buffer) => reader.parse(chunk));
    socket.on("error", () => {});
    socket.on("close", () => {
      this.closed = true;
    });
  }

  seen(cmd: string): SeenPacket[] {
    return this.packets.filter((packet) => packet.cmd === cmd);
  }

  /** The payloads of all PUBLISH packets, in order. */
  get payloads(): string[] {
    return this.seen("publish").map(({ payload }) => String(payload));
  }

  send(packet: object): void {
    this.#socket.write(generate(packet as Packet, { protocolVersion: this.#version }));
  }

  sendRaw(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  connack(fields: { sessionPresent?: boolean; code?: number; properties?: object } = {}): void {
    const { sessionPresent = false, code = 0, properties = {} } = fields;
    const v5 = this.#version === 5 ? { reasonCode: code, properties } : { returnCode: code };
    this.send({ cmd: "connack", sessionPresent, ...v5 });
  }

  puback(messageId: number | undefined, reasonCode = 0): void {
    this.send({ cmd: "puback", messageId, ...(this.#version === 5 ? { reasonCode } : {}) });
  }

  publish(topic: string, payload: string | Buffer, more: object = {}): void {
    this.send({ cmd: "publish", topic, payload, qos: 0, dup: false, retain: false, ...more });
  }

  /** Stops or goes on reading, so that the client's bytes pile up. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** What the cloud does with each packet; tests put their own in. Undefined fields do what a friendly cloud does. */
export interface CloudScript {
  connect?(connection: CloudConnection, packet: SeenPacket): void;
  publish?(connection: CloudConnection, packet: SeenPacket): void;
  subscribe?(connection: CloudConnection, packet: SeenPacket): void;
  ping?(connection: CloudConnection): void;
  /** Any other packet, acknowledgements among them. */
  other?(connection: CloudConnection, packet: SeenPacket): void;
}

/** A scripted MQTT server on a real socket, on mqtt-packet and not on our codec, so that both cannot be wrong in the same way. */
export class FakeCloud {
  readonly connections: CloudConnection[] = [];
  script: CloudScript;
  readonly #server: Server;
  readonly #scheme: "mqtt" | "mqtts";

  private constructor(version: 4 | 5, script: CloudScript, tls: TlsOptions | undefined) {
    this.script = script;
    this.#scheme = tls === undefined ? "mqtt" : "mqtts";
    const accept = (socket: Socket): void => {
      this.connections.push(new CloudConnection(socket, version, (connection, packet) => this.#on(connection, packet)));
    };
    this.#server = tls === undefined ? createServer(accept) : createTlsServer(tls, accept);
    this.#server.on("tlsClientError", () => {});
  }

  /** @param at a port of 127.0.0.1, or the path of a unix socket */
  static async open(
    version: 4 | 5,
    script: CloudScript = {},
    tls?: TlsOptions,
    at: number | string = 0,
  ): Promise<FakeCloud> {
    const cloud = new FakeCloud(version, script, tls);
    if (typeof at === "string") cloud.#server.listen(at);
    else cloud.#server.listen(at, "127.0.0.1");
    await once(cloud.#server, "listening");
    return cloud;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}`;
  }

  /** The newest connection. */
  get last(): CloudConnection | undefined {
    return this.connections.at(-1);
  }

  /** All PUBLISH payloads of all connections, in order. */
  get payloads(): string[] {
    return this.connections.flatMap((connection) => connection.payloads);
  }

  async close(): Promise<void> {
    for (const connection of this.connections) connection.close();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #on(connection: CloudConnection, packet: SeenPacket): void {
    const { script } = this;
    if (packet.cmd === "connect") {
      if (script.connect) script.connect(connection, packet);
      else connection.connack();
    } else if (packet.cmd === "publish") {
      if (script.publish) script.publish(connection, packet);
      else if (packet.qos === 1) connection.puback(packet.messageId);
    } else if (packet.cmd === "subscribe") {
      if (script.subscribe) script.subscribe(connection, packet);
      else {
        const granted = packet.subscriptions?.map(({ qos }) => qos);
        connection.send({ cmd: "suback", messageId: packet.messageId, granted, reasonCodes: granted });
      }
    } else if (packet.cmd === "pingreq") {
      if (script.ping) script.ping(connection);
      else connection.send({ cmd: "pingresp" });
    } else script.other?.(connection, packet);
  }
}
