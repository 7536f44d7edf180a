import { createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";

/**
 * The cloud of a benchmark, in a process of its own: takes everything as fast as it comes, one count for each port. CONNACK, SUBACK, PINGRESP, and a
 * PUBACK for each QoS 1 PUBLISH, the PUBACKs of a chunk in one write. It parses no more than it must, so that it is not what is measured: on the
 * machine of the README it takes over a million messages a second.
 *
 * Arguments: the ports. Lines on stdin: `open`, `report`; each is answered by one line of JSON. A message to `bench/fresh` begins with the microsecond
 * of the system's monotonic clock at which it was published.
 */
export interface PortReport {
  readonly connections: number;
  /** PUBLISH packets, and their bytes. */
  readonly messages: number;
  readonly bytes: number;
  /** Of the monotonic clock, of the chunk that held the first and the newest one. */
  readonly firstUs: number;
  readonly lastUs: number;
  /** When this was asked for. */
  readonly nowUs: number;
  /** Of these the ones to bench/fresh, and how long they took, ms. */
  readonly fresh: { readonly messages: number; readonly p50: number; readonly p99: number; readonly max: number };
}

export const nowUs = (): number => Number(process.hrtime.bigint() / 1000n);

const freshTopic = "bench/fresh";
const fixedAnswers: Readonly<Record<number, Buffer>> = { 12: Buffer.from([0xd0, 0]) };

class Port {
  connections = 0;
  messages = 0;
  bytes = 0;
  firstUs = 0;
  lastUs = 0;
  readonly #fresh: number[] = [];
  readonly #server: Server = createServer((socket) => this.#serve(socket));

  listen(port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, "127.0.0.1", resolve);
    });
  }

  report(): PortReport {
    const { connections, messages, bytes, firstUs, lastUs } = this;
    const sorted = [...this.#fresh].sort((a, b) => a - b);
    const at = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
    const fresh = { messages: sorted.length, p50: at(0.5), p99: at(0.99), max: sorted.at(-1) ?? 0 };
    return { connections, messages, bytes, firstUs, lastUs, nowUs: nowUs(), fresh };
  }

  #serve(socket: Socket): void {
    this.connections += 1;
    socket.setNoDelay(true);
    socket.on("error", () => {});
    let rest: Buffer = Buffer.alloc(0);
    let version = 4;
    socket.on("data", (chunk: Buffer) => {
      const data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      const acks = Buffer.allocUnsafe((data.length >> 3) * 4 + 4);
      let acked = 0;
      let at = 0;
      const before = this.messages;
      for (;;) {
        let length = 0;
        let body = at + 1;
        for (let shift = 1; ; shift *= 128) {
          const byte = data[body] ?? -1;
          body += 1;
          if (byte < 0) length = Number.POSITIVE_INFINITY;
          else length += (byte & 127) * shift;
          if (byte < 128) break;
        }
        const end = body + length;
        if (end > data.length) break;
        const first = data[at]!;
        if (first >> 4 === 3) {
          const id = this.#publish(data, body, end - at, version);
          if ((first & 6) === 2) {
            acks[acked] = 0x40;
            acks[acked + 1] = 2;
            acks[acked + 2] = data[id]!;
            acks[acked + 3] = data[id + 1]!;
            acked += 4;
          }
        } else {
          if (first >> 4 === 1) version = (data[body + 6]! & 127) === 5 ? 5 : 4;
          socket.write(answerTo(data, first, body, version));
        }
        at = end;
      }
      rest = at === data.length ? Buffer.alloc(0) : Buffer.from(data.subarray(at));
      if (acked > 0) socket.write(acks.subarray(0, acked));
      if (this.messages === before) return;
      this.lastUs = nowUs();
      this.firstUs ||= this.lastUs;
    });
  }

  /** @returns where the packet identifier lies, if there is one */
  #publish(data: Buffer, body: number, bytes: number, version: number): number {
    this.messages += 1;
    this.bytes += bytes;
    const length = data.readUInt16BE(body);
    const id = body + 2 + length;
    if (length === freshTopic.length && data[body + 8] === 0x66) {
      let payload = id + 2; // all of them are QoS 1
      if (version === 5) {
        let properties = 0;
        for (let shift = 1; ; shift *= 128) {
          const byte = data[payload]!;
          payload += 1;
          properties += (byte & 127) * shift;
          if (byte < 128) break;
        }
        payload += properties;
      }
      this.#fresh.push((nowUs() - data.readDoubleBE(payload)) / 1000);
    }
    return id;
  }
}

function answerTo(data: Buffer, first: number, body: number, version: number): Buffer {
  const type = first >> 4;
  if (type === 1) return version === 5 ? Buffer.from([0x20, 3, 0, 0, 0]) : Buffer.from([0x20, 2, 0, 0]);
  if (type === 8)
    return Buffer.from([
      0x90,
      3 + (version === 5 ? 1 : 0),
      data[body]!,
      data[body + 1]!,
      ...(version === 5 ? [0] : []),
      1,
    ]);
  return fixedAnswers[type] ?? Buffer.alloc(0);
}

if (process.argv[1] === import.meta.filename) {
  const ports = process.argv.slice(2).map((port) => ({ port: Number(port), counts: new Port() }));
  for await (const line of createInterface(process.stdin)) {
    if (line === "open") await Promise.all(ports.map(({ port, counts }) => counts.listen(port)));
    process.stdout.write(`${JSON.stringify(ports.map(({ counts }) => counts.report()))}\n`);
  }
}
