import type { Forwarding, Routing } from "../base/contracts.ts";
import type { Qos } from "../base/message.ts";
import { splitSharedFilter } from "../wire/mqtt/filter.ts";
import type { Access } from "./access/access.ts";
import type { Session, SubscriptionOptions } from "./session.ts";
import type { ShareGroup } from "./shareGroup.ts";
import type { Shares } from "./shares.ts";
import type { Delivery, Handler, TopicEntry } from "./topicEntry.ts";
import { Trie } from "./trie.ts";

type Interest =
  | { readonly kind: "session"; readonly session: Session; readonly options: SubscriptionOptions }
  | { readonly kind: "share"; readonly group: ShareGroup }
  | { readonly kind: "handler"; readonly handler: Handler };

const none: readonly never[] = [];

/** What `pick` makes of these; without a list of its own when that is nothing, as it is for most topics: the cache holds ten thousand of them. */
function picked<T, U>(all: readonly T[], pick: (one: T) => U | undefined): readonly U[] {
  let some: U[] | undefined;
  for (const one of all) {
    const it = pick(one);
    if (it === undefined) continue;
    some ??= [];
    some.push(it);
  }
  return some ?? none;
}

/** Who wants which topics. */
export class Subscriptions {
  readonly #trie = new Trie<Interest>();
  readonly #routing: Routing;
  readonly #forwarding: Forwarding;
  readonly #queueQos0: boolean;
  readonly #shares: Shares;
  readonly #access: Access;
  readonly #changed: () => void;
  #ofSessions = 0;

  /** @param changed called whenever a topic may match differently than before */
  constructor(deps: {
    routing: Routing;
    forwarding: Forwarding;
    queueQos0: boolean;
    access: Access;
    shares: Shares;
    changed: () => void;
  }) {
    this.#shares = deps.shares;
    this.#routing = deps.routing;
    this.#forwarding = deps.forwarding;
    this.#queueQos0 = deps.queueQos0;
    this.#access = deps.access;
    this.#changed = deps.changed;
  }

  /** Subscriptions of clients. */
  get count(): number {
    return this.#ofSessions;
  }

  /** Adds or replaces; `filter` as sent. Returns whether it is new. */
  add(session: Session, filter: string, options: SubscriptionOptions): boolean {
    const isNew = !session.subscriptions.has(filter);
    session.subscriptions.set(filter, options);
    if (isNew) this.#ofSessions += 1;
    const share = splitSharedFilter(filter);
    if (share.share === undefined) {
      this.#trie.set(filter, session, { kind: "session", session, options });
    } else {
      const group = this.#shares.group(share.share, share.filter);
      if (group.size === 0) this.#trie.set(share.filter, group, { kind: "share", group });
      group.set(deliveryOf(session, options));
    }
    this.#changed();
    return isNew;
  }

  /** False when there was none. */
  remove(session: Session, filter: string): boolean {
    if (!session.subscriptions.delete(filter)) return false;
    this.#ofSessions -= 1;
    const share = splitSharedFilter(filter);
    if (share.share === undefined) {
      this.#trie.delete(filter, session);
    } else {
      const group = this.#shares.group(share.share, share.filter);
      group.delete(session);
      if (group.size === 0) {
        this.#trie.delete(share.filter, group);
        this.#shares.end(group);
      }
    }
    this.#changed();
    return true;
  }

  removeAll(session: Session): void {
    for (const filter of [...session.subscriptions.keys()]) this.remove(session, filter);
  }

  addHandler(filter: string, handler: Handler): () => void {
    const key = {}; // the same function may subscribe twice
    this.#trie.set(filter, key, { kind: "handler", handler });
    this.#changed();
    return () => {
      if (this.#trie.delete(filter, key)) this.#changed();
    };
  }

  /**
   * The identifiers of a session's subscriptions that match a topic.
   * @param tag of the shared group that the message came from; 0: not known to come from one
   */
  idsFor(session: Session, entry: TopicEntry, tag: number): readonly number[] | undefined {
    const own = tag > 0 ? undefined : entry.deliveries.find((delivery) => delivery.session === session);
    if (own !== undefined) return own.ids;
    for (const group of entry.shares) {
      const member = tag === 0 || tag === group.tag ? group.of(session) : undefined;
      if (member?.ids !== undefined) return member.ids;
    }
    return undefined;
  }

  /** Sessions that may not read the topic are left out here, so that delivery needs no look at the rules. */
  resolve(topic: string, generation: number): TopicEntry {
    const found: Interest[] = [];
    this.#trie.match(topic, found);
    const deliveries = this.#deliveries(topic, found);
    const handlers = picked(found, (interest) => (interest.kind === "handler" ? interest.handler : undefined));
    const shares = picked(found, (interest) => (interest.kind === "share" ? interest.group : undefined));
    const routes = this.#routing.routesFor(topic);
    const forwards = this.#forwarding.forwardsFor(topic);
    const stored = picked(forwards, (forward) => (forward.kind === "stored" ? forward : undefined));
    const live = picked(forwards, (forward) => (forward.kind === "live" ? forward : undefined));
    const others = handlers.length + shares.length + routes.length + live.length;
    const isSys = topic.startsWith("$");
    const queued = this.#queueQos0 && deliveries.some((delivery) => delivery.session.durable);
    return {
      topic,
      bytes: Buffer.from(topic),
      generation,
      deliveries,
      shares,
      handlers,
      routes,
      stored,
      live,
      rejectNewest: picked(stored, ({ whenFull, uplink }) => (whenFull === "reject-newest" ? uplink : undefined)),
      durable: deliveries.some((delivery) => delivery.session.durable && (delivery.qos > 0 || this.#queueQos0)),
      plain: !queued && !isSys && others + stored.length === 0,
      onlyStored: stored.length > 0 && !isSys && others + deliveries.length === 0,
    };
  }

  /** One of each session that may read the topic. */
  #deliveries(topic: string, found: readonly Interest[]): readonly Delivery[] {
    const own = picked(found, (interest) => (interest.kind === "session" ? interest : undefined));
    const allowed = this.#access.ruled ? own.filter(({ session }) => this.#access.mayRead(session, topic)) : own;
    if (allowed.length < 2) return picked(allowed, ({ session, options }) => merge(session, [options]));
    const bySession = new Map<Session, SubscriptionOptions[]>();
    for (const { session, options } of allowed) {
      const others = bySession.get(session);
      if (others === undefined) bySession.set(session, [options]);
      else others.push(options);
    }
    return [...bySession].map(([session, options]) => merge(session, options));
  }
}

function deliveryOf(session: Session, options: SubscriptionOptions): Delivery {
  return {
    session,
    qos: options.qos,
    retainAsPublished: options.retainAsPublished,
    ids: options.id === 0 ? undefined : [options.id],
    own: options.noLocal ? null : undefined,
  };
}

function merge(session: Session, all: readonly SubscriptionOptions[]): Delivery {
  const foreign = all.filter((options) => !options.noLocal);
  const joined = join(session, all);
  if (foreign.length === all.length) return joined;
  return { ...joined, own: foreign.length === 0 ? null : join(session, foreign) };
}

function join(session: Session, all: readonly SubscriptionOptions[]): Delivery {
  let qos: Qos = 0;
  let retainAsPublished = false;
  const ids: number[] = [];
  for (const options of all) {
    if (options.qos > qos) qos = options.qos;
    retainAsPublished ||= options.retainAsPublished;
    if (options.id !== 0) ids.push(options.id); // all of them [MQTT-3.3.4-4]
  }
  return { session, qos, retainAsPublished, ids: ids.length === 0 ? undefined : ids, own: undefined };
}
