import { type Log, LogLimiter } from "../base/log.ts";
import type { Counter } from "../base/meter.ts";
import { type MemoryHolder, smallBytes } from "./heldMemory.ts";
import type { HeldFor } from "./pauses.ts";

/**
 * Parts of the limit. From the first on publishers that have sent something durable stand back, from the second on everybody, until it is down to the
 * third. What is left of it is for those who come anew, and for what waits for its turn when it begins (a quarter).
 */
const publishersAt = 3 / 8;
const everybodyAt = 5 / 8;
const reliefAt = 1 / 8;
const why = "what has come and cannot be handled yet takes too much memory";

interface Kept {
  readonly bytes: number;
  readonly heldFor: HeldFor;
}

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
 * has done nothing wrong: a crowd of publishers stops being read before it is too much, and is read again when the disk has caught up. What those hold
 * who stand back so, in a TLS socket or WebSocket, counts for the limit but not for when to stand back, or they would keep themselves from being read again. Nor
 * does what clients hold by their own doing, or those who do not read would stop everybody. The last resort, when clients could end none of it and it is
 * too much all the same: the latest are closed, those who come anew above all.
 */
export class PausedMemory<H extends MemoryHolder = MemoryHolder> {
  readonly #max: number;
  readonly #deps: PausedDeps;
  readonly #limiter: LogLimiter;
  /** In the order in which they began to hold it. */
  readonly #kept = new Map<H, Kept>();
  readonly #bytes: Record<HeldFor, number> = { client: 0, disk: 0, crowd: 0 };
  #level: 0 | 1 | 2 = 0;

  /** @param max bytes over all connections */
  constructor(max: number, deps: PausedDeps) {
    this.#max = max;
    this.#deps = deps;
    this.#limiter = new LogLimiter({ intervalMs: 60_000, nowMs: deps.nowMs });
  }

  /** Over all connections, those of a few bytes left out. */
  get bytes(): number {
    const { client, disk, crowd } = this.#bytes;
    return client + disk + crowd;
  }

  /** Whether a connection is not to be read on. A log-in always is, its time would run out. @param lastGroup above 0: it has sent something durable */
  turnsAway({ lastGroup, session }: { readonly lastGroup: number; readonly session: object | undefined }): boolean {
    return this.#level > (lastGroup > 0 ? 0 : 1) && session !== undefined;
  }

  /** To be called when it may have changed. @param bytes held now; 0 when it is paused no more */
  set(holder: H, bytes: number, heldFor: HeldFor): void {
    const before = this.#kept.get(holder);
    if (before === undefined && bytes <= smallBytes) return;
    if (before?.bytes === bytes && before.heldFor === heldFor) return;
    const forDisk = this.#bytes.disk;
    if (bytes <= smallBytes) this.#forget(holder);
    else {
      if (before !== undefined) this.#bytes[before.heldFor] -= before.bytes;
      this.#kept.set(holder, { bytes, heldFor });
      this.#bytes[heldFor] += bytes;
    }
    if (this.#bytes.disk !== forDisk) this.#look();
    if (this.bytes > this.#max) this.#giveWay();
  }

  #look(): void {
    const share = this.#bytes.disk / this.#max;
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
          "the disk does not keep up: publishers are not read until it has",
        );
    }
    this.#deps.standBack();
  }

  #giveWay(): void {
    for (const [holder, { heldFor }] of this.#kept) {
      if (this.bytes <= this.#max) break;
      if (heldFor === "client") this.#close(holder, "client");
    }
    // Who came last found the others here already; and the one that has waited for longest is the next to be served.
    if (this.bytes > this.#max)
      for (const holder of [...this.#kept.keys()].reverse()) {
        if (this.bytes <= this.#max) break;
        this.#close(holder, "disk");
      }
    this.#look();
  }

  #close(holder: H, by: "client" | "disk"): void {
    if (this.#limiter.due(by))
      this.#deps.log.warn(
        { bytesMax: this.#max, heldFor: `the ${by}` },
        `clients are closed: ${why}; ${by === "disk" ? "the disk is slow" : "they do not read their answers, or many log in at once"}: mend that, or raise mqtt.limits.incompletePackets`,
      );
    this.#forget(holder);
    holder.giveWay("paused", why);
  }

  #forget(holder: H): void {
    const kept = this.#kept.get(holder);
    if (kept === undefined) return;
    this.#kept.delete(holder);
    this.#bytes[kept.heldFor] -= kept.bytes;
  }
}
