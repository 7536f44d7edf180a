/** What the store should hold besides its lanes, as the model has it: maps, retained values, queues of references. */

/** A message that a queue waits for. */
export interface Held {
  readonly text: string;
  readonly position: number;
  readonly meta: number;
}

export interface QueueBook {
  next: number;
  readonly waiting: Map<number, Held>;
}

/** One statement of a commit, as the model applies it. */
export type Change = (to: Ledger) => void;

export interface Commit {
  /** 1, 2, 3...: also what the commit puts into the map "model". */
  readonly number: number;
  readonly group: number;
  /** Store clock. */
  readonly clockMs: number;
  readonly changes: readonly Change[];
}

export class Ledger {
  readonly map = new Map<string, string>();
  readonly retained = new Map<string, { text: string; position: number }>();
  readonly queues = new Map<string, QueueBook>();

  copy(): Ledger {
    const copy = new Ledger();
    for (const [key, value] of this.map) copy.map.set(key, value);
    for (const [topic, value] of this.retained) copy.retained.set(topic, value);
    for (const [name, { next, waiting }] of this.queues) copy.queues.set(name, { next, waiting: new Map(waiting) });
    return copy;
  }

  apply(changes: readonly Change[]): void {
    for (const change of changes) change(this);
  }
}
