/** What uplinks will never send: counted by rule and reason, and the last hundred of each uplink by topic. */
import type { DroppedTopic } from "../base/contracts.ts";
import type { Counter } from "../base/meter.ts";
import { Ring } from "../base/ring.ts";
import type { State } from "./state.ts";

const recentMax = 100;
/** Of a topic: a ring of the longest ones would hold 6 MB an uplink. */
const topicCharsMax = 256;
/** Rules and reasons of an uplink: those that its configurations had. More share "*". */
const countsMax = 1000;

/** Messages dropped together, of which nobody has read which rule each came by. */
const unread = "*";

interface Count {
  readonly rule: string;
  readonly reason: string;
  readonly counter: Counter;
  messages: number;
}

interface Account {
  readonly counts: Map<string, Count>;
  readonly recent: Ring<DroppedTopic>;
  last: Count | undefined;
}

export interface DropsEnvironment {
  readonly state: Pick<State, "rules">;
  readonly wallMs: () => number;
  readonly counter: (uplink: string, rule: string, reason: string) => Counter;
}

export class Drops {
  readonly #env: DropsEnvironment;
  /** As many as the configuration ever had uplinks. */
  readonly #accounts = new Map<string, Account>();
  /** By id. As many as there are rules. */
  readonly #names = new Map<number, string>();

  constructor(env: DropsEnvironment) {
    this.#env = env;
  }

  /** One whose topic is known; `rule`: its id. */
  one(uplink: string, reason: string, topic: string, rule: number): void {
    this.#note(uplink, reason, 1, topic.slice(0, topicCharsMax), this.#nameOf(rule));
  }

  /** Some that were dropped together, unread. */
  several(uplink: string, reason: string, messages: number): void {
    this.#note(uplink, reason, messages, null, this.#onlyRule(uplink) ?? unread);
  }

  /** The newest first. */
  recent(uplink: string): DroppedTopic[] {
    const ring = this.#accounts.get(uplink)?.recent;
    if (ring === undefined) return [];
    const all: DroppedTopic[] = [];
    for (let left = ring.size; left > 0; left -= 1) {
      const one = ring.shift()!;
      all.push(one);
      ring.push(one); // once round: the order stays
    }
    return all.reverse();
  }

  byRule(uplink: string): Record<string, Record<string, number>> {
    const rules: Record<string, Record<string, number>> = Object.create(null) as Record<string, Record<string, number>>;
    for (const { rule, reason, messages } of this.#accounts.get(uplink)?.counts.values() ?? []) {
      rules[rule] ??= {};
      rules[rule][reason] = messages;
    }
    return rules;
  }

  #note(uplink: string, reason: string, messages: number, topic: string | null, rule: string): void {
    let account = this.#accounts.get(uplink);
    if (account === undefined) {
      account = { counts: new Map(), recent: new Ring(recentMax), last: undefined };
      this.#accounts.set(uplink, account);
    }
    // A full queue drops thousands of one rule, one after the other.
    let count = account.last;
    if (count?.rule !== rule || count.reason !== reason) count = this.#countOf(account, uplink, rule, reason);
    account.last = count;
    count.messages += messages;
    count.counter.value += messages;
    if (reason === "dead-letter") return; // not lost: the dead letters show it
    const { recent } = account;
    if (recent.size === recentMax) recent.shift();
    recent.push({ topic, messages, reason, rule, uplink, atMs: this.#env.wallMs() });
  }

  #countOf(account: Account, uplink: string, rule: string, reason: string): Count {
    const { counts } = account;
    const known = counts.get(`${reason} ${rule}`);
    if (known !== undefined) return known;
    const named = counts.size < countsMax ? rule : unread;
    const shared = counts.get(`${reason} ${named}`);
    if (shared !== undefined) return shared;
    const made = { rule: named, reason, counter: this.#env.counter(uplink, named, reason), messages: 0 };
    counts.set(`${reason} ${named}`, made);
    return made;
  }

  /** When an uplink has only ever had one rule, it is that. */
  #onlyRule(uplink: string): string | undefined {
    let only: string | undefined;
    for (const [id, rule] of this.#env.state.rules) {
      if (rule.uplink !== uplink) continue;
      const name = this.#nameOf(id);
      if (only !== undefined && only !== name) return undefined;
      only = name;
    }
    return only;
  }

  /** A rule is known to people by its filter. */
  #nameOf(id: number): string {
    let name = this.#names.get(id);
    if (name === undefined) {
      name = filterOf(this.#env.state.rules.get(id)?.definition) ?? `rule ${id}`;
      this.#names.set(id, name);
    }
    return name;
  }
}

function filterOf(definition = ""): string | undefined {
  try {
    const { filter } = JSON.parse(definition) as { filter?: unknown };
    return typeof filter === "string" ? filter.slice(0, topicCharsMax) : undefined;
  } catch {
    return undefined; // a definition of a newer version, or rotten
  }
}
