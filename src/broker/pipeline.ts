import type { PublishResult, Txn } from "../base/contracts.ts";
import type { RouteFailure } from "../base/deadLetters.ts";
import type { Message } from "../base/message.ts";
import { DurableOutgoing } from "./durableOutgoing.ts";
import { expandRoutes } from "./expandRoutes.ts";
import type { PipelineDeps } from "./pipelineDeps.ts";
import { PlainMessages } from "./plainMessages.ts";
import { messageBytes } from "./publishFrames.ts";
import {
  forget,
  hasOwn,
  heldBytes,
  type Item,
  keepsCopy,
  needsStore,
  newItem,
  noTakers,
  ownOf,
  refer,
  takersOf,
  zeros,
} from "./publishItem.ts";
import { mapNames, noBytes } from "./references.ts";
import type { Session } from "./session.ts";
import { notStored, ShortWay } from "./shortWay.ts";
import type { TopicEntry } from "./topicEntry.ts";

const none: readonly string[] = [];
const noItems: readonly Item[] = [];
const accepted0: { readonly accepted: true; readonly group: number } = { accepted: true, group: 0 };

/**
 * One publish from start to end: derive (routes), decide (admission for all of it together), write (one commit), then deliver. Before
 * the commit nothing has happened, so a refusal leaves no trace and a retry makes no duplicate.
 */
export class Pipeline {
  readonly #deps: PipelineDeps;
  /** The short way of what only uplinks take. */
  readonly plain: PlainMessages;
  /** That of what else is usual. */
  readonly #short: ShortWay;
  #items: readonly Item[] = noItems;
  /** The item of the last publish without routes: made anew for each message it was a third of the garbage. Taken while in use: a handler may publish. */
  #spare: Item[] | undefined;
  #heldKey: string | undefined;
  #heldMap: string = mapNames.qos2In;
  /** What routes could not transform of the present publish. */
  #failures: RouteFailure[] = [];
  readonly #dead = (failure: RouteFailure): void => void this.#failures.push(failure);
  readonly #write = (txn: Txn): void => this.#writeAll(txn);
  /** What the store is asked, filled for each question. */
  readonly #admission = { bytes: 0, rejectNewest: none, tentative: false };
  /** The last answer: a group holds many messages. */
  #accepted: { readonly accepted: true; readonly group: number } = accepted0;

  constructor(deps: PipelineDeps) {
    this.#deps = deps;
    this.plain = new PlainMessages(deps);
    this.#short = new ShortWay(deps);
  }

