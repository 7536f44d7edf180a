/**
 * All the small state: what a checkpoint holds and replaying the journal rebuilds. Every change is one method, called alike by a commit and by
 * recovery, so the two cannot drift apart.
 */
import type { UplinkLimits } from "../base/contracts.ts";
import { type Interval, Lane, type LaneAccount } from "./lane.ts";
import { References } from "./references.ts";
import { IndexCollector } from "./segmentIndex.ts";
import { type Segment, SegmentTable } from "./segments.ts";
import { Unwritten } from "./unwritten.ts";

export class UplinkAccount implements LaneAccount {
  readonly name: string;
  nextSeq = 1;
  messages = 0;
  bytes = 0;
  taken = 0;
  takenBytes = 0;
  /** Undefined until the configuration names it: an uplink that was taken out keeps its lanes. */
  limits: UplinkLimits | undefined;
  readonly dropped: Record<string, number> = {};
  /** `dropped` changed since it was last written. */
  dirty = false;
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
  /** Of the segment that is written to. */
  readonly index = new IndexCollector();
  readonly uplinks = new Map<string, UplinkAccount>();
  readonly lanes = new Map<number, Lane>();
  readonly rules = new Map<number, { uplink: string; definition: string }>();
  readonly ruleIds = new Map<string, number>();
  readonly queues = new Map<string, References>();
  readonly unwritten = new Unwritten();
  readonly retained = new Map<string, number>();
  readonly maps = new Map<string, Map<string, Uint8Array>>();
  /** While recovery reads, pins are not counted: `recountPins` does it once for all. */
  counting = true;
  /** Recovery goes by damaged checkpoints: what is missing below a queue's next ordinal may still be said. */
  patching = false;
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
      const account = this.uplink(uplink);
      lane = new Lane(id, account, priority);
      this.lanes.set(id, lane);
      const { lanes } = account;
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

  /** A lane takes the message at `position`. @returns what `Segment.add` says */
  take(
    segment: Segment,
    lane: Lane,
    position: number,
    bytes: number,
    acceptedAtMs: number,
    expiresAtMs: number,
  ): number {
    const before = segment.add(lane.id, position, bytes, acceptedAtMs, expiresAtMs);
    const { account } = lane;
    account.messages += 1;
    account.bytes += bytes;
    account.taken += 1;
    account.takenBytes += bytes;
    lane.waiting += 1;
    lane.bytes += bytes;
    lane.newest = Math.max(lane.newest, position);
    return before;
  }

  /** `count` messages of a lane in one segment wait no longer. */
  untake(segment: Segment | undefined, lane: Lane, count: number, bytes: number): void {
    segment?.remove(lane.id, count, bytes);
    const { account } = lane;
    account.messages -= count;
    account.bytes -= bytes;
    lane.waiting -= count;
    lane.bytes -= bytes;
    lane.dirty = true;
  }

  /**
   * What a lane has done only grows, and each statement may have forgotten intervals or be older than what a checkpoint said (a new segment
   * begins with the states of when it was made): so all of them hold, together.
   */
  laneState(id: number, mark: number, intervals: readonly Interval[]): void {
    const lane = this.lanes.get(id);
    if (lane === undefined) return;
    const top = Math.max(mark, lane.cursor);
    const all = [...lane.skips, ...intervals].filter(({ to }) => to > top).sort((a, b) => a.from - b.from);
    const merged: Interval[] = [];
    for (const { from, to } of all) {
      const last = merged.at(-1);
      if (last !== undefined && from <= last.to)
        merged[merged.length - 1] = { from: last.from, to: Math.max(last.to, to) };
      else merged.push({ from, to });
    }
    lane.restore(top, merged);
  }

  /** For recovery. What is known already (a statement said twice) is passed over: ordinals only rise. */
  restoreReference(queue: References, ordinal: number, position: number, meta: number, bytes: number): void {
    if (ordinal < queue.nextOrdinal) {
      if (this.patching) queue.addLate(ordinal, position, meta, bytes);
      return;
    }
    queue.skipTo(ordinal);
    queue.add(position, meta, bytes, 0);
  }

  reference(queue: References, position: number, meta: number, bytes: number, group: number): number {
    this.pin(position, 1);
    this.referenceCount += 1;
    this.unwritten.note(queue);
    return queue.add(position, meta, bytes, group);
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

  release(name: string, ordinal: number, count: number): void {
    const queue = this.queues.get(name);
    if (queue === undefined) return;
    const end = Math.min(ordinal + count, queue.nextOrdinal);
    for (let at = ordinal; at < end; at += 1) this.releaseFrom(queue, at);
  }

  /** @returns the message's position, 0 when that ordinal does not wait */
  releaseFrom(queue: References, ordinal: number): number {
    const position = queue.release(ordinal);
    if (position > 0) {
      this.pin(position, -1);
      this.referenceCount -= 1;
    }
    return position;
  }

  dropQueue(name: string): References | undefined {
    const queue = this.queues.get(name);
    if (queue === undefined) return undefined;
    this.forget(queue);
    this.countQueue(queue, -1);
    return queue;
  }

  /** A queue that had just been made is no more. */
  forget(queue: References): void {
    this.queues.delete(queue.name);
    queue.ended = true;
  }

  /** A queue that was dropped is there again. */
  restore(queue: References): void {
    this.queues.set(queue.name, queue);
    queue.ended = false;
    this.countQueue(queue, 1);
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
    if (this.counting) this.segments.find(position)?.pin(by);
  }

  /**
   * Counts the pins of references and retained values anew, after the table itself changed.
   * @param onLost called with what points into no segment at all; it is released
   */
  recountPins(onLost?: (name: string, position: number, ordinal: number) => void): void {
    this.counting = false;
    for (const segment of this.segments.list) segment.unpinAll();
    let segment: Segment | undefined; // neighbours mostly lie in the same one
    const pin = (position: number): boolean => {
      if (segment === undefined || position < segment.base || position >= segment.end) {
        segment = this.segments.find(position);
      }
      segment?.pin(1);
      return segment !== undefined;
    };
    this.referenceCount = 0;
    for (const queue of this.queues.values()) {
      queue.forEach((position, ordinal) => {
        if (pin(position) || onLost === undefined) return;
        onLost(queue.name, position, ordinal);
        queue.release(ordinal);
      });
      if (onLost !== undefined) queue.compact(0);
      this.referenceCount += queue.size;
    }
    for (const [topic, position] of this.retained) {
      if (pin(position) || onLost === undefined) continue;
      this.retained.delete(topic);
      onLost(topic, position, 0);
    }
    this.counting = true;
  }
}

export const ruleKey = (uplink: string, definition: string): string => `${uplink}\u0000${definition}`;
