import { connect, type Socket } from "node:net";
import mqtt from "mqtt-packet";

/**
 * The load of a benchmark, in a process of its own so that it costs the broker nothing but its share of the machine. Raw sockets and packets
 * made beforehand: a client library would be what is measured. Prints one JSON line.
 *
 * fan-in-qos0: publishers write as fast as the broker reads, one subscriber counts. qos1: each publisher keeps `window` messages unacknowledged;
 * PUBACKs are counted, for `seconds`, or until `messages` are acknowledged. retained: `messages` topics, each set once. sessions: `messages`
 * persistent sessions, each with one subscription, which then leave. logins: connections made and ended, `window` at a time, for `seconds`;
 * with `username` half of them give `password`, the others a wrong one, and both are counted; with `addresses` each comes from another address
 * than the one before, of so many in 127.1/16.
 * trickle: one QoS 1 message each 100 ms, for `seconds`.
 */
export interface LoadOptions {
  readonly mode: "fan-in-qos0" | "qos1" | "retained" | "sessions" | "logins" | "trickle";
  readonly port: number;
  readonly publishers?: number;
  readonly seconds?: number;
  readonly messages?: number;
  readonly payloadBytes?: number;
  readonly window?: number;
  /** Empty: nobody logs in. */
  readonly username?: string;
  readonly password?: string;
  /** 0: all from 127.0.0.1. */
  readonly addresses?: number;
}

export interface LoadResult {
  readonly messages: number;
  readonly seconds: number;
  readonly perSecond: number;
}

type Given = Required<LoadOptions>;

/** @param localAddress undefined: the system's choice */
function open(
  port: number,
  clientId: string,
  more: Partial<mqtt.IConnectPacket> = {},
  localAddress?: string,
): Promise<Socket> {
  const hello = { cmd: "connect", clientId, protocolVersion: 4, protocolId: "MQTT", keepalive: 0 } as const;
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: "127.0.0.1",
      port,
      noDelay: true,
      ...(localAddress === undefined ? {} : { localAddress }),
    });
    socket.once("error", reject);
    socket.write(mqtt.generate({ ...hello, clean: true, ...more }));
    socket.once("data", (connack: Buffer) => {
      if (connack[3] === 0) return resolve(socket);
      socket.on("error", () => {}); // it may be reset as it ends
      socket.destroy();
      reject(new Error(`CONNACK ${connack[3]}`));
    });
    socket.once("close", () => reject(new Error("closed before its CONNACK")));
  });
}

function publish(topic: string, payload: Buffer, qos: 0 | 1, messageId?: number, retain = false): Buffer {
  const id = messageId === undefined ? {} : { messageId };
  return mqtt.generate({ cmd: "publish", topic, payload, qos, retain, dup: false, ...id });
}

const result = (messages: number, seconds: number): LoadResult => ({
  messages,
  seconds,
  perSecond: messages / seconds,
});

async function fanIn({ port, payloadBytes, publishers, seconds }: Given): Promise<LoadResult> {
  const subscriber = await open(port, "bench-sub");
  subscriber.write(mqtt.generate({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "bench/#", qos: 0 }] }));
  await new Promise((resolve) => subscriber.once("data", resolve));
  const one = publish("bench/sensor/1", Buffer.alloc(payloadBytes, 120), 0);
  const batch = Buffer.concat(Array.from({ length: Math.max(1, Math.floor(60_000 / one.length)) }, () => one));
  let bytes = 0;
  subscriber.on("data", (chunk: Buffer) => (bytes += chunk.length));
  const senders = await Promise.all(Array.from({ length: publishers }, (_, n) => open(port, `bench-${n}`)));
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
  await pause(seconds * 1000);
  const took = (performance.now() - startMs) / 1000;
  const messages = Math.floor((bytes - before) / one.length);
  stopped = true;
  for (const socket of [...senders, subscriber]) socket.destroy();
  return result(messages, took);
}

