/** Random commits: what they write, and the same for the model. */
import type { Store, Taker, Txn, UplinkQueue } from "../../src/base/contracts.ts";
import type { Message } from "../../src/base/message.ts";
import { textOf } from "../unit/journal/support.ts";
import { type Entry, type LaneBook, messageOf, uplinkPlans } from "./laneBook.ts";
import type { Change, Commit, Ledger } from "./ledger.ts";

export const queueNames = ["alice", "bob", "group/east"];
const topics = ["r/0", "r/1", "r/2", "r/3"];
const rules = ["{}", '{"qos":1}', '{"topic":"#"}'];

export interface Workplace {
  readonly below: (limit: number) => number;
  readonly chance: (probability: number) => boolean;
  readonly store: () => Store;
  readonly queue: (uplink: string) => UplinkQueue;
  /** As everything committed so far leaves it, durable or not. */
  readonly ledger: () => Ledger;
  readonly lanes: LaneBook;
  /** Bytes of the largest payload, now and then. */
  readonly largeBytes: number;
  /** Of the map "bulk"; 0: none. */
  readonly keys: number;
  readonly longQueues: boolean;
  /** As clients do while a sync takes its time: runs of references are acknowledged at once, new ones among them, and sessions end. */
  readonly acknowledges: boolean;
}

/** One commit being made. */
class Draft {
  readonly changes: Change[] = [];
  readonly taken: Entry[] = [];
  readonly dropped = new Set<string>();
  readonly txn: Txn;
  readonly number: number;

  constructor(txn: Txn, number: number) {
    this.txn = txn;
    this.number = number;
  }
}

/** What an uplink takes of a message. */
interface Take {
  readonly plan: (typeof uplinkPlans)[number];
  readonly priority: number;
  readonly rule: string;
  readonly taker: Taker;
  /** Bytes that waited for it until then. */
  readonly before: number;
}

/** Of those that `append` takes. */
const isPlain = ({ qos, retain, properties }: Message): boolean => qos < 2 && !retain && properties === undefined;

export class Workload {
  readonly #place: Workplace;
  #texts = 0;

  constructor(place: Workplace) {
    this.#place = place;
  }

  /** @returns undefined when its function threw, as some do */
  commit(number: number): { commit: Commit; taken: readonly Entry[] } | undefined {
    const { below, chance, store } = this.#place;
    const throws = chance(0.06);
    const clockMs = store().nowMs();
    let draft: Draft | undefined;
    try {
      const { group } = store().commit((txn) => {
        draft = new Draft(txn, number);
        // Twice, in maps of their own: a rotten record must not hide up to where the store recovered.
        for (const map of ["model", "twin"]) this.#put(draft, map, "n", String(number));
        for (let changes = 1 + below(4); changes > 0; changes -= 1) this.#change(draft);
        if (throws) throw new RangeError("on purpose");
      });
      return { commit: { number, group, clockMs, changes: draft!.changes }, taken: draft!.taken };
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return undefined;
    }
  }

