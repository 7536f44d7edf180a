/**
 * What gives way when the store is full, so that drop-oldest keeps the newest instead of refusing it. Bytes that wait (`waitingBytes`) may be
 * three quarters of what the store may hold; the rest is for what is acknowledged and not freed yet, for checkpoints, and for what comes in
 * meanwhile. Beyond that, part by part (all that a lane has in one segment, without reading it), never what is in flight:
 *
 *   1. orphaned uplinks    2. drop-oldest lanes, the lowest priority first, over all uplinks, the oldest first within one
 *   3. drop-oldest sessions, the fattest first (the broker does it)
 *
 * A file goes only when nothing in it waits any more. A few messages of a high priority can pin many files while little waits, until they are
 * merged; if the files themselves reach the limit before that, the segment that costs the least is emptied, whatever priorities are in it.
 */
import type { UplinkLimits } from "../base/contracts.ts";
import type { Lane } from "./lane.ts";
import { type DroppedPart, dropPart, droppableOf, oldestDroppable } from "./laneDrop.ts";
import type { Segment } from "./segments.ts";
import type { State, UplinkAccount } from "./state.ts";

export interface GivingWayEnvironment {
  readonly state: State;
  readonly segmentBytes: number;
  readonly durablePosition: () => number;
  /** Of all files, and what will be written to them soon. */
  readonly usedBytes: () => number;
  /** What the files may hold, and beyond which `admit` refuses: see Space. */
  readonly room: () => { readonly capacity: number; readonly limit: number };
  /** A segment with nothing waiting is kept for want of checkpoints only: they are to be made now. */
  readonly hurry: () => void;
  readonly onDropped: (account: UplinkAccount, messages: number) => void;
  /** Asks whoever holds references to let go of so many bytes. @returns how many were */
  readonly askSessions: (bytes: number) => number;
  readonly monotonicMs: () => number;
}

const waitingShare = 0.75;
/** In one go, so that a limit that was lowered by far does not stop the event loop. */
const partsMax = 256;
/** Publishers are held back no longer than this for files that do not go: then they are told. */
const patienceMs = 10_000;

export class GivingWay {
  readonly #env: GivingWayEnvironment;
  /** All uplinks of the configuration are known, so the others are orphans. */
  #ready = false;
  #busy = false;
  #crowdedSinceMs: number | undefined;
  #crowdedBytes = 0;
  /** Bytes used when it was last looked at. */
  #seenBytes = 0;

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

  /** Files are about to go, and before that hardly anything more fits: whoever can wait should. */
  get crowded(): boolean {
    const since = this.#crowdedSinceMs;
    return since !== undefined && this.#env.monotonicMs() - since < patienceMs;
  }

