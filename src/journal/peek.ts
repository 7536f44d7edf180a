/** A look at what an uplink sends next, without taking it. Works on lanes that no queue reads (orphaned) as well. */
import type { PeekedMessage } from "../base/contracts.ts";
import type { Entry, Lane } from "./lane.ts";
import type { LaneReader } from "./laneReader.ts";
import type { LaneStream } from "./laneStream.ts";
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
    for (const entry of lane.flying()) if (messages.length < count) messages.push(peeked(entry, true));
    for (const stream of [lane, lane.fresh]) {
      for (let at = stream?.aheadHead ?? 0; at < (stream?.ahead.length ?? 0) && messages.length < count; at += 1) {
        const entry = stream!.ahead[at]!;
        if (live(entry)) messages.push(peeked(entry, false));
      }
      if (env.reader.hasMore(lane)) break; // of its backlog something comes first that was not read
    }
    // Of a lower priority nothing goes before the rest of this lane.
    const known = lane.inFlight + lane.aheadCount + (lane.fresh?.aheadCount ?? 0);
    if (messages.length >= count || lane.waiting > known) break;
  }
  return { messages, more: account.messages > messages.length };
}

/** Reads ahead until there is enough, or no more fits. */
async function fillTo(env: PeekEnvironment, lane: Lane, count: number): Promise<void> {
  await fillStream(env, lane, count - lane.inFlight);
  if (lane.fresh !== undefined) await fillStream(env, lane.fresh, count - lane.inFlight - lane.aheadCount);
}

async function fillStream({ reader, queue }: PeekEnvironment, stream: LaneStream, count: number): Promise<void> {
  while (stream.filling) await stream.filled;
  if (stream !== stream.lane && stream !== stream.lane.fresh) return; // the two became one meanwhile
  if (stream.aheadCount >= count || !reader.hasMore(stream)) return;
  await readAhead(reader, stream);
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
