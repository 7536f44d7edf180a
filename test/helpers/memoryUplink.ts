import type { Clock, Timer } from "../../src/base/clock.ts";
import type {
  DroppedTopic,
  Publisher,
  PublishResult,
  QueuedMessage,
  Store,
  Txn,
  UplinkQueue,
  UplinkQueueStats,
} from "../../src/base/contracts.ts";
import type { UplinkFailure, UplinkLetters } from "../../src/base/deadLetters.ts";
import type { Recalled } from "../../src/base/inFlight.ts";
import type { Log, LogFields } from "../../src/base/log.ts";
import type { Message } from "../../src/base/message.ts";

/** A clock that stands until the test moves it; `wallJumpMs` is what NTP did to the wall. */
export class MovedClock implements Clock {
  wallJumpMs = 0;
  #nowMs = 1_000;
  readonly #timers = new Set<{ atMs: number; callback: () => void }>();

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return Date.UTC(2026, 0, 1) + this.#nowMs + this.wallJumpMs;
  }

  setTimer(ms: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + ms, callback };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  get timers(): number {
    return this.#timers.size;
  }

  /** Milliseconds to the next timer. */
  get nextMs(): number {
    return Math.min(...[...this.#timers].map(({ atMs }) => atMs)) - this.#nowMs;
  }

  advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.callback();
    }
    this.#nowMs = endMs;
  }
}

export interface Settled {
  readonly seq: number;
  readonly dropped: string | undefined;
}

/** An uplink's queue in RAM: strict priority, then age. */
export class MemoryQueue implements UplinkQueue {
  readonly name = "cloud";
  isNew = false;
  readonly settled: Settled[] = [];
  /** Settled although it was not handed out: must stay 0. */
  settledTwice = 0;
  #waiting: QueuedMessage[] = [];
  readonly #handedOut = new Map<number, QueuedMessage>();
  #listener: () => void = () => {};
  #armed = false;
  #seq = 0;
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get handedOut(): number {
    return this.#handedOut.size;
  }

  /** As if a message of this payload had become durable. */
  add(payload: string | Uint8Array, more: Partial<Message> & { priority?: number; rule?: number } = {}): QueuedMessage {
    const { priority = 0, rule = 1, ...message } = more;
    this.#seq += 1;
    const queued: QueuedMessage = {
      position: this.#seq * 10,
      lane: priority,
      priority,
      seq: this.#seq,
      rule,
      acceptedAtMs: this.#clock.monotonicMs(),
      wallMs: this.#clock.wallMs(),
      message: { topic: "plant/a", payload: Buffer.from(payload), qos: 1, retain: false, source: "test", ...message },
    };
    this.#waiting.push(queued);
    if (this.#armed) {
      this.#armed = false;
      this.#listener();
    }
    return queued;
  }

  get head(): number {
    return this.#seq * 10 + 10;
  }

  lane(priority: number): number {
    return priority;
  }

  next(passing?: { has(lane: number): boolean }): QueuedMessage | undefined {
    const open = this.#waiting.filter(({ lane }) => passing?.has(lane) !== true);
    const best = Math.max(...open.map(({ priority }) => priority));
    const at = this.#waiting.findIndex(({ priority }) => priority === best);
    const [next] = at < 0 ? [] : this.#waiting.splice(at, 1);
    if (next === undefined) this.#armed = true;
    else this.#handedOut.set(next.seq, next);
    return next;
  }

  onReadable(listener: () => void): void {
    this.#listener = listener;
  }

  /** What the sender asked for, at each connection. */
  readonly shared: Array<{ head: number; liveShare: number }> = [];

  shareLink(head: number, liveShare: number): void {
    this.shared.push({ head, liveShare });
  }

