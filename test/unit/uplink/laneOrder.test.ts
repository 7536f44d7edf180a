import { expect } from "chai";
import { LogLimiter, silentLog } from "../../../src/base/log.ts";
import { Meter } from "../../../src/base/meter.ts";
import { uplinkCounters } from "../../../src/uplink/metrics.ts";
import { type Carrier, Sender } from "../../../src/uplink/sender.ts";
import type { AckPacket } from "../../../src/wire/mqtt/packet.ts";
import { MemoryLetters, MemoryQueue, MovedClock, memoryStore } from "../../helpers/memoryUplink.ts";
import { randomOf, turn } from "../journal/support.ts";
import { uplinkOptions } from "./bench.ts";

interface Sent {
  readonly id: number;
  readonly qos: number;
  readonly lane: number;
  readonly seq: number;
}

const lanes = [9, 5, 0];

/**
 * A cloud that keeps the order of each lane whenever it can: one that it refuses for now it takes again only with the oldest that it refused, later. It
 * answers in order, late, takes few at once, loses connections and sessions.
 */
class OrderlyCloud {
  readonly clock = new MovedClock();
  readonly queue = new MemoryQueue(this.clock);
  readonly letters = new MemoryLetters(this.queue);
  readonly faults: string[] = [];
  readonly taken = new Set<number>();
  readonly buried = new Set<number>();
  readonly #random: () => number;
  readonly #rules = new Map([1, 2].map((qos) => [qos, JSON.stringify({ filter: "plant/#", to: "up/{rest}", qos })]));
  readonly #sender: Sender;
  readonly #waiting: Array<{ group: number; settled: (durable: boolean) => void }> = [];
  readonly #store;
  #group = 0;
  #durable = 0;
  #in: Array<Sent | { rel: number }> = [];
  #out: AckPacket[] = [];
  #held = new Set<number>();
  #quotas = new Map<number, { untilMs: number; seq: number }>();
  #newest = new Map<number, number>();
  #link: Carrier | undefined;
  #kind = false;
  #added = 0;
  /** Identifiers of PUBLISH packets of this connection without a last answer. */
  readonly #unanswered = new Set<number>();
  #receiveMaximum = 0;

  constructor(seed: number) {
    this.#random = randomOf(seed);
    const store = memoryStore(this.queue, this.clock, this.#rules);
    const { commit } = store;
    this.#store = Object.defineProperties(
      { ...store, epoch: 7, head: 0 },
      { durableGroup: { get: () => this.#durable } },
    ) as typeof store;
    Object.assign(this.#store, {
      commit: (write: Parameters<typeof commit>[0]) => ({ ...commit(write), group: ++this.#group }),
    });
    const meter = new Meter();
    const publisher = {
      whenDurable: (group: number, settled: (durable: boolean) => void): void =>
        void this.#waiting.push({ group, settled }),
    };
    const { clock, queue, letters } = this;
    const limiter = new LogLimiter({ nowMs: () => clock.monotonicMs() });
    this.#sender = new Sender(uplinkOptions({ inflight: 20, refusedRetries: 100_000 }), {
      ...{ store: this.#store, publisher, queue, letters, clock, log: silentLog, limiter },
      ...{ count: uplinkCounters(meter, "cloud"), echoes: { sent: () => {} } },
    });
    this.#sender.begin();
  }

  #chance(part: number): boolean {
    return !this.#kind && this.#random() < part;
  }

  #connect(): void {
    this.#sender.detach();
    this.#in = [];
    this.#out = [];
    this.#unanswered.clear();
    this.#newest = new Map();
    const sessionPresent = !this.#chance(0.2);
    if (!sessionPresent) this.#held.clear();
    this.#receiveMaximum = this.#kind || this.#random() < 0.3 ? 65_535 : 1 + Math.floor(this.#random() * 12);
    const link: Carrier = {
      reading: true,
      midPacket: false,
      get writable() {
        return true;
      },
      append: (bytes, length) => this.#link === link && this.#read(bytes.subarray(0, length)),
      close: ({ text }) => void this.faults.push(`the link was closed: ${text}`),
    };
    this.#link = link;
    const limits = {
      receiveMaximum: this.#receiveMaximum,
      maximumPacketSize: 1e6,
      maximumQos: 2,
      retainAvailable: true,
    } as const;
    this.#sender.attach(link, limits, sessionPresent);
  }

