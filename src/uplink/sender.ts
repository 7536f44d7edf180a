import type { Clock, Timer } from "../base/clock.ts";
import type { Publisher, QueuedMessage, Store, UplinkQueue } from "../base/contracts.ts";
import type { UplinkLetters } from "../base/deadLetters.ts";
import { type LinkFault, linkFault } from "../base/linkFaults.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import type { Message, Qos } from "../base/message.ts";
import type { AckPacket } from "../wire/mqtt/packet.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { AnswerWatch, type Heard, windowHeads } from "./answerWatch.ts";
import type { Echoes } from "./echoes.ts";
import { Exchange } from "./exchange.ts";
import { parseRule, type RuleDefinition } from "./forwarding.ts";
import { ForwardWriter } from "./forwardWriter.ts";
import { protocolFault } from "./link.ts";
import type { UplinkCounters } from "./metrics.ts";
import type { UplinkOptions } from "./options.ts";
import type { CloudLimits } from "./outgoing.ts";
import { Pace } from "./pace.ts";
import { Refusals } from "./refusals.ts";
import { messageText } from "./texts.ts";
import { type Slot, Window, windowMax } from "./window.ts";

/** Bytes sent and unacknowledged, at most (one message is always allowed): a window of large messages must not fill the RAM. */
const windowBytesMax = 4 * 1024 * 1024;
/** The same with what was refused and waits, which takes no room of others up to here. */
const heldBytesMax = 16 * 1024 * 1024;
/** Messages sent in one turn of the event loop before others get theirs. */
const burstMax = 256;
const rulesMax = 1000;

/** What the sender needs of a link. */
export interface Carrier extends Heard {
  readonly writable: boolean;
  /** Sends the first `length` bytes of a buffer that will be used again. */
  append(bytes: Buffer, length: number): void;
  close(fault: LinkFault, reasonCode: number): void;
}

export interface SenderDeps {
  readonly store: Pick<
    Store,
    "epoch" | "head" | "nowMs" | "ruleDefinition" | "commit" | "entries" | "failed" | "durableGroup"
  >;
  readonly publisher: Pick<Publisher, "whenDurable">;
  readonly queue: UplinkQueue;
  readonly letters: UplinkLetters;
  readonly clock: Clock;
  readonly log: Log;
  readonly limiter: LogLimiter;
  readonly count: UplinkCounters;
  readonly echoes: Pick<Echoes, "sent">;
}

