/**
 * The queue of one uplink over its lanes: strict priority, age within one, expiry exact at reading, drop-oldest by moving cursors. While backlog and
 * fresh readings share the link, a lane with a backlog is read in two places (`Lane.split`).
 */
import type { DroppedTopic, QueuedMessage, UplinkLimits, UplinkQueue, UplinkQueueStats } from "../base/contracts.ts";
import type { InFlight, Recalled } from "../base/inFlight.ts";
import type { Drops } from "./drops.ts";
import type { Entry, Lane } from "./lane.ts";
import type { LaneReader } from "./laneReader.ts";
import type { LaneStream } from "./laneStream.ts";
import { LinkShare } from "./linkShare.ts";
import type { State, UplinkAccount } from "./state.ts";

export interface QueueEnvironment {
  readonly state: State;
  readonly reader: LaneReader;
  readonly storeMs: () => number;
  readonly durablePosition: () => number;
  /** Makes the lane of a priority durable and returns it. */
  readonly makeLane: (uplink: string, priority: number) => Lane;
  /** Lane states changed: they are to be written soon. */
  readonly onDirty: () => void;
  readonly onDropped: (uplink: string, reason: string, count: number) => void;
  readonly drops: () => Drops;
}

/** Fills the read-ahead of a stream that is not being filled. Never rejects. */
export function readAhead(reader: LaneReader, stream: LaneStream): Promise<void> {
  stream.filling = true;
  stream.filled = reader.fill(stream).finally(() => {
    stream.filling = false;
  });
  return stream.filled;
}

export class JournalQueue implements UplinkQueue {
  readonly name: string;
  readonly account: UplinkAccount;
  readonly isNew: boolean;
  readonly #env: QueueEnvironment;
  #limits: UplinkLimits;
  #listener: (() => void) | undefined;
  #armed = false;
  #share: LinkShare | undefined;
  /** Kept ones that had to be passed before they were asked for: in flight already, and handed out first. */
  #passed: Entry[] = [];
  #rewinds = 0;

  constructor(account: UplinkAccount, limits: UplinkLimits, env: QueueEnvironment) {
    this.name = account.name;
    this.account = account;
    this.isNew = account.lanes.length === 0;
    this.#env = env;
    this.#limits = limits;
    account.limits = limits;
  }

  setLimits(limits: UplinkLimits): void {
    this.#limits = limits;
    this.account.limits = limits;
    this.trim();
  }

