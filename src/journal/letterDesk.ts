/** What people do with dead letters: read them, send them again, throw them away. */
import type { Store } from "../base/contracts.ts";
import {
  type BulkRetry,
  type Letter,
  type LetterDesk,
  type LetterFilter,
  type LetterStats,
  letterMatches,
  type RetryResult,
} from "../base/deadLetters.ts";
import type { TidegateError } from "../base/errors.ts";
import type { Message } from "../base/message.ts";
import { topicMatches } from "../base/topic.ts";
import { type DeadLetters, letterQueue, weight } from "./deadLetters.ts";
import { openLetter } from "./letterRecord.ts";

export interface LetterTargets {
  /** The lane of an uplink that is configured; undefined: there is none of that name. */
  lane(uplink: string, priority: number): { readonly lane: number; readonly rejectNewest: boolean } | undefined;
  /** Gives a message to a route once more. */
  again(route: string, message: Message): RetryResult;
}

const batch = { messages: 64, bytes: 256 * 1024 };
const keptShown = 100;

export class JournalLetterDesk implements LetterDesk {
  readonly #letters: DeadLetters;
  readonly #store: Store;
  readonly #targets: LetterTargets;
  #waiting: Array<{ group: number; settle: () => void; fail: (error: TidegateError) => void }> = [];

