/** A broker on a memory store with clients over duplexPair: no ports, and no time but what the test moves. */
import { type Duplex, duplexPair } from "node:stream";
import { generate, type IConnectPacket, type ISubscription, parser as makeParser, type Packet } from "mqtt-packet";
import type { Clock, Timer } from "../../src/base/clock.ts";
import type { Forward, Forwarding, Route, Routing } from "../../src/base/contracts.ts";
import { type Log, silentLog } from "../../src/base/log.ts";
import { Meter } from "../../src/base/meter.ts";
import type { User } from "../../src/base/passwords.ts";
import { createBroker } from "../../src/broker/broker.ts";
import {
  type AccessRule,
  type Broker,
  type BrokerDeps,
  type BrokerLimits,
  limitDefaults,
  type PeerInfo,
} from "../../src/broker/options.ts";
import { MemoryStore } from "./memoryStore.ts";
import { comesMsMax } from "./wait.ts";

export type Version = 4 | 5;
export const versions: readonly Version[] = [4, 5];

export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ dueMs: number; callback: () => void }>();

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  setTimer(ms: number, callback: () => void): Timer {
    const timer = { dueMs: this.#nowMs + ms, callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      let next: { dueMs: number; callback: () => void } | undefined;
      for (const timer of this.#timers)
        if (timer.dueMs <= endMs && (next === undefined || timer.dueMs < next.dueMs)) next = timer;
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      next.callback();
    }
    this.#nowMs = endMs;
  }
}

/** Some turns of the event loop: enough for packets to go there and back over a duplexPair. */
export async function turns(count = 12): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
}

export class TestClient {
  readonly received: Packet[] = [];
  readonly #socket: Duplex;
  readonly version: Version;
  closed = false;

  constructor(socket: Duplex, version: Version) {
    this.#socket = socket;
    this.version = version;
    const parser = makeParser({ protocolVersion: version });
    parser.on("packet", (packet) => this.received.push(packet));
    socket.on("data", (chunk: Buffer) => parser.parse(chunk));
    socket.on("error", () => {});
    const ended = (): void => {
      this.closed = true;
      socket.end(); // as a TCP client does that is not half open
    };
    socket.on("end", ended);
    socket.on("close", ended);
  }

  send(packet: Packet): void {
    this.raw(generate(packet, { protocolVersion: this.version }));
  }

  raw(bytes: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes);
  }

  /** Stops reading, as a slow subscriber does. */
  stall(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  drop(): void {
    this.#socket.destroy();
  }

  /** Takes the packets out that came so far. */
  async take(): Promise<Packet[]> {
    await turns();
    return this.received.splice(0);
  }

  /** The next packet of this kind, those before it thrown away. Fails when it does not come. */
  async next<C extends Packet["cmd"]>(cmd: C): Promise<Extract<Packet, { cmd: C }>> {
    const deadline = performance.now() + comesMsMax;
    while (performance.now() < deadline) {
      const at = this.received.findIndex((packet) => packet.cmd === cmd);
      const found = at < 0 ? undefined : this.received[at];
      if (found !== undefined) {
        this.received.splice(0, at + 1);
        return found as Extract<Packet, { cmd: C }>;
      }
      await turns(1);
    }
    throw new Error(`no ${cmd} came; got: ${this.received.map((packet) => packet.cmd).join(", ")}`);
  }

  async connack(): Promise<{ sessionPresent: boolean; code: number; properties: Record<string, unknown> }> {
    const packet = await this.next("connack");
    const code = (this.version === 5 ? packet.reasonCode : packet.returnCode) ?? -1;
    return { sessionPresent: packet.sessionPresent, code, properties: { ...packet.properties } };
  }

  async subscribe(
    topic: string,
    qos: 0 | 1 | 2 = 0,
    more: Partial<ISubscription> & { id?: number } = {},
  ): Promise<number[]> {
    const { id, ...options } = more;
    const properties = id === undefined ? {} : { properties: { subscriptionIdentifier: id } };
    const five = this.version === 5 ? { nl: false, rap: false, rh: 0, ...options } : {};
    this.send({ cmd: "subscribe", messageId: 999, subscriptions: [{ topic, qos, ...five }], ...properties });
    return (await this.next("suback")).granted as number[];
  }

  publish(topic: string, payload: string, qos: 0 | 1 | 2 = 0, more: Record<string, unknown> = {}): void {
    this.send({ cmd: "publish", topic, payload, qos, retain: false, dup: false, messageId: 1, ...more } as Packet);
  }

  /** Until the broker has ended the connection. */
  async gone(): Promise<void> {
    const deadline = performance.now() + comesMsMax;
    while (!this.closed) {
      if (performance.now() > deadline) throw new Error("still connected");
      await turns(1);
    }
    await turns(); // what came before the end is parsed
  }
}

