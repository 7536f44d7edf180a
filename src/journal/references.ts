/**
 * A queue of references: ordinal, position, meta and size of each, in RAM, 24 bytes apiece, by rising ordinal. A released one leaves a hole
 * (position 0) until `compact`, so a queue whose oldest never goes does not grow with what passes it. The lists stay when it is emptied: made anew
 * with every few dozen messages, they lived just long enough to become garbage of the old generation.
 */
import type { ReferenceQueue } from "../base/contracts.ts";

export interface Reference {
  ordinal: number;
  position: number;
  meta: number;
  bytes: number;
}

export type ReferenceBatch = readonly Reference[];

/** Lists are cut when they are so much longer than twice what is in them. */
const slackMax = 128;

export class References {
  readonly name: string;
  /** What other stages see of it, once they have asked: one object, since they ask with each message. */
  view: ReferenceQueue | undefined;
  #ordinals: number[] = [];
  #positions: number[] = [];
  /** meta + 256 * bytes. */
  #sizes: number[] = [];
  /** How many entries the three lists hold: they may be longer. */
  #length = 0;
  /** Index before which there are only holes. */
  #head = 0;
  nextOrdinal = 1;
  /** It was dropped: another one may have its name. */
  ended = false;
  /** Ordinal from which on nothing of them is in the journal yet; 0: all are. See `Unwritten`. */
  unwrittenFrom = 0;
  size = 0;
  bytes = 0;
  /** The newest two groups that added something, and the ordinal each began with: the older ones are durable. */
  #newest = { group: 0, from: 0 };
  #before = { group: 0, from: 0 };
  #late = new Map<number, Reference>();
  /** Rises when entries move to other indexes. */
  #moves = 0;

  constructor(name: string) {
    this.name = name;
  }

  /** How many of the ordinals from one on are not among those that are yet to be written. */
  writtenOf(ordinal: number, count: number): number {
    return this.unwrittenFrom === 0 ? count : Math.max(0, Math.min(count, this.unwrittenFrom - ordinal));
  }

  /** For recovery: the next reference gets this ordinal, if that is not behind. */
  skipTo(ordinal: number): void {
    this.nextOrdinal = Math.max(this.nextOrdinal, ordinal);
  }

  add(position: number, meta: number, bytes: number, group: number): number {
    const ordinal = this.nextOrdinal;
    if (group !== this.#newest.group) {
      this.#before = this.#newest;
      this.#newest = { group, from: ordinal };
    }
    this.nextOrdinal += 1;
    this.#put(this.#length++, ordinal, position, meta + 256 * bytes);
    this.size += 1;
    this.bytes += bytes;
    return ordinal;
  }

