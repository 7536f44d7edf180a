import { type Log, LogLimiter } from "../base/log.ts";
import type { Counter } from "../base/meter.ts";
import { type MemoryHolder, smallBytes } from "./heldMemory.ts";

/**
 * Parts of the limit. From the first on publishers that have sent something durable stand back, from the second on everybody, until it is down to the
 * third. What is left of it is for those who come anew, and for what waits for its turn when it begins (a quarter).
 */
const publishersAt = 3 / 8;
const everybodyAt = 5 / 8;
const reliefAt = 1 / 8;
const why = "what has come and cannot be handled yet takes too much memory";

export interface PausedDeps {
  readonly log: Log;
  readonly nowMs: () => number;
  /** Times that a crowd began to stand back. */
  readonly crowds: Counter;
  /** Who has been read and has nothing is not read any more, if `turnsAway` says so of it. */
  standBack(): void;
  /** Those are read again. */
  relief(): void;
}

/**
 * Memory that paused connections hold for what came before they were paused, over all of them: a chunk each. Who is paused for what it does itself, and
 * does not read our answers, gives way with its connection when it is too much, first the one that has stood still for longest. Who waits for our disk
 * has done nothing wrong: a crowd of publishers stops being read before it is too much, and is read again when the disk has caught up. Only those who come anew
 * all the same, and find no room, are closed. What clients hold by their own doing makes nobody stand back, or those who do not read would stop everybody.
 */
export class PausedMemory<H extends MemoryHolder = MemoryHolder> {
  readonly #max: number;
  readonly #deps: PausedDeps;
  readonly #limiter: LogLimiter;
  /** In the order in which they began to hold it. */
  readonly #byClient = new Map<H, number>();
  readonly #byDisk = new Map<H, number>();
  #byClientBytes = 0;
  #byDiskBytes = 0;
  #level: 0 | 1 | 2 = 0;

  /** @param max bytes over all connections */
  constructor(max: number, deps: PausedDeps) {
    this.#max = max;
    this.#deps = deps;
    this.#limiter = new LogLimiter({ intervalMs: 60_000, nowMs: deps.nowMs });
  }

  /** Over all connections, those of a few bytes left out. */
  get bytes(): number {
    return this.#byClientBytes + this.#byDiskBytes;
  }

  /** Whether a connection is not to be read on. A log-in always is, its time would run out. @param lastGroup above 0: it has sent something durable */
  turnsAway({ lastGroup, session }: { readonly lastGroup: number; readonly session: object | undefined }): boolean {
    return this.#level > (lastGroup > 0 ? 0 : 1) && session !== undefined;
  }

  /** To be called when it may have changed. @param bytes held now; 0 when it is paused no more @param byClient and the client could end that */
  set(holder: H, bytes: number, byClient: boolean): void {
    const held = bytes <= smallBytes ? 0 : bytes;
    const byClientBytes = replace(this.#byClient, holder, byClient ? held : 0);
    const byDiskBytes = replace(this.#byDisk, holder, byClient ? 0 : held);
    if (byClientBytes === 0 && byDiskBytes === 0) return;
    this.#byClientBytes += byClientBytes;
    this.#byDiskBytes += byDiskBytes;
    if (byDiskBytes !== 0) this.#look();
    if (this.bytes > this.#max) this.#giveWay();
  }

  #look(): void {
    const share = this.#byDiskBytes / this.#max;
    const before = this.#level;
    if (share <= reliefAt) this.#level = 0;
    else if (share >= everybodyAt) this.#level = 2;
    else if (share >= publishersAt && before === 0) this.#level = 1;
    if (this.#level === before) return;
    if (this.#level === 0) return this.#deps.relief();
    if (before === 0) {
      this.#deps.crowds.value += 1;
      if (this.#limiter.due("crowd"))
        this.#deps.log.warn(
          { bytes: this.bytes, bytesMax: this.#max },
          "the disk does not keep up: publishers are not read until it has, nobody is closed for it",
        );
    }
    this.#deps.standBack();
  }

  #giveWay(): void {
    this.#closeSome(this.#byClient.keys());
    // Who came last found the others here already; and the one that has waited for longest is the next to be served.
    if (this.bytes > this.#max) this.#closeSome([...this.#byDisk.keys()].reverse());
    this.#look();
  }

  #closeSome(holders: Iterable<H>): void {
    for (const holder of holders) {
      if (this.bytes <= this.#max) return;
      const byDisk = this.#byDisk.has(holder);
      this.#byClientBytes += replace(this.#byClient, holder, 0);
      this.#byDiskBytes += replace(this.#byDisk, holder, 0);
      if (this.#limiter.due(byDisk ? "disk" : "client"))
        this.#deps.log.warn(
          { bytesMax: this.#max, heldFor: byDisk ? "the disk" : "the client" },
          `clients are closed: ${why}; ${byDisk ? "the disk is slow" : "they do not read their answers, or many log in at once"}: mend that, or raise mqtt.limits.incompletePackets`,
        );
      holder.giveWay("paused", why);
    }
  }
}

/** @returns by how much it has changed */
function replace<H>(map: Map<H, number>, holder: H, bytes: number): number {
  const before = map.get(holder) ?? 0;
  if (bytes === before) return 0;
  if (bytes === 0) map.delete(holder);
  else map.set(holder, bytes);
  return bytes - before;
}
