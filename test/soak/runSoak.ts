import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import type { Actor, ActorOptions, Version } from "./actor.ts";
import { Arrivals, Book } from "./book.ts";
import { atRest, type Footprint, gauges } from "./measure.ts";
import { Publisher } from "./publisher.ts";
import { DurableSubscriber, Roamer } from "./subscriber.ts";
import { Testator } from "./testator.ts";

export interface SoakOptions {
  /** Of unrest, a warm-up of a third included. */
  readonly seconds: number;
  readonly clients: number;
  readonly seed: number;
  readonly say: (line: string) => void;
  /** False: the run is too short for memory to say anything. Default true. */
  readonly compareMemory?: boolean;
}

export interface SoakResult {
  /** Broken promises; empty when all is well. At most 20 of `faultCount`. */
  readonly faults: readonly string[];
  readonly faultCount: number;
  readonly book: Book;
  readonly before: Footprint | undefined;
  readonly after: Footprint | undefined;
}

const tickMs = 50;
const drainMsMax = 120_000;
const groupCount = 10;
/** How much more may be held at the end than after the warm-up: V8 gives back late, and not all. */
export const rssTolerance = { factor: 1.2, bytes: 24 * 1024 * 1024 } as const;
export const descriptorTolerance = 6; // files of the journal come and go

interface Cast {
  readonly publishers: Publisher[];
  readonly durable: DurableSubscriber[];
  readonly arrivals: ReadonlyArray<readonly [string, Arrivals]>;
  readonly testators: Testator[];
  readonly all: Actor[];
}

/** Two rounds of clients that come, go, vanish and take each other over, on one gateway: what it holds after the first is compared with after the second. */
export async function runSoak({ seconds, clients, seed, say, compareMemory = true }: SoakOptions): Promise<SoakResult> {
  const [port = 0, httpPort = 0] = await freePorts(2);
  const gateway = await GatewayProcess.create(configOf(port, httpPort));
  const book = new Book();
  try {
    await gateway.start();
    const round = async (name: string, share: number): Promise<Footprint | undefined> => {
      const cast = makeCast({ port, clients, seed, name, book });
      await live(cast, book, seconds * share, say);
      await drain(cast, book);
      await leave(cast, `http://127.0.0.1:${httpPort}`, book);
      const held = await atRest(gateway.pid, Math.max(2, Math.min(10, seconds / 10)));
      say(`${name}: ${told(book)}${held === undefined ? "" : `; at rest ${shown(held)}`}`);
      return held;
    };
    const before = await round("warm-up", 1 / 3);
    const after = await round("soak", 2 / 3);
    if (compareMemory && before !== undefined && after !== undefined) compare(before, after, book);
    return { faults: book.faults, faultCount: book.faultCount, book, before, after };
  } finally {
    await gateway.remove();
  }
}

/** Queues that do not drop: a slow machine must not look like a broken promise. */
const configOf = (port: number, httpPort: number): string => `
mqtt:
  listeners: [ { url: "mqtt://127.0.0.1:${port}" } ]
  limits: { session: { maxMessages: 1000000, maxBytes: 512 MiB }, maxConnectionsPerAddress: 10000 }
storage: { maxBytes: 4 GiB, minFreeBytes: 16 MiB }
http: { listen: "http://127.0.0.1:${httpPort}" }
`;

function makeCast(given: { port: number; clients: number; seed: number; name: string; book: Book }): Cast {
  const { port, clients, seed, name, book } = given;
  const groups = Array.from({ length: groupCount }, (_, n) => `${name}-${n}`);
  let made = 0;
  const options = (role: string, persistent?: boolean): ActorOptions => {
    made += 1;
    const version: Version = made % 2 === 0 ? 4 : 5;
    const random = xorshift(seed * 7919 + made * 104_729);
    return { port, id: `${name}-${role}${made}`, version, persistent: persistent ?? random() < 0.5, book, random };
  };
  const count = (share: number): number => Math.max(2, Math.round(clients * share));
  const group = (at: number): string => groups[at % groupCount] as string;
  const arrivals: Array<readonly [string, Arrivals]> = [];
  const listen = (filter: string): DurableSubscriber => {
    const own = options("d", true);
    const got = new Arrivals(own.id, book);
    arrivals.push([filter.slice(0, -1), got]);
    return new DurableSubscriber(own, filter, (topic, payload, qos) => got.take(topic, payload, qos));
  };
  const durable = Array.from({ length: count(0.08) }, (_, at) => listen(`soak/${group(at)}/#`));
  durable.push(listen(`wills/${name}/#`));
  const testators = Array.from({ length: count(0.06) }, () => new Testator(options("t", false), name));
  const roamers = Array.from({ length: count(0.06) }, () => new Roamer(options("r", false), groups));
  const left = Math.max(2, clients - durable.length - testators.length - roamers.length);
  const publishers = Array.from({ length: left }, (_, at) => new Publisher(options("p"), group(at)));
  return { publishers, durable, arrivals, testators, all: [...durable, ...roamers, ...testators, ...publishers] };
}

