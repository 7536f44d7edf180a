import type { Duplex } from "node:stream";
import { getHeapStatistics } from "node:v8";
import type { Timer } from "../base/clock.ts";
import type { PublishResult } from "../base/contracts.ts";
import { TidegateError } from "../base/errors.ts";
import { LogLimiter } from "../base/log.ts";
import type { Message } from "../base/message.ts";
import { topicFilterFault, topicNameFault } from "../base/topic.ts";
import { AckLedger } from "./ackLedger.ts";
import { Connection, pause } from "./connection.ts";
import type { BrokerContext } from "./context.ts";
import { Deliverer } from "./deliverer.ts";
import { giveWay } from "./giveWay.ts";
import { openListener } from "./listener.ts";
import { BrokerMetrics } from "./metrics.ts";
import type {
  Broker,
  BrokerDeps,
  BrokerOptions,
  BrokerStats,
  ClientInfo,
  ListenerHandle,
  ListenerOptions,
  PeerInfo,
} from "./options.ts";
import { Flusher } from "./outbox.ts";
import { handleFrame } from "./packetHandler.ts";
import { PendingBytes } from "./pendingBytes.ts";
import { Pipeline } from "./pipeline.ts";
import { References } from "./references.ts";
import { Retained } from "./retained.ts";
import type { Session } from "./session.ts";
import { Sessions } from "./sessions.ts";
import { Shares } from "./shares.ts";
import { Subscriptions } from "./subscriptions.ts";
import { type SysCounts, SysTopics } from "./sysTopics.ts";
import { TopicCache } from "./topicCache.ts";
import type { Handler } from "./topicEntry.ts";
import { Wills } from "./wills.ts";

const pendingBytesMax = 4 * 1024 * 1024;
const tickMs = 1000;
const sysIntervalMsDefault = 10_000;
const serverShuttingDown = 0x8b;
const administrativeAction = 0x98;

/** Makes the MQTT broker on a store. Durable sessions are there at once, retained values when `ready` resolves. */
export function createBroker(options: BrokerOptions, deps: BrokerDeps): Broker {
  return new MqttBroker(options, deps);
}

class MqttBroker implements Broker {
  readonly ready: Promise<void>;
  readonly #context: BrokerContext;
  readonly #references: References;
  readonly #shares: Shares;
  readonly #wills: Wills;
  readonly #sys: SysTopics;
  readonly #sysIntervalMs: number;
  readonly #connections = new Set<Connection>();
  readonly #byAddress = new Map<string, number>();
  readonly #listeners = new Set<ListenerHandle>();
  #tick: Timer | undefined;
  #sysDueMs = 0;
  #closed: Promise<void> | undefined;

