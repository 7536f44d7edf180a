/** After the replay: what waits in each segment, by the lanes' final states. */
import { FieldError } from "./bytes.ts";
import { recordHeaderBytes, recordType } from "./format.ts";
import type { Interval, Lane } from "./lane.ts";
import { MessageReader } from "./messageRecord.ts";
import type { LanePart, Segment } from "./segments.ts";
import type { State } from "./state.ts";
import type { RecordWalker } from "./walk.ts";

/** What each lane had done when the segments' counts were taken. */
export type Counted = ReadonlyMap<number, { readonly cursor: number; readonly skips: readonly Interval[] }>;

export const countedBy = (state: State): Counted =>
  new Map([...state.lanes.values()].map(({ id, cursor, skips }) => [id, { cursor, skips: [...skips] }]));

/** Calls for each record of a segment. */
export type VisitSegment = (segment: Segment, visit: (walker: RecordWalker) => void) => Promise<unknown>;

/**
 * Takes out of the parts what the lanes' states say is done. A segment is counted anew only where a lane has done more than it had when the
 * counts were taken: in a drain that is one segment a lane, and none after an outage.
 */
export async function settleMarks(state: State, counted: Counted, visitSegment: VisitSegment): Promise<void> {
  for (const segment of state.segments.list) {
    const recount = new Set<number>();
    for (const part of [...segment.parts.values()]) {
      const lane = state.lanes.get(part.lane);
      if (lane === undefined || part.last <= lane.cursor) segment.parts.delete(part.lane);
      else if (hasMoved(lane, counted, part)) recount.add(part.lane);
    }
    if (recount.size > 0) await countAnew(state, segment, recount, visitSegment);
    segment.waiting = 0;
    for (const part of segment.parts.values()) {
      segment.waiting += part.waiting;
      const lane = state.lanes.get(part.lane)!;
      const account = state.uplink(lane.uplink);
      lane.waiting += part.waiting;
      lane.bytes += part.bytes;
      lane.newest = Math.max(lane.newest, part.last);
      account.messages += part.waiting;
      account.bytes += part.bytes;
    }
  }
}

/** Whether something of the part may have been done since it was counted. */
function hasMoved(lane: Lane, counted: Counted, { first, last }: LanePart): boolean {
  const before = counted.get(lane.id) ?? { cursor: 0, skips: [] };
  if (lane.cursor > before.cursor && first <= lane.cursor && last > before.cursor) return true;
  const known = (skip: Interval): boolean => before.skips.some(({ from, to }) => from <= skip.from && to >= skip.to);
  return lane.skips.some((skip) => skip.from <= last && skip.to >= first && !known(skip));
}

async function countAnew(
  state: State,
  segment: Segment,
  lanes: ReadonlySet<number>,
  visitSegment: VisitSegment,
): Promise<void> {
  for (const lane of lanes) segment.parts.delete(lane);
  const message = new MessageReader();
  await visitSegment(segment, (walker) => {
    if (walker.type !== recordType.message) return;
    try {
      message.start(walker.buffer, walker.at + recordHeaderBytes, walker.next, walker.flags);
      while (message.nextTaker()) {
        const { lane: id, expiresAtMs } = message.taker;
        if (!lanes.has(id) || state.lanes.get(id)!.isDone(message.position)) continue;
        segment.add(id, message.position, walker.length, message.acceptedAtMs, expiresAtMs);
      }
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
    }
  });
}