  settle(message: QueuedMessage, dropped?: "refused" | "expired" | "too-large" | "dead-letter"): void {
    if (!this.#handedOut.delete(message.seq)) this.settledTwice += 1;
    this.settled.push({ seq: message.seq, dropped });
  }

  rewind(): void {
    this.#waiting = [...this.#handedOut.values(), ...this.#waiting].sort((a, b) => a.seq - b.seq);
    this.#handedOut.clear();
  }

  keep(): void {}

  recall(): Promise<Recalled> {
    return Promise.resolve({ found: [], ahead: new Set() });
  }

  stats(): UplinkQueueStats {
    const all = [...this.#handedOut.values(), ...this.#waiting];
    const dropped: Record<string, number> = {};
    for (const { dropped: why } of this.settled) if (why !== undefined) dropped[why] = (dropped[why] ?? 0) + 1;
    return {
      messages: all.length,
      bytes: all.reduce((sum, { message }) => sum + message.payload.length, 0),
      oldestAcceptedAtMs: all[0]?.acceptedAtMs,
      taken: this.#seq,
      takenBytes: this.#seq * 100,
      dropped,
      droppedByRule: {},
    };
  }

  recentDrops(): DroppedTopic[] {
    return [];
  }
}

export interface KeptLetter extends UplinkFailure {
  readonly seq: number;
  readonly uplink: string;
  readonly rule: string;
}

/** Dead letters in RAM; `answer` says whether there is room. */
export class MemoryLetters implements UplinkLetters {
  readonly kept: KeptLetter[] = [];
  readonly acknowledgedAt: number[] = [];
  answer: "kept" | "later" | "off" = "kept";
  readonly #queue: MemoryQueue;

  constructor(queue: MemoryQueue) {
    this.#queue = queue;
  }

  keep(queued: QueuedMessage, uplink: string, rule: string, failure: UplinkFailure): "kept" | "later" | "off" {
    if (this.answer !== "kept") return this.answer;
    this.kept.push({ ...failure, seq: queued.seq, uplink, rule });
    this.#queue.settle(queued, "dead-letter");
    return "kept";
  }

  acknowledged(position: number): void {
    this.acknowledgedAt.push(position);
  }
}

/** As much of a Store as an uplink uses. */
export function memoryStore(
  queue: MemoryQueue,
  clock: Clock,
  rules: Map<number, string>,
  paused = new Set<string>(),
): Store {
  const maps = new Map<string, Map<string, Uint8Array>>();
  const mapOf = (name: string): Map<string, Uint8Array> => {
    const map = maps.get(name) ?? new Map<string, Uint8Array>();
    maps.set(name, map);
    return map;
  };
  for (const name of paused) mapOf("uplinks-paused").set(name, new Uint8Array(0));
  const store = {
    epoch: 7,
    durableGroup: 0,
    get head() {
      return queue.head;
    },
    nowMs: () => clock.monotonicMs(),
    uplink: () => queue,
    rule: (_: string, definition: string) => {
      rules.set(rules.size + 1, definition);
      return rules.size;
    },
    ruleDefinition: (id: number) => rules.get(id),
    get: (map: string, key: string) => mapOf(map).get(key),
    entries: (map: string) => mapOf(map).entries(),
    commit: (write: (txn: Pick<Txn, "put" | "delete" | "laneStates">) => void) => {
      write({
        put: (map, key, value) => {
          mapOf(map).set(key, Buffer.from(value));
          if (map === "uplinks-paused") paused.add(key);
        },
        delete: (map, key) => {
          mapOf(map).delete(key);
          if (map === "uplinks-paused") paused.delete(key);
        },
        laneStates: () => {},
      });
      return { value: undefined, group: 1 };
    },
  };
  return store as unknown as Store;
}

/** A broker that records, and whose disk answers when the test says so. */
export class MemoryPublisher implements Publisher {
  readonly messages: Message[] = [];
  /** What the next publishes get; `$SYS` is always taken. */
  result: PublishResult = { accepted: true, group: 0 };
  readonly #waiting: Array<{ group: number; settled: (durable: boolean) => void }> = [];

  publish(message: Message): PublishResult {
    this.messages.push(message);
    return message.source === "sys" ? { accepted: true, group: 0 } : this.result;
  }

  whenDurable(group: number, settled: (durable: boolean) => void): void {
    if (group === 0) settled(true);
    else this.#waiting.push({ group, settled });
  }

  /** Groups up to this one are durable, or never will be. */
  settle(group: number, durable = true): void {
    const due = this.#waiting.filter((waiting) => waiting.group <= group);
    for (const waiting of due) {
      this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
      waiting.settled(durable);
    }
  }

  subscribe(): () => void {
    return () => {};
  }

  /** What was published that is not `$SYS`. */
  get commands(): Message[] {
    return this.messages.filter(({ source }) => source !== "sys");
  }
}

export interface LoggedLine {
  readonly level: string;
  readonly message: string;
  readonly fields: LogFields;
}

export function recordingLog(lines: LoggedLine[]): Log {
  const at =
    (level: string) =>
    (fields: LogFields, message: string): void => {
      lines.push({ level, message, fields });
    };
  const log: Log = {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: () => log,
  };
  return log;
}
