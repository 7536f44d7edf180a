/**
 * Dead letters: a queue of references with caps of its own. A letter comes in the commit in which its message leaves its uplink's queue, or in that of
 * the publish that a route could not transform; when it goes back, it leaves in the commit that queues it again. DESIGN.md has the rest.
 */
import type { Clock, Timer } from "../base/clock.ts";
import type { QueuedMessage, ReferenceQueue, Store, Txn } from "../base/contracts.ts";
import type {
  Letter,
  LetterStats,
  LetterSummary,
  RouteFailure,
  RouteLetters,
  UplinkFailure,
  UplinkLetters,
} from "../base/deadLetters.ts";
import { messageOf } from "../base/errors.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import type { Message } from "../base/message.ts";
import type { Counter, Meter } from "../base/meter.ts";
import { type LetterFacts, openLetter, sealLetter } from "./letterRecord.ts";
import { RetriedMessages } from "./retriedMessages.ts";

export const letterQueue = "dead-letters";

export interface DeadLetterOptions {
  /** 0, as well as maxBytes 0: none are kept. */
  readonly maxMessages: number;
  /** Of their records. */
  readonly maxBytes: number;
  /** Since it failed last, by the store's clock. */
  readonly maxAgeMs: number;
}

export interface DeadLetterDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly limiter: LogLimiter;
  readonly meter: Meter;
}

/** How often the oldest are looked at, and how many may go in one commit. */
const sweepMs = 10_000;
const sweepMax = 256;
/** What a record has besides payload, topic and properties, at most. */
const recordExtraBytes = 4096;