async function live(
  { all, durable, publishers }: Cast,
  book: Book,
  seconds: number,
  say: (line: string) => void,
): Promise<void> {
  for (const publisher of publishers) publisher.feeding = false;
  await ticking(all, false, () => durable.every(({ subscribed }) => subscribed), 60_000);
  for (const publisher of publishers) publisher.feeding = true;
  const endMs = performance.now() + seconds * 1000;
  let sayMs = performance.now() + 30_000;
  await ticking(all, true, () => {
    const nowMs = performance.now();
    if (nowMs > sayMs) {
      sayMs = nowMs + 30_000;
      say(`  ${Math.round((endMs - nowMs) / 1000)} s to go: ${told(book)}`);
    }
    return nowMs > endMs;
  });
}

/** Nothing new; everybody comes back, and gets what is owed to them. */
async function drain({ all, publishers, arrivals }: Cast, book: Book): Promise<void> {
  for (const publisher of publishers) publisher.feeding = false;
  const owed = (): boolean => arrivals.some(([prefix, got]) => !got.missing(prefix)[Symbol.iterator]().next().done);
  await ticking(all, false, () => publishers.every(({ idle }) => idle) && !owed(), drainMsMax);
  for (const { id, idle } of publishers) if (!idle) book.fault(`${id}: not everything was acknowledged`);
  for (const [prefix, got] of arrivals) for (const what of got.missing(prefix)) book.fault(`missing: ${what}`);
}

async function leave({ all, testators, arrivals, durable }: Cast, url: string, book: Book): Promise<void> {
  const wills = arrivals.at(-1)?.[1];
  for (const { id, unsent, topic } of testators)
    for (const number of unsent)
      if (wills?.has(topic, number)) book.fault(`${id}: will ${number} came after a goodbye`);
  const last = durable.at(-1);
  for (const actor of all) if (actor !== last) await actor.end();
  await last?.end();
  const zero = ["connections", "sessions", "subscriptions", "queued"].map((name) => `tidegate_mqtt_${name}`);
  let seen = new Map<string, number>();
  const empty = async (): Promise<boolean> => {
    seen = await gauges(url);
    return zero.every((name) => seen.get(name) === 0);
  };
  await until("the gateway has forgotten everybody", empty, 15_000).catch(() => {
    for (const name of zero) if (seen.get(name) !== 0) book.fault(`${name} is ${seen.get(name)}, and nobody is there`);
  });
  for (const [name, value] of seen) {
    if (value > 0 && /dropped_total/.test(name) && !/"(offline|session-ended|outbox-full)"/.test(name))
      book.fault(`${name} is ${value}`);
    if (value > 0 && /protocol_errors_total/.test(name)) book.fault(`${name} is ${value}`);
  }
}

function compare(before: Footprint, after: Footprint, book: Book): void {
  if (after.rssBytes > before.rssBytes * rssTolerance.factor + rssTolerance.bytes)
    book.fault(`memory grew: ${shown(before)} after the warm-up, ${shown(after)} at the end`);
  if (after.descriptors > before.descriptors + descriptorTolerance)
    book.fault(`descriptors were left open: ${before.descriptors} after the warm-up, ${after.descriptors} at the end`);
}

/** Everybody acts once a tick, until `done` or the deadline. */
async function ticking(
  all: readonly Actor[],
  unrest: boolean,
  done: () => boolean,
  msMax = Number.POSITIVE_INFINITY,
): Promise<void> {
  const deadline = performance.now() + msMax;
  for (let tick = 0; performance.now() < deadline; tick += 1) {
    for (const actor of all) actor.tick(unrest);
    await new Promise((resolve) => setTimeout(resolve, tickMs));
    if (tick % 4 === 0 && done()) return;
  }
}

/** For the summary and each half minute. */
export function told(book: Book): string {
  const { connections, vanished, takenOver, subscribes, delivered, repeats, wills } = book.counts;
  const sent = [0, 1, 2].map((qos) => book.acknowledged(qos as 0 | 1 | 2)).join(" / ");
  return `sent at QoS 0, acknowledged at 1 / 2: ${sent}; delivered ${delivered} (${repeats} QoS 1 repeats); ${connections} connections, ${vanished} vanished, ${takenOver} taken over, ${subscribes} subscribes, ${wills} wills owed; ${book.faultCount} faults`;
}

export const shown = ({ rssBytes, descriptors }: Footprint): string =>
  `${(rssBytes / 1024 / 1024).toFixed(0)} MiB, ${descriptors} descriptors`;

function xorshift(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 0x1_0000_0000;
  };
}
