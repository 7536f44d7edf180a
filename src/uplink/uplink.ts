import { Backoff } from "../base/backoff.ts";
import type { Clock, Timer } from "../base/clock.ts";
import type { Publisher, Store, UplinkQueue, UplinkState } from "../base/contracts.ts";
import type { UplinkLetters } from "../base/deadLetters.ts";
import { messageOf } from "../base/errors.ts";
import { type Log, LogLimiter } from "../base/log.ts";
import type { Message, Qos } from "../base/message.ts";
import type { Meter } from "../base/meter.ts";
import type { ConnackPacket } from "../wire/mqtt/packet.ts";
import { Downlink, receiveMaximum } from "./downlink.ts";
import type { ForwardTarget, LiveRule } from "./forwarding.ts";
import { connectPacket } from "./hello.ts";
import { inboundPacketBytesMax, Link } from "./link.ts";
import { type UplinkCounters, uplinkCounters, uplinkGauges } from "./metrics.ts";
import type { UplinkOptions } from "./options.ts";
import { type CloudLimits, encodeForward } from "./outgoing.ts";
import { Sender } from "./sender.ts";
import { CloudSession } from "./session.ts";

/** Names of the uplinks that an operator has paused: kept over restarts. */
const pausedMap = "uplinks-paused";

/** Connections in a row that ended with messages sent and none answered, after which one of the messages is suspected. */
const fruitlessMax = 3;

export interface UplinkDeps {
  readonly store: Store;
  readonly publisher: Publisher;
  readonly letters: UplinkLetters;
  readonly clock: Clock;
  readonly log: Log;
  readonly meter: Meter;
}

/**
 * Store-and-forward to one cloud broker: takes durable messages out of its queue in priority order, keeps a window of them unacknowledged,
 * and settles each in the journal only after the cloud's PUBACK. Reconnects for ever. DESIGN.md has the whole of it.
 */
export class Uplink implements ForwardTarget {
  readonly options: UplinkOptions;
  readonly queue: UplinkQueue;
  readonly #deps: UplinkDeps;
  readonly #log: Log;
  readonly #limiter: LogLimiter;
  readonly #backoff: Backoff;
  readonly #count: UplinkCounters;
  readonly #sender: Sender;
  readonly #downlink: Downlink;
  readonly #session: CloudSession;
  #link: Link | undefined;
  #state: UplinkState["link"] = "stopped";
  #sinceMs: number;
  #upSinceMs = 0;
  #problem: string | undefined;
  #timer: Timer | undefined;
  #limits: CloudLimits | undefined;
  #urlAt = 0;
  #fruitless = 0;
  #dropGauges: () => void = () => {};
  #paused = false;

  constructor(options: UplinkOptions, deps: UplinkDeps) {
    // Packet identifiers end at 65535, which the SUBSCRIBE uses.
    this.options = { ...options, inflight: Math.max(1, Math.min(options.inflight, 65_534)) };
    this.#deps = deps;
    this.#sinceMs = deps.clock.wallMs();
    this.#log = deps.log.child({ uplink: options.name });
    this.#limiter = new LogLimiter({ nowMs: () => deps.clock.monotonicMs() });
    this.queue = deps.store.uplink(options.name, options.queue);
    this.#backoff = new Backoff(options.backoff);
    this.#count = uplinkCounters(deps.meter, options.name);
    const { clock, publisher, store, letters } = deps;
    const shared = { clock, log: this.#log, limiter: this.#limiter, count: this.#count };
    this.#session = new CloudSession(this.options, store, this.#log, this.queue.isNew);
    const onRefused = (subscriptions: number): void => {
      this.#problem = `the cloud refused ${subscriptions} of our subscriptions`;
      this.#announce();
    };
    this.#downlink = new Downlink(this.options, { ...shared, store, publisher, onRefused });
    const { echoes } = this.#downlink;
    this.#sender = new Sender(this.options, { ...shared, store, publisher, letters, echoes, queue: this.queue });
    this.#setPaused(store.get(pausedMap, options.name) !== undefined);
  }

  /** Begins to connect; returns at once. A cloud that is never reachable is retried for ever. */
  start(): void {
    if (this.#state !== "stopped") return;
    this.#dropGauges = uplinkGauges(this.#deps.meter, this.options.name, {
      up: () => this.#state === "up",
      paused: () => this.#paused,
      inflight: () => this.#sender.inflight,
      queue: () => this.queue.stats(),
    });
    this.#sender.begin();
    this.#connect();
  }

