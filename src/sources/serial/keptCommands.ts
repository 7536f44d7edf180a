import type { Store } from "../../base/contracts.ts";

const map = "serial-commands";
/** Of the value: when it expires, by the store clock and by the wall clock (doubles); then the frame. */
const headBytes = 16;

/** A command that is on disk, or on its way there. */
export interface KeptCommand {
  readonly key: string;
  /** That must be durable before whoever sent the command may be told. */
  readonly group: number;
}

/**
 * Commands that wait for a device that is away, in the store: what the cloud or a client was told is taken must survive a restart, and it expires
 * by whichever clock says so first, so that none comes back from the dead: the store clock does not believe an outage of days. Only what has to wait is written; what goes to the port at once is not.
 */
export class KeptCommands {
  readonly #store: Pick<Store, "admit" | "commit" | "entries" | "nowMs">;
  readonly #wallMs: () => number;
  readonly #source: string;
  #number = 0;

  constructor(store: Pick<Store, "admit" | "commit" | "entries" | "nowMs">, wallMs: () => number, source: string) {
    this.#store = store;
    this.#wallMs = wallMs;
    this.#source = source;
  }

  /** What an earlier run has left and may still go, the oldest first. What expired goes, of sources that are gone as well. @returns expired of this one */
  load(take: (frame: Uint8Array, leftMs: number, kept: KeptCommand) => void): number {
    const dead: string[] = [];
    const live: Array<readonly [key: string, value: Uint8Array]> = [];
    let expired = 0;
    for (const [key, value] of this.#store.entries(map)) {
      const isOurs = key.startsWith(this.#prefix);
      if (isOurs) this.#number = Math.max(this.#number, Number(key.slice(this.#prefix.length)) || 0);
      if (this.#leftMs(value) <= 0) {
        dead.push(key);
        if (isOurs) expired += 1;
      } else if (isOurs) live.push([key, value]);
    }
    live.sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [key, value] of live)
      take(Uint8Array.prototype.slice.call(value, headBytes), this.#leftMs(value), { key, group: 0 });
    this.forget(dead);
    return expired;
  }

  /** Undefined: the store has no room or takes no writes; the command waits in memory only. */
  keep(frame: Uint8Array, expiryMs: number): KeptCommand | undefined {
    const store = this.#store;
    if (store.admit({ bytes: frame.length + 100, rejectNewest: [] }) !== "ok") return undefined;
    this.#number += 1;
    const key = `${this.#prefix}${String(this.#number).padStart(16, "0")}`;
    const value = Buffer.allocUnsafe(headBytes + frame.length);
    value.writeDoubleBE(store.nowMs() + expiryMs, 0);
    value.writeDoubleBE(this.#wallMs() + expiryMs, 8);
    value.set(frame, headBytes);
    try {
      return { key, group: store.commit((txn) => txn.put(map, key, value)).group };
    } catch {
      return undefined; // the disk: said by the store itself
    }
  }

  /** They wait no longer. Written, not waited for: a power cut in the same moment brings one back that the device had, within its expiry. */
  forget(keys: readonly string[]): void {
    if (keys.length === 0) return;
    try {
      this.#store.commit((txn) => {
        for (const key of keys) txn.delete(map, key);
      });
    } catch {
      // the disk: said by the store itself; they expire
    }
  }

  #leftMs(value: Uint8Array): number {
    if (value.length < headBytes) return 0;
    const head = new DataView(value.buffer, value.byteOffset, headBytes);
    const leftMs = Math.min(head.getFloat64(0) - this.#store.nowMs(), head.getFloat64(8) - this.#wallMs());
    return Number.isFinite(leftMs) ? leftMs : 0; // rotten: expired
  }

  get #prefix(): string {
    return `${this.#source}\u0000`;
  }
}
