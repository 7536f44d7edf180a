import type { Clock, Timer } from "../base/clock.ts";
import type { QueuedMessage, Store, UplinkQueue } from "../base/contracts.ts";
import type { UplinkLetters } from "../base/deadLetters.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import type { Qos } from "../base/message.ts";
import type { AckPacket } from "../wire/mqtt/packet.ts";
import { parseRule, type RuleDefinition } from "./forwarding.ts";
import { ForwardWriter } from "./forwardWriter.ts";
import type { UplinkCounters } from "./metrics.ts";
import type { UplinkOptions } from "./options.ts";
import type { CloudLimits } from "./outgoing.ts";
import { Pace } from "./pace.ts";
import { Refusals } from "./refusals.ts";
import { Window } from "./window.ts";

/** Bytes sent and unacknowledged, at most (one message is always allowed): a window of large messages must not fill the RAM. */
const windowBytesMax = 4 * 1024 * 1024;
/** The same with what was refused and waits, which takes no room of others up to here. */
const heldBytesMax = 16 * 1024 * 1024;
/** Identifiers that a window can give out. */
const windowMax = 65_534;
/** Messages sent in one turn of the event loop before others get theirs. */
const burstMax = 256;
const rulesMax = 1000;

/** What the sender needs of a link. */
export interface Carrier {
  readonly writable: boolean;
  /** Sends the first `length` bytes of a buffer that will be used again. */
  append(bytes: Buffer, length: number): void;
}

export interface SenderDeps {
  readonly store: Pick<Store, "epoch" | "head" | "nowMs" | "ruleDefinition">;
  readonly queue: UplinkQueue;
  readonly letters: UplinkLetters;
  readonly clock: Clock;
  readonly log: Log;
  readonly limiter: LogLimiter;
  readonly count: UplinkCounters;
}

/** The way up: durable messages out of the queue, a window of them unacknowledged, each settled only after the cloud's PUBACK. */
export class Sender {
  readonly #options: UplinkOptions;
  readonly #deps: SenderDeps;
  readonly #window = new Window();
  readonly #pace: Pace;
  readonly #rules = new Map<number, RuleDefinition>();
  readonly #refusals: Refusals;
  #link: Carrier | undefined;
  #limits: CloudLimits = { receiveMaximum: 0, maximumPacketSize: 0, maximumQos: 0, retainAvailable: false };
  readonly #writer: ForwardWriter;
  readonly #wire: { qos: Qos; packetId: number; dup: boolean } = { qos: 0, packetId: 0, dup: false };
  #headAtConnect = 0;
  #paceTimer: Timer | undefined;
  #pumpDue = false;
  #sentHere = 0;
  #answeredHere = 0;
  #paused = false;

  constructor(options: UplinkOptions, deps: SenderDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#writer = new ForwardWriter(options, deps.store.epoch);
    this.#pace = new Pace(options.drain, deps.clock.monotonicMs());
    this.#refusals = new Refusals(options, { ...deps, window: this.#window, ready: () => this.pumpSoon() });
    deps.queue.onReadable(() => this.pumpSoon());
  }

  /** While it is true nothing is sent, also not again; answers are still taken. */
  set paused(paused: boolean) {
    this.#paused = paused;
    this.pumpSoon();
  }

  /** What keeps messages waiting although the link is up, for people. */
  get problem(): string | undefined {
    return this.#refusals.problem;
  }

  get inflight(): number {
    return this.#window.size;
  }

  /** True when this connection carried messages and not one was answered. */
  get fruitless(): boolean {
    return this.#sentHere > 0 && this.#answeredHere === 0;
  }

  /** The message that was sent first and has no answer yet. */
  oldest(): QueuedMessage | undefined {
    return this.#window.oldest();
  }

  /** A connection is up: what is unacknowledged goes again, then what waits. */
  attach(link: Carrier, limits: CloudLimits, sessionPresent: boolean): void {
    this.#link = link;
    this.#limits = limits;
    this.#headAtConnect = this.#deps.store.head;
    this.#deps.queue.shareLink(this.#headAtConnect, this.#options.drain.liveShare);
    this.#sentHere = 0;
    this.#answeredHere = 0;
    this.#window.reconnect(sessionPresent);
    this.pumpSoon();
  }

  /** The connection is gone. The window stays. */
  detach(): void {
    this.#link = undefined;
    this.#paceTimer?.cancel();
    this.#paceTimer = undefined;
    this.#refusals.detach(); // the next connection sends all of the window anyway
  }

  /** Gives the window back to the queue, for the next start or the next uplink of this name. */
  release(): void {
    this.detach();
    this.#window.clear();
    this.#deps.queue.rewind();
  }

