/**
 * The contract of base/contracts.ts `Store` in memory, for tests of other stages. With `hold: true` a group becomes durable only when the
 * test says `settle()`; else on the next setImmediate. `crash()` gives what a new process would find: what was durable.
 */
import type {
  Admission,
  ReferencedMessage,
  ReferenceQueue,
  Store,
  StoredMessage,
  StoreStats,
  Taker,
  Txn,
  UplinkQueue,
} from "../../src/base/contracts.ts";
import { TidegateError } from "../../src/base/errors.ts";
import type { Message, PlainMessage } from "../../src/base/message.ts";

interface Reference {
  readonly position: number;
  readonly meta: number;
  readonly group: number;
}

interface State {
  messages: Map<number, StoredMessage>;
  queues: Map<string, { next: number; waiting: Map<number, Reference> }>;
  retained: Map<string, number>;
  maps: Map<string, Map<string, Uint8Array>>;
  head: number;
}

const emptyState = (): State => ({
  messages: new Map(),
  queues: new Map(),
  retained: new Map(),
  maps: new Map(),
  head: 1,
});

function copyState(state: State): State {
  return {
    messages: new Map(state.messages),
    queues: new Map([...state.queues].map(([name, { next, waiting }]) => [name, { next, waiting: new Map(waiting) }])),
    retained: new Map(state.retained),
    maps: new Map([...state.maps].map(([name, map]) => [name, new Map(map)])),
    head: state.head,
  };
}

export class MemoryStore implements Store {
  readonly epoch = 1;
  durableGroup = 0;
  failed: TidegateError | undefined;
  /** What `admit` answers next; a function may look at the request. */
  verdict: "ok" | "full" | "failed" | ((request: Admission) => "ok" | "full" | "failed") = "ok";
  /** Bytes that are taken without `admit` being asked. */
  admitted = 0;
  hold: boolean;
  crowded = false;
  /** What the broker gave to `onCrowded`. */
  askSessions: (bytes: number) => number = () => 0;
  timeMs = 1_000_000;
  /** Takers of each stored message, by position. */
  readonly takers = new Map<number, readonly Taker[]>();
  commits = 0;
  #state: State;
  #durable: State;
  #openGroup = 1;
  #dirty = false;
  #scheduled = false;
  readonly #durableListeners: Array<(group: number) => void> = [];
  readonly #failedListeners: Array<(error: TidegateError) => void> = [];

  constructor(options: { hold?: boolean; state?: State } = {}) {
    this.hold = options.hold ?? false;
    this.#state = options.state ?? emptyState();
    this.#durable = copyState(this.#state);
  }

  get head(): number {
    return this.#state.head;
  }

  nowMs(): number {
    return this.timeMs;
  }

  admit(request: Admission): "ok" | "full" | "failed" {
    if (this.failed !== undefined) return "failed";
    return typeof this.verdict === "function" ? this.verdict(request) : this.verdict;
  }

  admittedTo(): number {
    return this.head + this.admitted;
  }

  onCrowded(listener: (bytes: number) => number): void {
    this.askSessions = listener;
  }

  configured(): void {}

  async purgeUplink(): Promise<{ messages: number; bytes: number }> {
    return { messages: 0, bytes: 0 };
  }

  async peekUplink(): Promise<undefined> {}

