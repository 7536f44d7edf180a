/**
 * What gives way when the store is full, so that drop-oldest keeps the newest instead of refusing it. Bytes that wait (`waitingBytes`) may be
 * three quarters of what the store may hold; the rest is for what is acknowledged and not freed yet, for checkpoints, and for what comes in
 * meanwhile. Beyond that, part by part (all that a lane has in one segment, without reading it), never what is in flight:
 *
 *   1. orphaned uplinks    2. drop-oldest lanes, the lowest priority first, over all uplinks, the oldest first within one
 *   3. drop-oldest sessions, the fattest first (the broker does it)
 *
 * A file goes only when nothing in it waits any more, and a few messages can pin many files. So there is an edge, well before the limit. Beyond it
 * publishers are not read (`crowded`) while there is hope: what is emptied is freed, then sparse segments are merged, both without delay; only when
 * there is nothing to merge, or it does not help, the segment that costs the least is emptied, whatever priorities are in it.
 */
import { cheapestSegment, mayDrop, nextPart, waitingBytes, waitingIn } from "./dropChoice.ts";
import type { Lane } from "./lane.ts";
import { dropPart } from "./laneDrop.ts";
import { Patience } from "./patience.ts";
import type { Segment } from "./segments.ts";
import type { State, UplinkAccount } from "./state.ts";

export interface GivingWayEnvironment {
  readonly state: State;
  readonly segmentBytes: number;
  readonly durablePosition: () => number;
  /** Of all files, and what will be written to them soon. Asked for each commit. */
  readonly usedBytes: () => number;
  /** Not on the disk yet. */
  readonly pendingBytes: () => number;
  /** What the files may hold, and beyond which `admit` refuses: see Space. */
  readonly room: () => { readonly capacity: number; readonly limit: number };
  /** A segment with nothing waiting is kept for want of checkpoints only: they are to be made now. */
  readonly hurry: () => void;
  /** Merging is to go on without delay, or no longer. @returns whether it may make room */
  readonly hurryMerging: (wanted: boolean) => boolean;
  /** A group is being written or synced. */
  readonly isWriting: () => boolean;
  /** Changes with whatever the disk has done. */
  readonly progress: () => number;
  readonly onDropped: (account: UplinkAccount, messages: number) => void;
  /** Asks whoever holds references to let go of so many bytes. @returns how many were */
  readonly askSessions: (bytes: number) => number;
  /** Somebody was told that it is crowded, and it is not any more. */
  readonly onRelieved: () => void;
  readonly monotonicMs: () => number;
}

const waitingShare = 0.75;
/** In one go, so that a limit that was lowered by far does not stop the event loop. */
const partsMax = 256;
/** Between the edge and the limit must fit what was read of publishers already, one message of each at least, and what sources bring. */
const marginShare = 1 / 8;
const marginMax = 64 * 1024 * 1024;

export class GivingWay {
  readonly #env: GivingWayEnvironment;
  readonly #patience = new Patience();
  /** All uplinks of the configuration are known, so the others are orphans. */
  #ready = false;
  #busy = false;
  #looking = false;
  /** Bytes used when it was last looked at, and whether there was hope of room. */
  #seenBytes = 0;
  #hope = false;
  #told = false;

  constructor(env: GivingWayEnvironment) {
    this.#env = env;
  }

  get ready(): boolean {
    return this.#ready;
  }

  begin(): void {
    this.#ready = true;
    this.look();
  }

