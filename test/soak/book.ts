/** Who was promised what. Small on purpose: numbers of a topic come in order, so what is kept are the exceptions. */

/** What one publisher sent to one topic. */
export class TopicBook {
  readonly topic: string;
  readonly qos: 0 | 1 | 2;
  /** Numbers run from 1; the next one to be sent. */
  next = 1;
  /** Sent, and not acknowledged (yet, or ever: a clean session took a QoS 2 message with it). */
  readonly open = new Set<number>();

  constructor(topic: string, qos: 0 | 1 | 2) {
    this.topic = topic;
    this.qos = qos;
  }

  get acknowledged(): number {
    return this.next - 1 - this.open.size;
  }
}

export class Book {
  readonly topics = new Map<string, TopicBook>();
  readonly faults: string[] = [];
  faultCount = 0;
  /** Totals for the summary. */
  readonly counts = { connections: 0, vanished: 0, takenOver: 0, subscribes: 0, delivered: 0, repeats: 0, wills: 0 };

  topic(name: string, qos: 0 | 1 | 2): TopicBook {
    let book = this.topics.get(name);
    if (book === undefined) {
      book = new TopicBook(name, qos);
      this.topics.set(name, book);
    }
    return book;
  }

  fault(what: string): void {
    this.faultCount += 1;
    if (this.faults.length < 20) this.faults.push(what);
  }

  acknowledged(qos: 0 | 1 | 2): number {
    let sum = 0;
    for (const topic of this.topics.values()) if (topic.qos === qos) sum += topic.acknowledged;
    return sum;
  }
}

interface Progress {
  newest: number;
  /** Numbers below `newest` that have not come. */
  readonly gaps: Set<number>;
}

/** What one durable subscriber got. First occurrences must rise; at QoS 2 there is no second one. */
export class Arrivals {
  readonly #name: string;
  readonly #book: Book;
  readonly #of = new Map<string, Progress>();

  constructor(name: string, book: Book) {
    this.#name = name;
    this.#book = book;
  }

  take(topic: string, payload: Buffer, qos: number): void {
    const book = this.#book;
    const sent = book.topics.get(topic);
    const number = numberIn(payload);
    if (sent === undefined || number === undefined || number >= sent.next) {
      book.fault(`${this.#name}: ${topic}: not what was sent: ${payload.toString("latin1", 0, 60)}`);
      return;
    }
    if (qos !== sent.qos) book.fault(`${this.#name}: ${topic} ${number}: came at QoS ${qos}`);
    book.counts.delivered += 1;
    const progress = this.#of.get(topic) ?? { newest: 0, gaps: new Set() };
    this.#of.set(topic, progress);
    const { newest, gaps } = progress;
    if (number > newest) {
      for (let at = newest + 1; at < number && qos > 0; at += 1) gaps.add(at);
      progress.newest = number;
    } else if (gaps.delete(number)) book.fault(`${this.#name}: ${topic} ${number}: for the first time after ${newest}`);
    else if (qos === 1) book.counts.repeats += 1;
    else book.fault(`${this.#name}: ${topic} ${number}: twice at QoS ${qos}`);
  }

  has(topic: string, number: number): boolean {
    const progress = this.#of.get(topic);
    return progress !== undefined && number <= progress.newest && !progress.gaps.has(number);
  }

  /** Acknowledged messages of topics that start with `prefix` and have not come. */
  *missing(prefix: string): Iterable<string> {
    for (const { topic, qos, next, open } of this.#book.topics.values()) {
      if (qos === 0 || !topic.startsWith(prefix)) continue;
      const { newest, gaps } = this.#of.get(topic) ?? { newest: 0, gaps: new Set<number>() };
      for (const number of gaps) if (!open.has(number)) yield `${this.#name}: ${topic} ${number}`;
      for (let at = newest + 1; at < next; at += 1) if (!open.has(at)) yield `${this.#name}: ${topic} ${at}`;
    }
  }
}

/** A payload says what it is, so that a byte of another message in it is noticed. */
export function payloadOf(number: number, size: number): Buffer {
  const head = `${number}:`;
  return Buffer.concat([Buffer.from(head), Buffer.alloc(size, 97 + (number % 26))]);
}

/** Undefined when it is not as it was sent. */
export function numberIn(payload: Buffer): number | undefined {
  const colon = payload.indexOf(58);
  const number = Number(payload.toString("latin1", 0, colon));
  if (colon < 1 || !Number.isSafeInteger(number)) return undefined;
  const pad = 97 + (number % 26);
  for (let at = colon + 1; at < payload.length; at += 1) if (payload[at] !== pad) return undefined;
  return number;
}