  lane(priority: number): number {
    const known = this.account.lanes.find((lane) => lane.priority === priority);
    return (known ?? this.#env.makeLane(this.name, priority)).id;
  }

  shareLink(head: number, liveShare: number): void {
    this.#share = liveShare > 0 ? new LinkShare(head, liveShare) : undefined;
    for (const lane of this.account.lanes)
      if (liveShare > 0) lane.split(head);
      else lane.fold();
    this.wake();
  }

  next(passing?: { has(lane: number): boolean }): QueuedMessage | undefined {
    if (this.#passed.length > 0) {
      const at = this.#passed.findIndex((entry) => passing?.has(entry.lane) !== true);
      if (at >= 0) return this.#passed.splice(at, 1)[0];
    }
    const stream = this.#share === undefined ? this.#strict(passing) : this.#shared(this.#share, passing);
    const entry = stream?.take();
    if (stream === undefined || entry === undefined) {
      this.#armed = true;
      return undefined;
    }
    stream.out.set(entry.position, entry);
    if (stream.lane.kept.size > 0) forgetPassed(stream.lane);
    if (!stream.filling && this.#env.reader.runsLow(stream)) this.#fill(stream);
    return entry;
  }

  /** The lane that goes first. */
  #strict(passing?: { has(lane: number): boolean }): LaneStream | undefined {
    for (const lane of this.account.lanes) {
      if (passing?.has(lane.id)) continue;
      if (this.#head(lane) !== undefined) return lane;
      if (lane.filling) return undefined; // strict order: what is being read here goes before any lower priority
    }
    return undefined;
  }

  /** The same of the backlog and of what is fresh, each by priority; then one of the two. */
  #shared(share: LinkShare, passing?: { has(lane: number): boolean }): LaneStream | undefined {
    if (!this.account.lanes.some((lane) => lane.fresh !== undefined)) {
      this.#share = undefined; // the backlog is through, or too much of it lies here and there
      return this.#strict(passing);
    }
    let backlog: LaneStream | undefined;
    let fresh: LaneStream | undefined;
    // Set when a lane is being read: nothing of a lower priority goes before that.
    let backlogWaits = false;
    let freshWaits = false;
    for (const lane of this.account.lanes) {
      if (passing?.has(lane.id)) continue;
      if (lane.fresh === undefined || (backlog === undefined && !backlogWaits)) {
        const entry = this.#head(lane);
        if (entry === undefined) {
          backlogWaits ||= lane.filling;
          freshWaits ||= lane.filling && lane.fresh === undefined;
        } else if (entry.position >= share.head) fresh ??= freshWaits ? undefined : lane;
        else backlog ??= backlogWaits ? undefined : lane;
      }
      const second = lane.fresh;
      if (second !== undefined && fresh === undefined && !freshWaits) {
        if (this.#head(second) !== undefined) fresh = second;
        else freshWaits = second.filling;
      }
      if (backlog !== undefined && fresh !== undefined) break;
    }
    if (backlog === undefined || fresh === undefined) return backlog ?? fresh;
    return share.chooseFresh(backlog.peek()!, fresh.peek()!) ? fresh : backlog;
  }

  onReadable(listener: () => void): void {
    this.#listener = listener;
  }

  settle(message: QueuedMessage, dropped?: "refused" | "expired" | "too-large" | "dead-letter"): void {
    const lane = this.#env.state.lanes.get(message.lane);
    const entry = lane?.inFlightAt(message.position);
    if (lane === undefined || entry !== message) return; // settled before, or rewound and waiting again
    lane.land(entry.position);
    this.#done(lane, entry);
    if (dropped !== undefined) this.#dropOne(dropped, entry);
  }

  rewind(inFlight: readonly InFlight[] = []): void {
    this.#rewinds += 1;
    this.#passed = [];
    for (const lane of this.account.lanes) lane.rewind();
    this.#share = undefined;
    this.keep(inFlight);
    this.wake();
  }

  keep(inFlight: readonly InFlight[]): void {
    for (const lane of this.account.lanes) lane.kept = new Set();
    for (const { lane: id, position } of [...inFlight].sort((a, b) => a.position - b.position)) {
      const lane = this.#env.state.lanes.get(id);
      // What is done is not waited for: it never comes.
      if (lane?.uplink === this.name && position <= lane.newest && !lane.isDone(position)) lane.kept.add(position);
    }
  }

  async recall(others: { readonly messages: number; readonly bytes: number }): Promise<Recalled> {
    const rewinds = this.#rewinds;
    const found: Entry[] = [];
    let { messages, bytes } = others;
    for (const lane of this.account.lanes) {
      while (lane.kept.size > 0 && messages > 0 && bytes > 0) {
        const entry = this.#head(lane);
        if (entry === undefined) {
          if (!lane.filling) break; // it cannot be read now, or is not there
          await lane.filled;
          if (rewinds !== this.#rewinds) return { found: [], ahead: new Set() };
          continue;
        }
        if (!lane.kept.has(entry.position)) {
          messages -= 1;
          bytes -= entry.bytes;
        }
        handOut(lane, entry);
        found.push(entry);
      }
    }
    found.push(...this.#passed.splice(0));
    const ahead = this.account.lanes.flatMap((lane) =>
      lane.blocked || lane.newest > lane.cursor ? [...lane.kept] : [],
    );
    return { found, ahead: new Set(ahead) };
  }

  stats(): UplinkQueueStats {
    let oldest = Number.POSITIVE_INFINITY;
    for (const lane of this.account.lanes) oldest = Math.min(oldest, this.#oldest(lane));
    const { messages, bytes, taken, takenBytes, dropped } = this.account;
    const oldestAcceptedAtMs = messages > 0 && Number.isFinite(oldest) ? oldest : undefined;
    const droppedByRule = this.#env.drops().byRule(this.name);
    return { messages, bytes, oldestAcceptedAtMs, taken, takenBytes, dropped: { ...dropped }, droppedByRule };
  }

  recentDrops(): DroppedTopic[] {
    return this.#env.drops().recent(this.name);
  }

  /** More became durable, or was read. */
  wake(): void {
    this.trim();
    if (!this.#armed) return;
    const next = this.#share === undefined ? this.#strict() : this.#shared(this.#share);
    if (next === undefined && this.#passed.length === 0) return;
    this.#armed = false;
    this.#listener?.();
  }

  /** Over its limit, the oldest of the lowest priority goes first; never what is in flight. */
  trim(): void {
    const { maxBytes, whenFull } = this.#limits;
    if (whenFull !== "drop-oldest") return;
    const { lanes } = this.account;
    for (let index = lanes.length - 1; index >= 0 && this.account.bytes > maxBytes; index -= 1) {
      if (!this.#trimLane(lanes[index]!, maxBytes)) return;
    }
  }

  /** False: what has to go next is not durable or not read yet, and nothing of a higher priority goes before it. */
  #trimLane(lane: Lane, maxBytes: number): boolean {
    let dropped = 0;
    while (this.account.bytes > maxBytes && lane.waiting > lane.inFlight) {
      if (this.#dropPart(lane, "full", (bytes) => bytes <= this.account.bytes - maxBytes)) continue;
      const entry = this.#head(lane);
      if (entry === undefined) break;
      if (lane.kept.has(entry.position)) {
        handOut(lane, entry);
        this.#passed.push(entry);
        continue;
      }
      lane.take();
      this.#done(lane, entry);
      this.#env.drops().one(this.name, "full", entry.message.topic, entry.rule);
      dropped += 1;
    }
    if (dropped > 0) this.#drop("full", dropped);
    return lane.waiting === lane.inFlight;
  }

  /** Drops what expired while nobody asked for it: whole parts of segments, and what is read ahead. */
  sweep(): void {
    const nowMs = this.#env.storeMs();
    for (const lane of this.account.lanes) {
      for (const stream of streamsOf(lane)) stream.blocked = false;
      const expired = (_: number, newestMs: number, expiresMs: number): boolean =>
        expiresMs <= nowMs || newestMs + this.#limits.maxAgeMs <= nowMs;
      while (lane.waiting > lane.inFlight && this.#dropPart(lane, "expired", expired));
      for (const stream of streamsOf(lane)) if (stream.aheadCount > 0) this.#head(stream);
    }
    this.wake();
  }

  /** The oldest message of the stream that can be handed out, if it is in RAM; starts reading when it is not. */
  #head(stream: LaneStream): Entry | undefined {
    const { reader, storeMs } = this.#env;
    for (;;) {
      const entry = stream.peek();
      if (entry === undefined) {
        if (stream.filling) return undefined;
        if (!reader.hasMore(stream)) {
          if (this.#mergesNow(stream)) continue;
          return undefined;
        }
        if (!reader.fillFromTail(stream)) {
          if (reader.hasMore(stream)) this.#fill(stream);
          else if (this.#mergesNow(stream)) continue;
          return undefined;
        }
        if (stream.peek() === undefined && !this.#mergesNow(stream)) return undefined;
        continue;
      }
      const nowMs = storeMs();
      const live = entry.expiresAtMs > nowMs && entry.acceptedAtMs + this.#limits.maxAgeMs > nowMs;
      const { kept } = stream.lane;
      if (live || (kept.size > 0 && kept.has(entry.position))) return entry; // once sent it does not expire [MQTT-4.3.3-7]
      stream.take();
      this.#done(stream.lane, entry);
      this.#dropOne("expired", entry);
    }
  }

  /** A lane whose backlog is at its end has one stream again. */
  #mergesNow(stream: LaneStream): boolean {
    const { lane } = stream;
    if (stream !== lane || lane.fresh === undefined || !this.#env.reader.isAtEnd(lane)) return false;
    this.#env.reader.merge(lane);
    return true;
  }

  #fill(stream: LaneStream): void {
    void readAhead(this.#env.reader, stream).finally(() => this.wake());
  }

  /** Drops the lane's whole part of its oldest segment without reading it, if that is durable, untouched and `wanted`. */
  #dropPart(
    lane: Lane,
    reason: string,
    wanted: (bytes: number, newestMs: number, expiresMs: number) => boolean,
  ): boolean {
    if (lane.aheadCount > 0 || lane.filling) return false;
    const { state } = this.#env;
    const segment = this.#env.reader.nextSegment(lane);
    const part = segment?.parts.get(lane.id);
    if (segment === undefined || part === undefined || segment.end > this.#env.durablePosition()) return false;
    if (lane.readAt > part.first || lane.cursor >= part.first) return false;
    if (segment.end > lane.to || lane.hasEarlyBetween(part.first, part.last)) return false;
    if (lane.kept.size > 0 && lane.keepsWithin(part.first, part.last)) return false;
    if (!wanted(part.bytes, part.lastAcceptedAtMs, part.lastExpiresAtMs)) return false;
    const { waiting, bytes, last } = part;
    lane.passTo(last);
    lane.readAt = segment.end;
    lane.place = undefined;
    state.untake(segment, lane, waiting, bytes);
    this.#env.onDirty();
    this.#env.drops().several(this.name, reason, waiting);
    this.#drop(reason, waiting);
    return true;
  }

  #done(lane: Lane, entry: Entry): void {
    const { state } = this.#env;
    state.untake(state.segments.find(entry.position), lane, 1, entry.bytes);
    this.#env.onDirty();
  }

  #dropOne(reason: string, { message, rule }: QueuedMessage): void {
    this.#env.drops().one(this.name, reason, message.topic, rule);
    this.#drop(reason, 1);
  }

  #drop(reason: string, count: number): void {
    this.account.dropped[reason] = (this.account.dropped[reason] ?? 0) + count;
    this.#env.onDropped(this.name, reason, count);
  }

  #oldest(lane: Lane): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const entry of lane.flying()) {
      oldest = entry.acceptedAtMs;
      if (lane.pending.size > 0) return oldest;
      break; // an early one: the backlog may be older
    }
    const head = lane.peek();
    if (head !== undefined) return Math.min(oldest, head.acceptedAtMs);
    const segment = this.#env.reader.nextSegment(lane);
    return Math.min(oldest, segment?.parts.get(lane.id)?.firstAcceptedAtMs ?? Number.POSITIVE_INFINITY);
  }
}

const streamsOf = (lane: Lane): readonly LaneStream[] => (lane.fresh === undefined ? [lane] : [lane, lane.fresh]);

/** The lane's head is in flight. */
function handOut(lane: Lane, entry: Entry): void {
  lane.take();
  lane.pending.set(entry.position, entry);
  if (lane.kept.size > 0) forgetPassed(lane);
}

/** Positions that the cursor has come by: handed out, or not there any more. */
function forgetPassed(lane: Lane): void {
  for (const position of lane.kept) {
    if (position > lane.cursor) return;
    lane.kept.delete(position);
  }
}
