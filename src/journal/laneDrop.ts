/**
 * Dropping from a lane without reading it: all that it has waiting in its oldest sealed segment, but for what is in flight. Works on orphaned
 * lanes too, which have no queue.
 */
import type { Lane } from "./lane.ts";
import type { Segment } from "./segments.ts";
import type { State } from "./state.ts";

export interface DroppedPart {
  readonly segment: Segment;
  readonly messages: number;
  readonly bytes: number;
}

/** What of a lane's part of a segment may be dropped: not what is in flight, and nothing where an earlier run's is that was not handed out yet. */
export function droppableOf(lane: Lane, segment: Segment): { messages: number; bytes: number } {
  const part = segment.parts.get(lane.id);
  if (part === undefined || part.last <= lane.cursor) return { messages: 0, bytes: 0 };
  if (lane.kept.size > 0 && lane.keepsWithin(part.first, part.last)) return { messages: 0, bytes: 0 };
  let { waiting: messages, bytes } = part;
  for (const entry of lane.flying()) {
    if (entry.position < segment.base || entry.position >= segment.end) continue;
    messages -= 1;
    bytes -= entry.bytes;
  }
  return { messages, bytes };
}

/** The oldest segment from which something of the lane may be dropped. The one being written to is left alone: it gives no room back. */
export function oldestDroppable(state: State, lane: Lane, durablePosition: number): Segment | undefined {
  if (lane.waiting <= lane.inFlight) return undefined;
  let from = lane.cursor + 1;
  for (;;) {
    const segment = state.segments.nextWith(lane.id, from);
    if (segment === undefined || segment === state.segments.last || segment.end > durablePosition) return undefined;
    if (droppableOf(lane, segment).messages > 0) return segment;
    from = segment.end; // all that is left of it here is in flight, or done
  }
}

/** Drops what may be dropped of a sealed, durable segment. What was read ahead is read again. */
export function dropPart(state: State, lane: Lane, segment: Segment): DroppedPart {
  const { messages, bytes } = droppableOf(lane, segment);
  const { first, last } = segment.parts.get(lane.id)!;
  const { fresh } = lane;
  lane.fold(); // what of the fresh stream was read ahead may be among it
  const again = lane.peek()?.position ?? lane.readAt;
  lane.forgetAhead();
  if (oldestDroppable(state, lane, segment.end) === segment && !lane.keepsWithin(0, last)) {
    lane.readAt = Math.max(again, segment.end);
    lane.passTo(last);
  } else {
    lane.readAt = again;
    lane.skip(Math.max(lane.cursor + 1, first), last);
  }
  state.untake(segment, lane, messages, bytes);
  // What it had taken is passed over in its turn; it goes on behind that, as long as there is a backlog before it.
  if (fresh !== undefined && lane.cursor < fresh.from - 1) lane.split(Math.max(fresh.from, fresh.cursor), fresh.cursor); // both are where a record begins
  return { segment, messages, bytes };
}

/** Drops all that a lane has waiting, durable or not, but for what is in flight. */
export function dropAll(state: State, lane: Lane): { messages: number; bytes: number } {
  let messages = 0;
  let bytes = 0;
  lane.fold();
  for (const segment of state.segments.list) {
    const some = droppableOf(lane, segment);
    if (some.messages === 0) continue;
    const { first, last } = segment.parts.get(lane.id)!;
    if (lane.keepsWithin(0, last)) lane.skip(Math.max(lane.cursor + 1, first), last);
    else lane.passTo(last);
    state.untake(segment, lane, some.messages, some.bytes);
    messages += some.messages;
    bytes += some.bytes;
  }
  lane.forgetAhead(); // `readAt` is behind all of it or among it, and the cursor tells what is done
  return { messages, bytes };
}