  #text(): string {
    const { below, chance, largeBytes } = this.#place;
    const length = chance(0.02) ? largeBytes : chance(0.1) ? below(1500) : below(60);
    return this.#name() + "x".repeat(length);
  }

  #name(): string {
    return `m${++this.#texts}-`;
  }

  #change(draft: Draft): void {
    const { below, chance, longQueues, acknowledges } = this.#place;
    const dice = below(100);
    const queue = queueNames[below(queueNames.length)]!;
    const topic = topics[below(topics.length)]!;
    if (acknowledges && chance(0.15)) this.#acknowledge(draft, queue);
    else if (longQueues && chance(0.15)) this.#release(draft, queue);
    else if (dice < 50) {
      const text = this.#text();
      const position = this.#message(draft, text);
      if (chance(0.3)) this.#refer(draft, queue, position, text);
      if (chance(0.1)) this.#refer(draft, queueNames[below(queueNames.length)]!, position, text);
      if (chance(0.1)) this.#retain(draft, topic, position, text);
    } else if (dice < 62) {
      const many = longQueues && chance(0.5);
      for (let left = many ? 10 + below(50) : 1; left > 0; left -= 1) {
        const text = many ? this.#name() : this.#text();
        this.#refer(draft, queue, draft.txn.message(messageOf(text), []), text);
      }
    } else if (dice < 74) this.#release(draft, queue);
    else if (dice < 77) this.#move(draft, queue);
    else if (dice < 79) this.#drop(draft, queue);
    else if (dice < 87) {
      const text = this.#text();
      this.#retain(draft, topic, draft.txn.message(messageOf(text), []), text);
    } else if (dice < 90) {
      draft.txn.unretain(topic);
      draft.changes.push((to) => void to.retained.delete(topic));
    } else this.#mapChange(draft);
  }

  #mapChange(draft: Draft): void {
    const { below, chance, keys } = this.#place;
    const [map, key] = keys > 0 && chance(0.7) ? ["bulk", `k${below(keys)}`] : ["small", `k${below(3)}`];
    if (chance(0.3)) {
      draft.txn.delete(map, key);
      draft.changes.push((to) => void to.map.delete(`${map}/${key}`));
    } else this.#put(draft, map, key, `v${draft.number}`);
  }

  #put(draft: Draft, map: string, key: string, value: string): void {
    draft.txn.put(map, key, Buffer.from(value));
    draft.changes.push((to) => void to.map.set(`${map}/${key}`, value));
  }

  /** A message that one, two or all uplinks take. */
  #message(draft: Draft, text: string): number {
    const acceptedAtMs = this.#place.store().nowMs();
    const takes = this.#takes();
    const position = draft.txn.message(
      messageOf(text),
      takes.map(({ taker }) => taker),
    );
    draft.taken.push(...this.#taken(takes, text, position, acceptedAtMs, draft.number));
    return position;
  }

  #takes(): Take[] {
    const { below, chance, store, queue } = this.#place;
    const first = below(uplinkPlans.length);
    return uplinkPlans
      .filter((_, index) => index === first || chance(0.25))
      .map((plan) => {
        const priority = plan.priorities[below(plan.priorities.length)]!;
        const rule = rules[below(rules.length)]!;
        const ttlMs = plan.ttlMs !== undefined && chance(0.5) ? plan.ttlMs : undefined;
        const taker = { lane: queue(plan.name).lane(priority), rule: store().rule(plan.name, rule), ttlMs };
        return { plan, priority, rule, taker, before: queue(plan.name).stats().bytes };
      });
  }

  #taken(takes: readonly Take[], text: string, position: number, acceptedAtMs: number, commit: number): Entry[] {
    return takes.map(({ plan, priority, rule, taker, before }) => {
      const bytes = this.#place.queue(plan.name).stats().bytes - before;
      const expiresAtMs = acceptedAtMs + Math.min(plan.limits.maxAgeMs, taker.ttlMs ?? Number.POSITIVE_INFINITY);
      return { text, uplink: plan.name, priority, rule, position, commit, acceptedAtMs, expiresAtMs, bytes };
    });
  }

  /**
   * A message by itself, right after `last`: mostly it shares that one's group and is there if that is. Where it does not, a commit that only says
   * its number shares its group.
   */
  append(last: Commit): { commit: Commit | undefined; taken: readonly Entry[] } {
    const { store, below } = this.#place;
    do this.#texts += 1;
    while (!isPlain(messageOf(`m${this.#texts}-`)));
    const text = `m${this.#texts}-${"x".repeat(below(60))}`;
    const takes = this.#takes();
    const clockMs = store().nowMs();
    const { topic, source, qos, payload } = messageOf(text);
    const bytes = new DataView(payload.buffer, payload.byteOffset, payload.length);
    const plain = { topic, source, qos, bytes, from: 0, to: payload.length };
    const position = store().head;
    const takers = takes.map(({ taker }) => taker);
    const group = store().append(plain, takers, clockMs);
    if (group === last.group)
      return { commit: undefined, taken: this.#taken(takes, text, position, clockMs, last.number) };
    const number = last.number + 1;
    const taken = this.#taken(takes, text, position, clockMs, number);
    const said = store().commit((txn) => {
      const draft = new Draft(txn, number);
      for (const map of ["model", "twin"]) this.#put(draft, map, "n", String(number));
      return draft.changes;
    });
    if (said.group !== group) throw new Error(`${text} is in group ${group}, what followed it in ${said.group}`);
    return { commit: { number, group, clockMs, changes: said.value }, taken };
  }

  #refer(draft: Draft, name: string, position: number, text: string): void {
    const meta = this.#place.below(256);
    const ordinal = draft.txn.reference(name, position, meta);
    draft.changes.push((to) => {
      const queue = to.queues.get(name) ?? { next: 1, waiting: new Map() };
      to.queues.set(name, queue);
      if (ordinal !== queue.next) throw new Error(`ordinal ${ordinal} of ${name}, ${queue.next} would be next`);
      queue.next += 1;
      queue.waiting.set(ordinal, { text, position, meta });
    });
  }

  #retain(draft: Draft, topic: string, position: number, text: string): void {
    draft.txn.retain(topic, position);
    draft.changes.push((to) => void to.retained.set(topic, { text, position }));
  }

  /** Mostly the oldest one or two; now and then any, or one that does not exist. Of a long queue most of it, with old ones left between. */
  #release(draft: Draft, name: string): void {
    const { below, chance, ledger, longQueues } = this.#place;
    const ordinals = [...(ledger().queues.get(name)?.waiting.keys() ?? [])];
    if (longQueues && ordinals.length < 80 && chance(0.9)) {
      for (const ordinal of ordinals) if (ordinal % 4 > 0) this.#releaseOne(draft, name, ordinal);
      return;
    }
    const count = chance(0.2) ? below(ordinals.length) : 1 + below(2);
    const from = chance(0.7) ? 0 : below(ordinals.length);
    for (const ordinal of [...ordinals.slice(from, from + count), ...(chance(0.05) ? [999_999] : [])])
      this.#releaseOne(draft, name, ordinal);
  }

  #releaseOne(draft: Draft, name: string, ordinal: number): void {
    draft.txn.release(name, ordinal);
    draft.changes.push((to) => void to.queues.get(name)?.waiting.delete(ordinal));
  }

  /** A run of ordinals in one go, as many as there are or somewhat more: holes, those of this very commit and some yet to come among them. */
  #acknowledge(draft: Draft, name: string): void {
    const { below, chance, store } = this.#place;
    if (chance(0.1)) return this.#drop(draft, name);
    const next = store().references(name)?.nextOrdinal ?? 1;
    const from = Math.max(1, next - 1 - below(chance(0.5) ? 12 : 100));
    const count = 1 + below(chance(0.5) ? next - from + 3 : 4);
    draft.txn.release(name, from, count);
    draft.changes.push((to) => {
      for (let ordinal = from; ordinal < Math.min(from + count, next); ordinal += 1)
        to.queues.get(name)?.waiting.delete(ordinal);
    });
  }

  #drop(draft: Draft, name: string): void {
    draft.txn.dropQueue(name);
    draft.dropped.add(name);
    draft.changes.push((to) => void to.queues.delete(name));
  }

  /** As a shared group gives to a member: a reference goes from one queue to another. */
  #move(draft: Draft, from: string): void {
    const { below, ledger } = this.#place;
    const to = queueNames[below(queueNames.length)]!;
    const oldest = ledger().queues.get(from)?.waiting.entries().next();
    if (oldest === undefined || oldest.done === true || draft.dropped.has(from)) return;
    const [ordinal, { position, text }] = oldest.value;
    this.#refer(draft, to, position, text);
    this.#releaseOne(draft, from, ordinal);
  }
}

/** Reads of a queue while the workload goes on: what comes is what was put there, in order. */
export function readAlong(place: Workplace, onDone: () => void, onError: (error: Error) => void): void {
  const name = queueNames[place.below(queueNames.length)]!;
  const book = place.ledger().queues.get(name);
  const queue = place.store().references(name);
  if (book === undefined || queue === undefined) return;
  const known = new Map(book.waiting);
  const after = place.chance(0.5) ? 0 : place.below(book.next);
  const limits = { messages: 1 + place.below(30), bytes: 1 + place.below(5000) };
  queue.read(after, limits).then((batch) => {
    let last = after;
    for (const one of batch) {
      const wanted = known.get(one.ordinal);
      // What was added meanwhile is not known here.
      if (wanted !== undefined && wanted.text !== textOf(one)) onError(new Error(`${name}: ${one.ordinal} is another`));
      if (one.ordinal <= last) onError(new Error(`${name}: ${one.ordinal} came after ${last}`));
      last = one.ordinal;
    }
    onDone();
  }, onError);
}
