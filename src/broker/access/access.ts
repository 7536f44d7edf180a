import type { Clock } from "../../base/clock.ts";
import { scryptText, type User } from "../../base/passwords.ts";
import type { PeerInfo } from "../options.ts";
import { LogIns, type Verify } from "./logIns.ts";
import { type AccessRule, Rules, type Who } from "./rules.ts";
import { fakeVerifiers, ScramExchange } from "./scram.ts";

export interface AccessOptions {
  /** Whether a client without a user name may connect. */
  readonly anonymous: boolean;
  readonly users: readonly User[];
  /** None: everybody may everything, but for writing to `$` topics. */
  readonly rules: readonly AccessRule[];
}

/** Who a connection is, and what has shown it. */
export type Identity =
  | { readonly by: "nothing"; readonly user: undefined }
  | { readonly by: "certificate"; readonly user: string | undefined }
  /** `proof`: the stored hash that it was checked with. */
  | { readonly by: "password" | "scram"; readonly user: string; readonly proof: string };

export interface AccessDeps {
  readonly clock: Clock;
  readonly connectTimeoutMs: number;
  readonly verify: Verify;
}

/** Verdicts kept of one publisher: devices publish to a few topics, each again and again. */
const verdictsMax = 32;

/** Which topics one client may publish to, as far as it has tried. Ends when the rules, or its user, change. */
export class Verdicts {
  readonly #rules: Rules;
  readonly #user: string | undefined;
  readonly #known = new Map<string, boolean>();
  #last = "";

  constructor(rules: Rules, user: string | undefined) {
    this.#rules = rules;
    this.#user = user;
  }

  isOf(rules: Rules, user: string | undefined): boolean {
    return this.#rules === rules && this.#user === user;
  }

  mayPublish(who: Who, topic: string): boolean {
    if (topic === this.#last) return true;
    let may = this.#known.get(topic);
    if (may === undefined) {
      may = this.#rules.mayPublish(who, topic);
      if (this.#known.size >= verdictsMax) this.#known.clear();
      this.#known.set(topic, may);
    }
    if (may) this.#last = topic;
    return may;
  }
}

/** A client as rules see it. */
export interface Client extends Who {
  verdicts: Verdicts | undefined;
}

/** Who may connect, and what they may do then. */
export class Access {
  readonly logIns: LogIns;
  #anonymous = false;
  #users: ReadonlyMap<string, User> = new Map();
  #rules: Rules | undefined;
  readonly #fake = fakeVerifiers();

  constructor(options: AccessOptions, { clock, connectTimeoutMs, verify }: AccessDeps) {
    const user = (name: string): User | undefined => this.#users.get(name);
    this.logIns = new LogIns({ clock, connectTimeoutMs, user, verify });
    this.replace(options);
  }

  /** From now on other users and rules hold. Connections that are no longer let in are the caller's to end (`holds`). */
  replace({ anonymous, users, rules }: AccessOptions): void {
    this.#anonymous = anonymous;
    this.#users = new Map(users.map((user) => [user.name, user]));
    this.#rules = rules.length === 0 ? undefined : new Rules(rules);
  }

  hasUser(name: string): boolean {
    return this.#users.has(name);
  }

  /** Rules are there: without them nothing has to be asked. */
  get ruled(): boolean {
    return this.#rules !== undefined;
  }

  /**
   * Who comes without a password: by its certificate, or nobody in particular. While there are no users at all, user names are not looked at, as in
   * Mosquitto: with the anonymous let in they give nothing. Undefined: not let in so.
   */
  withoutPassword(peer: PeerInfo, username: string | undefined): Identity | undefined {
    if (peer.certified === true && (username === undefined || username === peer.certificateName)) {
      return { by: "certificate", user: peer.certificateName };
    }
    if (!this.#anonymous || (username !== undefined && this.#users.size > 0)) return undefined;
    return { by: "nothing", user: undefined };
  }

  scram(): ScramExchange {
    return new ScramExchange({ user: (name) => this.#users.get(name), fake: this.#fake });
  }

  /** Whether what let a connection in still does. */
  holds(identity: Identity): boolean {
    switch (identity.by) {
      case "nothing":
        return this.#anonymous;
      case "certificate":
        return true;
      default: {
        const user = this.#users.get(identity.user);
        return user !== undefined && scryptText(user.scrypt) === identity.proof;
      }
    }
  }

  mayPublish(client: Client, topic: string): boolean {
    const rules = this.#rules;
    if (rules === undefined) return true;
    if (client.verdicts?.isOf(rules, client.user) !== true) client.verdicts = new Verdicts(rules, client.user);
    return client.verdicts.mayPublish(client, topic);
  }

  /** As mayPublish, of somebody who is not a client yet: nothing is kept of the answer. */
  mayWill(who: Who, topic: string): boolean {
    return this.#rules?.mayPublish(who, topic) ?? true;
  }

  maySubscribe(who: Who, filter: string): boolean {
    return this.#rules?.maySubscribe(who, filter) ?? true;
  }

  mayRead(who: Who, topic: string): boolean {
    return this.#rules?.mayRead(who, topic) ?? true;
  }
}

/** @param by how its password was checked */
export const identityOf = (user: User, by: "password" | "scram"): Identity => ({
  by,
  user: user.name,
  proof: scryptText(user.scrypt),
});