  commit<T>(fn: (txn: Txn) => T): { value: T; group: number } {
    if (this.failed !== undefined) throw this.failed;
    const before = copyState(this.#state);
    try {
      const value = fn(this.#txn());
      this.commits += 1;
      this.#dirty = true;
      this.#schedule();
      return { value, group: this.#openGroup };
    } catch (error) {
      this.#state = before;
      throw error;
    }
  }

  append({ bytes, from, to, ...of }: PlainMessage, takers: readonly Taker[]): number {
    const payload = Buffer.from(new Uint8Array(bytes.buffer, bytes.byteOffset + from, to - from));
    return this.commit((txn) => txn.message({ ...of, payload, retain: false }, takers)).group;
  }

  /** Makes everything committed so far durable, and says so. */
  settle(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    this.#durable = copyState(this.#state);
    this.durableGroup = this.#openGroup;
    this.#openGroup += 1;
    for (const listener of this.#durableListeners) listener(this.durableGroup);
  }

  /** The disk refuses from now on. */
  fail(): void {
    this.failed = new TidegateError("TG_STORE_FAILED", "the test broke it");
    for (const listener of this.#failedListeners) listener(this.failed);
  }

  /** A new store with what was durable; nothing else is left. */
  crash(): MemoryStore {
    const state = copyState(this.#durable);
    for (const { waiting } of state.queues.values()) {
      for (const [ordinal, reference] of waiting) waiting.set(ordinal, { ...reference, group: 0 });
    }
    return new MemoryStore({ hold: this.hold, state });
  }

  onDurable(listener: (group: number) => void): void {
    this.#durableListeners.push(listener);
  }

  onFailed(listener: (error: TidegateError) => void): void {
    this.#failedListeners.push(listener);
  }

  uplink(): UplinkQueue {
    throw new Error("the memory store has no uplinks");
  }

  rule(): number {
    return 1;
  }

  ruleDefinition(): string | undefined {
    return undefined;
  }

  references(name: string): ReferenceQueue | undefined {
    if (!this.#state.queues.has(name)) return undefined;
    const first = this.#state.queues.get(name);
    const isFirst = () => this.#state.queues.get(name) === first;
    const queue = () => this.#state.queues.get(name) ?? { next: 1, waiting: new Map<number, Reference>() };
    const stored = (reference: Reference) => this.#state.messages.get(reference.position);
    return {
      name,
      get ended() {
        return !isFirst();
      },
      get size() {
        return queue().waiting.size;
      },
      get bytes() {
        let bytes = 0;
        for (const reference of queue().waiting.values()) {
          const message = stored(reference)?.message;
          bytes += (message?.payload.length ?? 0) + (message?.topic.length ?? 0);
        }
        return bytes;
      },
      get nextOrdinal() {
        return queue().next;
      },
      oldest() {
        for (const [ordinal, { meta }] of queue().waiting) return { ordinal, meta };
        return undefined;
      },
      nextAfter(after) {
        for (const ordinal of queue().waiting.keys()) if (ordinal > after) return ordinal;
        return 0;
      },
      read: async (after, limits) => {
        await new Promise<void>((resolve) => setImmediate(resolve));
        const batch: ReferencedMessage[] = [];
        for (const [ordinal, reference] of queue().waiting) {
          const found = stored(reference);
          if (ordinal <= after || found === undefined) continue;
          if (batch.length >= limits.messages) break;
          batch.push({ ...found, ordinal, meta: reference.meta, group: reference.group });
        }
        return batch;
      },
    };
  }

  referenceNames(): Iterable<string> {
    return this.#state.queues.keys();
  }

  retained(): Iterable<readonly [string, number]> {
    return this.#state.retained;
  }

  async read(position: number): Promise<StoredMessage | undefined> {
    return this.#state.messages.get(position);
  }

  async readMany(positions: readonly number[], bytes: number): Promise<Array<StoredMessage | "later" | undefined>> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    const many: Array<StoredMessage | undefined> = [];
    let sum = 0;
    for (const position of positions) {
      if (many.length > 0 && sum >= bytes) break;
      many.push(this.#state.messages.get(position));
      sum += many.at(-1)?.message.payload.length ?? 0;
    }
    return many;
  }

  get(map: string, key: string): Uint8Array | undefined {
    return this.#state.maps.get(map)?.get(key);
  }

  entries(map: string): Iterable<readonly [string, Uint8Array]> {
    return this.#state.maps.get(map) ?? [];
  }

  stats(): StoreStats {
    const recovery = { clean: true, records: 0, corruptRecords: 0, tornBytes: 0, losses: [], ms: 0 };
    return {
      ...{ bytes: 0, segments: 1, spares: 0, pendingBytes: 0, state: "ok", recovery, writtenBytes: 0, refused: 0 },
      writtenTotalBytes: 0,
      writtenPerDay: { bytes: 0, extrapolated: true, measuredMs: 0 },
      room: { bytes: 0, seconds: null },
      syncs: { count: 0, meanMs: 0, meanRecords: 0 },
      ...{ corruptRecords: 0, orphaned: [], dropped: {}, droppedReferences: 0 },
    };
  }

  backup(): Promise<never> {
    return Promise.reject(new Error("a store in memory has no files to back up"));
  }

  async close(): Promise<void> {
    this.settle();
  }

  #schedule(): void {
    if (this.hold || this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (!this.hold) this.settle();
    });
  }

  #txn(): Txn {
    const state = this.#state;
    const map = (name: string): Map<string, Uint8Array> => {
      const known = state.maps.get(name) ?? new Map<string, Uint8Array>();
      state.maps.set(name, known);
      return known;
    };
    return {
      message: (message: Message, takers, wallMs = 0) => {
        const position = state.head++;
        const copied = { ...message, payload: Buffer.from(message.payload) };
        state.messages.set(position, { position, acceptedAtMs: this.timeMs, wallMs, message: copied });
        this.takers.set(position, takers);
        return position;
      },
      settle: () => {
        throw new Error("the memory store has no uplinks");
      },
      laneStates: () => {},
      reference: (name, position, meta) => {
        const queue = state.queues.get(name) ?? { next: 1, waiting: new Map<number, Reference>() };
        state.queues.set(name, queue);
        queue.waiting.set(queue.next, { position, meta, group: this.#openGroup });
        return queue.next++;
      },
      release: (name, ordinal, count = 1) => {
        for (let at = ordinal; at < ordinal + count; at += 1) state.queues.get(name)?.waiting.delete(at);
      },
      dropQueue: (name) => void state.queues.delete(name),
      retain: (topic, position) => void state.retained.set(topic, position),
      unretain: (topic) => void state.retained.delete(topic),
      put: (name, key, value) => void map(name).set(key, Uint8Array.from(value)),
      delete: (name, key) => void map(name).delete(key),
    };
  }
}
