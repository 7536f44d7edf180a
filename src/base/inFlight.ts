/** What QoS 2 exchanges of an uplink need of the store over a restart. */
import type { QueuedMessage } from "./contracts.ts";

/** A key of one of the store's maps (`Txn.put`, without a value). */
export interface HeldId {
  readonly map: string;
  readonly key: string;
}

/** A message of a queue. */
export interface InFlight {
  readonly lane: number;
  readonly position: number;
}

export interface Recalled {
  readonly found: readonly QueuedMessage[];
  /** Positions that `next` will come to later. */
  readonly ahead: ReadonlySet<number>;
}

/** An uplink's queue that hands out again what an earlier run had in flight. */
export interface Resumable {
  /** Nothing was ever taken for it in this data folder, when it was opened. */
  readonly isNew: boolean;
  /**
   * These were in flight when an earlier run ended: until they are handed out they neither expire nor give way to others. Replaces what was said
   * before.
   */
  keep(inFlight: readonly InFlight[]): void;
  /**
   * Hands out what `keep` named, lane by lane in order, with what lies between; `next` is not to be called meanwhile. Ends early when more than so
   * many others lie between. What is among neither `found` nor `ahead` is gone. Nothing comes of it after `rewind`. Never rejects.
   */
  recall(others: { readonly messages: number; readonly bytes: number }): Promise<Recalled>;
}
