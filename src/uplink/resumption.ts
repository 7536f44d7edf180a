import type { QueuedMessage, UplinkQueue } from "../base/contracts.ts";
import type { Recalled } from "../base/inFlight.ts";
import type { SentId, SentIds } from "./sentIds.ts";
import type { Slot, Window } from "./window.ts";

/** What may lie between messages that an earlier run had in flight: what that had in its window with QoS 1, usually. */
const othersBytesMax = 4 * 1024 * 1024;

export interface ResumptionDeps {
  readonly queue: UplinkQueue;
  readonly window: Window;
  readonly ids: SentIds;
  readonly inflight: number;
  /** Takes one that an earlier run may have sent, but not with QoS 2, as a new one. */
  add(message: QueuedMessage): void;
  /** The cloud has it, and it has left the queue. */
  settled(packetId: number, message: QueuedMessage): void;
  /** The window holds what an earlier run had in flight. Not from within `begin`. */
  ready(): void;
}

/**
 * A start in the middle of QoS 2 exchanges: puts what an earlier run had in flight back into the window, by the identifiers on record, before anything
 * else is taken from the queue.
 */
export class Resumption {
  readonly #deps: ResumptionDeps;
  /** On record, and not come to yet in the queue: by position. */
  #ahead = new Map<number, { readonly id: SentId; known: boolean; ended: boolean }>();
  #run = 0;
  /** Identifiers whose message is gone, and that the cloud may hold. */
  #gone: SentId[] = [];
  ready = false;

  constructor(deps: ResumptionDeps) {
    this.#deps = deps;
    deps.queue.keep(deps.ids.load()); // it must be there when it is wanted, however long the start takes
  }

  begin(): void {
    const { ids, queue, inflight, window } = this.#deps;
    const all = ids.load();
    this.ready = all.length === 0;
    if (this.ready) return;
    for (const { packetId } of all) window.reserve(packetId);
    this.#run += 1;
    const run = this.#run;
    void queue.recall({ messages: inflight, bytes: othersBytesMax }).then((recalled) => {
      if (run !== this.#run) return;
      this.#restore(all, recalled);
      this.ready = true;
      this.#deps.ready();
    });
  }

  /** Ends it, at whatever point it is; `begin` begins anew. */
  release(): void {
    this.#run += 1;
    this.ready = false;
    this.#ahead.clear();
    this.#gone = [];
  }

  /**
   * A new connection. @param sessionPresent the cloud knows the identifiers
   * Where it does not, all is said about what has seen PUBREC: the cloud had taken it.
   */
  reconnect(sessionPresent: boolean): void {
    const { ids, window } = this.#deps;
    for (const { packetId } of this.#gone.splice(0)) {
      if (sessionPresent) window.restoreRelease(packetId, undefined);
      else ids.ended(packetId);
    }
    if (sessionPresent) return;
    for (const one of this.#ahead.values()) {
      one.known = false;
      if (one.id.received) one.ended = true;
    }
  }

  /** Whether the identifier has to be kept on record until its message comes out of the queue. */
  ended(packetId: number): boolean {
    if (this.#ahead.size === 0) return false;
    for (const one of this.#ahead.values()) {
      if (one.id.packetId !== packetId || !one.id.received) continue;
      one.ended = true;
      return true;
    }
    return false;
  }

  /** A message that came out of the queue: undefined: a new one; "done": the cloud has it; else it is in the window again. */
  take(message: QueuedMessage): Slot | "done" | undefined {
    const one = this.#ahead.size === 0 ? undefined : this.#ahead.get(message.position);
    if (one === undefined || one.id.lane !== message.lane) return undefined;
    this.#ahead.delete(message.position);
    const { ids, queue, settled } = this.#deps;
    const { packetId, received } = one.id;
    if (!received) return this.#again(one.id, message, one.known);
    queue.settle(message);
    settled(packetId, message);
    if (one.ended) ids.ended(packetId);
    return "done";
  }

  #restore(all: readonly SentId[], { found, ahead }: Recalled): void {
    const { window, add } = this.#deps;
    const missing = new Map(all.map((id) => [keyOf(id), id]));
    const releases = new Map<SentId, QueuedMessage>();
    for (const message of arrange(found, missing)) {
      const id = missing.get(keyOf(message));
      if (id === undefined) add(message);
      else if (id.received) releases.set(id, message);
      else this.#again(id, message, true);
      missing.delete(keyOf(message));
    }
    for (const id of all) {
      const isMissing = missing.get(keyOf(id)) === id;
      const isAhead = isMissing && ahead.has(id.position);
      if (isAhead) this.#ahead.set(id.position, { id, known: true, ended: false });
      if (id.received) window.restoreRelease(id.packetId, releases.get(id));
      else if (isMissing && !isAhead) this.#gone.push(id);
    }
  }

  #again({ packetId }: SentId, message: QueuedMessage, known: boolean): Slot {
    const slot = this.#deps.window.restore(packetId, message, 2, known);
    slot.noted = true;
    return slot;
  }
}

const keyOf = ({ lane, position }: { lane: number; position: number }): string => `${lane} ${position}`;

/**
 * In the order in which they were sent: identifiers say it over all lanes; what has none goes before the next one of its lane that has, since a lane is sent in
 * the order of its positions.
 */
export function arrange(found: readonly QueuedMessage[], ids: ReadonlyMap<string, SentId>): QueuedMessage[] {
  const byPosition = [...found].sort((a, b) => a.position - b.position);
  const orders = new Map<QueuedMessage, number>();
  const next = new Map<number, number>();
  for (const message of [...byPosition].reverse()) {
    const id = ids.get(keyOf(message));
    if (id !== undefined && !id.received) next.set(message.lane, id.order);
    orders.set(message, next.get(message.lane) ?? Number.POSITIVE_INFINITY);
  }
  const orderOf = (message: QueuedMessage): number => orders.get(message) ?? 0;
  return byPosition.sort((a, b) => {
    const [one, other] = [orderOf(a), orderOf(b)];
    return one === other ? a.position - b.position : one - other;
  });
}
