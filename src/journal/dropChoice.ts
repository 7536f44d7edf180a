/** Which part of which segment goes first when the store is full. */
import type { UplinkLimits } from "../base/contracts.ts";
import type { Lane } from "./lane.ts";
import { droppableOf, oldestDroppable } from "./laneDrop.ts";
import type { Segment } from "./segments.ts";
import type { State } from "./state.ts";

interface Part {
  readonly lane: Lane;
  readonly segment: Segment;
  readonly orphaned: boolean;
}

/** Orphaned, then by the lowest priority over all uplinks, then the oldest. */
export function nextPart(state: State, durablePosition: number): Part | undefined {
  let best: Part | undefined;
  for (const account of state.uplinks.values()) {
    if (!mayDrop(account)) continue;
    const orphaned = account.limits === undefined;
    if (best?.orphaned === true && !orphaned) continue;
    for (const lane of account.lanes) {
      const segment = oldestDroppable(state, lane, durablePosition);
      if (segment === undefined) continue;
      const first = { lane, segment, orphaned };
      if (best === undefined || goesBefore(first, best)) best = first;
    }
  }
  return best;
}

function goesBefore(one: Part, other: Part): boolean {
  if (one.orphaned !== other.orphaned) return one.orphaned;
  if (one.lane.priority !== other.lane.priority) return one.lane.priority < other.lane.priority;
  const [first, second] = [one, other].map(({ lane, segment }) => segment.parts.get(lane.id)!.first);
  return first! < second!;
}

/** The sealed segment with the least waiting for its size, if all of that may be dropped. */
export function cheapestSegment(state: State, durablePosition: number): Segment | undefined {
  let best: Segment | undefined;
  let leastShare = Number.POSITIVE_INFINITY;
  for (const segment of state.segments.list) {
    if (segment.waiting === 0 || segment === state.segments.last || segment.end > durablePosition) continue;
    const share = waitingIn(segment) / Math.max(1, segment.fileBytes) + (segment.references > 0 ? 1 : 0);
    if (share < leastShare && mayEmpty(state, segment)) {
      best = segment;
      leastShare = share;
    }
  }
  return best;
}

function mayEmpty(state: State, segment: Segment): boolean {
  for (const part of segment.parts.values()) {
    const lane = state.lanes.get(part.lane);
    if (lane === undefined || !mayDrop(state.uplink(lane.uplink))) return false;
    if (droppableOf(lane, segment).messages < part.waiting) return false; // something is in flight
  }
  return true;
}

/** Its limits say so, or nobody wants it any more. */
export const mayDrop = (account: { readonly limits: UplinkLimits | undefined }): boolean =>
  account.limits === undefined || account.limits.whenFull === "drop-oldest";

/** Of the records that wait in lanes; one that waits in several counts several times, but all of them never more than the segment. */
export const waitingIn = (segment: Segment): number => {
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
