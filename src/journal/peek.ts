/** A look at what an uplink sends next, without taking it. Works on lanes that no queue reads (orphaned) as well. */
import type { PeekedMessage } from "../base/contracts.ts";
import type { Entry, Lane } from "./lane.ts";
import type { LaneReader } from "./laneReader.ts";
import type { State } from "./state.ts";
import { type JournalQueue, readAhead } from "./uplinkQueue.ts";

export interface PeekEnvironment {
  readonly state: State;
  readonly reader: LaneReader;
  readonly storeMs: () => number;
  /** Of the uplink; undefined when it is not configured. */
  readonly queue: JournalQueue | undefined;
}

/** By priority, then age; of each lane what is in flight first. Undefined: no uplink of that name was ever there. */
export async function peekUplink(
  env: PeekEnvironment,
  name: string,
  count: number,
): Promise<{ messages: PeekedMessage[]; more: boolean } | undefined> {
  const account = env.state.uplinks.get(name);
  if (account === undefined) return undefined;
  const messages: PeekedMessage[] = [];
  for (const lane of account.lanes) {
    await fillTo(env, lane, count - messages.length);
    const nowMs = env.storeMs();
    const maxAgeMs = account.limits?.maxAgeMs ?? Number.POSITIVE_INFINITY;
    const live = (entry: Entry): boolean => entry.expiresAtMs > nowMs && entry.acceptedAtMs + maxAgeMs > nowMs;
    for (const entry of lane.pending.values()) if (messages.length < count) messages.push(peeked(entry, true));
    for (let at = lane.aheadHead; at < lane.ahead.length && messages.length < count; at += 1) {
      const entry = lane.ahead[at]!;
      if (live(entry)) messages.push(peeked(entry, false));
    }
    // Of a lower priority nothing goes before the rest of this lane.
    if (messages.length >= count || lane.waiting > lane.pending.size + lane.aheadCount) break;
  }
  return { messages, more: account.messages > messages.length };
}

/** Reads ahead until there is enough, or no more fits. */
async function fillTo({ reader, queue }: PeekEnvironment, lane: Lane, count: number): Promise<void> {
  while (lane.filling) await lane.filled;
  if (lane.pending.size + lane.aheadCount >= count || !reader.hasMore(lane)) return;
  await readAhead(reader, lane);
  queue?.wake(); // it may have found the lane being filled, and waits to be told
}

/** A copy: the entry is the queue's own, by which it knows what it handed out. */
const peeked = (entry: Entry, inFlight: boolean): PeekedMessage => ({
  position: entry.position,
  lane: entry.lane,
  priority: entry.priority,
  seq: entry.seq,
  rule: entry.rule,
  acceptedAtMs: entry.acceptedAtMs,
  wallMs: entry.wallMs,
  message: entry.message,
  inFlight,
});
