import type { Clock, Timer } from "../base/clock.ts";
import type { Publisher, Store, UplinkQueue, UplinkState } from "../base/contracts.ts";
import type { UplinkLetters } from "../base/deadLetters.ts";
import { messageOf } from "../base/errors.ts";
import { type LinkFault, linkFault } from "../base/linkFaults.ts";
import { type Log, LogLimiter } from "../base/log.ts";
import type { Message } from "../base/message.ts";
import type { Meter } from "../base/meter.ts";
import type { ConnackPacket } from "../wire/mqtt/packet.ts";
import { Downlink, receiveMaximum } from "./downlink.ts";
import { Endpoints } from "./endpoints.ts";
import { Flow } from "./flow.ts";
import type { ForwardTarget, LiveRule } from "./forwarding.ts";
import { FreshCredentials } from "./freshCredentials.ts";
import { cloudLimits, shorterSession, subscriptionLimits } from "./greeting.ts";
import { connectPacket } from "./hello.ts";
import { inboundPacketBytesMax, Link } from "./link.ts";
import { type UplinkCounters, type UplinkGauges, uplinkCounters, uplinkGauges } from "./metrics.ts";
import type { UplinkOptions } from "./options.ts";
import { type CloudLimits, encodeForward } from "./outgoing.ts";
import { Sender } from "./sender.ts";
import { CloudSession } from "./session.ts";
import { messageText } from "./texts.ts";

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
  readonly #endpoints: Endpoints;
  readonly #count: UplinkCounters;
  readonly #sender: Sender;
  readonly #downlink: Downlink;
  readonly #session: CloudSession;
  readonly #credentials: FreshCredentials;
  #link: Link | undefined;
  #state: UplinkState["link"] = "stopped";
  /** Wall clock: up, or not up, since then, whatever the attempts meanwhile. */
  #sinceMs: number;
  #upSinceMs = 0;
  #problem: string | undefined;
  #fault: UplinkState["lastError"];
  #retryAtMs: number | undefined;
  #attempts = 0;
  /** Which call of `#connect` may still open a link. */
  #turn = 0;
  /** Faults that were logged since the link last stood: one line a change, none a retry. As many as there are codes and urls. */
  readonly #said = new Set<string>();
  /** Nothing was said since, or that it is down. */
  #upIsNews = true;
  readonly #flow = new Flow();
  /** To the sockets of links that have ended. */
  #earlierBytes = 0;
  #timer: Timer | undefined;
  #limits: CloudLimits | undefined;
  #fruitless = 0;
  #gauges: UplinkGauges | undefined;
  #paused = false;

  constructor(options: UplinkOptions, deps: UplinkDeps) {
    // Packet identifiers end at 65535, which the SUBSCRIBE uses.
    this.options = { ...options, inflight: Math.max(1, Math.min(options.inflight, 65_534)) };
    this.#deps = deps;
    this.#sinceMs = deps.clock.wallMs();
    this.#log = deps.log.child({ uplink: options.name });
    this.#limiter = new LogLimiter({ nowMs: () => deps.clock.monotonicMs() });
    this.queue = deps.store.uplink(options.name, options.queue);
    this.#endpoints = new Endpoints(options.urls, options.backoff);
    this.#count = uplinkCounters(deps.meter, options.name);
    this.#credentials = new FreshCredentials(options, deps.clock, this.#log);
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
    this.#gauges = uplinkGauges(this.#deps.meter, this.options.name, {
      up: () => this.#state === "up",
      paused: () => this.#paused,
      inflight: () => this.#sender.inflight,
      state: () => this.state(),
      oldestAgeMs: () => this.#oldestAgeMs(),
      certificateEndMs: this.options.tls?.cert === undefined ? undefined : () => this.#credentials.endMs,
    });
    this.#sender.begin();
    this.#connect();
  }

  /**
   * Pauses or goes on: while paused the link stays up, and nothing is sent. Kept over restarts. Going on also tries a link that is down at once.
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
    if (!paused) this.retry();
    return group;
  }

  /**
   * Tries a link that is down at once: somebody has mended something, and should not wait for a long pause to end. An attempt that is under way may have
   * begun with what was there before: should it fail, another one follows.
   */
  retry(): void {
    if (this.#state === "connecting") this.#endpoints.again();
    if (this.#state !== "backoff") return;
    this.#timer?.cancel();
    this.#endpoints.mended();
    this.#connect();
  }

  /** Takes up files that were renewed: a link that is down is tried with them at once, one that is up stays and says whether the next can use them. */
  refresh(): void {
    this.retry();
    if (this.#state !== "up" || !this.#credentials.inFiles) return;
    void this.#credentials.refresh().then(() => this.#state === "up" && this.#announce());
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
    this.#retryAtMs = undefined;
    this.#earlierBytes += link?.bytesSent ?? 0;
    this.#downlink.detach();
    this.#sender.release();
    this.#gauges?.drop();
    this.#enter("stopped");
    link?.close(linkFault("disconnected", "stopped"));
    await link?.closed;
  }

  state(): UplinkState {
    this.#measure();
    const { name } = this.options;
    const queue = this.queue.stats();
    const roomBytes = Math.max(0, this.options.queue.maxBytes - queue.bytes);
    return {
      name,
      link: this.#state,
      sinceMs: this.#sinceMs,
      url: this.#endpoints.url,
      reason: this.#state === "up" || this.#state === "stopped" ? undefined : this.#fault?.code,
      problem: this.#problem ?? this.#credentials.problem ?? this.#downlink.problem ?? this.#sender.problem,
      retryAtMs: this.#retryAtMs,
      attempts: this.#attempts,
      lastError: this.#fault,
      paused: this.#paused,
      sent: this.#count.sent.value,
      acknowledged: this.#count.acknowledged.value,
      inflight: this.#sender.inflight,
      queue,
      rates: this.#flow.rates(),
      eta: this.#flow.eta(this.#state, this.#paused, queue),
      room: { bytes: roomBytes, seconds: this.#flow.roomSeconds(roomBytes) },
    };
  }

  #oldestAgeMs(): number {
    const oldest = this.queue.stats().oldestAcceptedAtMs;
    return oldest === undefined ? 0 : Math.max(0, this.#deps.store.nowMs() - oldest);
  }

  /** Measures the rates, looks whether the cloud answers and our certificate ends; to be called every few seconds. */
  look(): void {
    this.#measure();
    this.#credentials.look();
    this.#downlink.look();
    this.#sender.look();
  }

  #measure(): void {
    this.#flow.look(this.#passed(), this.#deps.clock.monotonicMs());
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

  #passed(): Parameters<Flow["look"]>[0] {
    const { taken, takenBytes } = this.queue.stats();
    const bytesOut = this.#earlierBytes + (this.#link?.bytesSent ?? 0);
    return { messagesIn: taken, bytesIn: takenBytes, messagesOut: this.#count.acknowledged.value, bytesOut };
  }

  #connect(): void {
    this.#retryAtMs = undefined;
    this.#enter("connecting");
    this.#turn += 1;
    if (!this.#credentials.inFiles) return this.#open();
    const turn = this.#turn;
    void this.#credentials.refresh().then(() => {
      if (this.#turn === turn && this.#state === "connecting") this.#open(); // or it was stopped meanwhile
    });
  }

  #open(): void {
    const options = { ...this.options, ...this.#credentials.now };
    const { version } = options;
    const { url } = this.#endpoints;
    this.#log.debug({ url, version }, "connecting to the cloud");
    try {
      const clean = this.#mustDiscard(url);
      const hello = connectPacket(options, { receiveMaximum, maximumPacketSize: inboundPacketBytesMax }, clean);
      const link: Link = new Link(url, hello, options, this.#deps.clock, {
        up: (connack) => this.#up(link, connack, url, clean),
        puback: (packet) => this.#sender.puback(packet),
        pubrec: (packet) => this.#sender.pubrec(packet),
        pubrel: (packet) => this.#downlink.pubrel(packet),
        pubcomp: (packet) => this.#sender.pubcomp(packet),
        publish: (packet) => this.#downlink.publish(packet),
        suback: (packet) => this.#downlink.suback(packet),
        drained: () => this.#sender.pumpSoon(),
        down: (fault) => this.#link === link && this.#down(fault),
      });
      this.#link = link;
    } catch (error) {
      this.#down(linkFault("tls-files", `cannot connect to ${url}: ${messageOf(error)}`));
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
    const sessionPresent = connack.sessionPresent && !clean;
    const isOurs = sessionPresent && this.#session.strangeness(url) === undefined;
    this.#session.connected(url, sessionPresent);
    if (clean && this.options.version === 4) {
      this.#endpoints.stay(); // a clean session of 3.1.1 ends with its connection: this one has done what it was for
      link.close(linkFault("disconnected", "the cloud's old session was discarded; connecting again"));
      return;
    }
    this.#limits = cloudLimits(connack, this.options, this.#count.aliasSavedBytes);
    this.#upSinceMs = this.#deps.clock.monotonicMs();
    this.#count.connects.value += 1;
    this.#endpoints.accepted();
    this.#attempts = 0;
    this.#flow.linkUp(this.#passed(), this.#upSinceMs);
    this.#enter("up");
    const sessionSeconds = shorterSession(connack, this.options);
    if (this.#upIsNews)
      this.#log.info({ backlog: this.queue.stats().messages, sessionPresent, url, sessionSeconds }, "the cloud is up");
    this.#upIsNews = false;
    this.#downlink.attach(link, sessionPresent, isOurs, subscriptionLimits(connack));
    this.#sender.attach(link, this.#limits, sessionPresent);
  }

  #down(fault: LinkFault): void {
    const { clock } = this.#deps;
    const nowMs = clock.monotonicMs();
    const { url } = this.#endpoints;
    this.#earlierBytes += this.#link?.bytesSent ?? 0;
    this.#link = undefined;
    this.#downlink.detach();
    this.#sender.detach();
    this.#count.disconnects.value += 1;
    let { text } = fault;
    let stood = false;
    if (this.#state === "up") {
      // A link that opened and fell at once must not be tried again without a pause: only one that stood a while resets it. One that takes
      // messages and does not answer may stand for ever, and another url do better.
      stood = fault.code !== "ack-timeout" && nowMs - this.#upSinceMs > this.options.backoff.maxMs;
      text += this.#suspicion();
    }
    if (this.#credentials.problem !== undefined) text += `; ${this.#credentials.problem}`;
    if (stood) this.#said.clear();
    this.#attempts += 1;
    const waitMs = this.#endpoints.failed(fault, stood, nowMs);
    this.#retryAtMs = clock.wallMs() + waitMs;
    this.#fault = { code: fault.code, text, url, atMs: clock.wallMs() };
    this.#count.faults(fault.code).value += 1;
    this.#gauges?.seen(fault.code);
    this.#enter("backoff", text);
    const news = `${fault.code} ${url} ${this.#fruitless >= fruitlessMax}`;
    if (!this.#said.has(news)) {
      this.#said.add(news);
      this.#upIsNews = true;
      const fields = { reason: fault.code, url, why: text, retryInMs: waitMs };
      this.#log.warn(fields, "the cloud is not reachable; messages are kept");
    }
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
    return `; ${this.#fruitless} connections in a row ended before it took ${messageText(oldest)}`;
  }

  #enter(state: UplinkState["link"], problem?: string): void {
    const isNews = (state === "up") !== (this.#state === "up") || state === "stopped" || this.#state === "stopped";
    if (isNews) this.#sinceMs = this.#deps.clock.wallMs();
    this.#state = state;
    if (state !== "connecting") this.#problem = problem;
    this.#announce();
  }

  #announce(): void {
    const since = new Date(this.#sinceMs).toISOString();
    const down = this.#state === "connecting" || this.#state === "backoff";
    const reason = down ? this.#fault?.code : undefined;
    const state = {
      link: this.#state,
      paused: this.#paused,
      since,
      url: this.#endpoints.url,
      reason,
      problem: this.#problem ?? this.#credentials.problem,
    };
    this.#deps.publisher.publish({
      topic: `$SYS/tidegate/uplinks/${this.options.name}/state`,
      payload: Buffer.from(JSON.stringify(state)),
      qos: 0,
      retain: true,
      source: "sys",
    });
  }
}