export interface RigOptions {
  limits?: Partial<BrokerLimits>;
  store?: MemoryStore;
  anonymous?: boolean;
  log?: Log;
  users?: readonly User[];
  rules?: readonly AccessRule[];
  verify?: BrokerDeps["verify"];
  /** Instead of users, for tests that are not about how passwords are kept: who of `u`, `v` and the like may log in. */
  authenticate?: (username: string, password: Uint8Array | undefined) => boolean;
  routes?: (topic: string) => readonly Route[];
  forwards?: (topic: string) => readonly Forward[];
}

const names = ["u", "v", "user", "name", "\u00fc"];
const callers: readonly User[] = names.map((name) => {
  const salt = Buffer.from(name);
  return {
    name,
    scrypt: { ln: 10, r: 8, p: 1, salt, hash: Buffer.alloc(32) },
    scram: { iterations: 4096, salt, storedKey: Buffer.alloc(32), serverKey: Buffer.alloc(32) },
  };
});

function byName(authenticate: NonNullable<RigOptions["authenticate"]>): NonNullable<BrokerDeps["verify"]> {
  return (kept, password, settled) => {
    const caller = callers.find(({ scrypt }) => scrypt === kept);
    settled(caller !== undefined && authenticate(caller.name, password));
  };
}

export class Rig {
  readonly store: MemoryStore;
  readonly clock = new ManualClock();
  readonly meter = new Meter();
  readonly broker: Broker;

  constructor(options: RigOptions = {}) {
    this.store = options.store ?? new MemoryStore();
    const routing: Routing = { routesFor: options.routes ?? (() => []) };
    const forwarding: Forwarding = { forwardsFor: options.forwards ?? (() => []) };
    const { store, clock, meter } = this;
    const { authenticate, users = authenticate && callers, verify = authenticate && byName(authenticate) } = options;
    this.broker = createBroker(
      {
        ...{ anonymous: options.anonymous ?? true, users, rules: options.rules, version: "0" },
        limits: { ...limitDefaults, ...options.limits },
      },
      { store, clock, log: options.log ?? silentLog, meter, routing, forwarding, verify },
    );
  }

  /** Both clocks go on together. */
  advance(ms: number): void {
    this.store.timeMs += ms;
    this.clock.advance(ms);
  }

  open(version: Version, highWaterMark = 65_536, peer?: PeerInfo): TestClient {
    const [near, far] = duplexPair({ highWaterMark });
    near.once("close", () => far.destroy()); // duplexPair does not tell the other side
    far.once("close", () => near.destroy());
    this.broker.attach(near, peer);
    return new TestClient(far, version);
  }

  /** Connected, its CONNACK read. */
  async client(version: Version, clientId: string, more: Partial<IConnectPacket> = {}): Promise<TestClient> {
    const client = this.open(version);
    client.send(connectPacket(version, clientId, more));
    const { code } = await client.connack();
    if (code !== 0) throw new Error(`CONNACK ${code}`);
    return client;
  }

  dropped(reason: string): number {
    return this.broker.stats().dropped[reason] ?? 0;
  }

  close(): Promise<void> {
    return this.broker.close();
  }
}

export function connectPacket(version: Version, clientId: string, more: Partial<IConnectPacket> = {}): IConnectPacket {
  return { cmd: "connect", protocolId: "MQTT", protocolVersion: version, clean: true, clientId, keepalive: 0, ...more };
}

/** CONNECT fields of a session that outlives its connection. */
export function durable(version: Version, clean = false): Partial<IConnectPacket> {
  return version === 5 ? { clean, properties: { sessionExpiryInterval: 3600 } } : { clean: false };
}

export const text = (packet: { payload: Buffer | string }): string => packet.payload.toString();