async function qos1({ port, payloadBytes, publishers, seconds, messages, window }: Given): Promise<LoadResult> {
  const payload = Buffer.alloc(payloadBytes, 120);
  let acknowledged = 0;
  let left = messages > 0 ? messages : Number.POSITIVE_INFINITY;
  let done: () => void = () => {};
  const finished = new Promise<void>((resolve) => (done = resolve));
  const sockets = await Promise.all(Array.from({ length: publishers }, (_, n) => open(port, `bench-${n}`)));
  const startedMs = performance.now();
  sockets.forEach((socket, n) => {
    // Identifiers go round in the window; the broker acknowledges in order, so one in use is never sent again. The packets of two windows lie side
    // by side, so that any run of them is one write.
    const packets = Array.from({ length: window }, (_, at) => publish(`bench/sensor/${n}`, payload, 1, at + 1));
    const size = packets[0]?.length ?? 0;
    const round = Buffer.concat([...packets, ...packets]);
    let next = 0;
    let rest = 0;
    const send = (count: number): void => {
      const some = Math.min(count, left);
      left -= some;
      if (some > 0) socket.write(round.subarray(next * size, (next + some) * size));
      next = (next + some) % window;
    };
    send(window);
    socket.on("data", (chunk: Buffer) => {
      rest += chunk.length;
      const acks = Math.floor(rest / 4); // PUBACK is four bytes in 3.1.1
      rest -= acks * 4;
      acknowledged += acks;
      send(acks);
      if (messages > 0 && acknowledged >= messages) done();
    });
  });
  if (messages > 0) {
    await finished;
    return result(messages, (performance.now() - startedMs) / 1000);
  }
  await pause(500);
  const before = acknowledged;
  const startMs = performance.now();
  await pause(seconds * 1000);
  const took = (performance.now() - startMs) / 1000;
  const counted = acknowledged - before;
  left = 0;
  for (const socket of sockets) socket.destroy();
  return result(counted, took);
}

async function retained({ port, payloadBytes, messages }: Given): Promise<LoadResult> {
  const startMs = performance.now();
  const socket = await open(port, "bench-retained");
  let acknowledged = 0;
  let rest = 0;
  const finished = new Promise<void>((resolve) => {
    socket.on("data", (chunk: Buffer) => {
      rest += chunk.length;
      acknowledged += Math.floor(rest / 4);
      rest %= 4;
      if (acknowledged >= messages) resolve();
    });
  });
  const payload = Buffer.alloc(payloadBytes, 120);
  for (let at = 0; at < messages; at += 1) {
    while (at - acknowledged >= 1000) await new Promise((resolve) => setImmediate(resolve));
    socket.write(publish(`plant/${at % 300}/sensor/${at}`, payload, 1, 1 + (at % 60_000), true));
  }
  await finished;
  return result(messages, (performance.now() - startMs) / 1000);
}

async function sessions({ port, messages }: Given): Promise<LoadResult> {
  const startMs = performance.now();
  for (let at = 0; at < messages; at += 100) {
    const some = Array.from({ length: Math.min(100, messages - at) }, async (_, n) => {
      const socket = await open(port, `bench-session-${at + n}`, { clean: false });
      const subscriptions = [{ topic: `bench/session/${at + n}`, qos: 1 as const }];
      socket.write(mqtt.generate({ cmd: "subscribe", messageId: 1, subscriptions }));
      await new Promise((resolve) => socket.once("data", resolve));
      socket.end(mqtt.generate({ cmd: "disconnect" }));
    });
    await Promise.all(some);
  }
  return result(messages, (performance.now() - startMs) / 1000);
}

async function logins({ port, window, seconds, username, password, addresses }: Given): Promise<LoadResult> {
  const startMs = performance.now();
  let count = 0;
  const one = async (n: number): Promise<void> => {
    const credentials = username === "" ? {} : { username, password: Buffer.from(n % 2 === 0 ? password : "wrong") };
    while (performance.now() - startMs < seconds * 1000) {
      const at = addresses === 0 ? undefined : `127.1.${(count % addresses) >> 8}.${(count % addresses) & 0xff}`;
      await open(port, `bench-login-${n}`, credentials, at).then(
        (socket) => socket.destroy(),
        () => {}, // refused, as half of them have to be
      );
      count += 1;
    }
  };
  await Promise.all(Array.from({ length: window }, (_, n) => one(n)));
  return result(count, (performance.now() - startMs) / 1000);
}

async function trickle({ port, payloadBytes, seconds }: Given): Promise<LoadResult> {
  const socket = await open(port, "bench-trickle");
  const payload = Buffer.alloc(payloadBytes, 120);
  const startMs = performance.now();
  let count = 0;
  for (; performance.now() - startMs < seconds * 1000; count += 1) {
    socket.write(publish("bench/sensor/1", payload, 1, 1));
    await Promise.all([new Promise((resolve) => socket.once("data", resolve)), pause(100)]);
  }
  return result(count, (performance.now() - startMs) / 1000);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const modes = { "fan-in-qos0": fanIn, qos1, retained, sessions, logins, trickle };
const defaults = {
  publishers: 1,
  seconds: 1,
  messages: 0,
  payloadBytes: 200,
  window: 10,
  username: "",
  password: "",
  addresses: 0,
};
const options: Given = { ...defaults, ...(JSON.parse(process.argv[2] ?? "{}") as LoadOptions) };
process.stdout.write(`${JSON.stringify(await modes[options.mode](options))}\n`);
process.exit(0);