export class DeadLetters implements UplinkLetters {
  readonly #options: DeadLetterOptions;
  readonly #deps: DeadLetterDeps;
  readonly #retried: RetriedMessages;
  readonly #dropped = new Map<string, Counter>();
  /** What the broker has of it. */
  readonly routes: RouteLetters = { keep: (txn, failure) => this.#keepOfRoute(txn, failure) };
  #newest: LetterSummary | undefined;
  #timer: Timer | undefined;
  #sweeping: Promise<void> | undefined;
  #closed = false;

  constructor(options: DeadLetterOptions, deps: DeadLetterDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#retried = new RetriedMessages(deps.store, deps.clock);
    const { meter } = deps;
    meter.gauge("tidegate_dead_letters", "Dead letters that are kept", () => this.queue?.size ?? 0);
    meter.gauge("tidegate_dead_letters_bytes", "Bytes of their records", () => this.queue?.bytes ?? 0);
    this.#arm(0);
  }

  get queue(): ReferenceQueue | undefined {
    return this.#deps.store.references(letterQueue);
  }

  get retried(): RetriedMessages {
    return this.#retried;
  }

  stats(): LetterStats {
    const { size: messages = 0, bytes = 0 } = this.queue ?? {};
    const dropped = Object.fromEntries([...this.#dropped].map(([reason, { value }]) => [reason, value]));
    const newest = this.#isThere(this.#newest?.id ?? 0) ? this.#newest : undefined;
    return { messages, bytes, newest, dropped };
  }

  keep(queued: QueuedMessage, uplink: string, rule: string, failure: UplinkFailure): "kept" | "later" | "off" {
    const { message, priority, seq, position, wallMs, acceptedAtMs } = queued;
    if (!this.#takes(message)) return "off";
    const { store } = this.#deps;
    if (store.admit({ bytes: weight(message), rejectNewest: [] }) !== "ok") return "later";
    const before = this.#retried.get(position);
    const facts: LetterFacts = {
      from: { kind: "uplink", name: uplink, rule, priority, seq },
      code: failure.code,
      text: failure.text,
      attempts: failure.attempts + (before?.attempts ?? 0),
      firstMs: before?.firstMs ?? failure.firstMs,
      lastMs: failure.lastMs,
      acceptedAtMs,
    };
    try {
      store.commit((txn) => {
        this.#write(txn, message, facts, wallMs);
        this.#retried.forgetWith(txn, position);
        txn.settle(queued, "dead-letter");
      });
    } catch (error) {
      if (this.#deps.limiter.due("unwritten"))
        this.#deps.log.error({ err: messageOf(error) }, "a dead letter could not be written; it is tried again");
      return "later";
    }
    return "kept";
  }

  acknowledged(position: number): void {
    if (this.#retried.size > 0) this.#retried.forget(position);
  }

  /** Releases letters in one commit. @returns the group */
  release(ids: readonly number[], counted?: "expired" | "full"): number {
    const before = this.queue?.size ?? 0;
    const { group } = this.#deps.store.commit((txn) => {
      for (const id of ids) txn.release(letterQueue, id);
    });
    if (counted !== undefined) this.#drop(counted, before - (this.queue?.size ?? 0));
    this.changed();
    return group;
  }

  /** Letters went. */
  changed(): void {
    if (this.#newest !== undefined && !this.#isThere(this.#newest.id)) this.#newest = undefined;
    void this.#findNewest().catch(() => {}); // the next sweep tries again
  }

  async get(id: number): Promise<(Letter & { acceptedAtMs: number }) | undefined> {
    const { queue } = this;
    if (queue === undefined || !this.#isThere(id)) return undefined;
    const [found] = await queue.read(id - 1, { messages: 1, bytes: 1 });
    return found?.ordinal === id ? openLetter(id, found) : undefined;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    this.#retried.close();
    await this.#sweeping;
  }

  #isThere(id: number): boolean {
    return id > 0 && this.queue?.nextAfter(id - 1) === id;
  }

  #takes(message: Message): boolean {
    const { maxMessages, maxBytes } = this.#options;
    const off = maxMessages === 0 || maxBytes === 0;
    if (!off && weight(message) <= maxBytes) return true;
    this.#drop(off ? "off" : "too-large", 1);
    return false;
  }

  #keepOfRoute(txn: Txn, { route, code, text, message }: RouteFailure): void {
    if (!this.#takes(message)) return;
    const nowMs = this.#deps.clock.wallMs();
    const from = { kind: "route", name: route } as const;
    const times = { attempts: 1, firstMs: nowMs, lastMs: nowMs, acceptedAtMs: this.#deps.store.nowMs() };
    this.#write(txn, message, { from, code, text, ...times }, nowMs);
  }

  #write(txn: Txn, message: Message, facts: LetterFacts, takenMs: number): void {
    const { meter, log, limiter } = this.#deps;
    const id = txn.reference(letterQueue, txn.message(sealLetter(message, facts), [], takenMs), 0, weight(message));
    const { from, code, text, attempts, firstMs, lastMs } = facts;
    const { topic, source, payload } = message;
    this.#newest = { id, from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes: payload.length };
    this.#makeRoom(txn);
    meter.counter("tidegate_dead_letters_total", "Messages that became dead letters, by reason", {
      reason: code,
    }).value += 1;
    if (limiter.due(`letter ${from.kind} ${from.name} ${code}`))
      log.warn(
        { id, [from.kind]: from.name, code, why: text, topic: topic.slice(0, 200) },
        "a message became a dead letter",
      );
  }

  /** Drop-oldest. The new one is in, so there is always a last one that fits. */
  #makeRoom(txn: Txn): void {
    const { maxMessages, maxBytes } = this.#options;
    const { queue } = this;
    if (queue === undefined) return;
    let dropped = 0;
    for (; (queue.size > maxMessages || queue.bytes > maxBytes) && queue.size > 1 && dropped < sweepMax; dropped += 1)
      txn.release(letterQueue, queue.oldest()?.ordinal ?? 0);
    if (dropped > 0) this.#drop("full", dropped);
  }

  #drop(reason: string, count: number): void {
    let counter = this.#dropped.get(reason);
    if (counter === undefined) {
      const help = "Dead letters that were not kept any longer, or at all, by reason";
      counter = this.#deps.meter.counter("tidegate_dead_letters_dropped_total", help, { reason });
      this.#dropped.set(reason, counter);
    }
    counter.value += count;
    if (count > 0 && this.#deps.limiter.due(`letters ${reason}`))
      this.#deps.log.warn({ reason, sinceStart: counter.value }, "dead letters were dropped (deadLetters)");
  }

  // ---------------------------------------------------------------- what is too old, or too much since the caps were lowered

  #arm(ms: number): void {
    if (this.#closed) return;
    this.#timer = this.#deps.clock.setTimer(ms, () => {
      this.#sweeping = this.#sweep()
        .catch((error: unknown) => this.#deps.log.warn({ error }, "dead letters could not be looked at"))
        .finally(() => this.#arm(sweepMs));
    });
  }

  async #sweep(): Promise<void> {
    const { store } = this.#deps;
    while (!this.#closed && store.failed === undefined && (await this.#sweepSome()));
    await this.#findNewest();
  }

  /** @returns whether there may be more to do */
  async #sweepSome(): Promise<boolean> {
    const { queue } = this;
    if (queue === undefined || queue.size === 0) return false;
    const { maxMessages, maxBytes, maxAgeMs } = this.#options;
    if (queue.size > maxMessages || queue.bytes > maxBytes) {
      const ids = this.#oldest(
        sweepMax,
        (count, bytes) => queue.size - count > maxMessages || queue.bytes - bytes > maxBytes,
      );
      this.release(ids, "full");
      return true;
    }
    const nowMs = this.#deps.store.nowMs();
    const oldest = await queue.read(0, { messages: 64, bytes: 256 * 1024 });
    const expired = oldest.filter(({ acceptedAtMs }) => nowMs - acceptedAtMs >= maxAgeMs).map(({ ordinal }) => ordinal);
    if (expired.length > 0) this.release(expired, "expired");
    return expired.length > 0 && expired.length === oldest.length;
  }

  /** Ids of the oldest, as long as `more` says so. Their bytes are taken to be alike: the next round looks again. */
  #oldest(max: number, more: (count: number, bytes: number) => boolean): number[] {
    const { queue } = this;
    const ids: number[] = [];
    if (queue === undefined) return ids;
    const mean = queue.bytes / queue.size;
    for (
      let id = queue.nextAfter(0);
      id > 0 && ids.length < max && more(ids.length, ids.length * mean);
      id = queue.nextAfter(id)
    )
      ids.push(id);
    return ids;
  }

  async #findNewest(): Promise<void> {
    const { queue } = this;
    if (this.#newest !== undefined || queue === undefined || queue.size === 0) return;
    let [low, high] = [0, queue.nextOrdinal];
    while (low + 1 < high) {
      const middle = Math.floor((low + high) / 2);
      if (queue.nextAfter(middle) > 0) low = middle;
      else high = middle;
    }
    const letter = await this.get(queue.nextAfter(low));
    if (letter === undefined || this.#newest !== undefined) return;
    const { message: _, acceptedAtMs: __, ...summary } = letter;
    this.#newest = summary;
  }
}

/** What a letter's record has at most. */
export function weight({ topic, payload, properties }: Message): number {
  let bytes = recordExtraBytes + 3 * topic.length + payload.length + (properties?.correlationData?.length ?? 0);
  bytes += 3 * ((properties?.contentType?.length ?? 0) + (properties?.responseTopic?.length ?? 0));
  for (const [name, value] of properties?.userProperties ?? []) bytes += 3 * (name.length + value.length) + 6;
  return bytes;
}
