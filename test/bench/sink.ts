import type { AddressInfo } from "node:net";
import { createServer, type Server, type Socket } from "node:net";

/**
 * A cloud that takes everything as fast as it comes: CONNACK, SUBACK, and a PUBACK for each QoS 1 PUBLISH. It parses no more than it must, so
 * that it is not what is measured.
 */
export class Sink {
  received = 0;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  async listen(port: number): Promise<number> {
    const server = createServer((socket) => this.#serve(socket));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    return (server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server?.close(resolve));
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    let rest: Buffer = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => {
      const data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      const answers: Buffer[] = [];
      let at = 0;
      for (let next = this.#packet(data, at, answers); next > at; next = this.#packet(data, at, answers)) at = next;
      rest = data.subarray(at);
      if (answers.length > 0) socket.write(Buffer.concat(answers));
    });
  }

  /** @returns where the next packet begins; `at` when this one is not whole */
  #packet(data: Buffer, at: number, answers: Buffer[]): number {
    let length = 0;
    let head = at + 1;
    for (let shift = 0; ; shift += 7, head += 1) {
      const byte = data[head];
      if (byte === undefined) return at;
      length += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    head += 1;
    const end = head + length;
    if (end > data.length) return at;
    const type = (data[at] ?? 0) >> 4;
    if (type === 1) answers.push(data[head + 6] === 5 ? Buffer.from([0x20, 3, 0, 0, 0]) : Buffer.from([0x20, 2, 0, 0]));
    if (type === 8) answers.push(Buffer.from([0x90, 4, data[head] ?? 0, data[head + 1] ?? 0, 0, 0]));
    if (type === 12) answers.push(Buffer.from([0xd0, 0]));
    if (type === 3) {
      this.received += 1;
      const id = head + 2 + data.readUInt16BE(head);
      if (((data[at] ?? 0) & 6) === 2) answers.push(Buffer.from([0x40, 2, data[id] ?? 0, data[id + 1] ?? 0]));
    }
    return end;
  }
}
