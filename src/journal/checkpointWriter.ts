/**
 * A checkpoint: all the small state, so that a start needs only the journal after its mark. Written to one side, synced, renamed, the folder synced;
 * the last two are kept, so that one may rot.
 *
 *   header (base: mark, first group: the group g before it) | definitions, segments: as of the mark | references, retained, maps: see below | FOOTER
 *
 * It is fuzzy: what follows the segments is read in slices between which commits go on, each item as it is when its turn comes, at or after the
 * mark. Everything after the mark is replayed over it, which comes out right whatever was seen:
 *
 *   RETAIN UNRETAIN PUT DELETE   absolute: the last one after the mark wins over what was seen; where there is none, nothing changed
 *   REFERENCE(S) k               below the QUEUE number that was seen: it was seen, or had been released; else it is added
 *   RELEASE k                    seen: it goes now; not seen: it had gone
 *   DROP_QUEUE                   forgets all that was seen under the name; all of a queue made anew comes after it, so after the mark
 *   MESSAGE, LANE_STATE          the segments' counts and the lanes' states are of one moment, the mark, in one turn; states only ever grow
 *   UPLINK, LANE, RULE           the highest number counts, definitions never change
 *
 * What was seen may not be durable: a release whose commit a power cut took back would lose a message. So a mark is committed after the last slice,
 * and the footer is written only when that is durable. It also says so: `proven` group and position need no other proof.
 */
import type { OpenFile } from "../base/files.ts";
import { writeDefinitions } from "./checkpoint.ts";
import { CheckpointSink } from "./checkpointSink.ts";
import { checkpointMagic, encodeHeader, recordType, seedOf } from "./format.ts";
import { writeNamed, writePut, writeReferences, writeSegment } from "./records.ts";
import type { State } from "./state.ts";

export interface CheckpointPlace {
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly number: number;
  readonly mark: number;
  readonly group: number;
  readonly storeMs: number;
  readonly wallMs: number;
}

/** What only the end knows. */
export interface CheckpointEnd {
  readonly clean: boolean;
  readonly nextSegment: number;
  /** Durable are this group and all bytes below this position. */
  readonly provenGroup: number;
  readonly provenEnd: number;
}

/** One checkpoint in the making. The constructor takes what is of one moment; `slices` the rest. */
export class CheckpointWriter {
  readonly #state: State;
  readonly #place: CheckpointPlace;
  readonly #sink: CheckpointSink;
  #begun = false;

  constructor(state: State, place: CheckpointPlace, file: () => OpenFile, pieceBytes: number) {
    this.#state = state;
    this.#place = place;
    const { storeId, number } = place;
    this.#sink = new CheckpointSink(file, seedOf(checkpointMagic, storeId, number), pieceBytes);
    writeDefinitions(this.#sink, state, Number.POSITIVE_INFINITY);
    for (const segment of state.segments.list) writeSegment(this.#sink, segment);
  }

  get bytes(): number {
    return this.#sink.bytes;
  }

  /** Whether `flush` is due before more is encoded. */
  get isFull(): boolean {
    return this.#sink.isFull;
  }

  /** Each step encodes at most `items`; the state may change between two. */
  *slices(items: number): Generator<void> {
    const { queues, retained, maps } = this.#state;
    const sink = this.#sink;
    let left = items;
    for (const queue of queues.values()) {
      const before = queue.unwrittenFrom || queue.nextOrdinal; // what comes later is in the journal after the mark
      for (let after = 0; ; ) {
        const batch = queue.batch(after, before, items);
        if (batch.length === 0) break;
        writeReferences(sink, queue.name, batch);
        after = batch.at(-1)!.ordinal;
        yield;
      }
      writeNamed(sink, recordType.queue, queue.name, before);
      if (--left > 0) continue;
      yield;
      left = items;
    }
    for (const [topic, position] of retained) {
      writeNamed(sink, recordType.retain, topic, position);
      if (--left > 0) continue;
      yield;
      left = items;
    }
    for (const [map, entries] of maps) {
      for (const [key, value] of entries) {
        writePut(sink, map, key, value);
        if (--left > 0) continue;
        yield;
        left = items;
      }
    }
  }

  /** Writes what was encoded. @throws errno errors */
  async flush(): Promise<void> {
    await this.#sink.flush(this.#begun ? undefined : this.#header());
    this.#begun = true;
  }

  /** The footer: with it the file is whole. @throws errno errors */
  async finish({ clean, nextSegment, provenGroup, provenEnd }: CheckpointEnd): Promise<void> {
    const { storeMs, wallMs } = this.#place;
    const to = this.#sink.begin(recordType.footer, 0, 80);
    const values = [this.#sink.records, storeMs, wallMs, clean ? 1 : 0, nextSegment, provenGroup, provenEnd];
    for (const value of values) to.uvarint(value);
    this.#sink.finish();
    await this.flush();
  }

  #header(): Buffer {
    const { storeId, epoch, number, mark, group, wallMs } = this.#place;
    return encodeHeader(checkpointMagic, { storeId, epoch, number, base: mark, firstGroup: group, prevEnd: 0, wallMs });
  }
}