  /**
   * @param publisher the session it came from, for No Local
   * @param heldKey key of the QoS 2 id to hold with it, when its session is durable
   * @param heldMap where: the clients' or an uplink's
   */
  publish(
    message: Message,
    entry: TopicEntry,
    publisher: Session | undefined,
    heldKey: string | undefined,
    heldMap: string = mapNames.qos2In,
  ): PublishResult {
    const { deliverer } = this.#deps;
    this.plain.askAgain();
    const simple = entry.routes.length === 0 && !message.retain;
    if (
      simple &&
      heldKey === undefined &&
      !entry.durable &&
      entry.stored.length === 0 &&
      !this.#sharesStore(message, entry)
    ) {
      const kept = deliverer.deliver(message, entry, entry.deliveries, publisher, undefined, 0); // nothing to store: the usual case
      if (entry.shares.length > 0) deliverer.share(message, entry, undefined, 0);
      return this.#acceptedIn(kept);
    }
    if (simple && entry.shares.length === 0) {
      const group = this.#short.store(message, entry, publisher, heldKey, heldMap);
      if (group === notStored) return this.#failed();
      if (group !== undefined) return this.#acceptedIn(group);
    }
    const items = this.#plan(message, entry, publisher);
    const refused = this.#admit(message, items, heldKey);
    if (refused !== undefined) return { accepted: false, reason: refused };
    let group = 0;
    if (heldKey !== undefined || items.some(needsStore) || this.#failures.length > 0) {
      try {
        this.#heldMap = heldMap;
        group = this.#commit(items, heldKey);
      } catch {
        return this.#failed();
      }
    }
    let last = group;
    for (const item of items) last = Math.max(last, this.#finish(item, publisher, group));
    if (items.length === 1 && forget(items[0]!)) this.#spare = items;
    return this.#acceptedIn(last);
  }

  #sharesStore({ qos }: Message, { shares }: TopicEntry): boolean {
    for (const group of shares) if (group.stores(qos, this.#deps.limits.session.queueQos0)) return true;
    return false;
  }

  #failed(): PublishResult {
    this.#deps.metrics.dropped("refused").value += 1;
    return { accepted: false, reason: "failed" };
  }

  /** The same object for a group's messages. */
  #acceptedIn(group: number): PublishResult {
    if (group === 0) return accepted0;
    if (this.#accepted.group !== group) this.#accepted = { accepted: true, group };
    return this.#accepted;
  }

  #plan(message: Message, entry: TopicEntry, publisher: Session | undefined): Item[] {
    const items = this.#spare ?? [newItem(message, entry)];
    this.#spare = undefined;
    this.#decide(items[0]!, message, entry, publisher);
    if (this.#failures.length > 0) this.#failures = [];
    if (entry.routes.length === 0) return items;
    const { cache, metrics, limits } = this.#deps;
    const { maxTopicLevels: levelsMax, maxPacketSize: payloadMax } = limits;
    const how = { cache, metrics, levelsMax, payloadMax, dead: this.#dead };
    for (const derived of expandRoutes(message, entry, how)) {
      const item = newItem(derived.message, derived.entry);
      this.#decide(item, derived.message, derived.entry, undefined);
      items.push(item);
    }
    return items;
  }

  #decide(item: Item, message: Message, entry: TopicEntry, publisher: Session | undefined): void {
    const { queueQos0 } = this.#deps.limits.session;
    const { retained } = this.#deps;
    let targets = entry.deliveries;
    if (publisher !== undefined && hasOwn(targets, publisher)) {
      targets = targets.flatMap((target) => (target.session === publisher ? ownOf(target) : [target]));
    }
    item.message = message;
    item.entry = entry;
    item.targets = targets;
    item.takers = noTakers;
    item.ordinals = item.shared = undefined;
    item.wanted = item.position = 0;
    item.retain = "no";
    const isSys = message.source === "sys"; // never journalled
    if (message.retain && this.#retainable(message)) {
      if (isSys) item.retain = "ram";
      else if (message.qos === 0) item.retain = "later";
      // Removing what is not there stores nothing.
      else item.retain = message.payload.length > 0 || retained.isStored(message.topic) ? "now" : "no";
    }
    if (isSys) return;
    if (entry.stored.length > 0) item.takers = takersOf(message, entry);
    for (let at = 0; at < targets.length; at += 1) {
      const target = targets[at];
      if (target === undefined || !keepsCopy(message, target, queueQos0)) continue;
      item.ordinals ??= zeros(targets.length, item.spareOrdinals);
      item.ordinals[at] = -1;
      item.wanted += 1;
    }
    for (let at = 0; at < entry.shares.length; at += 1) {
      if (entry.shares[at]?.stores(message.qos, queueQos0) !== true) continue;
      item.shared ??= zeros(entry.shares.length, []);
      item.shared[at] = -1;
      item.wanted += 1;
    }
  }

  #retainable(message: Message): boolean {
    if (this.#deps.retained.hasRoom(message.topic, message)) return true;
    this.#deps.metrics.dropped("retained-full").value += 1;
    return false;
  }

  /** Undefined: go on, with what is left of the items when the publisher cannot be told (QoS 0). */
  #admit(original: Message, items: readonly Item[], heldKey: string | undefined): "full" | "failed" | undefined {
    const { store, metrics } = this.#deps;
    let bytes = heldKey === undefined ? 0 : heldBytes;
    for (const failure of this.#failures) bytes += messageBytes(failure.message);
    let rejectNewest: string[] | undefined;
    for (const item of items) {
      if (needsStore(item)) bytes += messageBytes(item.message);
      for (const forward of item.takers) {
        if (forward.whenFull === "reject-newest") {
          rejectNewest ??= [];
          rejectNewest.push(forward.uplink);
        }
      }
    }
    if (bytes === 0) return undefined;
    this.#admission.bytes = bytes;
    this.#admission.rejectNewest = rejectNewest ?? none;
    this.#admission.tentative = false;
    const verdict = store.admit(this.#admission);
    if (verdict === "ok") return undefined;
    // A source can always be told, whatever QoS its readings have: it acknowledges to the device only what it was not refused.
    if (original.qos > 0 || original.source.startsWith("source:")) {
      metrics.dropped("refused").value += 1;
      return verdict;
    }
    for (const item of items) this.#reduce(item);
    metrics.dropped("store-full").value += this.#failures.length;
    this.#failures = [];
    return undefined;
  }

  /** QoS 0 in need: local delivery goes on; copies that find no room are dropped, each counted. */
  #reduce(item: Item): void {
    const { store, metrics } = this.#deps;
    if (!needsStore(item)) return;
    const bytes = messageBytes(item.message);
    if (item.takers.length > 0) {
      const fitting = item.takers.filter(
        (forward) =>
          forward.whenFull !== "reject-newest" || store.admit({ bytes, rejectNewest: [forward.uplink] }) === "ok",
      );
      metrics.dropped("uplink-full").value += item.takers.length - fitting.length;
      item.takers = fitting;
    }
    if (!needsStore(item) || store.admit({ bytes, rejectNewest: none }) === "ok") return;
    metrics.dropped("store-full").value += 1;
    item.takers = [];
    item.ordinals = undefined;
    item.shared = item.shared?.map((ordinal) => (ordinal === -1 ? -2 : ordinal));
    item.wanted = 0;
    if (item.retain === "now") item.retain = "later";
  }

  #commit(items: readonly Item[], heldKey: string | undefined): number {
    for (const item of items) this.#makeRoom(item);
    this.#items = items;
    this.#heldKey = heldKey;
    const { group } = this.#deps.store.commit(this.#write);
    this.#items = noItems;
    let bytes = 0;
    for (const { message } of this.#failures) bytes += messageBytes(message);
    for (const item of items) if (item.position > 0) bytes += messageBytes(item.message);
    this.#deps.pending.add(group, bytes);
    return group;
  }

  /** Sessions at their limit make room before the commit, or give this message up. */
  #makeRoom(item: Item): void {
    if (item.wanted === 0) return;
    const bytes = messageBytes(item.message);
    for (let at = 0; at < (item.shared?.length ?? 0); at += 1) {
      if (item.shared?.[at] !== -1 || item.entry.shares[at]?.stored.makeRoom(bytes)) continue;
      item.shared[at] = -2;
      item.wanted -= 1;
    }
    for (let at = 0; at < (item.ordinals?.length ?? 0); at += 1) {
      const outgoing = item.targets[at]?.session.outgoing;
      if (item.ordinals?.[at] !== -1 || !(outgoing instanceof DurableOutgoing)) continue;
      if (outgoing.makeRoom(bytes)) continue;
      item.ordinals[at] = 0;
      item.wanted -= 1;
    }
  }

