import { connect, type Socket } from "node:net";
import mqtt from "mqtt-packet";
import { cpuSeconds } from "./procfs.ts";

/**
 * The traffic of a benchmark, in a process of its own: groups of publishers and subscribers on raw sockets, with packets made beforehand. It is a
 * closed loop with credits: a group has at most `window` messages on their way that a subscriber of it has not received, so a message that is
 * lost is the broker's loss, and shows as a group that stands still. Counts what arrives at subscribers. Prints one JSON line.
 */
export interface TrafficOptions {
  readonly port: number;
  readonly groups: number;
  readonly publishers: number;
  readonly subscribers: number;
  readonly qos: 0 | 1 | 2;
  readonly payloadBytes: number;
  /** Messages of a group on their way, at most. QoS 1 and 2: of a publisher, and not acknowledged. */
  readonly window: number;
  readonly seconds: number;
  /** The broker's process, to be asked for its CPU time. */
  readonly brokerPid?: number;
  /** In front of its topics and client ids, where several run beside each other. */
  readonly name?: string;
  /** Sessions on both ends outlive their connections. */
  readonly persistent?: boolean;
}

export interface TrafficResult {
  /** Delivered messages a second. */
  readonly perSecond: number;
  /** Sent and never received, after a pause for what was on its way. */
  readonly lost: number;
  /** CPU of the broker for each delivered message, microseconds: what it would cost, too, where the load is not the limit. */
  readonly brokerUs: number;
  /** Cores that the load took. At 1 it is the load that is measured, not the broker. */
  readonly loadCores: number;
}

const options = JSON.parse(process.argv[2] ?? "{}") as TrafficOptions;
const { port, qos, window, payloadBytes, name = "" } = options;
let stopped = false;
let received = 0;

/** The first packet of what the broker answers. */
function open(clientId: string, first: Buffer | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port, noDelay: true });
    const clean = options.persistent !== true;
    socket.once("error", reject);
    socket.write(
      mqtt.generate({ cmd: "connect", clientId, protocolVersion: 4, protocolId: "MQTT", clean, keepalive: 0 }),
    );
    if (first !== undefined) socket.write(first);
    let bytes = 0;
    const answers = (chunk: Buffer): void => {
      bytes += chunk.length;
      if (bytes < (first === undefined ? 4 : 9)) return; // CONNACK 4, SUBACK 5
      socket.off("data", answers);
      resolve(socket);
    };
    socket.on("data", answers);
  });
}

/** Frames of one message each, `count` of them side by side, with packet ids 1..count when there are any. */
function frames(topic: string, count: number): { bytes: Buffer; size: number } {
  const payload = Buffer.alloc(payloadBytes, 120);
  const list = Array.from({ length: count }, (_, at) =>
    mqtt.generate({
      ...{ cmd: "publish", topic, payload, qos, retain: false, dup: false },
      ...(qos === 0 ? {} : { messageId: at + 1 }),
    } as mqtt.Packet),
  );
  return { bytes: Buffer.concat(list), size: list[0]?.length ?? 0 };
}

interface Group {
  sent: number;
  /** Of each subscriber. */
  readonly got: Float64Array;
  readonly refill: Array<() => void>;
}

const leastOf = (got: Float64Array): number => {
  let least = Number.POSITIVE_INFINITY;
  for (const count of got) if (count < least) least = count;
  return least;
};

/** QoS 0: bytes are counted, not read: all frames have one length. */
function plainSubscriber(socket: Socket, group: Group, index: number, size: number): void {
  let bytes = 0;
  socket.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    const whole = Math.floor(bytes / size);
    bytes -= whole * size;
    group.got[index] = (group.got[index] ?? 0) + whole;
    received += whole;
    for (const refill of group.refill) refill();
  });
}

function plainPublisher(socket: Socket, group: Group, topic: string): void {
  const batch = Math.max(1, Math.min(window, Math.floor(60_000 / (payloadBytes + 20))));
  const { bytes, size } = frames(topic, batch);
  const refill = (): void => {
    let credit = window - (group.sent - leastOf(group.got));
    // Small pieces would measure the sockets; what is less than half a batch waits for more.
    while (!stopped && credit * 2 >= batch && socket.writableLength < 256 * 1024) {
      const count = Math.min(credit, batch);
      socket.write(bytes.subarray(0, count * size));
      group.sent += count;
      credit -= count;
    }
  };
  group.refill.push(refill);
  socket.on("drain", refill);
}

/** Packets of a chunk, cut by their length byte: PUBLISH of one size below 128, acknowledgements of four bytes. */
function packets(socket: Socket, take: (chunk: Buffer, at: number) => void, done: () => void): void {
  let rest: Buffer | undefined;
  socket.on("data", (read: Buffer) => {
    const chunk = rest === undefined ? read : Buffer.concat([rest, read]);
    let at = 0;
    for (;;) {
      const head = at + 1 < chunk.length ? (chunk[at + 1] ?? 0) : 0;
      const length = head < 128 ? 2 + head : 3 + (head & 127) + (chunk[at + 2] ?? 0) * 128;
      if (at + 2 >= chunk.length || at + length > chunk.length) break;
      take(chunk, at);
      at += length;
    }
    rest = at < chunk.length ? chunk.subarray(at) : undefined;
    done();
  });
}