  constructor(options: BrokerOptions, deps: BrokerDeps) {
    const { store, clock, log, routing, forwarding } = deps;
    const { limits } = options;
    const metrics = new BrokerMetrics(deps.meter);
    const ledger = new AckLedger(store.durableGroup);
    const references = new References({ store, clock, metrics });
    const cache: TopicCache = new TopicCache((topic, generation) => subscriptions.resolve(topic, generation));
    const { queueQos0 } = limits.session;
    const shares = new Shares({ store, ledger, references, metrics, limits });
    const changed = (): void => cache.invalidate();
    const subscriptions = new Subscriptions({ routing, forwarding, queueQos0, shares, changed });
    const idsFor = (session: Session, topic: string, tag: number): readonly number[] | undefined =>
      subscriptions.idsFor(session, cache.get(topic), tag);
    const outgoing = { store, ledger, references, metrics, limits, idsFor };
    const wills = new Wills((message, session) => this.#publishWill(message, session));
    const sessions = new Sessions({ store, log, limits, metrics, references, subscriptions, wills, outgoing });
    shares.loaded();
    const retained = new Retained({ store, clock, metrics, limits: limits.retained });
    const deliverer = new Deliverer(metrics, () => store.nowMs());
    const pending = new PendingBytes(
      pendingBytesMax,
      () => this.#resumeAll(),
      () => store.crowded,
    );
    const pipeline = new Pipeline({ store, limits, metrics, cache, retained, references, pending, deliverer });
    const clientLog = new LogLimiter({ intervalMs: 3_600_000, nowMs: () => clock.monotonicMs() });
    const faultLog = new LogLimiter({ nowMs: () => clock.monotonicMs() });
    const { anonymous } = options;
    const { authenticate } = deps;
    this.#context = {
      ...{ store, clock, log, limits, anonymous, authenticate, metrics, flusher: new Flusher(), ledger, pending },
      ...{ cache, subscriptions, sessions, retained, deliverer, pipeline, clientLog, faultLog },
    };
    this.#references = references;
    this.#shares = shares;
    this.#wills = wills;
    this.#sysIntervalMs = options.sysIntervalMs ?? sysIntervalMsDefault;
    this.#sys = new SysTopics({
      ...{ version: options.version, clock, metrics, counts: () => this.#counts() },
      heapBytes: () => getHeapStatistics().used_heap_size, // process.memoryUsage reads /proc as well
      publish: (topic, text) => this.#publishSys(topic, text),
    });
    this.#registerGauges(deps);
    store.onDurable((group) => {
      pending.settle(group);
      ledger.settle(group);
    });
    store.onCrowded((bytes) =>
      limits.session.whenFull === "drop-oldest" ? giveWay([...sessions.hoards(), ...shares.hoards()], bytes) : 0,
    );
    store.onFailed(() => {
      ledger.lose();
      pending.clear();
    });
    if (store.failed !== undefined) ledger.lose();
    this.ready = retained.load();
    this.ready.then(() => retained.weigh()).catch((error: unknown) => log.error({ error }, "retained messages"));
    this.#scheduleTick();
  }

  publish(message: Message): PublishResult {
    const { cache, pipeline, limits } = this.#context;
    if (topicNameFault(message.topic, limits.maxTopicLevels) !== null) return { accepted: false, reason: "invalid" };
    const allowed = message.source === "sys" && message.qos > 0 ? { ...message, qos: 0 as const } : message;
    return pipeline.publish(allowed, cache.get(message.topic), undefined, undefined);
  }

  whenDurable(group: number, settled: (durable: boolean) => void): void {
    this.#context.ledger.whenDurable(group, settled);
  }

  subscribe(filter: string, handler: Handler): () => void {
    const fault = topicFilterFault(filter, this.#context.limits.maxTopicLevels);
    if (fault !== null) throw new RangeError(`${filter}: ${fault}`);
    return this.#context.subscriptions.addHandler(filter, handler);
  }

  async listen(options: ListenerOptions): Promise<ListenerHandle> {
    await this.ready.catch(() => {}); // logged; without the retained values we still serve
    if (this.#closed !== undefined) throw new TidegateError("TG_LISTEN", `${options.url}: the broker is closed`);
    const handle = await openListener(options, {
      metrics: this.#context.metrics,
      limits: this.#context.limits,
      accept: (socket, peer) => this.attach(socket, peer),
    });
    this.#listeners.add(handle);
    return handle;
  }

  attach(socket: Duplex, peer: PeerInfo = { listener: "attached" }): void {
    const { metrics, limits } = this.#context;
    const { address } = peer;
    const ofAddress = address === undefined ? 0 : (this.#byAddress.get(address) ?? 0);
    const tooMany = this.#connections.size >= limits.maxConnections;
    if (tooMany || ofAddress >= limits.maxConnectionsPerAddress || this.#closed !== undefined) {
      metrics.refused(tooMany ? "max-connections" : "max-per-address").value += 1;
      socket.on("error", () => {});
      socket.destroy();
      return;
    }
    metrics.connectionsAccepted.value += 1;
    if (address !== undefined) this.#byAddress.set(address, ofAddress + 1);
    const connection = new Connection(socket, peer, this.#context, {
      frame: (from) => handleFrame(this.#context, from),
      closed: (from) => this.#forget(from),
    });
    this.#connections.add(connection);
  }

  refresh(): void {
    this.#context.cache.invalidate();
  }

  disconnect(clientId: string): boolean {
    const link = this.#context.sessions.get(clientId)?.link;
    link?.close(administrativeAction);
    return link !== undefined;
  }

  *clients(): Iterable<ClientInfo> {
    for (const session of this.#context.sessions.all()) {
      const { clientId, link, durable, subscriptions, outgoing } = session;
      const { address, version } = link ?? {};
      const queued = outgoing.waiting + outgoing.inflight;
      yield {
        clientId,
        connected: link !== undefined,
        address,
        version,
        durable,
        subscriptions: subscriptions.size,
        queued,
      };
    }
  }

  stats(): BrokerStats {
    const { sessions, subscriptions, retained, metrics } = this.#context;
    return {
      connections: this.#online(),
      sessions: sessions.size,
      subscriptions: subscriptions.count,
      retained: retained.count,
      queued: this.#references.total,
      received: metrics.receivedAll,
      sent: metrics.sentAll,
      dropped: metrics.droppedByReason(),
    };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#tick?.cancel();
    const listeners = [...this.#listeners].map((listener) => listener.close());
    this.#shares.close();
    // No wills: a restart of ours is not the clients' fault, and they come back.
    for (const connection of [...this.#connections]) connection.close(serverShuttingDown, false);
    this.#references.flush();
    this.#context.retained.close();
    await Promise.all(listeners);
  }

  #online(): number {
    let online = 0;
    for (const connection of this.#connections) if (connection.session !== undefined) online += 1;
    return online;
  }

  #forget(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    const { address } = connection.peer;
    if (address === undefined) return;
    const left = (this.#byAddress.get(address) ?? 1) - 1;
    if (left > 0) this.#byAddress.set(address, left);
    else this.#byAddress.delete(address);
  }

  #resumeAll(): void {
    for (const connection of this.#connections) connection.resume(pause.store);
  }

  #counts(): SysCounts {
    const { sessions, subscriptions, retained } = this.#context;
    return {
      ...{ connected: this.#online(), sessions: sessions.size, subscriptions: subscriptions.count },
      ...{ shared: this.#shares.count, retained: retained.count, stored: retained.count + this.#references.total },
      storedBytes: retained.bytes + this.#references.bytes(),
    };
  }

  #publishWill(message: Message, session: Session): void {
    const { cache, pipeline, metrics } = this.#context;
    if (message.topic.startsWith("$")) metrics.dropped("sys-topic").value += 1;
    else pipeline.publish(message, cache.get(message.topic), session, undefined);
  }

  #publishSys(topic: string, text: string): void {
    this.publish({ topic, payload: Buffer.from(text), qos: 0, retain: true, source: "sys" });
  }

  #scheduleTick(): void {
    this.#tick = this.#context.clock.setTimer(tickMs, () => {
      this.#onTick();
      this.#scheduleTick();
    });
  }

  #onTick(): void {
    const { clock, store, sessions, pending } = this.#context;
    const nowMs = clock.monotonicMs();
    pending.settle(store.durableGroup); // a crowded store's patience ends without a sync
    for (const connection of this.#connections) connection.tick(nowMs);
    this.#wills.tick(store.nowMs());
    sessions.expire(store.nowMs());
    this.#shares.tick(store.nowMs());
    if (nowMs < this.#sysDueMs) return;
    this.#sysDueMs = nowMs + this.#sysIntervalMs;
    this.#sys.publish();
  }

  #registerGauges({ meter }: BrokerDeps): void {
    const { sessions, subscriptions, retained } = this.#context;
    meter.gauge("tidegate_mqtt_connections", "Clients connected", () => this.#online());
    meter.gauge("tidegate_mqtt_sessions", "Sessions, of connected clients and durable", () => sessions.size);
    meter.gauge("tidegate_mqtt_subscriptions", "Subscriptions of clients", () => subscriptions.count);
    meter.gauge("tidegate_mqtt_retained_messages", "Retained messages", () => retained.count);
    meter.gauge("tidegate_mqtt_retained_bytes", "Bytes of retained messages in memory", () => retained.bytes);
    meter.gauge("tidegate_mqtt_queued", "References of sessions and shared groups", () => this.#references.total);
    meter.gauge("tidegate_mqtt_shared_waiting", "Messages that wait for shared groups", () => this.#shares.waiting);
  }
}
