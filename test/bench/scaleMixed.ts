import { createServer } from "node:net";
import { Client, Frames, publishPacket, readPublish } from "./scaleClient.ts";

/**
 * Traffic of all kinds at once, and what has become of every acknowledged message: pairs of clients at QoS 0, 1 and 2; senders to sessions that
 * outlive their connection, half of them away; and to an uplink whose cloud is away until all is sent.
 */

export interface MixedAsk {
  readonly port: number;
  /** Pairs of clean sessions; each a third at QoS 0, 1 and 2. */
  readonly pairs: number;
  /** Persistent sessions, each with a sender of its own, which writes to the uplink as well. */
  readonly kept: number;
  /** Of each sender, to each of its topics. */
  readonly messages: number;
}

export interface MixedResult {
  readonly seconds: number;
  readonly acknowledged: number;
  /** Of QoS 0, which may be dropped. */
  readonly qos0Sent: number;
  readonly qos0Came: number;
}

export interface MixedEnd {
  /** Acknowledged and not there. */
  readonly missing: number;
  /** Came twice at QoS 2. */
  readonly twice: number;
  /** In the cloud, each once. */
  readonly inCloud: number;
}

const window = 5;
const payloadBytes = 100;
/** By topic: numbers that were acknowledged, and those that came. */
const acknowledged = new Map<string, Set<number>>();
const came = new Map<string, Set<number>>();
const away: string[] = [];
let twice = 0;
let qos0Came = 0;

function of(map: Map<string, Set<number>>, topic: string): Set<number> {
  const known = map.get(topic);
  if (known !== undefined) return known;
  const made = new Set<number>();
  map.set(topic, made);
  return made;
}

function numbered(number: number): Buffer {
  const payload = Buffer.alloc(payloadBytes, 120);
  payload.writeUInt32BE(number);
  return payload;
}

function hear(client: Client): void {
  client.onPublish = ({ topic, payload, qos }) => {
    if (qos === 0) qos0Came += 1;
    const numbers = of(came, topic);
    const number = payload.readUInt32BE();
    if (qos === 2 && numbers.has(number)) twice += 1;
    numbers.add(number);
  };
}

/** Numbers 1 to `messages` to each topic in turn, `window` unacknowledged; all of it at once at QoS 0. */
function send(client: Client, topics: readonly string[], qos: 0 | 1 | 2, messages: number): Promise<void> {
  const total = messages * topics.length;
  const topicOf = (n: number): string => topics[n % topics.length] ?? "";
  const packet = (n: number): Buffer =>
    publishPacket(topicOf(n), numbered(1 + Math.floor(n / topics.length)), qos, 1 + (n % 60_000));
  if (qos === 0) {
    for (let n = 0; n < total; n += 1) client.socket.write(packet(n));
    return Promise.resolve();
  }
  return new Promise((resolve, reject) => {
    client.socket.once("close", () => reject(new Error(`${topics[0]}: the connection of a sender was closed`)));
    let next = 0;
    let done = 0;
    while (next < Math.min(window, total)) client.socket.write(packet(next++));
    client.onDone = () => {
      of(acknowledged, topicOf(done)).add(1 + Math.floor(done / topics.length)); // they come in order
      done += 1;
      if (done === total) resolve();
      if (next < total) client.socket.write(packet(next++));
    };
  });
}

export async function mixed({ port, pairs, kept, messages }: MixedAsk): Promise<MixedResult> {
  const senders: Array<() => Promise<void>> = [];
  for (let n = 0; n < pairs; n += 1) {
    const qos = (n % 3) as 0 | 1 | 2;
    const [to, from] = await Promise.all([
      Client.open({ port, clientId: `to-${n}` }),
      Client.open({ port, clientId: `from-${n}` }),
    ]);
    hear(to);
    await to.subscribe([`pair/${n}`], qos);
    senders.push(() => send(from, [`pair/${n}`], qos, messages));
  }
  for (let n = 0; n < kept; n += 1) {
    const qos = n % 2 === 0 ? 1 : 2;
    const [to, from] = await Promise.all([
      Client.open({ port, clientId: `kept-${n}`, clean: false }),
      Client.open({ port, clientId: `feeder-${n}` }),
    ]);
    hear(to);
    await to.subscribe([`kept/${n}`], qos);
    if (n % 4 < 2) {
      away.push(`kept-${n}`);
      await to.leave();
    }
    senders.push(() => send(from, [`kept/${n}`, `bench/sensor/${n}`], qos, messages));
  }
  const startMs = performance.now();
  await Promise.all(senders.map((start) => start()));
  const seconds = (performance.now() - startMs) / 1000;
  const total = [...acknowledged.values()].reduce((sum, { size }) => sum + size, 0);
  return { seconds, acknowledged: total, qos0Sent: Math.ceil(pairs / 3) * messages, qos0Came };
}

/** Brings the cloud up, lets the sessions come that were away, and waits until nothing is missing, for a minute at most. */
export async function mixedAfterwards({ port, cloudPort }: { port: number; cloudPort: number }): Promise<MixedEnd> {
  cloud(cloudPort);
  for (const clientId of away) hear(await Client.open({ port, clientId, clean: false }));
  const missing = (): number => {
    let count = 0;
    for (const [topic, numbers] of acknowledged) {
      const there = of(came, topic);
      for (const number of numbers) if (!there.has(number)) count += 1;
    }
    return count;
  };
  for (const endMs = performance.now() + 60_000; missing() > 0 && performance.now() < endMs; )
    await new Promise((resolve) => setTimeout(resolve, 200));
  const inCloud = [...came]
    .filter(([topic]) => topic.startsWith("bench/"))
    .reduce((sum, [, { size }]) => sum + size, 0);
  return { missing: missing(), twice, inCloud };
}

/** Takes everything at QoS 1, in 3.1.1. */
function cloud(port: number): void {
  createServer({ noDelay: true }, (socket) => {
    const frames = new Frames();
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) =>
      frames.each(chunk, (bytes, from, body, to) => {
        const kind = (bytes[from] ?? 0) >> 4;
        if (kind === 1) socket.write(Buffer.from([0x20, 2, 0, 0]));
        else if (kind === 12) socket.write(Buffer.from([0xd0, 0]));
        else if (kind === 3) {
          const { topic, payload, id } = readPublish(bytes, from, body, to);
          of(came, topic).add(payload.readUInt32BE());
          socket.write(Buffer.from([0x40, 2, id >> 8, id & 255]));
        }
      }),
    );
  }).listen(port, "127.0.0.1");
}