/** Collects answers of four bytes, written with one call for each chunk that came. */
class Answers {
  readonly #bytes = Buffer.alloc(256 * 1024);
  readonly #socket: Socket;
  #end = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  add(first: number, high: number, low: number): void {
    this.#bytes[this.#end] = first;
    this.#bytes[this.#end + 1] = 2;
    this.#bytes[this.#end + 2] = high;
    this.#bytes[this.#end + 3] = low;
    this.#end += 4;
    if (this.#end > this.#bytes.length - 4) this.flush();
  }

  flush(): void {
    if (this.#end > 0) this.#socket.write(Buffer.from(this.#bytes.subarray(0, this.#end)));
    this.#end = 0;
  }
}

function acknowledgingSubscriber(socket: Socket, group: Group, index: number, topic: string): void {
  const answers = new Answers(socket);
  const idAt = payloadBytes + topic.length + 4 > 127 ? 3 : 2;
  const take = (chunk: Buffer, at: number): void => {
    const first = chunk[at] ?? 0;
    if (first >> 4 === 3) {
      const id = at + idAt + 2 + topic.length;
      answers.add(qos === 1 ? 0x40 : 0x50, chunk[id] ?? 0, chunk[id + 1] ?? 0);
      group.got[index] = (group.got[index] ?? 0) + 1;
      received += 1;
    } else answers.add(0x70, chunk[at + 2] ?? 0, chunk[at + 3] ?? 0); // PUBREL
  };
  packets(socket, take, () => {
    answers.flush();
    for (const refill of group.refill) refill();
  });
}

/**
 * A publisher with `window` ids of its own: an id is used again when its PUBACK or PUBCOMP came, and the group's subscriber has kept up.
 * Acknowledgements come in order, so free ids are a run.
 */
function acknowledgedPublisher(socket: Socket, group: Group, topic: string): void {
  const { bytes, size } = frames(topic, 2 * window);
  for (let at = window; at < 2 * window; at += 1)
    bytes.copyWithin(at * size, (at - window) * size, (at - window + 1) * size);
  const answers = new Answers(socket);
  let free = window;
  let next = 0;
  const refill = (): void => {
    const count = Math.min(free, window - (group.sent - leastOf(group.got)));
    if (stopped || count <= 0) return;
    socket.write(bytes.subarray(next * size, (next + count) * size));
    next = (next + count) % window;
    free -= count;
    group.sent += count;
  };
  const take = (chunk: Buffer, at: number): void => {
    if (chunk[at] === 0x50) answers.add(0x62, chunk[at + 2] ?? 0, chunk[at + 3] ?? 0);
    else free += 1;
  };
  packets(socket, take, () => {
    answers.flush();
    refill();
  });
  group.refill.push(refill);
}

async function openGroup(number: number): Promise<Group> {
  const topic = `bench${name}/${String(number).padStart(4, "0")}/t`;
  const group: Group = { sent: 0, got: new Float64Array(options.subscribers), refill: [] };
  const subscribe = mqtt.generate({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos }] });
  const { size } = frames(topic, 1);
  for (let at = 0; at < options.subscribers; at += 1) {
    const socket = await open(`${name}s-${number}-${at}`, subscribe);
    if (qos === 0) plainSubscriber(socket, group, at, size);
    else acknowledgingSubscriber(socket, group, at, topic);
  }
  for (let at = 0; at < options.publishers; at += 1) {
    const socket = await open(`${name}p-${number}-${at}`, undefined);
    if (qos === 0) plainPublisher(socket, group, topic);
    else acknowledgedPublisher(socket, group, topic);
  }
  return group;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const groups: Group[] = [];
for (let at = 0; at < options.groups; at += 50)
  groups.push(
    ...(await Promise.all(Array.from({ length: Math.min(50, options.groups - at) }, (_, n) => openGroup(at + n)))),
  );
for (const group of groups) for (const refill of group.refill) refill();
await pause(1000); // warm
const cpu = (): readonly [broker: number, load: number] => [
  cpuSeconds(options.brokerPid ?? process.pid),
  cpuSeconds(process.pid),
];
const before = received;
const cpuBefore = cpu();
const startMs = performance.now();
await pause(options.seconds * 1000);
const seconds = (performance.now() - startMs) / 1000;
const cpuAfter = cpu();
const count = received - before;
const result = {
  perSecond: count / seconds,
  brokerUs: ((cpuAfter[0] - cpuBefore[0]) * 1e6) / count,
  loadCores: (cpuAfter[1] - cpuBefore[1]) / seconds,
};
stopped = true;
const expected = (): number => groups.reduce((sum, { sent }) => sum + sent * options.subscribers, 0);
for (let round = 0; round < 50 && received < expected(); round += 1) await pause(100);
process.stdout.write(`${JSON.stringify({ ...result, lost: expected() - received } satisfies TrafficResult)}\n`);
process.exit(0);
