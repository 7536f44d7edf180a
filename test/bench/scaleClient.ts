import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import mqtt from "mqtt-packet";

/** The least of an MQTT 3.1.1 client: raw sockets and few objects, so that thousands of them cost the broker's measure nothing. */

export interface ClientOptions {
  readonly port: number;
  readonly clientId: string;
  readonly clean?: boolean;
  readonly keepAliveSeconds?: number;
  /** PEM of the authority; undefined: no TLS. */
  readonly ca?: string | undefined;
}

export interface Publish {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: number;
  readonly retain: boolean;
}

/** Cuts a stream into packets. */
export class Frames {
  #rest: Buffer | undefined;

  /** @param take one packet: bytes from..to of `bytes`, its body from `body` on */
  each(chunk: Buffer, take: (bytes: Buffer, from: number, body: number, to: number) => void): void {
    const bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (at + 2 <= bytes.length) {
      let body = at + 1;
      let length = 0;
      let byte = 128;
      for (let shift = 0; byte >= 128 && body < bytes.length; shift += 7) {
        byte = bytes[body++] ?? 0;
        length += (byte & 127) << shift;
      }
      if (byte >= 128 || body + length > bytes.length) break;
      take(bytes, at, body, body + length);
      at = body + length;
    }
    this.#rest = at === bytes.length ? undefined : bytes.subarray(at);
  }
}

/** A PUBLISH, and its packet id; 0 at QoS 0. */
export function readPublish(bytes: Buffer, from: number, body: number, to: number): Publish & { id: number } {
  const first = bytes[from] ?? 0;
  const qos = (first >> 1) & 3;
  const end = body + 2 + bytes.readUInt16BE(body);
  const id = qos === 0 ? 0 : bytes.readUInt16BE(end);
  const payload = bytes.subarray(qos === 0 ? end : end + 2, to);
  return { topic: bytes.toString("latin1", body + 2, end), payload, qos, retain: (first & 1) === 1, id };
}

export function publishPacket(topic: string, payload: Buffer, qos: 0 | 1 | 2 = 0, messageId = 1): Buffer {
  return mqtt.generate({ cmd: "publish", topic, payload, qos, retain: false, dup: false, messageId });
}

const four = (first: number, id: number): Buffer => Buffer.from([first, 2, id >> 8, id & 255]);

/** After CONNACK. Answers what it is sent, at QoS 1 and 2 too. */
export class Client {
  readonly socket: Socket;
  /** The last step of one of its own: PUBACK or PUBCOMP. */
  onDone: (id: number) => void = () => {};
  /** What it gets. At QoS 2 what comes again before PUBREL is left out. */
  onPublish: (publish: Publish) => void = () => {};
  onSuback: () => void = () => {};
  readonly #held = new Set<number>();
  readonly #frames = new Frames();

  private constructor(socket: Socket) {
    this.socket = socket;
  }

  static open({ port, clientId, clean = true, keepAliveSeconds = 0, ca }: ClientOptions): Promise<Client> {
    return new Promise((resolve, reject) => {
      const to = { host: "127.0.0.1", port };
      const socket =
        ca === undefined ? connect({ ...to, noDelay: true }) : connectTls({ ...to, ca, servername: "localhost" });
      const client = new Client(socket);
      const failed = (error?: Error): void => reject(error ?? new Error("closed before its CONNACK"));
      socket.once("error", failed);
      socket.once("close", failed);
      socket.write(
        mqtt.generate({
          ...{ cmd: "connect", clientId, clean, keepalive: keepAliveSeconds, protocolVersion: 4, protocolId: "MQTT" },
        } as mqtt.IConnectPacket),
      );
      socket.once("data", (connack: Buffer) => {
        if (connack[3] !== 0) return reject(new Error(`CONNACK ${connack[3]}`));
        socket.off("close", failed);
        socket.off("error", failed);
        socket.on("error", () => {}); // "close" follows
        socket.on("data", (chunk: Buffer) => client.#read(chunk));
        if (connack.length > 4) client.#read(connack.subarray(4));
        resolve(client);
      });
    });
  }

  /** Resolves with its SUBACK. */
  subscribe(filters: readonly string[], qos: 0 | 1 | 2 = 0): Promise<void> {
    const subscriptions = filters.map((topic) => ({ topic, qos }));
    this.socket.write(mqtt.generate({ cmd: "subscribe", messageId: 1, subscriptions }));
    return new Promise((resolve) => (this.onSuback = resolve));
  }

  ping(): void {
    this.socket.write(Buffer.from([0xc0, 0]));
  }

  leave(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.socket.once("close", () => resolve()));
    this.socket.end(Buffer.from([0xe0, 0]));
    return closed;
  }

  #read(chunk: Buffer): void {
    this.#frames.each(chunk, (bytes, from, body, to) => {
      const kind = (bytes[from] ?? 0) >> 4;
      if (kind === 3) return this.#publish(readPublish(bytes, from, body, to));
      if (kind === 9) return this.onSuback();
      if (kind < 4 || kind > 7) return;
      const id = bytes.readUInt16BE(body);
      if (kind === 5) this.socket.write(four(0x62, id));
      else if (kind === 6) {
        this.#held.delete(id);
        this.socket.write(four(0x70, id));
      } else this.onDone(id);
    });
  }

  #publish(publish: Publish & { id: number }): void {
    const { qos, id } = publish;
    if (qos > 0) this.socket.write(four(qos === 1 ? 0x40 : 0x50, id));
    if (qos === 2 && this.#held.has(id)) return;
    if (qos === 2) this.#held.add(id);
    this.onPublish(publish);
  }
}
