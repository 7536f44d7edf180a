/**
 * A client that does nothing by itself: packet ids, DUP, acknowledgements and what is sent again are the test's. On mqtt-packet and not on our
 * codec, so that both cannot be wrong in the same way.
 */
import { connect, type Socket } from "node:net";
import { generate, type Packet, parser } from "mqtt-packet";
import type { SeenPacket } from "./fakeCloud.ts";
import { until } from "./wait.ts";

export interface RawOptions {
  /** Of 127.0.0.1, or the path of a unix socket. */
  readonly port: number | string;
  readonly clientId: string;
  readonly version: 4 | 5;
  /** Keeps its session over connections (MQTT 5: for ever, as the broker allows). */
  readonly persistent: boolean;
  /** In mqtt-packet's form. */
  readonly will?: object;
  /** Called for each packet but CONNACK; without it they are kept in `packets`. */
  readonly onPacket?: (packet: SeenPacket) => void;
}

export class RawClient {
  readonly packets: SeenPacket[] = [];
  readonly #socket: Socket;
  readonly #version: 4 | 5;
  readonly #ended: Promise<void>;
  #connack: SeenPacket | undefined;
  closed = false;

  private constructor(options: RawOptions) {
    this.#version = options.version;
    const reader = parser({ protocolVersion: options.version });
    reader.on("packet", (packet: Packet) => {
      const seen = packet as unknown as SeenPacket;
      if (seen.cmd === "connack") this.#connack = seen;
      else if (options.onPacket !== undefined) options.onPacket(seen);
      else this.packets.push(seen);
    });
    reader.on("error", () => this.#socket.destroy());
    const { port } = options;
    this.#socket = connect(typeof port === "string" ? { path: port } : { port, host: "127.0.0.1", noDelay: true });
    this.#socket.on("data", (chunk: Buffer) => reader.parse(chunk));
    this.#socket.on("error", () => {});
    this.#ended = new Promise((resolve) => {
      this.#socket.on("close", () => {
        this.closed = true;
        resolve();
      });
    });
  }

  /** Undefined when there is no broker, or it went away before its CONNACK. @throws when it refuses */
  static async open(options: RawOptions): Promise<RawClient | undefined> {
    const client = new RawClient(options);
    const { clientId, version, persistent } = options;
    const expiry = version === 5 && persistent ? { properties: { sessionExpiryInterval: 0xffff_ffff } } : {};
    client.send({
      ...{ cmd: "connect", protocolId: "MQTT", protocolVersion: version, clean: !persistent, clientId, keepalive: 0 },
      ...expiry,
      ...(options.will === undefined ? {} : { will: options.will }),
    });
    await until("CONNACK or the end", () => client.closed || client.#connack !== undefined);
    const code = client.#connack?.[version === 5 ? "reasonCode" : "returnCode"];
    if (code !== undefined && code !== 0) throw new Error(`${clientId}: CONNACK ${code}`);
    return client.#connack === undefined ? undefined : client;
  }

  get sessionPresent(): boolean {
    return this.#connack?.["sessionPresent"] === true;
  }

  send(packet: object): void {
    if (!this.#socket.destroyed) this.#socket.write(generate(packet as Packet, { protocolVersion: this.#version }));
  }

  /** QoS 1 and 2 need a packet id. */
  publish(topic: string, payload: string, qos: 0 | 1 | 2, messageId: number, more: object = {}): void {
    this.send({ cmd: "publish", topic, payload, qos, messageId, dup: false, retain: false, ...more });
  }

  subscribe(topic: string, qos: 0 | 1 | 2, messageId = 1): void {
    const five = this.#version === 5 ? { nl: false, rap: false, rh: 0 } : {};
    this.send({ cmd: "subscribe", messageId, subscriptions: [{ topic, qos, ...five }] });
  }

  /** The first kept packet of this kind that `fits`, taken out. */
  async take(cmd: string, fits: (packet: SeenPacket) => boolean = () => true): Promise<SeenPacket> {
    const at = (): number => this.packets.findIndex((packet) => packet.cmd === cmd && fits(packet));
    await until(`${cmd}; got ${this.packets.map((packet) => packet.cmd).join(" ")}`, () => at() >= 0 || this.closed);
    const [found] = this.packets.splice(at(), at() < 0 ? 0 : 1);
    if (found === undefined) throw new Error(`the connection ended before a ${cmd} came`);
    return found;
  }

  /** Resolves when the connection has ended, by whomever. */
  ended(): Promise<void> {
    return this.#ended;
  }

  /** As a cable that is pulled. */
  async drop(): Promise<void> {
    this.#socket.destroy();
    await this.#ended;
  }

  async disconnect(): Promise<void> {
    this.send({ cmd: "disconnect", ...(this.#version === 5 ? { reasonCode: 0 } : {}) });
    this.#socket.end();
    await this.#ended;
  }
}
