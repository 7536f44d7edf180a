/** A disk whose syncs take their time, by turns of the event loop; and what the store says of its room meanwhile. */
import type { Store } from "../../src/base/contracts.ts";
import type { Operation } from "../helpers/faultyFiles.ts";
import { randomOf } from "../unit/journal/support.ts";

/** What a group and a segment end and begin with of themselves, at most: an index, definitions, lane states, the first page's header. */
const ownBytesMax = 1500;

/** @param most turns of a sync; 0: all ends at once */
export function slowly(seed: number, most: number): (operation: Operation, path: string) => number {
  // Of its own: what a seed does besides stays what it was.
  const random = randomOf(seed * 131 + 11);
  if (most === 0) return () => 0;
  return (operation, path) => {
    // Groups come and go while a checkpoint is written.
    const often = path.includes("ckpt-") ? 0.8 : 0.1;
    if (operation === "write") return random() < often ? Math.floor(random() * most) : 0;
    if (operation !== "datasync" && operation !== "syncDir") return 0;
    return random() < 0.2 ? 0 : Math.floor(random() * most);
  };
}

/** On a slow disk so much that what waits for it is what limits the store. */
export const roomOf = (syncTurns: number): { maxBytes?: number } => (syncTurns > 0 ? { maxBytes: 2 ** 40 } : {});

/**
 * What is admitted fits: while nothing is committed the room for what waits for the disk does not shrink, but for what groups and segments add of
 * themselves. What is kept back until its group ends must have been counted before.
 */
export class RoomWatch {
  #room = 0;

  /** Nothing is committed from here to `check`. */
  begin(store: Store): void {
    this.#room = store.admittedTo([]) - store.head;
  }

  /** @throws when the room shrank */
  check(store: Store): void {
    const room = store.admittedTo([]) - store.head;
    // A full or failed store has none.
    if (room > 0 && room < this.#room - ownBytesMax)
      throw new Error(`room shrank by ${this.#room - room} though nothing was committed`);
  }
}
