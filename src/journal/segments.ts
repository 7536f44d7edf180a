/** The segment table: which positions lie in which file, and what still waits in each. Nothing here is per message. */
import { headerBytes, segmentName } from "./format.ts";
import type { PositionTable } from "./positionTable.ts";

/** What one lane has waiting in one segment. */
export interface LanePart {
  readonly lane: number;
  waiting: number;
  bytes: number;
  /** Positions of its oldest and newest record here, waiting or not. */
  first: number;
  last: number;
  firstAcceptedAtMs: number;
  lastAcceptedAtMs: number;
  /** Infinity when one of them has no ttl. */
  lastExpiresAtMs: number;
}

/** Of a segment that merging made: its positions have holes, so a table finds them. */
export interface MergedPlace {
  readonly generation: number;
  readonly lastNumber: number;
  readonly tableAt: number;
  readonly table: PositionTable;
  readonly kept: KeptBytes;
}

/** What the table cannot tell of a segment's live bytes; seen when it was merged, or tried. */
export interface KeptBytes {
  /** Bytes that are neither messages nor definitions and were still needed. */
  readonly statements: number;
  /** Mean size of a message that a reference or retained value points at. */
  readonly pinnedMean: number;
}

export const unknownKept: KeptBytes = { statements: 0, pinnedMean: 512 };

/** What a segment tells the table it is in. */
interface SegmentWatcher {
  grew(bytes: number): void;
  emptied(segment: Segment): void;
}

export class Segment {
  /** Of a merged one: the first that it replaces. */
  readonly number: number;
  readonly base: number;
  readonly firstGroup: number;
  readonly prevEnd: number;
  readonly seed: number;
  readonly merged: MergedPlace | undefined;
  /** Position after its last byte; for the newest it grows. */
  end: number;
  #fileBytes = 0;
  watcher: SegmentWatcher | undefined;
  readonly parts = new Map<number, LanePart>();
  /** Sum of `waiting` over the parts. */
  waiting = 0;
  /** References of queues and current retained values in it. */
  references = 0;
  /** Its file holds bytes at or beyond `end` that must never be read: the next segment, whose header says so, has to outlive it. */
  cut = false;
  /** Once nothing pins it: the group that must be durable before the file may go. 0: not asked for yet. */
  freeAfterGroup = 0;
  /** It is being merged, or was just made by a merge whose old files are not gone yet: it must not be freed. */
  held = false;
  /** Reads of its file that are going on. */
  readers = 0;
  kept = unknownKept;
  /** Offset of its index; 0: not known, -1: it has none that is of use. */
  indexAt = 0;

  /** No zeros are left behind its end, or none can be given back. */
  trimmed = false;
  /** Its file is being cut: not to be recycled meanwhile. */
  busy = false;
  /** Holds a record that got a segment of its own: of no use to others. */
  large = false;

  constructor(of: {
    number: number;
    base: number;
    firstGroup: number;
    prevEnd: number;
    seed: number;
    end?: number;
    merged?: MergedPlace | undefined;
  }) {
    this.number = of.number;
    this.base = of.base;
    this.firstGroup = of.firstGroup;
    this.prevEnd = of.prevEnd;
    this.seed = of.seed;
    this.end = of.end ?? of.base;
    this.merged = of.merged;
    if (of.merged === undefined) return;
    this.kept = of.merged.kept;
    this.indexAt = -1;
  }

  /** Of its file. */
  get name(): string {
    return segmentName(this.number, this.generation);
  }

  get generation(): number {
    return this.merged?.generation ?? 0;
  }

  /** Highest number that it stands for. */
  get lastNumber(): number {
    return this.merged?.lastNumber ?? this.number;
  }

  /** Where its records end in the file. */
  get recordsTo(): number {
    return this.merged?.tableAt ?? this.offsetOf(this.end);
  }

  /** Bytes of the file on disk; 0 until it is created. */
  get fileBytes(): number {
    return this.#fileBytes;
  }

