import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { until } from "./wait.ts";

/** A WebSocket client whose frames are the test's, byte by byte. */
export class RawWebSocket {
  readonly socket: Socket;
  /** All that the server has sent behind its answer to the request. */
  bytes: Buffer = Buffer.alloc(0);
  /** The answer to the request, as text, once it is whole. */
  answer: string | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
      const end = this.answer === undefined ? this.bytes.indexOf("\r\n\r\n") : -1;
      if (end < 0) return;
      this.answer = this.bytes.toString("latin1", 0, end);
      this.bytes = this.bytes.subarray(end + 4);
    });
  }

  /** @param headers instead of those of a good request; undefined leaves one out */
  static request(port: number, path = "/mqtt", headers: Record<string, string | undefined> = {}): RawWebSocket {
    const client = new RawWebSocket(connect(port, "127.0.0.1"));
    const all: Record<string, string | undefined> = {
      Host: `127.0.0.1:${port}`,
      Upgrade: "websocket",
      Connection: "Upgrade",
      "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Protocol": "mqtt",
      ...headers,
    };
    const lines = Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]));
    client.socket.write([`GET ${path} HTTP/1.1`, ...lines, "", ""].join("\r\n"));
    return client;
  }

  /** The status of the answer, once there is one. @throws when the connection ends without */
  async status(): Promise<number> {
    const answer = await until("an answer", () => this.answer ?? (this.socket.destroyed && "none"));
    if (answer === "none") throw new Error("closed without an answer");
    return Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]);
  }

  static async open(port: number, path?: string): Promise<RawWebSocket> {
    const client = RawWebSocket.request(port, path);
    const status = await client.status();
    if (status !== 101) throw new Error(`${status}`);
    return client;
  }

  /** The frames that have come, taken out. Servers' frames are not masked. */
  frames(): Array<{ opcode: number; payload: Buffer }> {
    const found: Array<{ opcode: number; payload: Buffer }> = [];
    for (;;) {
      const [first, second] = this.bytes;
      if (first === undefined || second === undefined) return found;
      const [start, length] =
        second < 126
          ? [2, second]
          : second === 126
            ? [4, this.bytes.readUInt16BE(2)]
            : [10, Number(this.bytes.readBigUInt64BE(2))];
      if (this.bytes.length < start + length) return found;
      found.push({ opcode: first & 15, payload: this.bytes.subarray(start, start + length) });
      this.bytes = this.bytes.subarray(start + length);
    }
  }

  drop(): void {
    this.socket.destroy();
  }
}

/** A client's frame (RFC 6455 section 5.2). */
export function frame(opcode: number, payload: Uint8Array, { fin = true, masked = true } = {}): Buffer {
  const { length } = payload;
  const size = length < 126 ? Buffer.of(length) : Buffer.from([length < 65_536 ? 126 : 127, 0, 0]);
  let head: Buffer = size;
  if (length >= 65_536) {
    head = Buffer.alloc(9);
    head[0] = 127;
    head.writeBigUInt64BE(BigInt(length), 1);
  } else if (length >= 126) head.writeUInt16BE(length, 1);
  head[0] = (head[0] ?? 0) | (masked ? 0x80 : 0);
  const mask = randomBytes(4);
  const body = masked ? Buffer.concat([mask, payload.map((byte, at) => byte ^ (mask[at % 4] ?? 0))]) : payload;
  return Buffer.concat([Buffer.of((fin ? 0x80 : 0) | opcode), head, body]);
}

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
