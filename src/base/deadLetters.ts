/** Dead letters: messages that nobody will take, kept for people. What the stages that give up a message, keep it and show it share. */
import type { QueuedMessage, Txn } from "./contracts.ts";
import type { Message } from "./message.ts";

/** Where it failed. `rule` is the text of the forward rule that was in force when the message was accepted. */
export type LetterOrigin =
  | {
      readonly kind: "uplink";
      readonly name: string;
      readonly rule: string;
      readonly priority: number;
      readonly seq: number;
    }
  | { readonly kind: "route"; readonly name: string }
  /** A later version's, which this one cannot read. */
  | { readonly kind: "unknown"; readonly name: "" };

/** Why: `code` for machines (`0x87` of the cloud; `too-large`, `no-topic`; the kind of a route's step), `text` for people. */
export interface LetterReason {
  readonly code: string;
  readonly text: string;
}

/** What is shown of a letter without its payload and properties. */
export interface LetterSummary extends LetterReason {
  /** Rises from 1 and is never used again in this data folder. */
  readonly id: number;
  readonly from: LetterOrigin;
  /** How often it was offered and refused, over all retries of an operator. */
  readonly attempts: number;
  /** Wall clock, ms since 1970: when the gateway took the message, when it failed first and last. */
  readonly takenMs: number;
  readonly firstMs: number;
  readonly lastMs: number;
  readonly topic: string;
  readonly source: string;
  /** Of the payload. */
  readonly bytes: number;
}

export interface Letter extends LetterSummary {
  readonly message: Message;
}

/** An uplink's message that its cloud will not take. */
export interface UplinkFailure extends LetterReason {
  readonly attempts: number;
  readonly firstMs: number;
  readonly lastMs: number;
}

/** A message that a route could not transform. */
export interface RouteFailure extends LetterReason {
  readonly route: string;
  readonly message: Message;
}

/** Where uplinks put what their cloud refuses. */
export interface UplinkLetters {
  /**
   * Makes a dead letter of a message and lets it leave its queue, in one commit: a crash finds it in one of the two.
   * - kept: it has left the queue.
   * - later: the store has no room, or fails; nothing happened, and it may be asked again.
   * - off: dead letters are not kept (or never one of this size), which is counted; the caller drops the message.
   */
  keep(queued: QueuedMessage, uplink: string, rule: string, failure: UplinkFailure): "kept" | "later" | "off";
  /** The cloud has this one after all: what was remembered of an operator's retry may go. Costs nothing when there was none. */
  acknowledged(position: number): void;
}

/** Where the broker puts what routes refuse. */
export interface RouteLetters {
  /** Within the commit of the publish that it came with, so that the publisher hears of it only once it is durable. */
  keep(txn: Txn, failure: RouteFailure): void;
}

/** Which letters: all that is given must hold. */
export interface LetterFilter {
  readonly uplink?: string | undefined;
  readonly route?: string | undefined;
  /** The code, or part of the text, in any case. */
  readonly reason?: string | undefined;
  /** An MQTT filter on the original topic. */
  readonly topic?: string | undefined;
  /** Wall clock, ms since 1970, of the last failure. */
  readonly sinceMs?: number | undefined;
  readonly untilMs?: number | undefined;
}

export interface LetterStats {
  readonly messages: number;
  readonly bytes: number;
  readonly newest: LetterSummary | undefined;
  /** Letters that went without anybody's wish since the start, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
}

/** What became of a retry: `group` must be durable before it counts; or why the letter stays. */
export type RetryResult =
  | { readonly ok: true; readonly group: number }
  | { readonly ok: false; readonly code: string; readonly message: string };

export interface BulkRetry {
  readonly retried: number;
  /** Letters that stay, the first hundred by reason. */
  readonly kept: ReadonlyArray<{ readonly id: number; readonly code: string; readonly message: string }>;
  readonly keptCount: number;
}

/** What people do with dead letters. Resolves once it is durable. */
export interface LetterDesk {
  stats(): LetterStats;
  /** @throws TidegateError TG_STORE_READ: the disk could not be asked now */
  get(id: number): Promise<Letter | undefined>;
  /** Letters with ids above `after`, by rising id, at most so many and so many bytes; an empty array: no more. @throws as get */
  read(after: number, limits: { messages: number; bytes: number }): Promise<Letter[]>;
  /** The newest that are there, rising, so many at most. */
  newestIds(count: number): number[];
  /** Undefined: no such letter. */
  retry(id: number): Promise<RetryResult | undefined>;
  retryAll(filter: LetterFilter, signal: AbortSignal): Promise<BulkRetry>;
  /** False: no such letter. */
  purge(id: number): Promise<boolean>;
  purgeAll(filter: LetterFilter, signal: AbortSignal): Promise<number>;
}

/** Whether a letter is among those asked for. @param matches whether a topic matches an MQTT filter */
export function letterMatches(
  filter: LetterFilter,
  letter: LetterSummary,
  matches: (filter: string, topic: string) => boolean,
): boolean {
  const { uplink, route, reason, topic, sinceMs, untilMs } = filter;
  if (uplink !== undefined && (letter.from.kind !== "uplink" || letter.from.name !== uplink)) return false;
  if (route !== undefined && (letter.from.kind !== "route" || letter.from.name !== route)) return false;
  if (reason !== undefined && !hasReason(letter, reason.toLowerCase())) return false;
  if (topic !== undefined && !matches(topic, letter.topic)) return false;
  return (sinceMs === undefined || letter.lastMs >= sinceMs) && (untilMs === undefined || letter.lastMs <= untilMs);
}

const hasReason = ({ code, text }: LetterReason, wanted: string): boolean =>
  code.toLowerCase() === wanted || text.toLowerCase().includes(wanted);
