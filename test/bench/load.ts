import { connect, type Socket } from "node:net";
import mqtt from "mqtt-packet";

/**
 * The load of a benchmark, in a process of its own so that it costs the broker nothing but its share of the machine. Raw sockets and packets
 * made beforehand: a client library would be what is measured. Prints one JSON line.
 */
export interface LoadOptions {
  readonly mode: "fan-in-qos0" | "qos1";
  readonly port: number;
  readonly publishers: number;
  readonly seconds: number;
  readonly payloadBytes: number;
  /** QoS 1: unacknowledged messages per publisher. */
  readonly window: number;
}

export interface LoadResult {
  readonly messages: number;
  readonly seconds: number;
  readonly perSecond: number;
}

function open(port: number, clientId: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port, noDelay: true });
    socket.once("error", reject);
    socket.write(
      mqtt.generate({ cmd: "connect", clientId, protocolVersion: 4, protocolId: "MQTT", clean: true, keepalive: 0 }),
    );
    socket.once("data", (connack: Buffer) =>
      connack[3] === 0 ? resolve(socket) : reject(new Error(`CONNACK ${connack[3]}`)),
    );
  });
}

const publish = (topic: string, payload: Buffer, qos: 0 | 1, messageId?: number): Buffer =>
  mqtt.generate({
    cmd: "publish",
    topic,
    payload,
    qos,
    retain: false,
    dup: false,
    ...(messageId === undefined ? {} : { messageId }),
  });

/** Publishers write as fast as the broker reads; one subscriber counts what arrives. */
async function fanIn(options: LoadOptions): Promise<LoadResult> {
  const subscriber = await open(options.port, "bench-sub");
  subscriber.write(mqtt.generate({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "bench/#", qos: 0 }] }));
  await new Promise((resolve) => subscriber.once("data", resolve));
  const one = publish("bench/sensor/1", Buffer.alloc(options.payloadBytes, 120), 0);
  const batch = Buffer.concat(Array.from({ length: Math.max(1, Math.floor(60_000 / one.length)) }, () => one));
  let bytes = 0;
  subscriber.on("data", (chunk: Buffer) => (bytes += chunk.length));
  const senders = await Promise.all(
    Array.from({ length: options.publishers }, (_, n) => open(options.port, `bench-${n}`)),
  );
  let stopped = false;
  for (const sender of senders) {
    const go = (): void => {
      while (!stopped && sender.write(batch));
    };
    sender.on("drain", go);
    go();
  }
  await pause(500); // warm
  const before = bytes;
  const startMs = performance.now();
  await pause(options.seconds * 1000);
  const seconds = (performance.now() - startMs) / 1000;
  const messages = Math.floor((bytes - before) / one.length);
  stopped = true;
  for (const socket of [...senders, subscriber]) socket.destroy();
  return { messages, seconds, perSecond: messages / seconds };
}

/** Each publisher keeps `window` messages unacknowledged; PUBACKs are counted. */
async function qos1(options: LoadOptions): Promise<LoadResult> {
  const payload = Buffer.alloc(options.payloadBytes, 120);
  let acknowledged = 0;
  let stopped = false;
  const sockets = await Promise.all(
    Array.from({ length: options.publishers }, (_, n) => open(options.port, `bench-${n}`)),
  );
  sockets.forEach((socket, n) => {
    // Identifiers go round in the window; the broker acknowledges in order, so one in use is never sent again.
    const packets = Array.from({ length: options.window }, (_, at) => publish(`bench/sensor/${n}`, payload, 1, at + 1));
    let next = 0;
    let rest = 0;
    socket.write(Buffer.concat(packets));
    socket.on("data", (chunk: Buffer) => {
      rest += chunk.length;
      const acks = Math.floor(rest / 4); // PUBACK is four bytes in 3.1.1
      rest -= acks * 4;
      acknowledged += acks;
      if (stopped) return;
      const more: Buffer[] = [];
      for (let at = 0; at < acks; at += 1) more.push(packets[next++ % options.window] ?? payload);
      socket.write(Buffer.concat(more));
    });
  });
  await pause(500);
  const before = acknowledged;
  const startMs = performance.now();
  await pause(options.seconds * 1000);
  const seconds = (performance.now() - startMs) / 1000;
  const messages = acknowledged - before;
  stopped = true;
  for (const socket of sockets) socket.destroy();
  return { messages, seconds, perSecond: messages / seconds };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const options = JSON.parse(process.argv[2] ?? "{}") as LoadOptions;
const result = await (options.mode === "qos1" ? qos1(options) : fanIn(options));
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit(0);