  /**
   * Pauses or goes on: while paused the link stays up, and nothing is sent. Kept over restarts.
   * @returns the group that must be durable before that holds. @throws what a commit throws
   */
  pause(paused: boolean): number {
    const { store } = this.#deps;
    const { name } = this.options;
    const { group } = store.commit((txn) =>
      paused ? txn.put(pausedMap, name, new Uint8Array(0)) : txn.delete(pausedMap, name),
    );
    if (this.#paused !== paused)
      this.#log.info({ paused }, paused ? "paused by an operator" : "resumed by an operator");
    this.#setPaused(paused);
    this.#announce();
    return group;
  }

  #setPaused(paused: boolean): void {
    this.#paused = paused;
    this.#sender.paused = paused;
  }

  /**
   * Ends the link, and resolves when its socket is gone (half a second at most). What is unacknowledged goes back to the queue and is sent again by
   * the next start, of this object or of another one with this queue.
   */
  async stop(): Promise<void> {
    if (this.#state === "stopped") return;
    const link = this.#link;
    this.#link = undefined;
    this.#timer?.cancel();
    this.#downlink.detach();
    this.#sender.release();
    this.#dropGauges();
    this.#enter("stopped");
    link?.close("stopped");
    await link?.closed;
  }

  state(): UplinkState {
    return {
      name: this.options.name,
      link: this.#state,
      sinceMs: this.#sinceMs,
      problem: this.#problem ?? this.#sender.problem,
      paused: this.#paused,
      sent: this.#count.sent.value,
      acknowledged: this.#count.acknowledged.value,
      inflight: this.#sender.inflight,
      queue: this.queue.stats(),
    };
  }

  /** A QoS 0 rule: now or never. It does not count against `drain`, which is for what waited. */
  sendLive(message: Message, rule: LiveRule): void {
    const { name, gatewayId } = this.options;
    if (message.source === `uplink:${name}`) return; // from this very cloud: it has it
    const dropped = this.#count.liveDropped;
    const link = this.#link;
    if (this.#state !== "up" || link === undefined || this.#limits === undefined) dropped.down.value += 1;
    else if (this.#paused) dropped.paused.value += 1;
    else if (!link.writable) dropped.full.value += 1;
    else {
      const wallMs = this.#deps.clock.wallMs();
      const { epoch } = this.#deps.store;
      const meta = { gw: gatewayId, epoch, seq: undefined, pri: rule.priority, wallMs, late: false };
      const wire = { qos: 0 as const, packetId: 0, dup: false };
      const bytes = encodeForward(message, rule, meta, 0, wire, this.#limits, this.options);
      if (typeof bytes === "string") dropped[bytes].value += 1;
      else {
        link.send(bytes);
        this.#downlink.echoes.sent(rule, message.topic, message.payload);
        this.#count.sent.value += 1;
      }
    }
  }

  #connect(): void {
    const { urls, version } = this.options;
    const url = urls[this.#urlAt++ % urls.length] ?? "";
    this.#enter("connecting");
    this.#log.debug({ url, version }, "connecting to the cloud");
    try {
      const clean = this.#mustDiscard(url);
      const hello = connectPacket(this.options, { receiveMaximum, maximumPacketSize: inboundPacketBytesMax }, clean);
      const link: Link = new Link(url, hello, this.options, this.#deps.clock, {
        up: (connack) => this.#up(link, connack, url, clean),
        puback: (packet) => this.#sender.puback(packet),
        pubrec: (packet) => this.#sender.pubrec(packet),
        pubrel: (packet) => this.#downlink.pubrel(packet),
        pubcomp: (packet) => this.#sender.pubcomp(packet),
        publish: (packet) => this.#downlink.publish(packet),
        suback: (packet) => this.#downlink.suback(packet),
        drained: () => this.#sender.pumpSoon(),
        down: (why) => this.#link === link && this.#down(why),
      });
      this.#link = link;
    } catch (error) {
      this.#down(`cannot connect to ${url}: ${messageOf(error)}`); // e.g. a TLS key that is none
    }
  }

  /** Whether the cloud has to forget the session that it may have of us, for it does not go with our packet identifiers. */
  #mustDiscard(url: string): boolean {
    if (!this.#sender.usesQos2 && !this.options.forward.some(({ qos }) => qos === 2)) return false;
    const why = this.#session.strangeness(url);
    if (why !== undefined && this.#limiter.due("discard"))
      this.#log.warn({ why }, "a session that the cloud may have of us is discarded, or it could lose QoS 2 messages");
    return why !== undefined;
  }

  #up(link: Link, connack: ConnackPacket, url: string, clean: boolean): void {
    const { properties } = connack;
    const sessionPresent = connack.sessionPresent && !clean;
    const isOurs = sessionPresent && this.#session.strangeness(url) === undefined;
    this.#session.connected(url, sessionPresent);
    if (clean && this.options.version === 4) {
      this.#urlAt -= 1; // a clean session of 3.1.1 ends with its connection: this one has done what it was for
      link.close("the cloud's old session was discarded; connecting again");
      return;
    }
    const { maxQos, maxPacketSize = Number.MAX_SAFE_INTEGER } = this.options;
    this.#limits = {
      receiveMaximum: properties?.receiveMaximum ?? 65_535,
      maximumPacketSize: Math.min(properties?.maximumPacketSize ?? maxPacketSize, maxPacketSize),
      maximumQos: Math.min(properties?.maximumQos ?? 2, maxQos) as Qos,
      retainAvailable: properties?.retainAvailable ?? true,
    };
    this.#upSinceMs = this.#deps.clock.monotonicMs();
    this.#count.connects.value += 1;
    this.#enter("up");
    this.#log.info({ backlog: this.queue.stats().messages, sessionPresent }, "the cloud is up");
    this.#downlink.attach(link, sessionPresent, isOurs);
    this.#sender.attach(link, this.#limits, sessionPresent);
  }

  #down(why: string): void {
    const { clock } = this.#deps;
    this.#link = undefined;
    this.#downlink.detach();
    this.#sender.detach();
    this.#count.disconnects.value += 1;
    let problem = why;
    if (this.#state === "up") {
      // A link that opened and fell at once must not be tried again without a pause: only one that stood a while resets it.
      if (clock.monotonicMs() - this.#upSinceMs > this.options.backoff.maxMs) {
        this.#backoff.reset();
        this.#urlAt = 0;
      }
      problem += this.#suspicion();
    }
    const waitMs = this.#backoff.nextMs();
    this.#enter("backoff", problem);
    if (this.#limiter.due(why))
      this.#log.warn({ why: problem, retryInMs: waitMs }, "the cloud is not reachable; messages are kept");
    this.#timer = clock.setTimer(waitMs, () => this.#connect());
  }

  /**
   * A message that the cloud cannot bear ends each connection before anything is answered. It is not dropped, for the fault may be the
   * cloud's; the pauses grow, and the operator is told which one it may be.
   */
  #suspicion(): string {
    this.#fruitless = this.#sender.fruitless ? this.#fruitless + 1 : 0;
    const oldest = this.#sender.oldest();
    if (this.#fruitless < fruitlessMax || oldest === undefined) return "";
    const { seq, message } = oldest;
    const size = `${message.payload.length} bytes on ${JSON.stringify(message.topic.slice(0, 200))}`;
    return `; ${this.#fruitless} connections in a row ended before it took the message with seq ${seq}, ${size}`;
  }

  #enter(state: UplinkState["link"], problem?: string): void {
    this.#state = state;
    this.#sinceMs = this.#deps.clock.wallMs();
    if (state !== "connecting") this.#problem = problem;
    this.#announce();
  }

  #announce(): void {
    const since = new Date(this.#sinceMs).toISOString();
    this.#deps.publisher.publish({
      topic: `$SYS/tidegate/uplinks/${this.options.name}/state`,
      payload: Buffer.from(JSON.stringify({ link: this.#state, paused: this.#paused, since, problem: this.#problem })),
      qos: 0,
      retain: true,
      source: "sys",
    });
  }
}
