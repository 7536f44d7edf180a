import { connect, type Socket } from "node:net";
import mqtt from "mqtt-packet";

/**
 * The load of the latency benchmark, in a process of its own: pairs of a publisher and a subscriber on raw sockets, and a grid of times at which
 * messages are due, evenly spread and in turn over the publishers. A message carries when it was due, and its latency counts from then, so a
 * broker (or this process) that holds up the sending is not let off (coordinated omission). It spins instead of sleeping, because a timer
 * would add its own millisecond, and allocates next to nothing for a message: packets are made beforehand, reads go into one buffer.
 * Prints one JSON line.
 */
export interface LatencyOptions {
  readonly port: number;
  readonly pairs: number;
  readonly qos: 0 | 1;
  readonly payloadBytes: number;
  /** Of all publishers. */
  readonly perSecond: number;
  readonly seconds: number;
}

/** Microseconds from when a message was due until its subscriber's chunk was read. */
export interface LatencyResult {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly most: number;
  /** How late this process itself was with the sending: a part of every figure above. */
  readonly lateP99: number;
  readonly messages: number;
  readonly lost: number;
}

const options = JSON.parse(process.argv[2] ?? "{}") as LatencyOptions;
const { port, pairs, qos, payloadBytes, perSecond } = options;
const warmSeconds = 2;
/** Packets of a publisher that are made beforehand: a second's worth may be in a socket that is not read. */
const ringSize = 2 * Math.ceil(perSecond / pairs);
const total = Math.round(perSecond * (options.seconds + warmSeconds));
const firstCounted = Math.round(perSecond * warmSeconds);

const latencies = new Float64Array(total - firstCounted);
const lateness = new Float64Array(total - firstCounted);
let startMs = 0;
let arrived = 0;
let counted = 0;

const readBuffer = Buffer.allocUnsafe(256 * 1024);
const acks = Buffer.alloc(4 * 1024, 0);

/** Connects, and resolves when `answerBytes` have come; from then on `take` gets each chunk, in a buffer that the next one overwrites. */
function open(clientId: string, packets: Buffer, answerBytes: number, take: (bytes: number) => void): Promise<Socket> {
  return new Promise((resolve, reject) => {
    let waiting = answerBytes;
    const callback = (bytes: number): boolean => {
      if (waiting <= 0) take(bytes);
      else {
        waiting -= bytes;
        if (waiting === 0) resolve(socket);
        if (waiting < 0) reject(new Error("more than CONNACK and SUBACK"));
      }
      return true;
    };
    const socket = connect({ host: "127.0.0.1", port, noDelay: true, onread: { buffer: readBuffer, callback } });
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("the broker closed a connection")));
    const hello = {
      cmd: "connect",
      clientId,
      protocolVersion: 4,
      protocolId: "MQTT",
      clean: true,
      keepalive: 0,
    } as const;
    socket.write(Buffer.concat([mqtt.generate(hello), packets]));
  });
}

interface Frames {
  readonly ring: readonly Buffer[];
  readonly size: number;
  /** Where in a packet, as sent and as it comes back, the time is. */
  readonly timeAt: number;
  readonly idAt: number;
}

function framesOf(topic: string): Frames {
  const payload = Buffer.alloc(payloadBytes, 120);
  const id = qos === 0 ? 0 : 2;
  const packet = (n: number): Buffer =>
    mqtt.generate({
      ...{ cmd: "publish", topic, payload, qos, retain: false, dup: false },
      ...(qos === 0 ? {} : { messageId: n + 1 }),
    } as mqtt.Packet);
  const ring = Array.from({ length: ringSize }, (_, n) => packet(n));
  const size = ring[0]?.length ?? 0;
  return { ring, size, timeAt: size - payloadBytes, idAt: size - payloadBytes - id };
}

