/**
 * What of a run of old segments a merged one keeps: messages that somebody still waits for, and the statements that a start without any checkpoint
 * would miss. Decided by what is so now; the merged file counts only once everything that was so is durable.
 */
import { type ByteReader, FieldError } from "./bytes.ts";
import { recordType } from "./format.ts";
import { type Interval, intervalsMax } from "./lane.ts";
import type { MessageReader } from "./messageRecord.ts";
import { readReferences } from "./records.ts";
import type { ReferenceBatch } from "./references.ts";
import type { PinWatch, State } from "./state.ts";

/** Positions that references and retained values point at. */
export class Pins {
  readonly #positions: Float64Array;
  readonly #watch: PinWatch;
  /** Pinned since the count, and kept. */
  readonly #kept = new Set<number>();

  constructor(positions: Float64Array, watch: PinWatch) {
    this.#positions = positions.sort();
    this.#watch = watch;
  }

  has(position: number): boolean {
    if (this.#counted(position)) return true;
    if (!this.#watch.pinned.has(position)) return false;
    this.#kept.add(position);
    return true;
  }

  /** Whether something below `to` was pinned after it had been passed over. */
  missed(to: number): boolean {
    for (const position of this.#watch.pinned) {
      if (position < to && !this.#kept.has(position) && !this.#counted(position)) return true;
    }
    return false;
  }

  #counted(position: number): boolean {
    const positions = this.#positions;
    let low = 0;
    let high = positions.length;
    while (low < high) {
      const middle = (low + high) >>> 1; // an index, not a position
      if (positions[middle]! < position) low = middle + 1;
      else high = middle;
    }
    return positions[low] === position;
  }
}

/** What lanes had done when their states were written last: a crash takes none of it back. */
export class LanesDone {
  readonly #lanes = new Map<number, { mark: number; intervals: readonly Interval[] }>();

  /** To be made in the same turn in which every changed lane state is written. */
  constructor(state: State) {
    for (const lane of state.lanes.values()) {
      this.#lanes.set(lane.id, { mark: lane.mark, intervals: lane.widestIntervals(intervalsMax) });
    }
  }

  /** Whether a lane still waits for the message that `read` stands at. One whose definition is lost may. @throws FieldError */
  waits(read: MessageReader): boolean {
    while (read.nextTaker()) {
      const lane = this.#lanes.get(read.taker.lane);
      if (lane === undefined) return true;
      const { position } = read;
      if (position > lane.mark && !lane.intervals.some(({ from, to }) => position >= from && position <= to))
        return true;
    }
    return false;
  }
}

/** The small records. */
export class StatementFilter {
  readonly #state: State;
  /** Nothing lies before the run: there is nothing that a release or removal in it would have to take back. */
  readonly #first: boolean;
  /** Queues with references in the run: the lowest ordinal in it, and the one after the highest. */
  readonly #queues = new Map<string, { first: number; next: number }>();

  constructor(state: State, first: boolean) {
    this.#state = state;
    this.#first = first;
  }

  keeps(type: number, from: ByteReader): boolean {
    try {
      return this.#keeps(type, from);
    } catch (error) {
      if (error instanceof FieldError) return false;
      throw error;
    }
  }

  /** Of a record with references of many messages, those that still hold. */
  references(from: ByteReader): { queue: string; count: number; batch: ReferenceBatch } {
    try {
      const { queue, batch } = readReferences(from);
      for (const { ordinal } of batch) this.#seen(queue, ordinal, ordinal + 1);
      const now = this.#state.queues.get(queue);
      const held = batch.filter(({ ordinal, position }) => now?.positionOf(ordinal) === position);
      return { queue, count: batch.length, batch: held };
    } catch (error) {
      if (error instanceof FieldError) return { queue: "", count: 0, batch: [] };
      throw error;
    }
  }

  /** Ordinals that were given out and are still not to be given out again. */
  *ordinals(): Generator<readonly [queue: string, next: number]> {
    for (const [name, { next }] of this.#queues) if (this.#state.queues.has(name)) yield [name, next];
  }

  #keeps(type: number, from: ByteReader): boolean {
    const { queues, retained, maps } = this.#state;
    switch (type) {
      case recordType.groupEnd:
      case recordType.segmentIndex:
      case recordType.checkpointMark:
      case recordType.merged:
      // The file begins with all definitions, as they are now.
      case recordType.uplink:
      case recordType.lane:
      case recordType.laneState:
      case recordType.rule:
        return false;
      case recordType.reference: {
        const [name, ordinal, position] = [from.text(), from.uvarint(), from.uvarint()];
        this.#seen(name, ordinal, ordinal + 1);
        return queues.get(name)?.positionOf(ordinal) === position;
      }
      case recordType.queue:
        this.#seen(from.text(), Number.POSITIVE_INFINITY, from.uvarint());
        return false; // said again at the end
      case recordType.release: {
        const [name, ordinal] = [from.text(), from.uvarint()];
        return (
          !this.#first && queues.has(name) && ordinal < (this.#queues.get(name)?.first ?? Number.POSITIVE_INFINITY)
        );
      }
      case recordType.dropQueue:
        this.#queues.delete(from.text());
        return !this.#first;
      case recordType.retain:
        return retained.get(from.text()) === from.uvarint();
      case recordType.unretain:
        return !this.#first && !retained.has(from.text());
      case recordType.put: {
        const now = maps.get(from.text())?.get(from.text());
        return now !== undefined && from.bytes().equals(now);
      }
      case recordType.delete:
        return !this.#first && maps.get(from.text())?.has(from.text()) !== true;
      default:
        return true; // of a kind that this does not know: better too much than too little
    }
  }

  #seen(name: string, first: number, next: number): void {
    const queue = this.#queues.get(name);
    if (queue === undefined) this.#queues.set(name, { first, next });
    else {
      queue.first = Math.min(queue.first, first);
      queue.next = Math.max(queue.next, next);
    }
  }
}
