/**
 * References of the open group, which are written only when it ends: many of a queue in one record, and those that were released by then not at all,
 * nor their release. A client on the line often acknowledges a message before its group is closed. A checkpoint leaves them to the journal.
 */
import { recordType } from "./format.ts";
import { type RecordSink, writeNamed, writeReferences } from "./records.ts";
import type { References } from "./references.ts";
import type { State } from "./state.ts";

const batchMax = 32;

/** A flipped bit may cost one reference, not many: what is said of several stands twice. */
export const copiesOf = (references: number): number => (references > 1 ? 2 : 1);

/** What one of them takes in a full record, and what a record takes besides its queue's name; both with their copy, and generously. */
const bytesEach = 24;
const recordBytes = 80;

export class Unwritten {
  #queues: References[] = [];
  /** At most so many bytes will be written. What was released or taken back meanwhile is not subtracted: a group is soon over. */
  bytes = 0;

  /** A reference is about to be added. */
  note(queue: References): void {
    this.bytes += bytesEach;
    if (queue.unwrittenFrom > 0) return;
    queue.unwrittenFrom = queue.nextOrdinal;
    this.#queues.push(queue);
    this.bytes += recordBytes + 2 * queue.name.length;
  }

  /** What a group ends with. */
  write(sink: RecordSink, { queues }: State): void {
    if (this.#queues.length === 0) return;
    for (const queue of this.#queues) {
      const from = queue.unwrittenFrom;
      queue.unwrittenFrom = 0;
      // One that was dropped meanwhile, or whose making was undone, has no records.
      if (queues.get(queue.name) === queue && from < queue.nextOrdinal) writeFrom(sink, queue, from);
    }
    this.#queues = [];
    this.bytes = 0;
  }
}

function writeFrom(sink: RecordSink, queue: References, from: number): void {
  let after = from - 1;
  for (;;) {
    const batch = queue.batch(after, queue.nextOrdinal, batchMax);
    if (batch.length === 0) break;
    writeReferences(sink, queue.name, batch, copiesOf(batch.length));
    after = batch.at(-1)!.ordinal;
  }
  // The newest are gone already: their ordinals were given out all the same.
  if (after < queue.nextOrdinal - 1) writeNamed(sink, recordType.queue, queue.name, queue.nextOrdinal);
}
