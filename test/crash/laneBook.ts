/** What the lanes should hold, as the model has it, and what may be missing from them: settled, expired, dropped for want of room. */
import type { QueuedMessage, UplinkLimits } from "../../src/base/contracts.ts";
import type { Message } from "../../src/base/message.ts";
import { generous, message, textOf } from "../unit/journal/support.ts";

export interface UplinkPlan {
  readonly name: string;
  readonly limits: UplinkLimits;
  readonly priorities: readonly number[];
  /** Given to some of its messages. */
  readonly ttlMs: number | undefined;
}

export const uplinkPlans: readonly UplinkPlan[] = [
  { name: "cloud", limits: generous, priorities: [9, 5, 2], ttlMs: undefined },
  { name: "lab", limits: { ...generous, maxBytes: 4000 }, priorities: [7, 1], ttlMs: undefined },
  { name: "brief", limits: { ...generous, maxAgeMs: 60_000 }, priorities: [4], ttlMs: 3000 },
];

/** One message of one uplink. */
export interface Entry {
  readonly text: string;
  readonly uplink: string;
  readonly priority: number;
  readonly rule: string;
  readonly position: number;
  readonly acceptedAtMs: number;
  readonly expiresAtMs: number;
  readonly bytes: number;
  readonly commit: number;
  /** The life (start of the store) in which it was settled last. */
  settledIn?: number;
  /** Its being settled was on the disk: it must never come again. */
  final?: boolean;
  /** It was handed out once: drop-oldest may have passed over it. */
  handed?: boolean;
  /** Rot took it. */
  lost?: boolean;
}

const numberOf = (text: string): number => Number(/^m(\d+)/.exec(text)?.[1]);

/** The message of a text; everything in it follows from that. */
export function messageOf(text: string): Message {
  const number = numberOf(text);
  const more = number % 7 === 0 ? { properties: { contentType: `c/${number}` } } : {};
  return message(text, { qos: number % 2 === 0 ? 1 : 2, retain: number % 5 === 0, ...more });
}

/** Whether a message came back as it went in. */
export function isWhole(found: Message): boolean {
  const text = textOf({ message: found });
  const given = messageOf(text);
  return (
    found.topic === given.topic &&
    found.qos === given.qos &&
    found.retain === given.retain &&
    found.source === given.source &&
    found.properties?.contentType === given.properties?.contentType
  );
}

export class LaneBook {
  /** By uplink and priority, in order of position. */
  readonly lanes = new Map<string, Entry[]>();
  readonly #entries = new Map<string, Entry>();
  /** Every number that ever went out, and with what. */
  readonly #seqs = new Map<string, string>();
  readonly #lastOut = new Map<string, number>();
  /** Handed out, neither settled nor rewound. */
  readonly #out = new Set<Entry>();
  /** By uplink: where what is fresh began when its link came up. */
  readonly #heads = new Map<string, number>();
  /** Messages of a backlog that came out after a fresh one of their lane. */
  overtaken = 0;
  /** Dropped for want of room in all lives together, by uplink: so many may be missing at most. */
  readonly dropped = new Map<string, number>();
  /** The furthest that the store clock ever stood. */
  clockMs = 0;
  life = 0;

  add(entry: Entry): void {
    const key = laneKey(entry.uplink, entry.priority);
    let lane = this.lanes.get(key);
    if (lane === undefined) {
      lane = [];
      this.lanes.set(key, lane);
    }
    lane.push(entry);
    this.#entries.set(`${entry.uplink} ${entry.text}`, entry);
  }

  find(uplink: string, text: string): Entry | undefined {
    return this.#entries.get(`${uplink} ${text}`);
  }

  /** Commits above `number` never were. */
  forgetAfter(number: number): void {
    for (const [key, lane] of this.lanes) {
      for (const entry of lane) if (entry.commit > number) this.#entries.delete(`${entry.uplink} ${entry.text}`);
      this.lanes.set(
        key,
        lane.filter(({ commit }) => commit <= number),
      );
    }
  }

