import type { Clock, Timer } from "../base/clock.ts";
import type { ReferenceQueue, Store, Txn } from "../base/contracts.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";

export const mapNames = {
  session: "session",
  subscription: "sub",
  qos2In: "qos2in",
  qos2Out: "qos2out",
  will: "will",
  shareSent: "sharesent",
} as const;

/** The value of an entry that only has to be there. */
export const noBytes = new Uint8Array(0);

/** Key of something that belongs to a client. A client id cannot hold U+0000 [MQTT-1.5.4-2]. */
export const clientKey = (clientId: string, rest: string | number): string => `${clientId}\u0000${rest}`;

const queuePrefix = "session/";
export const queueName = (clientId: string): string => queuePrefix + clientId;
export const clientOf = (queue: string): string => queue.slice(queuePrefix.length);
export const isSessionQueue = (name: string): boolean => name.startsWith(queuePrefix);

const sharePrefix = "share/";
/** A share name has no slash [MQTT-4.8.2-2], so no two groups have one name. */
export const shareQueueName = (share: string, filter: string): string => `${sharePrefix}${share}/${filter}`;
export const isShareQueue = (name: string): boolean => name.startsWith(sharePrefix);
/** The group that a queue belongs to. */
export function groupOfQueue(queue: string): { share: string; filter: string } {
  const slash = queue.indexOf("/", sharePrefix.length);
  return { share: queue.slice(sharePrefix.length, slash), filter: queue.slice(slash + 1) };
}
/** Key of the mark that a group's message went to one member at QoS 2. A filter cannot hold U+0000 either. */
export const sentKey = (queue: string, ordinal: number): string => `${queue}\u0000${ordinal}`;

const lazyMs = 50;
const lazyMax = 1000;

/**
 * Bookkeeping of the references of all durable sessions and shared groups. What a subscriber has acknowledged is released lazily, many in one commit:
 * a crash before it only sends them again.
 */
export class References {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #metrics: BrokerMetrics;
  /** How many are about to be released. */
  #count = 0;
  /** Runs of their ordinals: the first so many of the three arrays, which keep their size. */
  #runs = 0;
  readonly #queues: string[] = [];
  readonly #ordinals: number[] = [];
  readonly #counts: number[] = [];
  /** How many of each queue are among them, but for those of the newest one that came last: a client's acknowledgements come together. */
  readonly #countOf = new Map<string, number>();
  #newest = "";
  #newestCount = 0;
  #recKeys: string[] = [];
  #sentKeys: string[] = [];
  #timer: Timer | undefined;
  #total = 0;
  readonly #write = (txn: Txn): void => this.flushInto(txn);
  /** Not made where it is needed: a function that may make one makes an object with each call. */
  readonly #flushLate = (): void => this.flush();

  constructor(deps: { store: Store; clock: Clock; metrics: BrokerMetrics }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#metrics = deps.metrics;
    for (const name of this.#store.referenceNames()) {
      if (isSessionQueue(name) || isShareQueue(name)) this.#total += this.#store.references(name)?.size ?? 0;
    }
  }

  /** References of all sessions and shared groups. */
  get total(): number {
    return this.#total;
  }

  /** Bytes of what waits, over all queues. Looks at each, so not to be asked often. */
  bytes(): number {
    let bytes = 0;
    for (const name of this.#store.referenceNames()) {
      if (isSessionQueue(name) || isShareQueue(name)) bytes += this.#store.references(name)?.bytes ?? 0;
    }
    return bytes;
  }

