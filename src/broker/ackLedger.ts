import { Ring } from "../base/ring.ts";

/** The four acknowledgements as the first byte of their packet (MQTT section 2.1). */
export const ackByte = { puback: 0x40, pubrec: 0x50, pubrel: 0x62, pubcomp: 0x70 } as const;
export const ackNames = { 64: "puback", 80: "pubrec", 98: "pubrel", 112: "pubcomp" } as const;
export type AckByte = (typeof ackByte)[keyof typeof ackByte];

/** A connection, as the ledger sees it. */
export interface AckTarget {
  /** False once closed or taken over: what still waits for it is forgotten. */
  readonly open: boolean;
  /** Newest group that an acknowledgement of this connection waits for. Kept by the ledger. */
  lastGroup: number;
  /** Acknowledgements that wait. Kept by the ledger. */
  waitingAcks: number;
  /** @param count so many: of `packetId` and the ids after it */
  writeAck(kind: AckByte, packetId: number, reasonCode: number, count?: number): void;
  /** After a group's acknowledgements for it were written. */
  acksSettled(): void;
  /** The group will never be durable: nothing of it may be acknowledged. */
  storeLost(): void;
}

interface GroupAcks {
  group: number;
  /** How many runs there are. The arrays are kept longer: emptied, they would grow anew with each group. */
  count: number;
  readonly targets: Array<AckTarget | undefined>;
  /** Of the run's first: packet id + 65,536 x kind + 2^24 x reason code. */
  readonly codes: number[];
  /** How many acknowledgements the run has, which differ in the packet id alone, each one above the one before: who sends several gets it so. */
  readonly lengths: number[];
}

/** Longer arrays are not kept for the next group: so many runs wait only when the disk is slow. */
const keptAcks = 4096;

interface Waiter {
  readonly group: number;
  readonly settled: (durable: boolean) => void;
}

const waitersMax = 32_768;
const lateWaitersMax = 1024;

/**
 * Who is told what once a commit group is durable. Acknowledgements leave each connection in the order of its packets: one that
 * waits for nothing still queues behind those of its connection that do.
 */
export class AckLedger {
  #durable: number;
  #lost = false;
  #groups: GroupAcks[] = [];
  readonly #pool: GroupAcks[] = [];
  readonly #waiters = new Ring<Waiter>(waitersMax);
  /** Waiters of groups older than the newest one waited for; rare, so a sorted array will do. */
  #newestWaited = 0;
  #late: Waiter[] = [];

  /** @param durable the store's durable group now. */
  constructor(durable: number) {
    this.#durable = durable;
  }

  get durableGroup(): number {
    return this.#durable;
  }

  /**
   * Writes the acknowledgement now, or when `group` is durable.
   * @param group 0: nothing durable took the message @param count so many: of `packetId` and the ids after it
   */
  add(target: AckTarget, kind: AckByte, packetId: number, reasonCode: number, group: number, count = 1): void {
    const due = Math.max(group, target.lastGroup);
    if (due <= this.#durable) {
      target.writeAck(kind, packetId, reasonCode, count);
      return;
    }
    if (this.#lost) {
      target.storeLost();
      return;
    }
    target.lastGroup = due;
    target.waitingAcks += count;
    const acks = this.#acksOf(due);
    const code = packetId + kind * 0x1_0000 + reasonCode * 0x100_0000;
    const last = acks.count - 1;
    if (last >= 0 && acks.targets[last] === target && acks.codes[last]! + acks.lengths[last]! === code) {
      acks.lengths[last]! += count;
      return;
    }
    const at = acks.count++;
    acks.targets[at] = target;
    acks.codes[at] = code;
    acks.lengths[at] = count;
  }

  /** See Publisher.whenDurable. Bounded: beyond 32,768 waiting callbacks a new one is told false. */
  whenDurable(group: number, settled: (durable: boolean) => void): void {
    if (group <= this.#durable) {
      settled(true);
      return;
    }
    if (this.#lost) {
      settled(false);
      return;
    }
    const waiter = { group, settled };
    if (group >= this.#newestWaited) {
      this.#newestWaited = group;
      if (!this.#waiters.push(waiter)) settled(false);
    } else if (this.#late.length >= lateWaitersMax) {
      settled(false);
    } else {
      this.#late.push(waiter);
      this.#late.sort((a, b) => a.group - b.group); // stable: call order within a group
    }
  }

  /** All groups up to `group` are durable. */
  settle(group: number): void {
    if (group <= this.#durable) return;
    this.#durable = group;
    let done = 0;
    for (const acks of this.#groups) {
      if (acks.group > group) break;
      this.#write(acks);
      done += 1;
    }
    if (done > 0) this.#groups.splice(0, done);
    this.#settleWaiters(group, true);
  }

  /** No further group will become durable. */
  lose(): void {
    this.#lost = true;
    for (const acks of this.#groups) {
      for (const target of acks.targets) if (target?.open) target.storeLost();
    }
    this.#groups = [];
    this.#settleWaiters(Number.POSITIVE_INFINITY, false);
  }

  #write(acks: GroupAcks): void {
    const { targets, codes, lengths, count } = acks;
    for (let at = 0; at < count; at += 1) {
      const target = targets[at]!;
      const code = codes[at]!;
      const length = lengths[at]!;
      const kind = ((code >>> 16) & 0xff) as AckByte;
      target.waitingAcks -= length;
      if (target.open) target.writeAck(kind, code & 0xffff, code >>> 24, length);
    }
    for (let at = 0; at < count; at += 1) {
      const target = targets[at]!;
      targets[at] = undefined;
      if (target.open) target.acksSettled();
    }
    acks.count = 0;
    if (this.#pool.length < 4 && targets.length <= keptAcks) this.#pool.push(acks);
  }

  #acksOf(group: number): GroupAcks {
    // Nearly always the newest group; a connection's lastGroup may be an older one.
    for (let at = this.#groups.length - 1; at >= 0; at -= 1) {
      const acks = this.#groups[at];
      if (acks?.group === group) return acks;
      if (acks !== undefined && acks.group < group) return this.#insert(at + 1, group);
    }
    return this.#insert(0, group);
  }

  #insert(at: number, group: number): GroupAcks {
    const acks = this.#pool.pop() ?? { group, count: 0, targets: [], codes: [], lengths: [] };
    acks.group = group;
    this.#groups.splice(at, 0, acks);
    return acks;
  }

  #settleWaiters(group: number, durable: boolean): void {
    for (;;) {
      const late = this.#late[0];
      const next = this.#waiters.peek();
      if (late !== undefined && late.group <= group && (next === undefined || late.group < next.group)) {
        this.#late.shift();
        late.settled(durable);
      } else if (next !== undefined && next.group <= group) {
        this.#waiters.shift();
        next.settled(durable);
      } else return;
    }
  }
}
