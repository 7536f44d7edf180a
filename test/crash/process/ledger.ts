/** Who was promised what: the numbers that feeders published, per topic, and the faults that anybody saw. */

export class TopicLedger {
  readonly topic: string;
  readonly qos: 1 | 2;
  /** Numbers run from 1; the next one to be published. */
  next = 1;
  /** Newest acknowledged number; PUBACK or PUBREC. */
  newestAcknowledged = 0;
  readonly acknowledged = new Set<number>();
  /** How often a number was sent, when more than once. */
  readonly #sends = new Map<number, number>();

  constructor(topic: string, qos: 1 | 2) {
    this.topic = topic;
    this.qos = qos;
  }

  acknowledge(number: number): void {
    this.acknowledged.add(number);
    this.newestAcknowledged = Math.max(this.newestAcknowledged, number);
  }

  sentAgain(number: number): void {
    this.#sends.set(number, this.sends(number) + 1);
  }

  /** How many copies of it the gateway may have taken. At QoS 2 one, however often it was sent. */
  sends(number: number): number {
    return this.qos === 2 ? 1 : (this.#sends.get(number) ?? 1);
  }
}

export class Ledger {
  readonly topics = new Map<string, TopicLedger>();
  readonly faults: string[] = [];

  topic(name: string, qos: 1 | 2): TopicLedger {
    let topic = this.topics.get(name);
    if (topic === undefined) {
      topic = new TopicLedger(name, qos);
      this.topics.set(name, topic);
    }
    return topic;
  }

  fault(what: string): void {
    if (this.faults.length < 20) this.faults.push(what);
  }

  /** @throws with the first faults, if there were any */
  check(): void {
    if (this.faults.length > 0) throw new Error(`broken promises:\n  ${this.faults.join("\n  ")}`);
  }

  get acknowledged(): number {
    let sum = 0;
    for (const { acknowledged } of this.topics.values()) sum += acknowledged.size;
    return sum;
  }
}

/** A payload says what it is, so that a byte of another message in it is noticed. */
export function payloadOf(number: number, size: number): string {
  return JSON.stringify({ n: number, size, pad: String.fromCharCode(97 + (number % 26)).repeat(size) });
}

/** The number in a payload; undefined when it is not as it was sent. */
export function numberIn(value: unknown): number | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { n, size, pad } = value as Record<string, unknown>;
  if (typeof n !== "number" || typeof size !== "number") return undefined;
  return pad === String.fromCharCode(97 + (n % 26)).repeat(size) ? n : undefined;
}

/** What one receiver got of each topic. First occurrences must rise. */
export class Arrivals {
  readonly #name: string;
  readonly #ledger: Ledger;
  readonly #seen = new Map<string, Set<number>>();
  readonly #newest = new Map<string, number>();
  /** Of the present connection. */
  #times = new Map<string, number>();
  repeats = 0;

  constructor(name: string, ledger: Ledger) {
    this.#name = name;
    this.#ledger = ledger;
  }

  connected(): void {
    this.#times = new Map();
  }

  /** @param once at QoS 2 both ways: no copy at all */
  take(topic: string, value: unknown, once: boolean): void {
    const { topics } = this.#ledger;
    const known = topics.get(topic);
    const number = numberIn(value);
    if (known === undefined || number === undefined || number >= known.next) {
      this.#fault(`${topic}: not what was sent: ${JSON.stringify(value).slice(0, 80)}`);
      return;
    }
    const seen = this.#seen.get(topic) ?? new Set<number>();
    this.#seen.set(topic, seen);
    const key = `${topic} ${number}`;
    const times = (this.#times.get(key) ?? 0) + 1;
    this.#times.set(key, times);
    if (times > known.sends(number)) this.#fault(`${key}: ${times} times on one connection`);
    if (seen.has(number)) {
      this.repeats += 1;
      if (once) this.#fault(`${key}: twice at QoS 2`);
      return;
    }
    const newest = this.#newest.get(topic) ?? 0;
    if (number < newest) this.#fault(`${key}: for the first time after ${newest}`);
    this.#newest.set(topic, number);
    seen.add(number);
  }

  seen(topic: string): ReadonlySet<number> {
    return this.#seen.get(topic) ?? new Set();
  }

  /** Acknowledged numbers that have not come, over all topics of this prefix. */
  missing(prefix: string): string[] {
    const missing: string[] = [];
    for (const [topic, { acknowledged }] of this.#ledger.topics) {
      if (!topic.startsWith(prefix)) continue;
      const seen = this.seen(topic);
      for (const number of acknowledged) if (!seen.has(number)) missing.push(`${topic} ${number}`);
    }
    return missing;
  }

  #fault(what: string): void {
    this.#ledger.fault(`${this.#name}: ${what}`);
  }
}

/** What the members of a shared group got together. Among several there is no order. */
export class Pool {
  readonly #ledger: Ledger;
  readonly #seen = new Set<string>();
  repeats = 0;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** @param once at QoS 2 both ways: to one of them, once */
  take(topic: string, value: unknown, once: boolean): void {
    const known = this.#ledger.topics.get(topic);
    const number = numberIn(value);
    if (known === undefined || number === undefined || number >= known.next) {
      this.#ledger.fault(`pool: ${topic}: not what was sent: ${JSON.stringify(value).slice(0, 80)}`);
      return;
    }
    const key = `${topic} ${number}`;
    if (this.#seen.has(key)) {
      this.repeats += 1;
      if (once) this.#ledger.fault(`pool: ${key}: twice at QoS 2`);
    }
    this.#seen.add(key);
  }

  /** Acknowledged numbers that have come to nobody. */
  missing(): string[] {
    const missing: string[] = [];
    for (const [topic, { acknowledged }] of this.#ledger.topics) {
      if (!topic.startsWith("plant/")) continue;
      for (const number of acknowledged) if (!this.#seen.has(`${topic} ${number}`)) missing.push(`${topic} ${number}`);
    }
    return missing;
  }
}