  /** Takes the newest away, as if it had never been. */
  undoAdd(): void {
    this.#length -= 1;
    this.nextOrdinal = this.#ordinals[this.#length]!;
    if (this.#positions[this.#length] !== 0) this.#count(-1, this.#sizes[this.#length]!);
    this.#head = Math.min(this.#head, this.#length);
  }

  /** Position, 0 when that ordinal does not wait. */
  positionOf(ordinal: number): number {
    return this.#positions[this.#indexOf(ordinal)] ?? 0;
  }

  metaOf(ordinal: number): number {
    return (this.#sizes[this.#indexOf(ordinal)] ?? 0) % 256;
  }

  bytesOf(ordinal: number): number {
    return Math.floor((this.#sizes[this.#indexOf(ordinal)] ?? 0) / 256);
  }

  /** The group that this ordinal became durable with or will; 0 when that was long ago. */
  groupOf(ordinal: number): number {
    if (ordinal >= this.#newest.from) return this.#newest.group;
    return ordinal >= this.#before.from ? this.#before.group : 0;
  }

  /** @returns the position it held, 0 when it did not wait */
  release(ordinal: number): number {
    const late = this.#late.size > 0 ? this.#late.get(ordinal) : undefined;
    if (late !== undefined) {
      this.#late.delete(ordinal);
      this.#count(-1, late.meta + 256 * late.bytes);
      return late.position;
    }
    const index = this.#indexOf(ordinal);
    const position = this.#positions[index] ?? 0;
    if (position === 0) return 0;
    this.#positions[index] = 0;
    this.#count(-1, this.#sizes[index]!);
    while (this.#head < this.#length && this.#positions[this.#head] === 0) this.#head += 1;
    return position;
  }

  undoRelease(ordinal: number, position: number): void {
    const index = this.#indexOf(ordinal);
    this.#positions[index] = position;
    this.#count(1, this.#sizes[index]!);
    this.#head = Math.min(this.#head, index);
  }

  /** Gives the holes back once there are `min` entries and the greater part are holes. Not between a release and its undo. */
  compact(min: number): void {
    if (this.#length < min || this.size * 2 > this.#length) return;
    let kept = 0;
    for (let index = this.#head; index < this.#length; index += 1) {
      const position = this.#positions[index]!;
      if (position !== 0) this.#put(kept++, this.#ordinals[index]!, position, this.#sizes[index]!);
    }
    this.#head = 0;
    this.#length = kept;
    this.#moves += 1;
    if (this.#positions.length <= 2 * kept + slackMax) return;
    this.#ordinals = this.#ordinals.slice(0, kept);
    this.#positions = this.#positions.slice(0, kept);
    this.#sizes = this.#sizes.slice(0, kept);
  }

  /** The oldest ordinal above `after` that waits; 0 when there is none. */
  nextAfter(after: number): number {
    let index = after < (this.#ordinals[this.#head] ?? 0) ? this.#head : this.#lowerBound(after + 1);
    for (; index < this.#length; index += 1) if (this.#positions[index] !== 0) return this.#ordinals[index]!;
    return 0;
  }

  /** By rising ordinal. Who reads them may take many turns for it: each that waits all the while is among them, whatever goes and is compacted. */
  *positions(): Generator<number> {
    let moves = this.#moves;
    for (let index = this.#head; index < this.#length; index += 1) {
      const position = this.#positions[index]!;
      if (position === 0) continue;
      const ordinal = this.#ordinals[index]!;
      yield position;
      if (moves === this.#moves) continue;
      moves = this.#moves;
      index = this.#lowerBound(ordinal + 1) - 1;
    }
  }

  /** Calls for each that waits, by rising ordinal. `visit` may release what it is given. */
  forEach(visit: (position: number, ordinal: number) => void): void {
    for (let index = this.#head; index < this.#length; index += 1) {
      const position = this.#positions[index]!;
      if (position !== 0) visit(position, this.#ordinals[index]!);
    }
  }

  /** At most `count` that wait, with ordinals above `after` and below `before`. */
  batch(after: number, before: number, count: number): Reference[] {
    const batch: Reference[] = [];
    let index = after < (this.#ordinals[this.#head] ?? 0) ? this.#head : this.#lowerBound(after + 1);
    for (; index < this.#length && batch.length < count; index += 1) {
      const ordinal = this.#ordinals[index]!;
      if (ordinal >= before) break;
      const position = this.#positions[index]!;
      const size = this.#sizes[index]!;
      if (position !== 0) batch.push({ ordinal, position, meta: size % 256, bytes: Math.floor(size / 256) });
    }
    return batch;
  }

  /**
   * For recovery from damaged checkpoints: one that is said after others with higher ordinals. Until `settleLate` it can only be released.
   * @returns false when it waits already
   */
  addLate(ordinal: number, position: number, meta: number, bytes: number): boolean {
    if (this.positionOf(ordinal) > 0 || this.#late.has(ordinal)) return false;
    this.#late.set(ordinal, { ordinal, position, meta, bytes });
    this.size += 1;
    this.bytes += bytes;
    return true;
  }

  /** Puts what came late where it belongs. */
  settleLate(): void {
    if (this.#late.size === 0) return;
    const all = [...this.#late.values(), ...this.batch(0, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)];
    this.#late = new Map();
    all.sort((a, b) => a.ordinal - b.ordinal);
    this.#ordinals = all.map(({ ordinal }) => ordinal);
    this.#positions = all.map(({ position }) => position);
    this.#sizes = all.map(({ meta, bytes }) => meta + 256 * bytes);
    this.#head = 0;
    this.#length = all.length;
  }

  #put(index: number, ordinal: number, position: number, size: number): void {
    this.#ordinals[index] = ordinal;
    this.#positions[index] = position;
    this.#sizes[index] = size;
  }

  #indexOf(ordinal: number): number {
    if (this.#length === 0) return -1;
    const near = ordinal - this.#ordinals[0]!;
    if (near < this.#length && this.#ordinals[near] === ordinal) return near;
    const index = this.#lowerBound(ordinal);
    return index < this.#length && this.#ordinals[index] === ordinal ? index : -1;
  }

  #lowerBound(ordinal: number): number {
    let low = 0;
    let high = this.#length;
    while (low < high) {
      const middle = (low + high) >>> 1; // an index, not an ordinal
      if (this.#ordinals[middle]! < ordinal) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #count(sign: 1 | -1, size: number): void {
    this.size += sign;
    this.bytes += sign * Math.floor(size / 256);
  }
}
