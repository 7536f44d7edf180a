import type { Store } from "../base/contracts.ts";
import { type Log, LogLimiter } from "../base/log.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import type { DurableDeps } from "./durableItem.ts";
import { DurableOutgoing } from "./durableOutgoing.ts";
import type { Hoard } from "./giveWay.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import { clientKey, clientOf, isSessionQueue, mapNames, queueName, type References } from "./references.ts";
import { type Link, Session, type SubscriptionOptions } from "./session.ts";
import { decodeSession, decodeSubscription, encodeSession, encodeSubscription } from "./sessionRecords.ts";
import type { Subscriptions } from "./subscriptions.ts";
import { VolatileOutgoing, type VolatileTotal } from "./volatileOutgoing.ts";
import type { WillFate, Wills } from "./wills.ts";

export interface SessionsDeps {
  readonly store: Store;
  readonly log: Log;
  readonly limits: BrokerLimits;
  readonly metrics: BrokerMetrics;
  readonly references: References;
  readonly subscriptions: Subscriptions;
  readonly wills: Wills;
  readonly outgoing: DurableDeps;
}

/** All sessions, and what the store keeps of the durable ones. */
export class Sessions {
  readonly #deps: SessionsDeps;
  readonly #byId = new Map<string, Session>();
  readonly #logged = new LogLimiter();
  readonly #volatile: VolatileTotal = { bytes: 0 };
  readonly #nowMs = (): number => this.#deps.store.nowMs();
  /** Store clock; no session expires before. */
  #nextExpiryMs = Number.POSITIVE_INFINITY;

  constructor(deps: SessionsDeps) {
    this.#deps = deps;
    this.#load();
  }

  get size(): number {
    return this.#byId.size;
  }

  all(): Iterable<Session> {
    return this.#byId.values();
  }

  get(clientId: string): Session | undefined {
    return this.#byId.get(clientId);
  }