/** Takes whole packets out of the read buffer; what is cut is kept for the next chunk. */
function subscriberOf({ size, timeAt, idAt }: Frames, socket: () => Socket | undefined): (bytes: number) => void {
  const cut = Buffer.alloc(size);
  let cutBytes = 0;
  const one = (buffer: Buffer, at: number, nowMs: number): void => {
    const due = buffer.readDoubleLE(at + timeAt);
    arrived += 1;
    if (due >= countFromMs) latencies[counted++] = nowMs - due;
  };
  return (bytes) => {
    const nowMs = performance.now();
    let at = 0;
    let acked = 0;
    const take = (buffer: Buffer, from: number): void => {
      one(buffer, from, nowMs);
      if (qos === 0) return;
      acks[acked] = 0x40;
      acks[acked + 1] = 2;
      acks[acked + 2] = buffer[from + idAt] ?? 0;
      acks[acked + 3] = buffer[from + idAt + 1] ?? 0;
      acked += 4;
    };
    if (cutBytes > 0) {
      at = Math.min(size - cutBytes, bytes);
      readBuffer.copy(cut, cutBytes, 0, at);
      cutBytes += at;
      if (cutBytes < size) return;
      take(cut, 0);
      cutBytes = 0;
    }
    for (; at + size <= bytes; at += size) {
      take(readBuffer, at);
      if (acked === acks.length) acked = acknowledge(socket(), acked);
    }
    if (at < bytes) cutBytes = readBuffer.copy(cut, 0, at, bytes);
    if (acked > 0) acknowledge(socket(), acked);
  };
}

function acknowledge(socket: Socket | undefined, bytes: number): number {
  socket?.write(Buffer.from(acks.subarray(0, bytes)));
  return 0;
}

let countFromMs = 0;

interface Publisher {
  readonly socket: Socket;
  readonly frames: Frames;
  next: number;
}

async function openPair(number: number): Promise<Publisher> {
  const topic = `bench/${String(number).padStart(3, "0")}/t`;
  const frames = framesOf(topic);
  let subscriber: Socket | undefined;
  const subscribe = mqtt.generate({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos }] });
  subscriber = await open(
    `s-${number}`,
    subscribe,
    9,
    subscriberOf(frames, () => subscriber),
  );
  const socket = await open(`p-${number}`, Buffer.alloc(0), 4, () => {}); // PUBACKs are not waited for: the grid is
  return { socket, frames, next: 0 };
}

function send(publisher: Publisher, dueMs: number): void {
  const packet = publisher.frames.ring[publisher.next] as Buffer;
  publisher.next = (publisher.next + 1) % ringSize;
  packet.writeDoubleLE(dueMs, publisher.frames.timeAt);
  publisher.socket.write(packet);
}

/** Sends each message when it is due, in turns of the event loop that follow each other without a pause. */
function drive(publishers: readonly Publisher[]): Promise<void> {
  const stepMs = 1000 / perSecond;
  let sent = 0;
  return new Promise((resolve) => {
    const turn = (): void => {
      const nowMs = performance.now();
      for (let dueMs = startMs + sent * stepMs; dueMs <= nowMs && sent < total; dueMs = startMs + sent * stepMs) {
        send(publishers[sent % pairs] as Publisher, dueMs);
        if (sent >= firstCounted) lateness[sent - firstCounted] = performance.now() - dueMs;
        sent += 1;
      }
      if (sent === total) resolve();
      else setImmediate(turn);
    };
    turn();
  });
}

const publishers: Publisher[] = [];
for (let at = 0; at < pairs; at += 1) publishers.push(await openPair(at));
startMs = performance.now() + 10;
countFromMs = startMs + (firstCounted * 1000) / perSecond;
await drive(publishers);
for (let round = 0; round < 50 && arrived < total; round += 1) await new Promise((resolve) => setTimeout(resolve, 100));
const sorted = latencies.subarray(0, counted).sort();
const share = (values: Float64Array, part: number): number =>
  Math.round((values[Math.min(values.length - 1, Math.floor(values.length * part))] ?? Number.NaN) * 1e4) / 10;
const result: LatencyResult = {
  ...{ p50: share(sorted, 0.5), p99: share(sorted, 0.99), p999: share(sorted, 0.999), most: share(sorted, 1) },
  lateP99: share(lateness.sort(), 0.99),
  ...{ messages: counted, lost: total - arrived },
};
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit(0);
