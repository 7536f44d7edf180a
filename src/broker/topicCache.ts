import type { TopicEntry } from "./topicEntry.ts";

const slotCount = 8192; // a power of two
const entriesMax = 10_000;
/** Deliveries over all entries: each is a pointer and a few words, so this is some megabytes. */
const weightMax = 200_000;
/** Topic bytes that weigh as much as a delivery: a topic may have 64 KiB, and 10,000 of them would be more than a gigabyte. */
const bytesPerWeight = 32;

/**
 * From a topic to what is known about it, by string and by the bytes of a packet. Bounded in entries and in deliveries: when full it
 * is emptied, which costs one walk of the trie per topic in use. Entries of an older generation are worked out again when asked for.
 */
export class TopicCache {
  readonly #resolve: (topic: string, generation: number) => TopicEntry;
  readonly #byTopic = new Map<string, TopicEntry>();
  /** Each topic has its slot and the one beside it; a third one that collides replaces. */
  readonly #slots: Array<TopicEntry | undefined> = new Array(slotCount).fill(undefined);
  /** Found last: a client that sends much at once sends it to few topics. */
  #recent: TopicEntry | undefined;
  #weight = 0;
  #generation = 1;

  constructor(resolve: (topic: string, generation: number) => TopicEntry) {
    this.#resolve = resolve;
  }

  get size(): number {
    return this.#byTopic.size;
  }

  /** Subscriptions, routes or forwards have changed. */
  invalidate(): void {
    this.#generation += 1;
  }

  get(topic: string): TopicEntry {
    const known = this.#byTopic.get(topic);
    if (known !== undefined && known.generation === this.#generation) return known;
    const entry = this.#resolve(topic, this.#generation);
    const weight = weightOf(entry);
    if (known !== undefined) this.#weight -= weightOf(known);
    if (this.#byTopic.size >= entriesMax || this.#weight + weight > weightMax) this.#clear();
    this.#weight += weight;
    this.#byTopic.set(topic, entry);
    this.#place(entry);
    return entry;
  }

  /** The entry of the topic at start..end of `buffer`, if it is known and current. Nothing is decoded. */
  find(buffer: Buffer, start: number, end: number): TopicEntry | undefined {
    const recent = this.#recent;
    if (recent !== undefined && recent.generation === this.#generation && isAt(recent.bytes, buffer, start, end)) {
      return recent;
    }
    const slot = hash(buffer, start, end);
    let entry = this.#slots[slot];
    if (entry === undefined || !isAt(entry.bytes, buffer, start, end)) {
      entry = this.#slots[slot ^ 1];
      if (entry === undefined || !isAt(entry.bytes, buffer, start, end)) return undefined;
    }
    if (entry.generation !== this.#generation) return undefined;
    this.#recent = entry;
    return entry;
  }

  /** In its own slot, or beside it when another topic that is still in use, and not this one's older entry, is there. */
  #place(entry: TopicEntry): void {
    const slot = hash(entry.bytes, 0, entry.bytes.length);
    const there = this.#slots[slot];
    const taken = there !== undefined && there.topic !== entry.topic && there.generation === this.#generation;
    this.#slots[taken ? slot ^ 1 : slot] = entry;
  }

  #clear(): void {
    this.#byTopic.clear();
    this.#slots.fill(undefined);
    this.#recent = undefined;
    this.#weight = 0;
  }
}

const weightOf = ({ deliveries, shares, bytes }: TopicEntry): number =>
  deliveries.length + shares.length + Math.floor(bytes.length / bytesPerWeight);

function isAt(bytes: Buffer, buffer: Buffer, start: number, end: number): boolean {
  if (bytes.length !== end - start) return false;
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] !== buffer[start + at]) return false;
  return true;
}

/** FNV-1a, folded to a slot. */
function hash(buffer: Buffer, start: number, end: number): number {
  let h = 0x811c9dc5;
  for (let at = start; at < end; at += 1) h = Math.imul(h ^ (buffer[at] as number), 0x01000193);
  return (h ^ (h >>> 15)) & (slotCount - 1);
}
