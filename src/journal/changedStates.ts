/** Which lanes and uplinks changed since they were last written. */
import { type RecordSink, writeLaneState, writeUplink } from "./records.ts";
import type { State } from "./state.ts";

/** What was dropped is counted in the same group as the marks that say so, so that a crash loses or keeps both. @returns whether there was any */
export function writeChangedStates(sink: RecordSink, state: State): boolean {
  let any = false;
  for (const account of state.uplinks.values()) {
    if (!account.dirty) continue;
    account.dirty = false;
    writeUplink(sink, account);
    any = true;
  }
  for (const lane of state.lanes.values()) {
    if (!lane.dirty) continue;
    lane.dirty = false;
    writeLaneState(sink, lane);
    any = true;
  }
  return any;
}