  /** Whether a queue takes one more of so many bytes. */
  hasRoom(queue: ReferenceQueue | undefined, bytes: number, { session, queuedTotal }: BrokerLimits): boolean {
    if (this.#total >= queuedTotal || bytes > session.maxBytes) return false;
    return queue === undefined || (queue.size < session.maxMessages && queue.bytes + bytes <= session.maxBytes);
  }

  add(txn: Txn, queue: string, position: number, meta: number, bytes: number): number {
    this.#total += 1;
    return txn.reference(queue, position, meta, bytes);
  }

  /** Releases in a commit of its own; false when nothing waited there or the store fails. */
  releaseNow(queue: string, ordinal: number): boolean {
    const before = this.#store.references(queue)?.size ?? 0;
    try {
      this.#store.commit((txn) => txn.release(queue, ordinal));
    } catch {
      return false;
    }
    const released = before - (this.#store.references(queue)?.size ?? 0);
    this.#total -= released;
    return released > 0;
  }

  /**
   * Lets go of the oldest references from an ordinal on, in one commit, until so many bytes are. `flush` must have been called.
   * @param keeps ordinals that stay
   * @returns how many and how many bytes, and the newest ordinal up to which none is left but those kept
   */
  releaseFrom(
    queue: string,
    from: number,
    bytes: number,
    keeps: (ordinal: number) => boolean = () => false,
  ): { messages: number; bytes: number; upTo: number } {
    const waiting = this.#store.references(queue);
    const none = { messages: 0, bytes: 0, upTo: from - 1 };
    if (waiting === undefined || this.#store.failed !== undefined) return none;
    const before = { size: waiting.size, bytes: waiting.bytes };
    let upTo = from - 1;
    try {
      this.#store.commit((txn) => {
        while (before.bytes - waiting.bytes < bytes) {
          const next = waiting.nextAfter(upTo);
          if (next === 0) break;
          upTo = next;
          if (!keeps(next)) txn.release(queue, next);
        }
      });
    } catch {
      return none;
    }
    const messages = before.size - waiting.size;
    this.#total -= messages;
    return { messages, bytes: before.bytes - waiting.bytes, upTo };
  }

  /**
   * A member was not sent what a group had given it at QoS 2: its own reference, if it has one, and the group's mark go at once, together.
   * False: the store does not take it.
   */
  takeBack(own: { queue: string; ordinal: number } | undefined, key: string | undefined): boolean {
    try {
      this.#store.commit((txn) => {
        if (own !== undefined) txn.release(own.queue, own.ordinal);
        if (key !== undefined) txn.delete(mapNames.shareSent, key);
      });
    } catch {
      return false;
    }
    if (own !== undefined) this.#total -= 1;
    return true;
  }

  /**
   * The reference goes with the next commit, or soon.
   * @param recKey key in the map of PUBRECs seen that goes with it @param sentKey the same in that of groups' messages sent at QoS 2
   */
  release(queue: string, ordinal: number, recKey?: string, sentKey?: string): void {
    this.#total -= 1;
    this.#count += 1;
    const last = this.#runs - 1;
    if (queue === this.#newest) {
      this.#newestCount += 1;
      if (last >= 0 && this.#ordinals[last]! + this.#counts[last]! === ordinal) this.#counts[last]! += 1;
      else this.#begin(queue, ordinal);
    } else {
      if (this.#newestCount > 0) this.#countOf.set(this.#newest, this.#aboutToGo(this.#newest));
      this.#newest = queue;
      this.#newestCount = 1;
      this.#begin(queue, ordinal);
    }
    if (recKey !== undefined) this.#recKeys.push(recKey);
    if (sentKey !== undefined) this.#sentKeys.push(sentKey);
    if (this.#count >= lazyMax) this.flush();
    else this.#timer ??= this.#clock.setTimer(lazyMs, this.#flushLate);
  }

  #begin(queue: string, ordinal: number): void {
    this.#queues[this.#runs] = queue;
    this.#ordinals[this.#runs] = ordinal;
    this.#counts[this.#runs] = 1;
    this.#runs += 1;
  }

  /** References of a queue that still wait: those about to be released no longer count. */
  waiting(queue: string): number {
    return (this.#store.references(queue)?.size ?? 0) - this.#aboutToGo(queue);
  }

  #aboutToGo(queue: string): number {
    return (this.#countOf.get(queue) ?? 0) + (queue === this.#newest ? this.#newestCount : 0);
  }

  /** All references of a queue go with this commit. Call `flush` before the commit. */
  drop(txn: Txn, queue: string): void {
    this.#total -= this.#store.references(queue)?.size ?? 0;
    txn.dropQueue(queue);
  }

  /** Whether `flushInto` would write something. */
  get pending(): boolean {
    return this.#count > 0;
  }

  flushInto(txn: Txn): void {
    if (this.#count === 0) return;
    for (let at = 0; at < this.#runs; at += 1) txn.release(this.#queues[at]!, this.#ordinals[at]!, this.#counts[at]!);
    for (const key of this.#recKeys) txn.delete(mapNames.qos2Out, key);
    for (const key of this.#sentKeys) txn.delete(mapNames.shareSent, key);
    this.#count = this.#runs = this.#newestCount = 0;
    if (this.#countOf.size > 0) this.#countOf.clear();
    if (this.#recKeys.length > 0) this.#recKeys = [];
    if (this.#sentKeys.length > 0) this.#sentKeys = [];
  }

  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#count === 0 || this.#store.failed !== undefined) return;
    try {
      this.#store.commit(this.#write);
    } catch {
      this.#metrics.dropped("write-failed").value += 1;
    }
  }
}

/** See ShareGroup.tag. */
export function shareTag(name: string): number {
  let hash = 0;
  for (let at = 0; at < name.length; at += 1) hash = (hash * 33 + name.charCodeAt(at)) >>> 0;
  return 1 + (hash % 31);
}
