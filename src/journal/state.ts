/**
 * All the small state: what a checkpoint holds and replaying the journal rebuilds. Every change is one method, called alike by a commit and by
 * recovery, so the two cannot drift apart.
 */
import type { UplinkLimits } from "../base/contracts.ts";
import { type Interval, Lane } from "./lane.ts";
import { References } from "./references.ts";
import { type Segment, SegmentTable } from "./segments.ts";

export class UplinkAccount {
  readonly name: string;
  nextSeq = 1;
  messages = 0;
  bytes = 0;
  /** Undefined until the configuration names it: an uplink that was taken out keeps its lanes. */
  limits: UplinkLimits | undefined;
  readonly dropped: Record<string, number> = {};
  /** By priority, 9 first. */
  readonly lanes: Lane[] = [];

  constructor(name: string) {
    this.name = name;
  }
}

/** Records what is pinned between two positions while it is set: a merge must not leave it behind. */
export interface PinWatch {
  readonly from: number;
  readonly to: number;
  readonly pinned: Set<number>;
}

export class State {
  readonly segments = new SegmentTable();
  readonly uplinks = new Map<string, UplinkAccount>();
  readonly lanes = new Map<number, Lane>();
  readonly rules = new Map<number, { uplink: string; definition: string }>();
  readonly ruleIds = new Map<string, number>();
  readonly queues = new Map<string, References>();
  readonly retained = new Map<string, number>();
  readonly maps = new Map<string, Map<string, Uint8Array>>();
  nextLane = 1;
  nextRule = 1;
  referenceCount = 0;
  pinWatch: PinWatch | undefined;

  uplink(name: string): UplinkAccount {
    let account = this.uplinks.get(name);
    if (account === undefined) {
      account = new UplinkAccount(name);
      this.uplinks.set(name, account);
    }
    return account;
  }

  defineLane(id: number, uplink: string, priority: number): Lane {
    let lane = this.lanes.get(id);
    if (lane === undefined) {
      lane = new Lane(id, uplink, priority);
      this.lanes.set(id, lane);
      const { lanes } = this.uplink(uplink);
      lanes.push(lane);
      lanes.sort((a, b) => b.priority - a.priority);
      this.nextLane = Math.max(this.nextLane, id + 1);
    }
    return lane;
  }

  defineRule(id: number, uplink: string, definition: string): void {
    this.rules.set(id, { uplink, definition });
    this.ruleIds.set(ruleKey(uplink, definition), id);
    this.nextRule = Math.max(this.nextRule, id + 1);
  }

  /** A lane takes the message at `position`. */
  take(segment: Segment, lane: Lane, position: number, bytes: number, acceptedAtMs: number, expiresAtMs: number): void {
    segment.add(lane.id, position, bytes, acceptedAtMs, expiresAtMs);
    const account = this.uplink(lane.uplink);
    account.messages += 1;
    account.bytes += bytes;
    lane.waiting += 1;
    lane.bytes += bytes;
    lane.newest = Math.max(lane.newest, position);
  }

  /** `count` messages of a lane in one segment wait no longer. */
  untake(segment: Segment | undefined, lane: Lane, count: number, bytes: number): void {
    segment?.remove(lane.id, count, bytes);
    const account = this.uplink(lane.uplink);
    account.messages -= count;
    account.bytes -= bytes;
    lane.waiting -= count;
    lane.bytes -= bytes;
    lane.dirty = true;
  }

  laneState(id: number, mark: number, intervals: Interval[]): void {
    this.lanes.get(id)?.restore(mark, intervals);
  }

  reference(name: string, position: number, meta: number, bytes: number, group: number): number {
    this.pin(position, 1);
    this.referenceCount += 1;
    return this.queue(name).add(position, meta, bytes, group);
  }

  /** The queue of that name, made when new. */
  queue(name: string): References {
    let queue = this.queues.get(name);
    if (queue === undefined) {
      queue = new References(name);
      this.queues.set(name, queue);
    }
    return queue;
  }

  release(name: string, ordinal: number): number {
    const position = this.queues.get(name)?.release(ordinal) ?? 0;
    if (position > 0) {
      this.pin(position, -1);
      this.referenceCount -= 1;
    }
    return position;
  }

  dropQueue(name: string): References | undefined {
    const queue = this.queues.get(name);
    if (queue === undefined) return undefined;
    this.queues.delete(name);
    this.countQueue(queue, -1);
    return queue;
  }

  /** Adds or takes away all pins of a queue. */
  countQueue(queue: References, by: 1 | -1): void {
    for (const position of queue.positions()) this.pin(position, by);
    this.referenceCount += by * queue.size;
  }

  /** @returns the position of the value before, undefined when there was none */
  retain(topic: string, position: number): number | undefined {
    const before = this.unretain(topic);
    this.retained.set(topic, position);
    this.pin(position, 1);
    return before;
  }

  unretain(topic: string): number | undefined {
    const before = this.retained.get(topic);
    if (before === undefined) return undefined;
    this.retained.delete(topic);
    this.pin(before, -1);
    return before;
  }

  put(map: string, key: string, value: Uint8Array): Uint8Array | undefined {
    let entries = this.maps.get(map);
    if (entries === undefined) {
      entries = new Map();
      this.maps.set(map, entries);
    }
    const before = entries.get(key);
    entries.set(key, value);
    return before;
  }

  delete(map: string, key: string): Uint8Array | undefined {
    const entries = this.maps.get(map);
    const before = entries?.get(key);
    if (entries?.delete(key) && entries.size === 0) this.maps.delete(map);
    return before;
  }

  pin(position: number, by: 1 | -1): void {
    const watch = this.pinWatch;
    if (by > 0 && watch !== undefined && position < watch.to && position >= watch.from) watch.pinned.add(position);
    const segment = this.segments.find(position);
    if (segment === undefined) return;
    segment.references += by;
    segment.freeAfterGroup = 0;
  }

  /** Counts the pins of references and retained values anew, after the table itself changed. */
  recountPins(): void {
    for (const segment of this.segments.list) segment.references = 0;
    for (const queue of this.queues.values()) for (const position of queue.positions()) this.pin(position, 1);
    for (const position of this.retained.values()) this.pin(position, 1);
  }
}

export const ruleKey = (uplink: string, definition: string): string => `${uplink}\u0000${definition}`;
