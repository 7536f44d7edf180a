import type { Store } from "../base/contracts.ts";
import { type Log, LogLimiter } from "../base/log.ts";
import type { Message } from "../base/message.ts";
import type { Will } from "../wire/mqtt/packet.ts";
import type { Who } from "./access/rules.ts";
import type { BrokerMetrics } from "./metrics.ts";
import { mapNames } from "./references.ts";
import type { Session } from "./session.ts";
import { decodeWill, encodeWill } from "./willRecords.ts";

/**
 * What becomes of a client's will when its connection ends. discard: it said a normal DISCONNECT [MQTT-3.1.2-10]. publish: it did not, so the
 * will is due after its delay. defer: the gateway stops, so it is due after the next start (MQTT 5 section 3.1.2.5).
 */
export type WillFate = "publish" | "discard" | "defer";

interface Delayed {
  readonly will: Will;
  /** Whose it was: the session may go to another one, or be gone, by the time it is published. */
  readonly user: string | undefined;
  /** Store clock. */
  readonly dueMs: number;
}

export interface WillsDeps {
  readonly store: Store;
  readonly log: Log;
  readonly metrics: BrokerMetrics;
  readonly publish: (message: Message, who: Who) => void;
}

/** Records of all wills together. A will may have 128 KiB and each client one; the store keeps such records in memory. */
const storedBytesMax = 16 * 1024 * 1024;

/**
 * Last wills: published when a connection ends without a normal DISCONNECT, at once or after their delay (MQTT 5 section 3.1.3.2.2). The store
 * has the will of every connected client, so those that are gone when the gateway comes back after a crash are published then.
 */
export class Wills {
  readonly #deps: WillsDeps;
  readonly #delayed = new Map<string, Delayed>();
  /** Client id to the size of its record in the store. */
  readonly #stored = new Map<string, number>();
  #storedBytes = 0;
  readonly #logged = new LogLimiter();

  constructor(deps: WillsDeps) {
    this.#deps = deps;
    const { store, log } = deps;
    const nowMs = store.nowMs();
    let rotten = 0;
    for (const [clientId, bytes] of store.entries(mapNames.will)) {
      this.#count(clientId, bytes.length);
      const record = decodeWill(bytes);
      if (record === undefined) rotten += 1;
      // Connected when we stopped: it is gone since now.
      else {
        const { will, user, delayMs, dueAtMs } = record;
        this.#delayed.set(clientId, { will, user, dueMs: dueAtMs ?? nowMs + delayMs });
      }
    }
    if (rotten > 0) log.warn({ wills: rotten }, "wills in the store cannot be read; they are not published");
  }

  /** The client is connected: with another will than before, or with none. */
  connected(session: Session): void {
    const { clientId, will } = session;
    if (will === undefined) this.#forget(clientId);
    else this.#keep(session, will, undefined);
  }

  /** The connection ended. @param nowMs store clock */
  left(session: Session, fate: WillFate, nowMs: number): void {
    const { clientId, user, will } = session;
    session.will = undefined;
    if (will === undefined) return;
    if (fate === "discard") {
      this.#forget(clientId);
      return;
    }
    const delayMs = delayOf(session, will);
    if (fate === "defer") this.#keep(session, will, nowMs + delayMs);
    else if (delayMs <= 0) this.#send(session, will);
    else {
      this.#delayed.set(clientId, { will, user, dueMs: nowMs + delayMs });
      this.#keep(session, will, nowMs + delayMs);
    }
  }

  /** The session goes on with a new connection: a will whose delay is not over is not published [MQTT-3.1.3-9]. @param nowMs store clock */
  resumed(clientId: string, nowMs: number): void {
    const delayed = this.#delayed.get(clientId);
    if (delayed === undefined) return;
    this.#delayed.delete(clientId);
    if (nowMs < delayed.dueMs) this.#forget(clientId);
    else this.#send({ clientId, user: delayed.user }, delayed.will);
  }

  /** The session is over: a will still waiting goes out now. */
  ended(clientId: string): void {
    const delayed = this.#delayed.get(clientId);
    if (delayed === undefined) return;
    this.#delayed.delete(clientId);
    this.#send({ clientId, user: delayed.user }, delayed.will);
  }

  /** @param nowMs store clock @returns how long until the next is due, ms */
  tick(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [clientId, { will, user, dueMs }] of this.#delayed) {
      if (nowMs < dueMs) nextMs = Math.min(nextMs, dueMs - nowMs);
      else {
        this.#delayed.delete(clientId);
        this.#send({ clientId, user }, will);
      }
    }
    return nextMs;
  }

  /** Published and forgotten in the same turn, so in one group: a crash makes it neither lost nor twice published. */
  #send({ clientId, user }: Who, { topic, payload, qos, retain, properties }: Will): void {
    this.#deps.publish({ topic, payload, qos, retain, properties, source: `mqtt:${clientId}` }, { clientId, user });
    this.#forget(clientId);
  }

  #keep(session: Session, will: Will, dueAtMs: number | undefined): void {
    const { store, log, metrics } = this.#deps;
    const { clientId } = session;
    const record = encodeWill({ will, delayMs: delayOf(session, will), dueAtMs, user: session.user });
    const bytes = this.#storedBytes - (this.#stored.get(clientId) ?? 0) + record.length;
    const room = bytes <= storedBytesMax && store.admit({ bytes: record.length, rejectNewest: [] }) === "ok";
    if (room && this.#write(clientId, record)) return;
    metrics.dropped("will-not-stored").value += 1;
    if (this.#logged.due("will")) log.warn({ clientId }, "a will was not stored: it is lost if the gateway stops now");
    this.#forget(clientId); // an older one must not be published in its place
  }

  #forget(clientId: string): void {
    if (this.#stored.has(clientId)) this.#write(clientId, undefined);
  }

  /** @param record undefined: removed. False: the store does not take it. */
  #write(clientId: string, record: Uint8Array | undefined): boolean {
    const { store } = this.#deps;
    if (store.failed !== undefined) return false;
    try {
      store.commit((txn) => {
        if (record === undefined) txn.delete(mapNames.will, clientId);
        else txn.put(mapNames.will, clientId, record);
      });
    } catch {
      return false;
    }
    this.#count(clientId, record?.length ?? 0);
    return true;
  }

  #count(clientId: string, bytes: number): void {
    this.#storedBytes += bytes - (this.#stored.get(clientId) ?? 0);
    if (bytes === 0) this.#stored.delete(clientId);
    else this.#stored.set(clientId, bytes);
  }
}

/** The session's end comes first if it is earlier [MQTT-3.1.3-9]. */
function delayOf(session: Session, will: Will): number {
  return Math.min((will.willDelaySeconds ?? 0) * 1000, session.durable ? session.expiryMs : 0);
}