  set fileBytes(bytes: number) {
    this.watcher?.grew(bytes - this.#fileBytes);
    this.#fileBytes = bytes;
  }

  /** Whether it is in the table still, neither freed nor merged. */
  get isCurrent(): boolean {
    return this.watcher !== undefined;
  }

  get pinned(): boolean {
    return this.waiting > 0 || this.references > 0;
  }

  /** Where in the file the first record at or after `position` begins; in a merged one, a record less than 8 KiB before it. */
  offsetOf(position: number): number {
    return this.merged?.table.offsetOf(position) ?? position - this.base + headerBytes;
  }

  /** A position that `offsetOf` takes back to `offset`. Not of a merged one. */
  positionOf(offset: number): number {
    return offset - headerBytes + this.base;
  }

  part(lane: number, position: number): LanePart {
    let part = this.parts.get(lane);
    if (part === undefined) {
      part = {
        lane,
        waiting: 0,
        bytes: 0,
        first: position,
        last: position,
        firstAcceptedAtMs: Number.POSITIVE_INFINITY,
        lastAcceptedAtMs: 0,
        lastExpiresAtMs: 0,
      };
      this.parts.set(lane, part);
    }
    return part;
  }

  /** One more message of the lane waits here. @returns position of its newest before that, 0 when there was none */
  add(lane: number, position: number, bytes: number, acceptedAtMs: number, expiresAtMs: number): number {
    const known = this.parts.get(lane);
    const part = known ?? this.part(lane, position);
    const before = known?.last ?? 0;
    part.waiting += 1;
    part.bytes += bytes;
    part.first = Math.min(part.first, position);
    part.last = Math.max(part.last, position);
    part.firstAcceptedAtMs = Math.min(part.firstAcceptedAtMs, acceptedAtMs);
    part.lastAcceptedAtMs = Math.max(part.lastAcceptedAtMs, acceptedAtMs);
    part.lastExpiresAtMs = Math.max(part.lastExpiresAtMs, expiresAtMs);
    this.waiting += 1;
    return before;
  }

  /** What waits in another waits here instead. */
  takeOver(from: { parts: Iterable<LanePart>; references: number }): void {
    for (const part of from.parts) {
      const known = this.part(part.lane, part.first);
      known.waiting += part.waiting;
      this.waiting += part.waiting;
      known.bytes += part.bytes;
      known.first = Math.min(known.first, part.first);
      known.last = Math.max(known.last, part.last);
      known.firstAcceptedAtMs = Math.min(known.firstAcceptedAtMs, part.firstAcceptedAtMs);
      known.lastAcceptedAtMs = Math.max(known.lastAcceptedAtMs, part.lastAcceptedAtMs);
      known.lastExpiresAtMs = Math.max(known.lastExpiresAtMs, part.lastExpiresAtMs);
    }
    this.references += from.references;
  }

  /** `count` messages of the lane, of so many bytes together, no longer wait here. */
  remove(lane: number, count: number, bytes: number): void {
    const part = this.parts.get(lane);
    if (part === undefined) return;
    part.waiting -= count;
    part.bytes -= bytes;
    this.waiting -= count;
    if (part.waiting === 0) this.parts.delete(lane);
    if (!this.pinned) this.watcher?.emptied(this);
  }

  /** A reference or retained value more, or one less. */
  pin(by: 1 | -1): void {
    this.references += by;
    this.freeAfterGroup = 0;
    if (!this.pinned) this.watcher?.emptied(this);
  }

  unpinAll(): void {
    this.references = 0;
    if (!this.pinned) this.watcher?.emptied(this);
  }
}

export class SegmentTable implements SegmentWatcher {
  readonly #list: Segment[] = [];
  /** Segments that were without a pin when last looked at: the only ones that freeing has to look at. */
  readonly idle = new Set<Segment>();
  #fileBytes = 0;

  /** By rising base. The last one is written to. */
  get list(): readonly Segment[] {
    return this.#list;
  }

  add(segment: Segment): void {
    this.#list.push(segment);
    this.#know(segment);
  }

  grew(bytes: number): void {
    this.#fileBytes += bytes;
  }

  emptied(segment: Segment): void {
    this.idle.add(segment);
  }

  get last(): Segment | undefined {
    return this.list.at(-1);
  }

  /** The segment that holds a position, or undefined when it is gone. */
  find(position: number): Segment | undefined {
    const { list } = this;
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >>> 1; // an index, not a position
      if (list[middle]!.base <= position) low = middle + 1;
      else high = middle;
    }
    // A roll may leave an empty segment of the same base behind the one that holds the bytes.
    for (let index = low - 1; index >= 0; index -= 1) {
      const segment = list[index]!;
      if (position < segment.end) return segment;
      if (segment.end > segment.base) return undefined;
    }
    return undefined;
  }

  /** The oldest segment with something of the lane waiting at or after `position`. */
  nextWith(lane: number, position: number): Segment | undefined {
    const list = this.#list;
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >>> 1; // an index, not a position
      if (list[middle]!.end <= position) low = middle + 1;
      else high = middle;
    }
    for (let index = low; index < list.length; index += 1) {
      const part = list[index]!.parts.get(lane);
      if (part !== undefined && part.waiting > 0 && part.last >= position) return list[index];
    }
    return undefined;
  }

  remove(segment: Segment): void {
    const at = this.#list.indexOf(segment);
    if (at < 0) return;
    this.#list.splice(at, 1);
    this.#forget(segment);
  }

  /** `merged` takes the place of these neighbours. */
  replace(run: readonly Segment[], merged: Segment): void {
    this.#list.splice(this.#list.indexOf(run[0]!), run.length, merged);
    for (const segment of run) this.#forget(segment);
    this.#know(merged);
  }

  #know(segment: Segment): void {
    this.idle.add(segment);
    this.#fileBytes += segment.fileBytes;
    segment.watcher = this;
  }

  #forget(segment: Segment): void {
    this.idle.delete(segment);
    this.#fileBytes -= segment.fileBytes;
    segment.watcher = undefined;
  }

  /** Of all files together. */
  get fileBytes(): number {
    return this.#fileBytes;
  }
}