  #read(bytes: Buffer): void {
    const type = (bytes[0] ?? 0) >> 4;
    if (type === 6) {
      this.#in.push({ rel: bytes.readUInt16BE(2) });
      return;
    }
    if (type !== 3) throw new Error(`packet type ${type}`);
    const qos = ((bytes[0] ?? 0) >> 1) & 3;
    const at = 2 + 2 + bytes.readUInt16BE(2);
    const [lane = 0, seq = 0] = bytes
      .subarray(at + 3)
      .toString()
      .split(" ")
      .map(Number);
    const id = bytes.readUInt16BE(at);
    if (this.#unanswered.has(id)) this.faults.push(`lane ${lane}: ${seq} again on one connection`);
    this.#unanswered.add(id);
    const { size } = this.#unanswered;
    if (size > this.#receiveMaximum) this.faults.push(`${size} of ${this.#receiveMaximum} on the wire`);
    this.#in.push({ id, qos, lane, seq });
  }

  #take(sent: Sent | { rel: number }): void {
    if ("rel" in sent) {
      this.#held.delete(sent.rel);
      this.#out.push({ kind: "pubcomp", packetId: sent.rel, reasonCode: 0 });
      return;
    }
    const { id, qos, lane, seq } = sent;
    const kind = qos === 2 ? "pubrec" : "puback";
    if (qos === 2 && this.#held.has(id)) return void this.#out.push({ kind, packetId: id, reasonCode: 0 });
    const reasonCode = this.#codeOf(lane, seq);
    if (reasonCode === 0) {
      const before = this.#newest.get(lane) ?? 0;
      if (seq <= before) this.faults.push(`lane ${lane}: ${seq} after ${before}`);
      this.#newest.set(lane, seq);
      this.taken.add(seq);
      if (qos === 2) this.#held.add(id);
    } else if (reasonCode === 0x87) this.buried.add(seq);
    this.#out.push({ kind, packetId: id, reasonCode });
  }

  #codeOf(lane: number, seq: number): number {
    if (seq % 17 === 7) return 0x87;
    const quota = this.#quotas.get(lane);
    const nowMs = this.clock.monotonicMs();
    if (quota !== undefined) {
      if (seq <= quota.seq && nowMs >= quota.untilMs) {
        this.#quotas.delete(lane);
        return 0;
      }
      quota.seq = Math.min(quota.seq, seq);
      return 0x97;
    }
    if (!this.#chance(0.05)) return 0;
    this.#quotas.set(lane, { untilMs: nowMs + this.#random() * 1500, seq });
    return 0x97;
  }

  #answer(packet: AckPacket): void {
    if (packet.kind === "pubcomp" || packet.kind === "puback" || packet.reasonCode >= 0x80)
      this.#unanswered.delete(packet.packetId);
    if (packet.kind === "puback") this.#sender.puback(packet);
    else if (packet.kind === "pubrec") this.#sender.pubrec(packet);
    else this.#sender.pubcomp(packet);
  }

  #add(): void {
    const lane = lanes[Math.floor(this.#random() * lanes.length)] ?? 0;
    this.#added += 1;
    this.queue.add(`${lane} ${this.#added}`, { priority: lane, rule: 1 + Math.floor(this.#random() * 2) });
  }

  async #step(): Promise<void> {
    const pace = this.#kind ? 1000 : Math.floor(this.#random() * 8);
    if (this.#chance(0.6)) this.clock.advance(Math.floor(this.#random() * 200));
    else if (this.#kind) this.clock.advance(100);
    for (const sent of this.#in.splice(0, pace)) this.#take(sent);
    if (!this.#chance(0.3)) for (const packet of this.#out.splice(0, pace)) this.#answer(packet);
    if (!this.#chance(0.3)) {
      this.#durable = this.#group;
      for (const { settled } of this.#waiting.splice(0)) settled(true);
    }
    this.letters.answer = this.#chance(0.2) ? "later" : "kept";
    await turn();
  }

  async run(steps: number): Promise<void> {
    this.#connect();
    for (let step = 0; step < steps && this.faults.length === 0; step += 1) {
      if (this.#chance(0.02)) this.#connect();
      for (let more = this.queue.stats().messages < 60 ? 3 : 0; more > 0; more -= 1) this.#add();
      await this.#step();
    }
    this.#kind = true;
    for (let step = 0; step < 2000 && this.queue.stats().messages > 0 && this.faults.length === 0; step += 1)
      await this.#step();
    if (this.faults.length > 0) return;
    if (this.queue.stats().messages > 0) this.faults.push(`${this.queue.stats().messages} are left`);
    for (let seq = 1; seq <= this.#added; seq += 1)
      if (this.taken.has(seq) === this.buried.has(seq))
        this.faults.push(`${seq}: ${this.taken.has(seq) ? "both" : "neither"}`);
  }
}

describe("uplink/order within a lane", () => {
  it("holds whatever is refused, lost and late", async function () {
    this.timeout(60_000);
    // 729 once had more on the wire than Receive Maximum allows.
    for (const seed of [...Array.from({ length: 40 }, (_, n) => n + 1), 729]) {
      const cloud = new OrderlyCloud(seed);
      await cloud.run(600);
      expect(cloud.faults, `seed ${seed}`).to.deep.equal([]);
    }
  });
});