  #writeAll(txn: Txn): void {
    for (const item of this.#items) {
      if (!needsStore(item)) continue;
      const { message } = item;
      const removes = item.retain === "now" && message.payload.length === 0;
      if (item.takers.length > 0 || item.wanted > 0 || (item.retain === "now" && !removes)) {
        item.position = txn.message(message, item.takers);
      }
      if (item.retain === "now") this.#deps.retained.store(txn, message, item.position);
      this.#referShared(txn, item);
      if (item.ordinals !== undefined) refer(txn, message, item.position, item.targets, item.ordinals);
    }
    for (const failure of this.#failures) this.#deps.letters?.keep(txn, failure);
    if (this.#heldKey !== undefined) txn.put(this.#heldMap, this.#heldKey, noBytes);
    this.#deps.references.flushInto(txn);
  }

  #referShared(txn: Txn, { shared, entry, message, position }: Item): void {
    if (shared === undefined) return;
    for (let at = 0; at < shared.length; at += 1) {
      const stored = entry.shares[at]?.stored;
      if (shared[at] !== -1 || stored === undefined) continue;
      shared[at] = stored.reference(txn, position, message.qos, message.retain, messageBytes(message));
    }
  }

  #finish(item: Item, publisher: Session | undefined, group: number): number {
    const { message, entry } = item;
    if (item.retain !== "no") {
      const place = item.retain === "now" ? item.position || -1 : 0;
      this.#deps.retained.apply(message, place);
    }
    const last = this.#deps.deliverer.deliver(message, entry, item.targets, publisher, item.ordinals, group);
    if (entry.shares.length > 0) this.#deps.deliverer.share(message, entry, item.shared, item.position);
    return last;
  }
}