  /**
   * There will be room, and what is left until then is for those who cannot wait. Or more waits for a sync than the margin holds: it would
   * become one segment, which could only be dropped as a whole. Cheap enough for every commit.
   */
  get crowded(): boolean {
    if (!this.#ready) return false;
    const { limit } = this.#env.room();
    const margin = this.#marginOf(limit);
    if (this.#env.pendingBytes() > margin) return true;
    const used = this.#env.usedBytes();
    if (used <= limit - margin) return false;
    const isNews = this.#isNews(used);
    if (isNews) this.lookSoon();
    const crowded = (isNews || this.#hope) && !this.#hasNoPatience;
    this.#told ||= crowded;
    return crowded;
  }

  /** Looks again once enough has changed; cheap enough for every sync. */
  glance(): void {
    const used = this.#env.usedBytes();
    const { limit } = this.#env.room();
    if (this.#isNews(used) || used < this.#seenBytes || used > limit - this.#marginOf(limit)) this.look();
  }

  /** Not at once, since whoever asks may be about to commit. */
  lookSoon(): void {
    if (this.#looking) return;
    this.#looking = true;
    setImmediate(() => {
      this.#looking = false;
      this.look();
    });
  }

  /** Gives way as far as needed. Commits of the sessions' owner happen inside. */
  look(): void {
    if (!this.#ready || this.#busy) return;
    this.#busy = true;
    try {
      const { usedBytes, room, monotonicMs } = this.#env;
      const used = usedBytes();
      this.#seenBytes = used;
      const { capacity, limit } = room();
      const edge = limit - this.#marginOf(limit);
      const target = this.#target(capacity, limit);
      if (used > target) this.#dropWaiting(target);
      this.#hope = this.#freeFiles(used, edge);
      if (used > edge && this.#hope) this.#patience.wait(monotonicMs(), used);
      else this.#patience.end();
    } finally {
      this.#busy = false;
    }
    if (!this.#told || this.crowded) return;
    this.#told = false;
    this.#env.onRelieved();
  }

  /** Bytes that may come to wait until something is dropped. */
  get roomBytes(): number {
    const { room, state } = this.#env;
    const { capacity, limit } = room();
    return Math.max(0, Math.floor(this.#target(capacity, limit) - waitingBytes(state)));
  }

  #target(capacity: number, limit: number): number {
    const edge = limit - this.#marginOf(limit);
    return Math.max(limit / 4, Math.min(waitingShare * capacity, edge - 2 * this.#env.segmentBytes));
  }

  #marginOf(limit: number): number {
    return Math.min(limit / 4, Math.max(this.#env.segmentBytes, Math.min(marginMax, limit * marginShare)));
  }

  #isNews(used: number): boolean {
    return used - this.#seenBytes >= this.#env.segmentBytes / 8;
  }

  get #hasNoPatience(): boolean {
    const { monotonicMs, progress, isWriting } = this.#env;
    return this.#patience.hasRunOut(monotonicMs(), progress(), isWriting());
  }

  #dropWaiting(target: number): void {
    const { state, durablePosition, askSessions } = this.#env;
    let waiting = waitingBytes(state);
    for (let parts = 0; waiting > target && parts < partsMax; parts += 1) {
      const next = nextPart(state, durablePosition());
      if (next === undefined) break;
      const before = waitingIn(next.segment);
      this.#drop(next.lane, next.segment);
      waiting -= before - waitingIn(next.segment);
    }
    if (waiting > target && nextPart(state, durablePosition()) === undefined) askSessions(waiting - target);
  }

  /** Files at the edge though little waits. @returns whether some will go */
  #freeFiles(used: number, edge: number): boolean {
    const { segmentBytes, hurry, hurryMerging, state } = this.#env;
    let freeable = 0;
    for (const segment of state.segments.list) if (this.#isFreeable(segment)) freeable += segment.fileBytes;
    const merging = hurryMerging(used - freeable > edge - 2 * segmentBytes) && !this.#hasNoPatience;
    let hope = merging;
    if (!merging && used - freeable > edge) {
      freeable += this.#emptyCheapest(used - freeable - edge);
      hope = used - freeable > edge && this.#askSessions();
    }
    const due = used > edge - 2 * segmentBytes ? 1 : 2 * segmentBytes;
    if (freeable >= due) hurry();
    return hope || freeable > 0 || (used > edge && this.#willBeDroppable());
  }

  /** @returns bytes of files that are free to go now */
  #emptyCheapest(bytes: number): number {
    const { state, durablePosition } = this.#env;
    let emptied = 0;
    for (let parts = 0; emptied < bytes && parts < partsMax; parts += 1) {
      const cheapest = cheapestSegment(state, durablePosition());
      if (cheapest === undefined) break;
      for (const id of [...cheapest.parts.keys()]) this.#drop(state.lanes.get(id)!, cheapest);
      if (cheapest.references > 0) break; // the sessions' turn
      emptied += cheapest.fileBytes;
    }
    return emptied;
  }

  #askSessions(): boolean {
    const { state, segmentBytes, askSessions } = this.#env;
    const { list, last } = state.segments;
    const isOfReferences = (segment: Segment): boolean =>
      segment.waiting === 0 && segment.references > 0 && segment !== last;
    return list.some(isOfReferences) && askSessions(segmentBytes) > 0;
  }

  /** Whether there are whole segments of which something may be dropped as soon as they are synced. */
  #willBeDroppable(): boolean {
    const { state, durablePosition } = this.#env;
    const { list, last } = state.segments;
    for (let at = list.length - 1; at >= 0 && list[at]!.end > durablePosition(); at -= 1) {
      if (list[at] === last) continue;
      for (const id of list[at]!.parts.keys()) if (mayDrop(state.uplink(state.lanes.get(id)!.uplink))) return true;
    }
    return false;
  }

  #isFreeable(segment: Segment): boolean {
    return !segment.pinned && segment !== this.#env.state.segments.last;
  }

  #drop(lane: Lane, segment: Segment): void {
    const { state, onDropped } = this.#env;
    onDropped(state.uplink(lane.uplink), dropPart(state, lane, segment).messages);
  }
}