  /** A start, or a rewind of this uplink: its lanes come from their beginning again. */
  rewound(uplink: string): void {
    for (const key of [...this.#lastOut.keys()]) if (key.startsWith(`${uplink} `)) this.#lastOut.delete(key);
    for (const entry of this.#out) if (entry.uplink === uplink) this.#out.delete(entry);
    this.#heads.delete(uplink);
  }

  /** A link came up: from here on order holds within what was there before `head`, and within what comes. */
  linkUp(uplink: string, head: number): void {
    this.#heads.set(uplink, head);
    for (const key of [...this.#lastOut.keys()])
      if (key.startsWith(`${uplink} `) && key.endsWith(" fresh")) this.#lastOut.delete(key);
  }

  /** The store handed a message out. @param rotten bits were flipped: what was settled may come again */
  handOut(
    uplink: string,
    out: QueuedMessage,
    ruleDefinition: string | undefined,
    nowMs: number,
    rotten: boolean,
  ): Entry {
    const text = textOf(out);
    const entry = this.find(uplink, text);
    if (entry === undefined) throw new Error(`${text} came out of ${uplink}, where it is not known`);
    const { position, priority, acceptedAtMs } = out;
    // Not by chai, which would be the dearest of all that is done with each message.
    if (position !== entry.position || priority !== entry.priority || acceptedAtMs !== entry.acceptedAtMs)
      throw new Error(`${text} came out as ${JSON.stringify({ position, priority, acceptedAtMs })}`);
    if (!isWhole(out.message)) throw new Error(`${text} came out changed`);
    if (ruleDefinition !== entry.rule) throw new Error(`${text} came out for the rule ${ruleDefinition}`);
    if (entry.expiresAtMs <= nowMs) throw new Error(`${text} came out of ${uplink} after it had expired`);
    if (entry.settledIn === this.life) throw new Error(`${text} came out of ${uplink} again though it was settled`);
    if (entry.final === true && !rotten) throw new Error(`${text} came again: that it was settled was on the disk`);
    if (this.#out.has(entry)) throw new Error(`${text} came out of ${uplink} twice`);
    this.#out.add(entry);
    const lane = laneKey(uplink, priority);
    const isFresh = position >= (this.#heads.get(uplink) ?? Number.POSITIVE_INFINITY);
    const key = isFresh ? `${lane} fresh` : lane;
    if ((this.#lastOut.get(key) ?? 0) >= position) throw new Error(`${text} came out of its turn`);
    this.#lastOut.set(key, position);
    if (!isFresh && this.#lastOut.has(`${lane} fresh`)) this.overtaken += 1;
    const number = `${uplink} ${out.seq}`;
    const before = this.#seqs.get(number);
    if (before !== undefined && before !== text) throw new Error(`number ${out.seq} of ${uplink}: ${before}, ${text}`);
    if (before === undefined) this.#seqs.set(number, text);
    entry.handed = true;
    return entry;
  }

  /** What was settled in this life. */
  settledIn(life: number): Entry[] {
    return [...this.lanes.values()].flatMap((lane) => lane.filter((entry) => entry.settledIn === life));
  }

  /** What of a lane is not among `found` and has no right to be missing. */
  missing(plan: UplinkPlan, priority: number, found: ReadonlySet<string>): Entry[] {
    return (this.lanes.get(laneKey(plan.name, priority)) ?? []).filter(
      (entry) =>
        !found.has(entry.text) &&
        entry.settledIn === undefined &&
        entry.lost !== true &&
        entry.expiresAtMs > this.clockMs,
    );
  }

  /** What is missing of a drop-oldest lane may have been dropped: then everything older is gone too, or was in flight. */
  wasDropped(entry: Entry, found: ReadonlySet<string>): boolean {
    for (const older of this.lanes.get(laneKey(entry.uplink, entry.priority)) ?? []) {
      if (older === entry) return true;
      if (found.has(older.text) && older.handed !== true) return false;
    }
    return false;
  }
}

export const laneKey = (uplink: string, priority: number): string => `${uplink} ${priority}`;

export const sumOf = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, count) => sum + count, 0);
