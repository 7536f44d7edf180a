/** What an operator's retry must not forget of a letter while its message waits in the uplink's queue: how often it was refused, and since when. */
import type { Clock, Timer } from "../base/clock.ts";
import type { Store, Txn } from "../base/contracts.ts";

const mapName = "dead-letters-retried";
/** More are forgotten, the oldest first: their count begins anew. */
const retriedMax = 10_000;
const lazyMs = 1000;

export interface Retried {
  readonly attempts: number;
  readonly firstMs: number;
}

/** By position of the message, which is never used again. Durable, in the commits of the letters. */
export class RetriedMessages {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #known = new Map<number, Retried>();
  #forgotten: number[] = [];
  #timer: Timer | undefined;

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
    for (const [key, value] of store.entries(mapName)) {
      const retried = parse(value);
      if (retried !== undefined) this.#known.set(Number(key), retried);
    }
  }

  get size(): number {
    return this.#known.size;
  }

  get(position: number): Retried | undefined {
    return this.#known.get(position);
  }

  /** Call `remembered` once the commit has succeeded. */
  rememberWith(txn: Txn, position: number, retried: Retried): void {
    txn.put(mapName, String(position), Buffer.from(JSON.stringify(retried)));
    const [oldest] = this.#known.keys();
    if (oldest !== undefined && this.#known.size >= retriedMax) this.forgetWith(txn, oldest);
  }

  remembered(position: number, retried: Retried): void {
    this.#known.set(position, retried);
  }

  forgetWith(txn: Txn, position: number): void {
    if (!this.#known.delete(position)) return;
    txn.delete(mapName, String(position));
  }

  /** With other such ones, within a second: a crash before that leaves an entry that nobody asks for, until newer ones press it out. */
  forget(position: number): void {
    if (!this.#known.delete(position)) return;
    this.#forgotten.push(position);
    if (this.#forgotten.length >= 1000) this.#flush();
    else this.#timer ??= this.#clock.setTimer(lazyMs, () => this.#flush());
  }

  close(): void {
    this.#flush();
  }

  #flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const forgotten = this.#forgotten;
    this.#forgotten = [];
    if (forgotten.length === 0 || this.#store.failed !== undefined) return;
    this.#store.commit((txn) => {
      for (const position of forgotten) txn.delete(mapName, String(position));
    });
  }
}

function parse(value: Uint8Array): Retried | undefined {
  try {
    const { attempts, firstMs } = JSON.parse(Buffer.from(value).toString()) as Record<string, unknown>;
    return typeof attempts === "number" && typeof firstMs === "number" ? { attempts, firstMs } : undefined;
  } catch {
    return undefined;
  }
}
