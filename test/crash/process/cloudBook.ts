/** What a cloud got from one gateway, held against what it may get: identity, order, DUP, packet ids, duplicates. */
import type { SeenPacket } from "../../helpers/fakeCloud.ts";
import { type Ledger, numberIn } from "./ledger.ts";
import { parsed } from "./receiver.ts";

/** How long after it had read a PUBACK a kill -9 may make the gateway forget it. It writes that down each 100 ms; a busy machine is slower. */
const forgetMsMax = 3000;

export interface Arrival {
  readonly key: string;
  readonly topic: string;
  readonly number: number;
  readonly seq: number;
  readonly lane: number;
  readonly id: number;
}

/** One connection's part of the book. */
class Page {
  /** Which life of the gateway this is. */
  readonly life: number;
  readonly session: boolean;
  /** Deliveries of the session that the cloud never answered, and the packet id each had. Taken out as they come again. */
  readonly owed: Map<string, { id: number; lane: number }>;
  /** How many unanswered PUBLISH packets the gateway may have. */
  readonly windowMax: number;
  /** Unanswered on this connection: packet id -> key. */
  readonly open = new Map<number, { key: string; lane: number }>();
  /** Keys in the order of their answers; undefined for a refusal. */
  readonly answered: Array<string | undefined> = [];
  /** So many of them the gateway has certainly read. */
  read = 0;
  published = 0;
  /** Newest accepted seq of each lane. */
  readonly newest = new Map<number, number>();
  /** The last of what happened, for who has to find out why the order is wrong. */
  readonly diary: string[] = [];

  wrote(what: string): void {
    this.diary.push(what);
    if (this.diary.length > 200) this.diary.shift();
  }

  constructor(life: number, session: boolean, owed: Page["owed"], windowMax: number) {
    this.life = life;
    this.session = session;
    this.owed = owed;
    this.windowMax = windowMax;
  }
}

export type { Page };

export class CloudBook {
  readonly #ledger: Ledger;
  readonly #newest = new Map<string, number>();
  /** Numbers that were accepted, per topic. */
  readonly #seen = new Map<string, Set<number>>();
  /** key -> topic and number, whether accepted or not. */
  readonly #named = new Map<string, string>();
  /** What happened to each, for who has to find out why it is missing. */
  readonly #history = new Map<string, string[]>();
  readonly #keysOf = new Map<string, Set<string>>();
  readonly #accepted = new Map<string, number>();
  /** In which life, and when, it was certain that the gateway had read the answer. */
  readonly #proven = new Map<string, { life: number; ms: number }>();
  /** Refused for good, by key. */
  readonly refused = new Map<string, string>();
  /** When each life that was killed had its end. */
  readonly #kills = new Map<number, number>();
  #life = 0;
  #now: Page | undefined;
  duplicates = 0;
  deliveries = 0;

  readonly #once: boolean;

  /** @param once at QoS 2: no duplicate at all */
  constructor(ledger: Ledger, once: boolean) {
    this.#ledger = ledger;
    this.#once = once;
  }

  /** Call it before and after: what is in flight is not known to the gateway any more. */
  killed(): void {
    this.#kills.set(this.#life, performance.now());
    this.#life += 1;
  }

  /** It stopped as it was told: it forgets what was in flight, but nothing that was acknowledged. */
  stopped(): void {
    this.#life += 1;
  }

  connected(session: boolean, windowMax: number): Page {
    const before = this.#now;
    const owed: Page["owed"] = new Map();
    if (session && before?.life === this.#life) {
      for (const [key, one] of before.owed) owed.set(key, one);
      for (const [id, { key, lane }] of before.open) owed.set(key, { id, lane });
    }
    this.#now = new Page(this.#life, session, owed, windowMax);
    return this.#now;
  }

