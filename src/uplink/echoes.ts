import { createHash } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { matchTopic } from "../base/topic.ts";
import { fillTopic, type RuleDefinition } from "./forwarding.ts";
import type { UplinkOptions } from "./options.ts";

/** Sent messages that may come back: so many, so long. */
const sentMax = 10_000;
const sentMs = 600_000;
const topicsMax = 4096;
/** Longer ones are looked at each time, or they could fill the RAM. */
const topicCharsMax = 512;

/**
 * Our own messages that a 3.1.1 cloud sends back, because a receive rule covers a topic that a forward rule sends to: 3.1.1 has no No Local. With
 * `envelope: json` they say themselves that they are ours. Else what goes to such a topic is remembered, by digest, and each is one time passed over when it
 * comes: a command of the same topic and payload that somebody else sends comes once more, so it gets through.
 */
export class Echoes {
  readonly #options: UplinkOptions;
  readonly #filters: readonly string[];
  readonly #clock: Clock;
  readonly #head: Buffer | undefined;
  /** By rule, then by topic: the topic at the cloud where it comes back; undefined where it does not. A cache, bounded. */
  readonly #topics = new Map<RuleDefinition, Map<string, string | undefined>>();
  #topicCount = 0;
  readonly #sent = new Map<string, { times: number; atMs: number }>();

  /** @param filters of the receive rules, at the cloud, without `$share/NAME/` */
  constructor(options: UplinkOptions, filters: readonly string[], clock: Clock) {
    this.#options = options;
    this.#filters = options.version === 4 ? filters : [];
    this.#clock = clock;
    const isMarked = options.version === 4 && options.envelope === "json";
    this.#head = isMarked ? Buffer.from(`{"gw":${JSON.stringify(options.gatewayId)},"epoch":`) : undefined;
  }

  /** Messages remembered. */
  get size(): number {
    return this.#sent.size;
  }

  /** A message went out. */
  sent(rule: RuleDefinition, topic: string, payload: Uint8Array): void {
    if (this.#filters.length === 0 || this.#head !== undefined) return;
    const back = this.#backOf(rule, topic);
    if (back === undefined) return;
    const key = digest(back, payload);
    const nowMs = this.#clock.monotonicMs();
    const times = (this.#sent.get(key)?.times ?? 0) + 1;
    this.#sent.delete(key); // the newest is the last
    this.#sent.set(key, { times, atMs: nowMs });
    for (const [oldest, { atMs }] of this.#sent) {
      if (this.#sent.size <= sentMax && nowMs - atMs < sentMs) break;
      this.#sent.delete(oldest);
    }
  }

  /** Whether what the cloud sent is one of ours come back; to be asked once. */
  isOurs(topic: string, payload: Uint8Array): boolean {
    if (this.#head !== undefined) return this.#head.equals(payload.subarray(0, this.#head.length));
    if (this.#sent.size === 0) return false;
    const key = digest(topic, payload);
    const known = this.#sent.get(key);
    if (known === undefined) return false;
    known.times -= 1;
    if (known.times === 0) this.#sent.delete(key);
    return this.#clock.monotonicMs() - known.atMs < sentMs;
  }

  /** The cloud has forgotten our subscriptions, and what waited there. */
  forget(): void {
    this.#sent.clear();
  }

  #backOf(rule: RuleDefinition, topic: string): string | undefined {
    let known = this.#topics.get(rule);
    if (known === undefined) {
      known = new Map();
      this.#topics.set(rule, known);
    }
    if (known.has(topic)) return known.get(topic);
    const filled = fillTopic(rule.to, rule.filter, topic, this.#options.gatewayId);
    const comesBack = filled !== undefined && this.#filters.some((filter) => matchTopic(filter, filled) !== null);
    if (topic.length > topicCharsMax) return comesBack ? filled : undefined;
    this.#topicCount += 1;
    if (this.#topicCount > topicsMax) {
      this.#topics.clear();
      this.#topicCount = 0;
    } else known.set(topic, comesBack ? filled : undefined);
    return comesBack ? filled : undefined;
  }
}

const digest = (topic: string, payload: Uint8Array): string =>
  createHash("sha256").update(topic).update("\0").update(payload).digest("base64");