  /**
   * The session for a new connection [MQTT-3.1.2-4..6]. A connection that has it is closed first [MQTT-3.1.4-3]. Undefined: there are too
   * many. The caller sets link, then calls `attached`.
   */
  open(clientId: string, clean: boolean, durable: boolean): { session: Session; present: boolean } | undefined {
    this.#byId.get(clientId)?.link?.close(reason.sessionTakenOver, "another connection came with the same client id");
    let session = this.#byId.get(clientId);
    if (session !== undefined && clean) {
      this.end(session);
      session = undefined;
    }
    if (session !== undefined) return { session, present: true };
    if (durable && this.#isFull()) return undefined;
    this.#deps.wills.ended(clientId); // of a session that ended with the gateway
    session = this.#make(clientId, durable, 0, 0, []);
    this.#byId.set(clientId, session);
    return { session, present: false };
  }

  /** Only sessions that outlive their connection count: the others are bounded by maxConnections, and must not be locked out by these. */
  #isFull(): boolean {
    const { limits, log } = this.#deps;
    if (this.#byId.size < limits.maxSessions) return false;
    let durable = 0;
    for (const session of this.#byId.values()) if (session.durable) durable += 1;
    if (durable < limits.maxSessions) return false;
    if (this.#logged.due("sessions full"))
      log.warn(
        { sessions: durable },
        "no more persistent sessions: mqtt.limits.maxSessions is reached; new clients with one are refused",
      );
    return true;
  }

  attached(session: Session, link: Link): void {
    session.link = link;
    session.outgoing.attached(); // first: its own will may come to it, and must not find what was true of its last connection
    session.disconnectedAtMs = undefined;
    this.#deps.wills.resumed(session.clientId, this.#deps.store.nowMs());
    this.#persist(session);
    this.#deps.wills.connected(session);
  }

  /** The connection is gone. @param will what becomes of its will [MQTT-3.14.4-3] */
  detached(session: Session, will: WillFate): void {
    session.link = undefined;
    session.outgoing.detached();
    const nowMs = this.#deps.store.nowMs();
    this.#deps.wills.left(session, will, nowMs);
    if (!session.durable || session.expiryMs <= 0) {
      this.end(session);
      return;
    }
    session.disconnectedAtMs = nowMs;
    this.#nextExpiryMs = Math.min(this.#nextExpiryMs, nowMs + session.expiryMs);
    this.#persist(session);
  }

  /** The session and everything of it goes. */
  end(session: Session): void {
    if (this.#byId.get(session.clientId) !== session) return;
    this.#byId.delete(session.clientId);
    const filters = [...session.subscriptions.keys()];
    this.#deps.subscriptions.removeAll(session);
    if (session.outgoing instanceof DurableOutgoing) this.#erase(session, session.outgoing, filters);
    this.#deps.wills.ended(session.clientId);
  }

  /** Ends sessions whose expiry has passed. @param nowMs store clock @returns how long until the next may, ms */
  expire(nowMs: number): number {
    if (nowMs < this.#nextExpiryMs) return this.#nextExpiryMs - nowMs;
    this.#nextExpiryMs = Number.POSITIVE_INFINITY;
    for (const session of this.#byId.values()) {
      if (session.disconnectedAtMs === undefined) continue;
      const dueMs = session.disconnectedAtMs + session.expiryMs;
      if (dueMs <= nowMs) {
        this.end(session);
        this.#deps.metrics.sessionsExpired.value += 1;
      } else this.#nextExpiryMs = Math.min(this.#nextExpiryMs, dueMs);
    }
    return this.#nextExpiryMs - nowMs;
  }

  /** What could give way to a full store. */
  *hoards(): Iterable<Hoard> {
    for (const { clientId, link, outgoing } of this.#byId.values()) {
      if (!(outgoing instanceof DurableOutgoing)) continue;
      const bytes = this.#deps.store.references(queueName(clientId))?.bytes ?? 0;
      if (bytes > 0) yield { online: link !== undefined, bytes, giveWay: (wanted) => outgoing.giveWay(wanted) };
    }
  }

  /** Writes subscriptions of a durable session. @param added undefined options: removed. False: the store does not take them. */
  persistSubscriptions(session: Session, changes: ReadonlyArray<readonly [string, SubscriptionOptions?]>): boolean {
    if (!session.durable || changes.length === 0) return true;
    return this.#commit(session, (txn) => {
      for (const [filter, options] of changes) {
        const key = clientKey(session.clientId, filter);
        if (options === undefined) txn.delete(mapNames.subscription, key);
        else txn.put(mapNames.subscription, key, encodeSubscription(options));
      }
    });
  }

  #make(clientId: string, durable: boolean, sentUpTo: number, surely: number, recSeen: readonly number[]): Session {
    const { limits, metrics, outgoing } = this.#deps;
    return new Session(clientId, durable, (session) =>
      durable
        ? new DurableOutgoing(session, outgoing, sentUpTo, surely, recSeen)
        : new VolatileOutgoing(session, limits.session, metrics, this.#nowMs, this.#volatile, outgoing.access),
    );
  }

  #persist(session: Session): void {
    if (!(session.outgoing instanceof DurableOutgoing)) return;
    const { expiryMs, disconnectedAtMs, user } = session;
    const { sentUpTo } = session.outgoing;
    const record = encodeSession({ expiryMs, disconnectedAtMs, sentUpTo, user });
    this.#commit(session, (txn) => txn.put(mapNames.session, session.clientId, record));
  }

  #erase(session: Session, outgoing: DurableOutgoing, filters: readonly string[]): void {
    const { references } = this.#deps;
    references.flush();
    const { clientId } = session;
    this.#commit(session, (txn) => {
      txn.delete(mapNames.session, clientId);
      for (const filter of filters) txn.delete(mapNames.subscription, clientKey(clientId, filter));
      for (const id of session.held.keys()) txn.delete(mapNames.qos2In, clientKey(clientId, id));
      for (const ordinal of outgoing.recSeenOrdinals()) txn.delete(mapNames.qos2Out, clientKey(clientId, ordinal));
      references.drop(txn, queueName(clientId));
    });
  }

  #commit(session: Session, write: Parameters<Store["commit"]>[0]): boolean {
    const { store, metrics, log } = this.#deps;
    if (store.failed !== undefined) return false; // said once by whoever hears of the failure
    try {
      store.commit(write);
      return true;
    } catch (error) {
      metrics.dropped("write-failed").value += 1;
      if (this.#logged.due("commit")) log.error({ clientId: session.clientId, error }, "session state was not written");
      return false;
    }
  }

  #load(): void {
    const { store, subscriptions, limits } = this.#deps;
    const held = grouped(store.entries(mapNames.qos2In));
    const recSeen = grouped(store.entries(mapNames.qos2Out));
    const nowMs = store.nowMs();
    for (const clientId of this.#storedClients(held, recSeen)) {
      const bytes = store.get(mapNames.session, clientId);
      const record = bytes === undefined ? undefined : decodeSession(bytes);
      const oldest = store.references(queueName(clientId))?.oldest()?.ordinal ?? 0;
      // Connected when we stopped: all of its window may have been sent.
      const sentUpTo = Math.max(
        record?.sentUpTo ?? 0,
        record?.disconnectedAtMs === undefined && oldest > 0 ? oldest + limits.maxInflight - 1 : 0,
      );
      const session = this.#make(clientId, true, sentUpTo, record?.sentUpTo ?? 0, recSeen.get(clientId) ?? []);
      session.expiryMs = Math.min(record?.expiryMs ?? limits.sessionExpiryMaxMs, limits.sessionExpiryMaxMs);
      session.disconnectedAtMs = record?.disconnectedAtMs ?? nowMs;
      session.user = record?.user;
      for (const id of held.get(clientId) ?? []) session.hold(id, 0);
      this.#byId.set(clientId, session);
      this.#nextExpiryMs = Math.min(this.#nextExpiryMs, session.disconnectedAtMs + session.expiryMs);
    }
    for (const [key, value] of store.entries(mapNames.subscription)) {
      const split = key.indexOf("\u0000");
      const session = this.#byId.get(key.slice(0, split));
      const options = decodeSubscription(value);
      if (session === undefined || options === undefined) continue;
      subscriptions.add(session, key.slice(split + 1), options);
      session.usesIds ||= options.id !== 0;
    }
  }

  /**
   * Everybody of whom the store knows something. A session's own record may have rotted: what waits for it and what it subscribed to must not go
   * with one flipped bit, so it lives on with the longest expiry.
   */
  #storedClients(...more: ReadonlyArray<ReadonlyMap<string, unknown>>): Set<string> {
    const { store, log } = this.#deps;
    const clients = new Set<string>();
    for (const [clientId] of store.entries(mapNames.session)) clients.add(clientId);
    const recorded = clients.size;
    for (const name of store.referenceNames()) if (isSessionQueue(name)) clients.add(clientOf(name));
    for (const [key] of store.entries(mapNames.subscription)) clients.add(key.slice(0, key.indexOf("\u0000")));
    for (const known of more) for (const clientId of known.keys()) clients.add(clientId);
    const lost = clients.size - recorded;
    if (lost > 0) log.warn({ sessions: lost }, "the records of sessions are lost; they go on with the longest expiry");
    return clients;
  }
}

function grouped(entries: Iterable<readonly [string, Uint8Array]>): Map<string, number[]> {
  const byClient = new Map<string, number[]>();
  for (const [key] of entries) {
    const split = key.indexOf("\u0000");
    const numbers = byClient.get(key.slice(0, split));
    const number = Number(key.slice(split + 1));
    if (numbers === undefined) byClient.set(key.slice(0, split), [number]);
    else numbers.push(number);
  }
  return byClient;
}