  /** Looks again once enough has changed; cheap enough for every sync. */
  glance(): void {
    const { usedBytes, segmentBytes } = this.#env;
    const grown = usedBytes() - this.#seenBytes;
    if (grown >= segmentBytes / 8 || grown < 0 || this.#crowdedSinceMs !== undefined) this.look();
  }

  /** Gives way as far as needed. Commits of the sessions' owner happen inside. */
  look(): void {
    if (!this.#ready || this.#busy) return;
    this.#busy = true;
    try {
      const used = this.#env.usedBytes();
      this.#seenBytes = used;
      const { capacity, limit } = this.#env.room();
      const target = Math.max(limit / 4, Math.min(waitingShare * capacity, limit - 2 * this.#env.segmentBytes));
      if (used > target) this.#dropWaiting(target);
      const freeable = this.#freeFiles(used, limit);
      this.#watch(used, limit, freeable);
    } finally {
      this.#busy = false;
    }
  }

  #dropWaiting(target: number): void {
    let waiting = waitingBytes(this.#env.state);
    for (let parts = 0; waiting > target && parts < partsMax; parts += 1) {
      const next = this.#nextPart();
      if (next === undefined) break;
      const before = waitingIn(next.segment);
      this.#drop(next.lane, next.segment);
      waiting -= before - waitingIn(next.segment);
    }
    if (waiting > target && this.#nextPart() === undefined) this.#env.askSessions(waiting - target);
  }

  /** Files at the limit though little waits. @returns bytes of files that go as soon as that is durable and checkpoints are made */
  #freeFiles(used: number, limit: number): number {
    const { segmentBytes, hurry, state, askSessions } = this.#env;
    let freeable = 0;
    for (const segment of state.segments.list) if (this.#isFreeable(segment)) freeable += segment.fileBytes;
    const over = (): boolean => used - freeable > limit - segmentBytes;
    for (let parts = 0; over() && parts < partsMax; parts += 1) {
      const cheapest = this.#cheapest();
      if (cheapest === undefined) break;
      for (const id of [...cheapest.parts.keys()]) this.#drop(state.lanes.get(id)!, cheapest);
      if (cheapest.references > 0) break; // the sessions' turn
      freeable += cheapest.fileBytes;
    }
    if (over() && state.segments.list.some((segment) => this.#isOfReferences(segment))) askSessions(segmentBytes);
    const due = used > limit - 2 * segmentBytes ? 1 : 2 * segmentBytes;
    if (freeable >= due) hurry();
    return freeable;
  }

  #watch(used: number, limit: number, freeable: number): void {
    if (freeable === 0 || used <= limit - this.#env.segmentBytes) {
      this.#crowdedSinceMs = undefined;
    } else if (this.#crowdedSinceMs === undefined || used < this.#crowdedBytes) {
      this.#crowdedSinceMs = this.#env.monotonicMs(); // or files went meanwhile
      this.#crowdedBytes = used;
    }
  }

  #isFreeable(segment: Segment): boolean {
    return !segment.pinned && segment !== this.#env.state.segments.last;
  }

  /** Nothing but references is left in it. */
  #isOfReferences(segment: Segment): boolean {
    return segment.waiting === 0 && segment.references > 0 && segment !== this.#env.state.segments.last;
  }

  #nextPart(): { lane: Lane; segment: Segment } | undefined {
    const { state, durablePosition } = this.#env;
    let best: { lane: Lane; segment: Segment; orphaned: boolean } | undefined;
    for (const account of state.uplinks.values()) {
      if (!mayDrop(account)) continue;
      const orphaned = account.limits === undefined;
      if (best?.orphaned === true && !orphaned) continue;
      for (const lane of account.lanes) {
        const segment = oldestDroppable(state, lane, durablePosition());
        if (segment === undefined) continue;
        const first = { lane, segment, orphaned };
        if (best === undefined || goesBefore(first, best)) best = first;
      }
    }
    return best;
  }

  /** The sealed segment with the least waiting for its size, if all of that may be dropped. */
  #cheapest(): Segment | undefined {
    const { state, durablePosition } = this.#env;
    let best: Segment | undefined;
    let leastShare = Number.POSITIVE_INFINITY;
    for (const segment of state.segments.list) {
      if (segment.waiting === 0 || segment === state.segments.last || segment.end > durablePosition()) continue;
      const share = waitingIn(segment) / Math.max(1, segment.fileBytes) + (segment.references > 0 ? 1 : 0);
      if (share < leastShare && this.#mayEmpty(segment)) {
        best = segment;
        leastShare = share;
      }
    }
    return best;
  }

  #mayEmpty(segment: Segment): boolean {
    const { state } = this.#env;
    for (const part of segment.parts.values()) {
      const lane = state.lanes.get(part.lane);
      if (lane === undefined || !mayDrop(state.uplink(lane.uplink))) return false;
      if (droppableOf(lane, segment).messages < part.waiting) return false; // something is in flight
    }
    return true;
  }

  #drop(lane: Lane, segment: Segment): DroppedPart {
    const { state, onDropped } = this.#env;
    const dropped = dropPart(state, lane, segment);
    onDropped(state.uplink(lane.uplink), dropped.messages);
    return dropped;
  }
}

/** Its limits say so, or nobody wants it any more. */
export const mayDrop = (account: { readonly limits: UplinkLimits | undefined }): boolean =>
  account.limits === undefined || account.limits.whenFull === "drop-oldest";

function goesBefore(
  one: { lane: Lane; segment: Segment; orphaned: boolean },
  other: { lane: Lane; segment: Segment; orphaned: boolean },
): boolean {
  if (one.orphaned !== other.orphaned) return one.orphaned;
  if (one.lane.priority !== other.lane.priority) return one.lane.priority < other.lane.priority;
  const [first, second] = [one, other].map(({ lane, segment }) => segment.parts.get(lane.id)!.first);
  return first! < second!;
}

/** Of the records that wait in lanes; one that waits in several counts several times, but all of them never more than the segment. */
const waitingIn = (segment: Segment): number => {
  let bytes = 0;
  for (const part of segment.parts.values()) bytes += part.bytes;
  return Math.min(bytes, segment.end - segment.base);
};

/**
 * Bytes that wait: in lanes, by segment, and in queues of references, which together count no more than what is left of the segments that have
 * any. So it is never more than the files hold, and one message that waits for a thousand sessions cannot look like a full store.
 */
export function waitingBytes(state: State): number {
  let inLanes = 0;
  let roomForReferences = 0;
  for (const segment of state.segments.list) {
    const bytes = waitingIn(segment);
    inLanes += bytes;
    if (segment.references > 0) roomForReferences += segment.end - segment.base - bytes;
  }
  let referenced = 0;
  for (const queue of state.queues.values()) referenced += queue.bytes;
  return inLanes + Math.min(referenced, roomForReferences);
}
