/**
 * A CoAP sensor that posts JSON { celsius, n } to the gateway, with node-coap-client: a real, independent peer. A reading counts as
 * accepted only with a 2.xx answer; until then the same number is posted again, in order.
 *
 * What that client makes necessary: one request at a time (its concurrency is 1 over all origins), a deadline of our own and a reset
 * after each (one silent peer would block it for ever), JSON (its Content-Format is always application/json), and a process of its own
 * (a malformed reply is an uncaught exception in it).
 */
import { CoapClient } from "node-coap-client";
import { ReadingQueue } from "./readingQueue.ts";

export interface CoapPosterOptions {
  /** `coap://127.0.0.1:5683/greenhouse`. */
  readonly url: string;
  /** Between two readings; default 200. */
  readonly periodMs?: number;
  /** An answer that has not come by then will not come; default 3000. */
  readonly answerMs?: number;
  /** Wait after a refusal or a missing answer; default 300. */
  readonly retryMs?: number;
  readonly waitingMax?: number;
}

export interface CoapPosterStats {
  readonly produced: number;
  readonly held: number;
  readonly waiting: number;
  readonly accepted: number;
  /** Requests without an answer in time. */
  readonly unanswered: number;
  /** Answers other than 2.xx, by code. */
  readonly refused: Readonly<Record<string, number>>;
}

export class CoapPoster {
  readonly #options: CoapPosterOptions;
  readonly #queue: ReadingQueue;
  readonly #refused: Record<string, number> = {};
  #producer: NodeJS.Timeout | undefined;
  #posting: Promise<void> | undefined;
  #wake: () => void = () => {};
  #running = false;
  #unanswered = 0;

  constructor(options: CoapPosterOptions) {
    this.#options = options;
    this.#queue = new ReadingQueue(options.waitingMax === undefined ? {} : { waitingMax: options.waitingMax });
  }

  static celsiusOf(n: number): number {
    return Math.round((18 + (n % 50) / 10) * 10) / 10;
  }

  get accepted(): readonly number[] {
    return this.#queue.accepted;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#producer = setInterval(() => {
      this.#queue.produce();
      this.#wake();
    }, this.#options.periodMs ?? 200);
    this.#posting = this.#post();
  }

  /** No new readings; those that wait are still posted. */
  stopProducing(): void {
    clearInterval(this.#producer);
    this.#producer = undefined;
  }

  /** What still waits is given up: it was never accepted. */
  async stop(): Promise<void> {
    this.stopProducing();
    this.#running = false;
    this.#wake();
    CoapClient.reset();
    await this.#posting;
  }

  stats(): CoapPosterStats {
    return { ...this.#queue.stats(), unanswered: this.#unanswered, refused: { ...this.#refused } };
  }

  async #post(): Promise<void> {
    while (this.#running) {
      const n = this.#queue.at(0);
      if (n === undefined) {
        await this.#pause(1000);
        continue;
      }
      const code = await this.#request(n);
      if (code?.startsWith("2.") === true) {
        this.#queue.accept(n);
        continue;
      }
      if (code === undefined) this.#unanswered += 1;
      else this.#refused[code] = (this.#refused[code] ?? 0) + 1;
      if (this.#running) await this.#pause(this.#options.retryMs ?? 300, false);
    }
  }

  /** @returns the answer's code as text, undefined when none came in time */
  async #request(n: number): Promise<string | undefined> {
    const payload = Buffer.from(JSON.stringify({ celsius: CoapPoster.celsiusOf(n), n }));
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, this.#options.answerMs ?? 3000, undefined);
    });
    try {
      const request = CoapClient.request(this.#options.url, "post", payload, { keepAlive: true, confirmable: true });
      request.catch(() => {}); // the reset below rejects it after the race is over
      const answer = await Promise.race([request, deadline]);
      if (answer !== undefined) return answer.code.toString();
    } catch {
      // as if nothing had come: only a 2.xx counts
    } finally {
      clearTimeout(timer);
    }
    CoapClient.reset();
    return undefined;
  }

  /** @param early whether a new reading ends it */
  #pause(ms: number, early = true): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        if (!early && this.#running) return;
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