  /** A PUBLISH as it came, before anything is decided about it. Undefined when it is none that anybody sent. */
  arrived(page: Page, packet: SeenPacket): Arrival | undefined {
    const { topic = "", payload, messageId = 0, properties } = packet;
    const number = numberIn(parsed(payload));
    const { userProperties = {} } = (properties ?? {}) as { userProperties?: Record<string, string> };
    const known = this.#ledger.topics.get(topic);
    if (number === undefined || known === undefined || number >= known.next) {
      this.#ledger.fault(`cloud: ${topic}: not what was sent: ${String(payload).slice(0, 80)}`);
      return undefined;
    }
    const key = `${userProperties["gw"]} ${userProperties["epoch"]} ${userProperties["seq"]}`;
    const name = `${topic} ${number}`;
    if ((this.#named.get(key) ?? name) !== name) this.#fault(`${key} was ${this.#named.get(key)}, now ${name}`);
    const fresh = !this.#named.has(key);
    this.#note(name, `life ${page.life} seq ${userProperties["seq"]} id ${messageId}${packet.dup ? " dup" : ""}`);
    this.#named.set(key, name);
    const keys = (this.#keysOf.get(name) ?? new Set<string>()).add(key);
    this.#keysOf.set(name, keys);
    if (keys.size > known.sends(number)) this.#fault(`${name}: taken ${keys.size} times`);
    const { seq, pri } = userProperties;
    const arrival = { key, topic, number, seq: Number(seq), lane: Number(pri), id: messageId };
    page.wrote(`${pri}:${seq}${packet.dup ? "d" : ""}`);
    this.#window(page, arrival, packet.dup === true, fresh);
    return arrival;
  }

  #window(page: Page, { key, id, lane }: Arrival, dup: boolean, fresh: boolean): void {
    this.deliveries += 1;
    page.published += 1;
    if (page.open.has(id)) this.#fault(`packet id ${id} of ${key} is in use`);
    page.open.set(id, { key, lane });
    if (page.open.size > page.windowMax) this.#fault(`${page.open.size} on the wire, ${page.windowMax} allowed`);
    const ms = performance.now();
    for (; page.read < page.published - page.windowMax; page.read += 1) {
      const read = page.answered[page.read];
      if (read !== undefined) this.#proven.set(read, { life: page.life, ms });
    }
    if (dup && !page.session) this.#fault(`${key}: DUP, though the session is new`);
    const owed = page.owed.get(key);
    if (owed !== undefined) {
      page.owed.delete(key);
      if (!dup) this.#fault(`${key}: again without DUP`);
      if (owed.id !== id) this.#fault(`${key}: again as packet ${id}, it was ${owed.id}`);
    } else if (fresh && [...page.owed.values()].some((one) => one.lane === lane))
      this.#fault(`${key}, new in lane ${lane}, before what was in flight`);
  }

  /** It is the cloud's now, acknowledged or not. */
  accept(page: Page, arrival: Arrival): void {
    const { key, topic, number, seq, lane } = arrival;
    const name = `${topic} ${number}`;
    const before = page.newest.get(lane) ?? 0;
    if (seq <= before)
      this.#fault(
        `lane ${lane}: seq ${seq} after ${before} (${this.history(name)}); before it, lane:seq: ${page.diary.join(" ")}`,
      );
    page.newest.set(lane, seq);
    const times = (this.#accepted.get(key) ?? 0) + 1;
    this.#accepted.set(key, times);
    if (times > 1) this.#repeated(page, key, name);
    const seen = this.#seen.get(topic) ?? new Set<number>();
    this.#seen.set(topic, seen);
    if (seen.has(number)) return;
    seen.add(number);
    const newest = this.#newest.get(topic) ?? 0;
    if (number < newest) this.#fault(`${name}: for the first time after ${newest}`);
    this.#newest.set(topic, number);
  }

  #repeated(page: Page, key: string, name: string): void {
    this.duplicates += 1;
    if (this.#once) this.#fault(`${name}: twice at QoS 2: ${this.history(name)}`);
    const proven = this.#proven.get(key);
    if (proven === undefined) return;
    const kill = this.#kills.get(proven.life);
    if (proven.life === page.life) this.#fault(`${name}: again, though its PUBACK had been read`);
    else if (kill === undefined) this.#fault(`${name}: again after a clean stop, though its PUBACK had been read`);
    else if (kill - proven.ms > forgetMsMax)
      this.#fault(`${name}: again, though its PUBACK was read ${kill - proven.ms} ms before the kill`);
  }

  answered(page: Page, { id, key, topic, number }: Arrival, code: number): void {
    const name = `${topic} ${number}`;
    this.#note(name, `answered ${code}`);
    if (code !== 0) page.wrote(`${id}!${code}`);
    page.open.delete(id);
    page.answered.push(code === 0 ? key : undefined);
  }

  /** About how many acknowledged numbers are still to come; cheap, where `missing` looks at each. */
  get behind(): number {
    let behind = -this.refused.size;
    for (const [topic, { acknowledged }] of this.#ledger.topics)
      if (topic.startsWith("plant/")) behind += acknowledged.size - (this.#seen.get(topic)?.size ?? 0);
    return behind;
  }

  /** Acknowledged numbers that are neither here nor refused for good. */
  missing(prefix: string): string[] {
    const refused = new Set(this.refused.values());
    const missing: string[] = [];
    for (const [topic, { acknowledged }] of this.#ledger.topics) {
      if (!topic.startsWith(prefix)) continue;
      const seen = this.#seen.get(topic);
      for (const number of acknowledged)
        if (!seen?.has(number) && !refused.has(`${topic} ${number}`)) missing.push(`${topic} ${number}`);
    }
    return missing;
  }

  #note(name: string, what: string): void {
    const notes = this.#history.get(name) ?? [];
    this.#history.set(name, notes);
    if (notes.length < 50) notes.push(what);
  }

  history(name: string): string {
    return this.#history.get(name)?.join(", ") ?? "never came";
  }

  #fault(what: string): void {
    this.#ledger.fault(`cloud: ${what}`);
  }
}
