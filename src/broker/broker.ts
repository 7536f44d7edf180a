import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { getHeapStatistics } from "node:v8";
import type { PublishResult, Store } from "../base/contracts.ts";
import { TidegateError } from "../base/errors.ts";
import type { HeldId } from "../base/inFlight.ts";
import { LogLimiter } from "../base/log.ts";
import type { Message } from "../base/message.ts";
import { Seconds } from "../base/seconds.ts";
import { topicFilterFault, topicNameFault } from "../base/topic.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { Access, type AccessOptions } from "./access/access.ts";
import { HashThread } from "./access/hashThread.ts";
import { verifyBy } from "./access/logIns.ts";
import type { Who } from "./access/rules.ts";
import { AckLedger } from "./ackLedger.ts";
import { Admission, type Place } from "./admission.ts";
import { Connection, type ConnectionHost } from "./connection.ts";
import type { BrokerContext } from "./context.ts";
import { Deliverer } from "./deliverer.ts";
import { DueTick } from "./dueTick.ts";
import { giveWay } from "./giveWay.ts";
import { HeldMemory } from "./heldMemory.ts";
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
import { PausedMemory } from "./pausedMemory.ts";
import { pause } from "./pauses.ts";
import { plainAddress } from "./peerAddress.ts";
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
import { TurnShare } from "./turnShare.ts";
import { MqttUpgrade } from "./webSocketDoor.ts";
import { Wills } from "./wills.ts";

