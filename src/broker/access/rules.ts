import { filterCovers } from "../../base/topic.ts";
import { splitSharedFilter } from "../../wire/mqtt/filter.ts";

/** One line of `access.rules`. */
export interface AccessRule {
  readonly effect: "allow" | "deny";
  readonly action: "all" | "publish" | "subscribe";
  /** User names, "*" (any user but the anonymous one), "anonymous". Undefined: everybody. */
  readonly users: readonly string[] | undefined;
  /** A topic filter; %c stands for the client id, %u for the user name. */
  readonly topic: string;
}

/** Whoever asks. */
export interface Who {
  readonly clientId: string;
  /** Undefined: the anonymous one. */
  readonly user: string | undefined;
}

interface Rule {
  readonly allow: boolean;
  readonly action: AccessRule["action"];
  /** Undefined: everybody. */
  readonly users: ReadonlySet<string> | undefined;
  readonly anyUser: boolean;
  readonly anonymous: boolean;
  readonly topic: string;
  /** Undefined when they depend on who asks. */
  readonly levels: readonly string[] | undefined;
}

const placeholder = /%[cu]/g;

/** The rules of the config. The first that matches decides; when none does the answer is no. */
export class Rules {
  readonly #rules: readonly Rule[];

  constructor(rules: readonly AccessRule[]) {
    this.#rules = rules.map(compiled);
  }

  mayPublish(who: Who, topic: string): boolean {
    return this.#decide(who, "publish", topic.split("/"));
  }

  /** Whether a message of this topic may be delivered to them. `$SYS/...` needs a rule that names it: wildcards at the front do not match it. */
  mayRead(who: Who, topic: string): boolean {
    return this.#decide(who, "subscribe", topic.split("/"));
  }

  /**
   * Whether they may subscribe: the first rule that covers all that `filter` (as sent, `$share/...` included) can match decides. A rule that covers a
   * part of it has its say at delivery.
   */
  maySubscribe(who: Who, filter: string): boolean {
    return this.#decide(who, "subscribe", splitSharedFilter(filter).filter.split("/"));
  }

  #decide(who: Who, action: "publish" | "subscribe", wanted: readonly string[]): boolean {
    for (const rule of this.#rules) {
      if (rule.action !== "all" && rule.action !== action) continue;
      if (!concerns(rule, who.user)) continue;
      const levels = rule.levels ?? levelsFor(rule.topic, who);
      if (levels !== undefined && filterCovers(levels, wanted)) return rule.allow;
    }
    return false;
  }
}

function compiled({ effect, action, users, topic }: AccessRule): Rule {
  const names = new Set(users);
  return {
    allow: effect === "allow",
    action,
    users: users === undefined ? undefined : names,
    anyUser: names.delete("*"),
    anonymous: names.delete("anonymous"),
    topic,
    levels: topic.search(placeholder) < 0 ? topic.split("/") : undefined,
  };
}

function concerns(rule: Rule, user: string | undefined): boolean {
  if (rule.users === undefined) return true;
  if (user === undefined) return rule.anonymous;
  return rule.anyUser || rule.users.has(user);
}

/**
 * The rule's filter for one client. Undefined when what would be put in is empty or holds + # /, or would make a `$` topic of it: a client chooses its id,
 * and must not widen a rule by it. What was put in is not looked at again, so an id %u stays what it is.
 */
function levelsFor(topic: string, who: Who): string[] | undefined {
  let hostile = false;
  const filter = topic.replace(placeholder, (place, at: number) => {
    const value = (place === "%c" ? who.clientId : who.user) ?? "";
    hostile ||= value === "" || /[+#/]/.test(value) || (at === 0 && value.startsWith("$"));
    return value;
  });
  return hostile ? undefined : filter.split("/");
}