/** The way up: durable messages out of the queue, a window of them unacknowledged, each settled only after the cloud's PUBACK or PUBCOMP. */
export class Sender {
  readonly #options: UplinkOptions;
  readonly #deps: SenderDeps;
  readonly #window = new Window();
  readonly #watch = new AnswerWatch(() => windowHeads(this.#window));
  readonly #pace: Pace;
  readonly #rules = new Map<number, RuleDefinition>();
  #lastRule: { readonly id: number; readonly rule: RuleDefinition } = { id: -1, rule: parseRule(undefined) };
  readonly #refusals: Refusals;
  readonly #exchange: Exchange;
  #link: Carrier | undefined;
  #limits: CloudLimits = { receiveMaximum: 0, maximumPacketSize: 0, maximumQos: 0, retainAvailable: false };
  readonly #writer: ForwardWriter;
  readonly #wire: { qos: Qos; packetId: number; dup: boolean } = { qos: 0, packetId: 0, dup: false };
  #headAtConnect = 0;
  #sessionPresent = false;
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
    const window = this.#window;
    const leave = (packetId: number): void => this.#exchange.leave(packetId);
    this.#refusals = new Refusals(options, { ...deps, window, leave, ready: () => this.pumpSoon() });
    this.#exchange = new Exchange(options, {
      ...{ ...deps, window },
      add: (message) => void this.#add(message, 2),
      settled: (packetId, message) => this.#settled(packetId, message),
      ready: () => this.#resume(),
      pumpSoon: () => this.pumpSoon(),
    });
    deps.queue.onReadable(() => this.pumpSoon());
  }

  /** While it is true nothing is sent, also not again; answers are still taken. */
  set paused(paused: boolean) {
    this.#paused = paused;
    this.pumpSoon();
  }

  /** What keeps messages waiting although the link is up, for people. */
  get problem(): string | undefined {
    return this.#refusals.problem ?? this.#exchange.problem;
  }

  /** QoS 2 exchanges with the cloud have not ended. */
  get usesQos2(): boolean {
    return this.#exchange.isOpen;
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

  /** To be called before the first connection: looks for what an earlier run had in flight with QoS 2. */
  begin(): void {
    this.#exchange.begin();
  }

  /** A connection is up: what is unacknowledged goes again, then what waits. */
  attach(link: Carrier, limits: CloudLimits, sessionPresent: boolean): void {
    this.#link = link;
    this.#limits = limits;
    this.#headAtConnect = this.#deps.store.head;
    this.#sentHere = 0;
    this.#answeredHere = 0;
    this.#sessionPresent = sessionPresent;
    this.#watch.restart();
    this.#resume();
  }

  /** There is a connection, and the window is ready for it. */
  #resume(): void {
    if (this.#link === undefined || !this.#exchange.isReady) return;
    this.#deps.queue.shareLink(this.#headAtConnect, this.#options.drain.liveShare);
    this.#exchange.attach(this.#link, this.#sessionPresent, this.#limits.maximumQos === 2);
    this.pumpSoon();
  }

  /** The connection is gone. The window stays. */
  detach(): void {
    this.#link = undefined;
    this.#exchange.detach();
    this.#paceTimer?.cancel();
    this.#paceTimer = undefined;
    this.#refusals.detach(); // the next connection sends all of the window anyway
  }

  /** Every few seconds: ends a link over which pings are answered and messages are not. They go again over the next one. */
  look(): void {
    const link = this.#link;
    const overdue = this.#watch.lookOver(link, this.#deps.clock.monotonicMs());
    if (link === undefined || overdue === undefined) return;
    const { answer, waitedMs, message } = overdue;
    const what = message === undefined ? "an identifier of an earlier run" : messageText(message);
    const fault = linkFault("ack-timeout", `no ${answer} within ${Math.round(waitedMs / 1000)} s for ${what}`);
    link.close(fault, reason.unspecifiedError);
  }

  /** Gives the window back to the queue, for the next start or the next uplink of this name. */
  release(): void {
    this.detach();
    const inFlight = this.#exchange.release();
    this.#window.clear();
    this.#deps.queue.rewind(inFlight);
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
      const slot = this.#window.acknowledged(packetId);
      if (slot === undefined) return this.#stray(packet);
      this.#deps.queue.settle(slot.message);
      if (slot.noted) this.#exchange.ids.ended(packetId);
      this.#settled(packetId, slot.message);
    } else {
      if (!this.#refusals.refused(packet)) return this.#stray(packet);
      count.refusals.value += 1;
    }
    this.#answeredHere += 1;
    this.pumpSoon();
  }

  pubrec(packet: AckPacket): void {
    if (packet.reasonCode >= 0x80) return this.puback(packet);
    if (!this.#exchange.pubrec(packet.packetId)) return this.#stray(packet);
    this.#answeredHere += 1;
    this.pumpSoon();
  }

  pubcomp(packet: AckPacket): void {
    if (!this.#exchange.pubcomp(packet.packetId)) return this.#stray(packet);
    this.#answeredHere += 1;
    this.pumpSoon();
  }

  /** The cloud has it, and it has left the queue. */
  #settled(packetId: number, message: QueuedMessage): void {
    this.#refusals.acknowledged(packetId, message);
    this.#deps.count.acknowledged.value += 1;
  }

  #pump(): void {
    if (!this.#exchange.isReady) return;
    this.#fill();
    this.#exchange.commit();
  }

  #fill(): void {
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
    const staged = this.#exchange.nextStaged();
    if (staged === undefined) return this.#takeNext();
    this.#write(staged);
    return true;
  }

  #takeNext(): boolean {
    const { inflight } = this.#options;
    const window = this.#window;
    if (window.onWire >= Math.min(inflight, this.#limits.receiveMaximum)) return false; // [MQTT-3.3.4-7]
    const again = window.nextAgain();
    if (again !== undefined) {
      this.#deps.count.resent.value += 1;
      return this.#emit(again);
    }
    if (window.size - window.held >= inflight) return false;
    if (window.used >= windowMax) {
      this.#exchange.ids.strikeOut();
      if (window.used >= windowMax) return false;
    }
    if (window.size > window.held && window.bytes - window.heldBytes >= windowBytesMax) return false;
    if (window.held > 0 && window.bytes >= heldBytesMax) return false;
    const { lanes } = this.#refusals;
    const next = this.#deps.queue.next(lanes.size > 0 ? lanes : undefined);
    if (next === undefined) return false;
    const known = this.#exchange.take(next);
    return known === "done" || this.#emit(known ?? this.#add(next, this.#limits.maximumQos));
  }

  #add(message: QueuedMessage, maximumQos: Qos): Slot {
    const qos = Math.min(this.#ruleOf(message.rule).qos, maximumQos) as Qos;
    const slot = this.#window.add(message, qos);
    if (qos === 2) this.#exchange.ids.sent(slot);
    return slot;
  }

  #emit(slot: Slot): true {
    if (this.#exchange.waits(slot)) this.#exchange.stage(slot);
    else this.#write(slot);
    return true;
  }

  #write(slot: Slot): void {
    const { packetId, message: queued } = slot;
    const { message, acceptedAtMs, position } = queued;
    const { store, count } = this.#deps;
    // The broker does not forward what came from here back to here; a cloud that echoes would go round for ever.
    if (message.source === `uplink:${this.#options.name}`) return this.#drop(slot, "refused");
    const rule = this.#ruleOf(queued.rule);
    const late = position < this.#headAtConnect;
    if (slot.qos > this.#limits.maximumQos) slot.qos = this.#limits.maximumQos; // [MQTT-3.2.2-11]
    const { qos } = slot;
    const wire = this.#wire;
    wire.qos = qos;
    wire.packetId = qos === 0 ? 0 : packetId;
    wire.dup = slot.known;
    let ageMs = store.nowMs() - acceptedAtMs;
    if (qos === 2 && slot.known) ageMs = Math.min(ageMs, ageMsMax(message));
    const length = this.#writer.write(queued, rule, late, wire, ageMs, this.#limits);
    if (length === "expired") return this.#drop(slot, length);
    if (typeof length === "string") return this.#refusals.unsendable(packetId, length, this.#limits.maximumPacketSize);
    this.#pace.spend(length);
    this.#link?.append(this.#writer.buffer, length);
    this.#deps.echoes.sent(rule, message.topic, message.payload);
    count.sent.value += 1;
    slot.known = true;
    if (qos > 0) {
      this.#sentHere += 1;
      return;
    }
    // A cloud that takes QoS 0 only never acknowledges: handing it to the link is all that can be known.
    this.#deps.queue.settle(queued);
    this.#exchange.leave(packetId);
    this.#settled(packetId, queued);
  }

  #ruleOf(id: number): RuleDefinition {
    if (id === this.#lastRule.id) return this.#lastRule.rule; // nearly always
    const rule = this.#findRule(id);
    this.#lastRule = { id, rule };
    return rule;
  }

  #findRule(id: number): RuleDefinition {
    let rule = this.#rules.get(id);
    if (rule === undefined) {
      rule = parseRule(this.#deps.store.ruleDefinition(id));
      if (this.#rules.size >= rulesMax) this.#rules.clear(); // a cache, bounded
      this.#rules.set(id, rule);
    }
    return rule;
  }

  /** What nobody misses: it expired, or came from this cloud. */
  #drop({ packetId, message }: Slot, why: "expired" | "refused"): void {
    this.#deps.queue.settle(message, why);
    this.#exchange.leave(packetId);
    this.#refusals.lanes.gone(message.lane, packetId);
  }

  /** An acknowledgement that is none. One of another QoS than the message's leaves that without an answer for ever, so the link ends. */
  #stray({ kind, packetId }: AckPacket): void {
    this.#deps.count.strayAcks.value += 1;
    const slot = this.#window.at(packetId);
    if (slot?.place === "wire" && slot.known && (slot.qos === 1) !== (kind === "puback"))
      this.#link?.close(protocolFault(`unexpected ${kind} for QoS ${slot.qos}`), reason.protocolError);
    if (this.#deps.limiter.due("stray"))
      this.#deps.log.warn({ packetId }, "the cloud acknowledged a message that it cannot have");
  }
}

/** Once it was sent it does not expire [MQTT-4.3.3-7]: the cloud may have it, and waits for the rest. */
function ageMsMax({ properties }: Message): number {
  const seconds = properties?.messageExpirySeconds;
  return seconds === undefined ? Number.POSITIVE_INFINITY : seconds * 1000 - 1;
}