/** Of the limit for incomplete packets, as much again: for what has come and waits for its turn. */
const unreadShare = 1 / 4;
const pendingBytesMax = 4 * 1024 * 1024;
const sysIntervalMsDefault = 10_000;
/** So that timers that come a little late do not make it a second more. */
const sysEarlyMs = 100;

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
  /** One for all: what each connection has of its own counts ten thousand times. */
  readonly #host: ConnectionHost = {
    frame: (from) => handleFrame(this.#context, from),
    closed: (from) => {
      this.#connections.delete(from);
      from.place.leave(); // not only when the socket has closed: who comes back at once finds room
    },
  };
  readonly #admission: Admission;
  #webSockets: Promise<MqttUpgrade> | undefined;
  readonly #listeners = new Set<ListenerHandle>();
  readonly #hashing: HashThread;
  readonly #tick: DueTick;
  #sysDueMs: number;
  #closed: Promise<void> | undefined;

  constructor(options: BrokerOptions, deps: BrokerDeps) {
    const { store, clock, log, routing, forwarding } = deps;
    const { limits } = options;
    this.#hashing = new HashThread(clock);
    const metrics = new BrokerMetrics(deps.meter);
    const { anonymous, users = [], rules = [] } = options;
    const { connectTimeoutMs } = limits;
    const { verify = verifyBy(this.#hashing.hash) } = deps;
    const access = new Access({ anonymous, users, rules }, { clock, connectTimeoutMs, verify });
    const ledger = new AckLedger(store.durableGroup);
    const references = new References({ store, clock, metrics });
    const cache: TopicCache = new TopicCache((topic, generation) => subscriptions.resolve(topic, generation));
    const { queueQos0 } = limits.session;
    const shares = new Shares({ store, ledger, references, metrics, limits, access });
    const changed = (): void => cache.invalidate();
    const subscriptions = new Subscriptions({ routing, forwarding, queueQos0, access, shares, changed });
    const idsFor = (session: Session, topic: string, tag: number): readonly number[] | undefined =>
      subscriptions.idsFor(session, cache.get(topic), tag);
    const outgoing = { store, ledger, references, metrics, limits, access, idsFor };
    const wills = new Wills({ store, log, metrics, publish: (message, who) => this.#publishWill(message, who) });
    const sessions = new Sessions({ store, log, limits, metrics, references, subscriptions, wills, outgoing });
    shares.loaded();
    const retained = new Retained({ store, clock, metrics, limits: limits.retained });
    const deliverer = new Deliverer(metrics, () => store.nowMs());
    const pending = new PendingBytes(
      pendingBytesMax,
      () => this.#resumeAll(pause.store),
      () => store.crowded,
    );
    const { letters } = deps;
    const pipeline = new Pipeline({ store, limits, metrics, cache, retained, references, pending, deliverer, letters });
    const clientLog = new LogLimiter({ intervalMs: 3_600_000, nowMs: () => clock.monotonicMs() });
    const faultLog = new LogLimiter({ nowMs: () => clock.monotonicMs() });
    const partials = new HeldMemory(limits.partialBytes);
    const paused = new PausedMemory(limits.partialBytes, {
      ...{ log, nowMs: () => clock.monotonicMs(), crowds: metrics.crowds },
      standBack: () => this.#standBack(pause.crowd),
      relief: () => this.#resumeAll(pause.crowd),
    });
    this.#context = {
      ...{ store, clock, log, limits, access, metrics, flusher: new Flusher(clock), ledger, pending, partials, paused },
      turn: new TurnShare(clock, limits.partialBytes * unreadShare, () => this.#standBack(pause.turn)),
      ...{ cache, subscriptions, sessions, retained, deliverer, pipeline, clientLog, faultLog },
    };
    this.#admission = new Admission(limits, metrics);
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
    this.#follow(store);
    this.ready = retained.load();
    this.ready.then(() => retained.weigh()).catch((error: unknown) => log.error({ error }, "retained messages"));
    this.#sysDueMs = clock.monotonicMs();
    const { seconds = new Seconds(clock) } = deps;
    this.#tick = new DueTick(clock, seconds, (nowMs) => this.#onTick(nowMs));
  }

  #follow(store: Store): void {
    const { pending, ledger, limits, sessions } = this.#context;
    store.onDurable((group) => {
      pending.settle(group);
      ledger.settle(group);
    });
    store.onCrowded((bytes) =>
      limits.session.whenFull === "drop-oldest" ? giveWay([...sessions.hoards(), ...this.#shares.hoards()], bytes) : 0,
    );
    store.onFailed(() => {
      ledger.lose();
      pending.clear();
    });
    if (store.failed !== undefined) ledger.lose();
  }

  publish(message: Message, held?: HeldId): PublishResult {
    const { cache, pipeline, limits } = this.#context;
    if (topicNameFault(message.topic, limits.maxTopicLevels) !== null) return { accepted: false, reason: "invalid" };
    const allowed = message.source === "sys" && message.qos > 0 ? { ...message, qos: 0 as const } : message;
    return pipeline.publish(allowed, cache.get(message.topic), undefined, held?.key, held?.map);
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
    const closed = (): TidegateError => new TidegateError("TG_LISTEN", `${options.url}: the broker is closed`);
    if (this.#closed !== undefined) throw closed();
    const handle = await openListener(options, {
      ...this.#context,
      admission: this.#admission,
      accept: (stream, peer, place) => this.#take(stream, peer, place),
    });
    if (this.#closed !== undefined) {
      await handle.close(); // it closed meanwhile, and knew nothing of this one
      throw closed();
    }
    this.#listeners.add(handle);
    return handle;
  }

  attach(socket: Duplex, peer: PeerInfo = { listener: "attached" }): void {
    const place = this.#admit(socket, peer.address);
    if (place !== undefined) this.#take(socket, peer, place);
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, listener: string): void {
    const { remoteAddress } = request.socket;
    const address = remoteAddress === undefined ? undefined : plainAddress(remoteAddress);
    const place = this.#admit(socket, address);
    if (place === undefined) return;
    const { metrics, limits, log } = this.#context;
    const outcome = {
      open: (stream: Duplex) => this.#take(stream, { address, listener }, place),
      refused: () => {
        metrics.refused("websocket").value += 1;
      },
      broken: () => {
        metrics.protocolError("websocket").value += 1;
      },
    };
    this.#webSockets ??= MqttUpgrade.load(limits.maxPacketSize);
    this.#webSockets.then(
      (upgrade) => upgrade.take(request, socket, head, outcome),
      (error: unknown) => {
        log.error({ error }, "WebSockets cannot be served: the installation is damaged");
        socket.destroy();
      },
    );
  }

  /** Gives a socket its place until it closes. Undefined: there is none, which is counted, and it was ended. */
  #admit(socket: Duplex, address: string | undefined): Place | undefined {
    socket.on("error", () => {}); // "close" follows
    const place = this.#admission.enter();
    if (place?.from(address) === true) {
      socket.once("close", () => place.leave());
      return place;
    }
    place?.leave();
    socket.destroy();
    return undefined;
  }

  #take(stream: Duplex, peer: PeerInfo, place: Place): void {
    if (this.#closed !== undefined) {
      stream.on("error", () => {});
      stream.destroy();
      place.leave();
      return;
    }
    this.#context.metrics.connectionsAccepted.value += 1;
    this.#connections.add(new Connection(stream, peer, place, this.#context, this.#host));
  }

  refresh(): void {
    this.#context.cache.invalidate();
  }

  setAccess(options: AccessOptions): number {
    const { access, cache } = this.#context;
    access.replace(options);
    cache.invalidate(); // also what publishers may
    let ended = 0;
    for (const connection of [...this.#connections]) {
      const { identity } = connection;
      if (!connection.open || identity === undefined || access.holds(identity)) continue;
      connection.close(reason.notAuthorized);
      ended += 1;
    }
    return ended;
  }

  disconnect(clientId: string): boolean {
    const link = this.#context.sessions.get(clientId)?.link;
    link?.close(reason.administrativeAction);
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
    this.#tick.cancel();
    const listeners = [...this.#listeners].map((listener) => listener.close());
    this.#shares.close();
    for (const connection of [...this.#connections]) {
      connection.close(reason.serverShuttingDown, "the gateway stops", "defer");
    }
    this.#hashing.close();
    this.#references.flush();
    this.#context.retained.close();
    await Promise.all(listeners);
  }

  #online(): number {
    let online = 0;
    for (const connection of this.#connections) if (connection.session !== undefined) online += 1;
    return online;
  }

  /** Too much waits, for its turn or for the disk. */
  #standBack(bit: number): void {
    const { paused } = this.#context;
    for (const connection of this.#connections)
      if (bit === pause.turn || paused.turnsAway(connection)) connection.standBack(bit);
  }

  #resumeAll(bit: number): void {
    for (const connection of this.#connections) connection.resume(bit);
  }

  #counts(): SysCounts {
    const { sessions, subscriptions, retained } = this.#context;
    return {
      ...{ connected: this.#online(), sessions: sessions.size, subscriptions: subscriptions.count },
      ...{ shared: this.#shares.count, retained: retained.count, stored: retained.count + this.#references.total },
      storedBytes: retained.bytes + this.#references.bytes(),
    };
  }

  #publishWill(message: Message, who: Who): void {
    const { access, cache, pipeline, metrics, sessions } = this.#context;
    if (message.topic.startsWith("$")) metrics.dropped("sys-topic").value += 1;
    else if (!access.mayWill(who, message.topic))
      metrics.dropped("denied").value += 1; // rules may have changed since CONNECT
    else pipeline.publish(message, cache.get(message.topic), sessions.get(who.clientId), undefined);
  }

  #publishSys(topic: string, text: string): void {
    this.publish({ topic, payload: Buffer.from(text), qos: 0, retain: true, source: "sys" });
  }

  /** @returns how long until something more is due that is known, ms */
  #onTick(nowMs: number): number {
    const { store, sessions, pending, limits } = this.#context;
    pending.settle(store.durableGroup); // a crowded store's patience ends without a sync
    let dueMs = Math.min(this.#sysIntervalMs, limits.connectTimeoutMs); // these alone may be less than a second
    for (const connection of this.#connections) dueMs = Math.min(dueMs, connection.tick(nowMs));
    const storeMs = store.nowMs();
    dueMs = Math.min(dueMs, this.#wills.tick(storeMs), sessions.expire(storeMs), this.#shares.tick(storeMs));
    if (pending.above) dueMs = 0;
    if (nowMs + sysEarlyMs < this.#sysDueMs) return dueMs;
    this.#sysDueMs = Math.max(nowMs, this.#sysDueMs + this.#sysIntervalMs);
    this.#sys.publish();
    return dueMs;
  }

  #registerGauges({ meter }: BrokerDeps): void {
    const { sessions, subscriptions, retained, partials, paused, turn } = this.#context;
    meter.gauge("tidegate_mqtt_incomplete_bytes", "Memory of packets not all come", () => partials.bytes);
    meter.gauge("tidegate_mqtt_paused_bytes", "Memory for what has come and is not read on now", () => paused.bytes);
    meter.gauge("tidegate_mqtt_unread_bytes", "Memory for what has come and waits for its turn", () => turn.heldBytes);
    meter.gauge("tidegate_mqtt_connections", "Clients connected", () => this.#online());
    meter.gauge("tidegate_mqtt_sessions", "Sessions, of connected clients and durable", () => sessions.size);
    meter.gauge("tidegate_mqtt_subscriptions", "Subscriptions of clients", () => subscriptions.count);
    meter.gauge("tidegate_mqtt_retained_messages", "Retained messages", () => retained.count);
    meter.gauge("tidegate_mqtt_retained_bytes", "Bytes of retained messages in memory", () => retained.bytes);
    meter.gauge("tidegate_mqtt_queued", "References of sessions and shared groups", () => this.#references.total);
    meter.gauge("tidegate_mqtt_shared_waiting", "Messages that wait for shared groups", () => this.#shares.waiting);
  }
}
