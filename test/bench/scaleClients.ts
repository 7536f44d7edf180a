import { Client, publishPacket } from "./scaleClient.ts";
import { mixed, mixedAfterwards } from "./scaleMixed.ts";

/**
 * The clients of the benchmarks of scale, in a process of their own. The parent asks by name over its channel (scaleProcess.ts); clients stay
 * connected between questions.
 */

export interface ConnectAsk {
  readonly port: number;
  readonly count: number;
  /** Connections under way at a time. */
  readonly inTurn: number;
  /** Each its own topic at QoS 1. */
  readonly subscribe?: boolean;
  readonly keepAliveSeconds?: number;
  readonly ca?: string;
}

export interface Connected {
  readonly opened: number;
  readonly refused: number;
  readonly seconds: number;
}

export interface Latency {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

const clients: Client[] = [];

async function connect({ port, count, inTurn, subscribe = false, ...options }: ConnectAsk): Promise<Connected> {
  const startMs = performance.now();
  let next = 0;
  let refused = 0;
  const oneByOne = async (): Promise<void> => {
    while (next < count) {
      const clientId = `scale-${next++}`;
      try {
        const client = await Client.open({ port, clientId, ...options });
        clients.push(client);
        if (subscribe) await client.subscribe([`scale/${clientId}/set`], 1);
      } catch {
        refused += 1;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(inTurn, count) }, oneByOne));
  const seconds = (performance.now() - startMs) / 1000;
  const { keepAliveSeconds = 0 } = options;
  // A client pings a little before its Keep Alive is over, not all of them at once.
  if (keepAliveSeconds > 0)
    clients.forEach((client, at) => {
      const everyMs = keepAliveSeconds * 900;
      setTimeout(() => setInterval(() => client.ping(), everyMs), (everyMs * at) / clients.length);
    });
  return { opened: clients.length, refused, seconds };
}

/** Filters of which none matches a topic of `flood`, wildcards at every level. */
function strange(n: number): string {
  switch (n % 4) {
    case 0:
      return `plant/+/line/${n}/state`;
    case 1:
      return `+/${n}/line/#`;
    case 2:
      return `area/${n}/+/value`;
    default:
      return `plant/${n}/line/+/+/set`;
  }
}

async function subscribeAll({ port, count }: { port: number; count: number }): Promise<number> {
  const each = 1000;
  for (let from = 0; from < count; from += each) {
    const client = await Client.open({ port, clientId: `wild-${from}` });
    clients.push(client);
    const filters = Array.from({ length: Math.min(each, count - from) }, (_, at) => strange(from + at));
    for (let at = 0; at < filters.length; at += 50) await client.subscribe(filters.slice(at, at + 50));
  }
  return clients.length;
}

/** QoS 0 to `topics` topics in turn; resolves when the broker has had them all. */
async function flood({ port, messages, topics }: { port: number; messages: number; topics: number }): Promise<number> {
  const client = await Client.open({ port, clientId: "flood" });
  const payload = Buffer.alloc(100, 120);
  const one = (n: number): Buffer => publishPacket(`plant/p${n % 97}/line/l${n}/value`, payload);
  const known = Array.from({ length: topics }, (_, n) => one(n));
  for (let at = 0; at < messages; at += 100) {
    const run = Array.from({ length: Math.min(100, messages - at) }, (_, n) => known[(at + n) % topics] ?? payload);
    if (!client.socket.write(Buffer.concat(run))) await new Promise((resolve) => client.socket.once("drain", resolve));
  }
  const answered = new Promise((resolve) => (client.onDone = resolve));
  client.socket.write(publishPacket("end", payload, 1));
  await answered;
  await client.leave();
  return messages;
}

const nowUs = (): number => Number(process.hrtime.bigint() / 1000n);
const latencies: number[] = [];

/** One client sends to another at a steady rate until the process ends, whether answers come or not. */
async function pair({ port, perSecond }: { port: number; perSecond: number }): Promise<true> {
  const topic = "pair/one";
  const [from, to] = await Promise.all([
    Client.open({ port, clientId: "from" }),
    Client.open({ port, clientId: "to" }),
  ]);
  to.onPublish = ({ payload }) => latencies.push((nowUs() - Number(payload.readBigUInt64BE())) / 1000);
  await to.subscribe([topic]);
  const startUs = nowUs();
  let sent = 0;
  setInterval(() => {
    for (; sent < ((nowUs() - startUs) / 1e6) * perSecond; sent += 1) {
      const payload = Buffer.alloc(100);
      payload.writeBigUInt64BE(BigInt(nowUs()));
      from.socket.write(publishPacket(topic, payload));
    }
  }, 1);
  return true;
}

/** Of the pair since it was last asked, ms. */
function latency(): Latency {
  const sorted = latencies.splice(0).sort((a, b) => a - b);
  const at = (part: number): number => sorted[Math.floor((sorted.length - 1) * part)] ?? Number.NaN;
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

/** A new subscriber of `#`: ms until it has all retained messages. */
async function retainedAll({ port, count }: { port: number; count: number }): Promise<number> {
  const client = await Client.open({ port, clientId: "all" });
  const topics = new Set<string>();
  let seen = 0;
  const all = new Promise<void>((resolve) => {
    client.onPublish = ({ retain, topic }) => {
      if (!retain || topic.startsWith("$")) return;
      seen += 1;
      topics.add(topic);
      if (topics.size === count) resolve();
    };
  });
  const startMs = performance.now();
  void client.subscribe(["#"]);
  await all;
  const tookMs = performance.now() - startMs;
  await client.leave();
  if (seen > count) throw new Error(`${seen - count} retained values came twice`);
  return tookMs;
}

const answers = { connect, subscribeAll, flood, pair, latency, retainedAll, mixed, mixedAfterwards };
export type Answers = typeof answers;

process.on("message", (ask: { id: number; name: keyof Answers; options: never }) => {
  Promise.resolve(answers[ask.name](ask.options)).then(
    (result) => process.send?.({ id: ask.id, result }),
    (error: unknown) => process.send?.({ id: ask.id, error: String(error) }),
  );
});
process.on("disconnect", () => process.exit(0));