  /** Sends at the end of this turn of the event loop, so that a burst of new messages goes in one write. */
  pumpSoon(): void {
    if (this.#pumpDue || this.#link === undefined) return;
    this.#pumpDue = true;
    setImmediate(() => {
      this.#pumpDue = false;
      this.#pump();
    });
  }

  puback(packet: AckPacket): void {
    const { count } = this.#deps;
    const { packetId } = packet;
    if (packet.reasonCode < 0x80) {
      const message = this.#window.acknowledged(packetId);
      if (message === undefined) return this.#stray(packetId);
      this.#deps.queue.settle(message);
      this.#refusals.acknowledged(packetId, message);
      count.acknowledged.value += 1;
    } else {
      if (!this.#refusals.refused(packet)) return this.#stray(packetId);
      count.refusals.value += 1;
    }
    this.#answeredHere += 1;
    this.pumpSoon();
  }

  #pump(): void {
    for (let sent = 0; this.#link?.writable; sent += 1) {
      if (sent === burstMax) return this.pumpSoon();
      if (this.#paused) return;
      const waitMs = this.#pace.waitMs(this.#deps.clock.monotonicMs());
      if (waitMs > 0) return this.#pumpIn(waitMs);
      if (!this.#sendNext()) return;
    }
  }

  #pumpIn(waitMs: number): void {
    this.#paceTimer ??= this.#deps.clock.setTimer(waitMs, () => {
      this.#paceTimer = undefined;
      this.pumpSoon();
    });
  }

  /** False when there is nothing to send, or no room in the window. */
  #sendNext(): boolean {
    const { inflight } = this.#options;
    const window = this.#window;
    if (window.onWire >= Math.min(inflight, this.#limits.receiveMaximum)) return false; // [MQTT-3.3.4-7]
    const again = window.nextAgain();
    if (again !== undefined) {
      this.#deps.count.resent.value += 1;
      this.#write(again.packetId, again.message, again.dup);
      return true;
    }
    if (window.size - window.held >= inflight || window.size >= windowMax) return false;
    if (window.size > window.held && window.bytes - window.heldBytes >= windowBytesMax) return false;
    if (window.held > 0 && window.bytes >= heldBytesMax) return false;
    const { lanes } = this.#refusals;
    const next = this.#deps.queue.next(lanes.size > 0 ? lanes : undefined);
    if (next === undefined) return false;
    this.#write(window.add(next), next, false);
    return true;
  }

  #write(packetId: number, queued: QueuedMessage, dup: boolean): void {
    const { message, acceptedAtMs, position } = queued;
    const { store, count } = this.#deps;
    // The broker does not forward what came from here back to here; a cloud that echoes would go round for ever.
    if (message.source === `uplink:${this.#options.name}`) return this.#drop(packetId, "refused");
    const rule = this.#ruleOf(queued.rule);
    const late = position < this.#headAtConnect;
    const qos = Math.min(rule.qos, this.#limits.maximumQos) as Qos;
    const wire = this.#wire;
    wire.qos = qos;
    wire.packetId = qos === 0 ? 0 : packetId;
    wire.dup = dup;
    const ageMs = store.nowMs() - acceptedAtMs;
    const length = this.#writer.write(queued, rule, late, wire, ageMs, this.#limits);
    if (length === "expired") return this.#drop(packetId, length);
    if (typeof length === "string") return this.#refusals.unsendable(packetId, length, this.#limits.maximumPacketSize);
    this.#pace.spend(length);
    this.#link?.append(this.#writer.buffer, length);
    count.sent.value += 1;
    if (qos > 0) {
      this.#sentHere += 1;
      return;
    }
    // A cloud that takes QoS 0 only never acknowledges: handing it to the link is all that can be known.
    this.#window.remove(packetId);
    this.#deps.queue.settle(queued);
    this.#refusals.acknowledged(packetId, queued);
    count.acknowledged.value += 1;
  }

  #ruleOf(id: number): RuleDefinition {
    let rule = this.#rules.get(id);
    if (rule === undefined) {
      rule = parseRule(this.#deps.store.ruleDefinition(id));
      if (this.#rules.size >= rulesMax) this.#rules.clear(); // a cache, bounded
      this.#rules.set(id, rule);
    }
    return rule;
  }

  /** What nobody misses: it expired, or came from this cloud. */
  #drop(packetId: number, why: "expired" | "refused"): void {
    const message = this.#window.remove(packetId);
    if (message === undefined) return;
    this.#deps.queue.settle(message, why);
    this.#refusals.lanes.gone(message.lane, packetId);
  }

  #stray(packetId: number): void {
    this.#deps.count.strayAcks.value += 1;
    if (this.#deps.limiter.due("stray"))
      this.#deps.log.warn({ packetId }, "the cloud acknowledged a message that it cannot have");
  }
}