  constructor(letters: DeadLetters, store: Store, targets: LetterTargets) {
    this.#letters = letters;
    this.#store = store;
    this.#targets = targets;
    store.onDurable((group) => {
      if (this.#waiting.length === 0) return;
      for (const { settle } of this.#waiting.filter((waiting) => waiting.group <= group)) settle();
      this.#waiting = this.#waiting.filter((waiting) => waiting.group > group);
    });
    store.onFailed((error) => {
      for (const { fail } of this.#waiting.splice(0)) fail(error);
    });
  }

  stats(): LetterStats {
    return this.#letters.stats();
  }

  get(id: number): Promise<Letter | undefined> {
    return this.#letters.get(id);
  }

  newestIds(count: number): number[] {
    const { queue } = this.#letters;
    if (queue === undefined || count <= 0) return [];
    for (let span = count; ; span *= 4) {
      const from = Math.max(0, queue.nextOrdinal - 1 - span);
      const ids: number[] = [];
      for (let id = queue.nextAfter(from); id > 0; id = queue.nextAfter(id)) ids.push(id);
      if (ids.length >= count || ids.length === queue.size || from === 0) return ids.slice(-count);
    }
  }

  async read(after: number, limits: { messages: number; bytes: number }): Promise<Letter[]> {
    return this.#read(after, limits);
  }

  async retry(id: number): Promise<RetryResult | undefined> {
    const letter = await this.#letters.get(id);
    if (letter === undefined) return undefined;
    const result = this.#retry(letter);
    if (result?.ok === true) await this.#durable(result.group);
    return result;
  }

  async retryAll(filter: LetterFilter, signal: AbortSignal): Promise<BulkRetry> {
    let retried = 0;
    let keptCount = 0;
    const kept: Array<BulkRetry["kept"][number]> = [];
    await this.#forEach(filter, signal, (letters) => {
      let last = 0;
      for (const letter of letters) {
        const result = this.#retry(letter);
        if (result === undefined) continue;
        if (result.ok) {
          retried += 1;
          last = Math.max(last, result.group);
          continue;
        }
        keptCount += 1;
        if (kept.length < keptShown) kept.push({ id: letter.id, code: result.code, message: result.message });
      }
      return last;
    });
    return { retried, kept, keptCount };
  }

  async purge(id: number): Promise<boolean> {
    if (!this.#isThere(id)) return false;
    if (this.#store.failed !== undefined) throw this.#store.failed; // before it goes in memory, where it would be back after a restart only
    await this.#durable(this.#letters.release([id]));
    return true;
  }

  async purgeAll(filter: LetterFilter, signal: AbortSignal): Promise<number> {
    let purged = 0;
    await this.#forEach(filter, signal, (letters) => {
      purged += letters.length;
      return this.#letters.release(letters.map(({ id }) => id));
    });
    return purged;
  }

  /** All letters of now that match, batch by batch; those that come meanwhile are not among them. @param step returns the group to wait for */
  async #forEach(
    filter: LetterFilter,
    signal: AbortSignal,
    step: (letters: Array<Letter & { acceptedAtMs: number }>) => number,
  ): Promise<void> {
    const end = this.#letters.queue?.nextOrdinal ?? 0;
    for (let after = 0; !signal.aborted; ) {
      const letters = (await this.#read(after, batch)).filter(({ id }) => id < end);
      const last = letters.at(-1);
      if (last === undefined) return;
      after = last.id;
      // Read a while ago: what another one took meanwhile is passed over.
      const wanted = letters.filter(
        (letter) => this.#isThere(letter.id) && letterMatches(filter, letter, topicMatches),
      );
      if (this.#store.failed !== undefined) throw this.#store.failed;
      if (wanted.length > 0) await this.#durable(step(wanted));
    }
  }

  async #read(
    after: number,
    limits: { messages: number; bytes: number },
  ): Promise<Array<Letter & { acceptedAtMs: number }>> {
    const found = (await this.#letters.queue?.read(after, limits)) ?? [];
    return found.map((stored) => openLetter(stored.ordinal, stored));
  }

  #isThere(id: number): boolean {
    return this.#letters.queue?.nextAfter(id - 1) === id;
  }

  /** Undefined: it is not there any more. */
  #retry(letter: Letter & { acceptedAtMs: number }): RetryResult | undefined {
    if (!this.#isThere(letter.id)) return undefined;
    if (this.#store.failed !== undefined) return no("failed", this.#store.failed.message);
    const { from } = letter;
    if (from.kind === "uplink") return this.#retryUplink(letter, from);
    if (from.kind === "unknown") return no("unreadable", "where it failed cannot be read: a later version wrote it");
    const message = this.#stillValid(letter);
    if (message === undefined) return expired;
    const result = this.#targets.again(from.name, message);
    if (!result.ok) return result;
    // Later in the journal than what was made of it: a crash in between keeps both.
    return { ok: true, group: Math.max(result.group, this.#letters.release([letter.id])) };
  }

  /** Back into the uplink's queue, at its end, with a number of its own; in one commit with its leaving the dead letters. */
  #retryUplink(
    letter: Letter & { acceptedAtMs: number },
    { name, priority, rule }: Letter["from"] & { kind: "uplink" },
  ): RetryResult {
    const target = this.#targets.lane(name, priority);
    if (target === undefined) return no("no_uplink", `there is no uplink ${name} in the config`);
    const message = this.#stillValid(letter);
    if (message === undefined) return expired;
    const verdict = this.#store.admit({ bytes: weight(message), rejectNewest: target.rejectNewest ? [name] : [] });
    if (verdict !== "ok") return no(verdict, `the store or the queue of ${name} has no room`);
    const ruleId = this.#store.rule(name, rule);
    const { retried } = this.#letters;
    const past = { attempts: letter.attempts, firstMs: letter.firstMs };
    const { value, group } = this.#store.commit((txn) => {
      const position = txn.message(message, [{ lane: target.lane, rule: ruleId, ttlMs: undefined }], letter.takenMs);
      retried.rememberWith(txn, position, past);
      txn.release(letterQueue, letter.id);
      return position;
    });
    retried.remembered(value, past);
    this.#letters.changed();
    return { ok: true, group };
  }

  /** With what is left of its message expiry [MQTT-3.3.2-6]; undefined when nothing is. */
  #stillValid({ message, acceptedAtMs }: Letter & { acceptedAtMs: number }): Message | undefined {
    const { properties } = message;
    if (properties?.messageExpirySeconds === undefined) return message;
    const left = Math.ceil(properties.messageExpirySeconds - (this.#store.nowMs() - acceptedAtMs) / 1000);
    return left <= 0 ? undefined : { ...message, properties: { ...properties, messageExpirySeconds: left } };
  }

  #durable(group: number): Promise<void> {
    const { failed, durableGroup } = this.#store;
    if (failed !== undefined) return Promise.reject(failed);
    if (group <= durableGroup) return Promise.resolve();
    return new Promise((settle, fail) => this.#waiting.push({ group, settle, fail }));
  }
}

const no = (code: string, message: string): RetryResult => ({ ok: false, code, message });
const expired = no("expired", "its message expiry has passed");
