/**
 * A CoAP sensor that can be observed (RFC 7641): /temp, a CBOR map { celsius, n }. It tells its observers every period, some times as
 * CON, some times as NON, and can fall silent, restart and forget them, send things twice and in the wrong order.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import { encode } from "cbor-x";
import {
  contentFormats,
  encodeDatagram,
  hasUnknownCritical,
  type ParsedPacket,
  parseDatagram,
  pathOf,
  readUintOption,
  uintOption,
} from "./codec/coap.ts";
import { Random } from "./random.ts";
import { type SimClock, systemSimClock } from "./simClock.ts";

export interface CoapObservableOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** 0 (default): any free one. */
  readonly port?: number;
  /** Between two values; default 1000. */
  readonly periodMs?: number;
  /** Share of notifications that ask for an acknowledgement; default 0.3. */
  readonly confirmable?: number;
  /** Max-Age of a value in seconds; default 60. */
  readonly maxAgeSeconds?: number;
  /** Falls silent (hears and says nothing) this often; 0 (default) never. */
  readonly silenceEveryMs?: number;
  /** ... and for so long; default 3000. */
  readonly silenceForMs?: number;
  /** Restarts this often, which forgets its observers; 0 (default) never. */
  readonly restartEveryMs?: number;
  /** Probability that a notification leaves after the one that follows it. */
  readonly reorder?: number;
  /** Probability that a notification arrives twice. */
  readonly duplicate?: number;
  readonly seed?: number;
  readonly clock?: SimClock;
}

export interface CoapObservableStats {
  /** Number of the present value; values are 1, 2, 3 ... */
  readonly n: number;
  readonly observers: number;
  readonly registrations: number;
  readonly notifications: number;
  /** CON notifications that were answered with an ACK. */
  readonly confirmed: number;
  /** Observers that answered RST or not at all. */
  readonly lost: number;
  readonly restarts: number;
  readonly malformed: number;
}

interface Peer {
  readonly address: string;
  readonly port: number;
}

interface Observer extends Peer {
  readonly token: Buffer;
  /** The CON notification that waits for its ACK, one at most (NSTART, RFC 7252 section 4.7). */
  outstanding: { readonly messageId: number; cancel: () => void } | undefined;
  /** Message ids of the last NON notifications: an RST may answer those too. */
  readonly recent: number[];
}

const observersMax = 64;
const repliesMax = 64;
const recentMax = 16;
const ackTimeoutMs = 2000; // RFC 7252 section 4.8
const retransmitMax = 4;

export class CoapObservable {
  readonly #options: CoapObservableOptions;
  readonly #clock: SimClock;
  readonly #random: Random;
  readonly #observers = new Map<string, Observer>();
  /** Answers to the latest requests by endpoint and message id: a repeated request is answered, not executed, again (section 4.5). */
  readonly #replies = new Map<string, Buffer | undefined>();
  readonly #timers = new Set<() => void>();
  #cancelProducing: (() => void) | undefined;
  #socket: Socket | undefined;
  #messageId: number;
  #sequence = 0;
  #silent = false;
  #delayed: { peer: Peer; datagram: Buffer } | undefined;
  #n = 1;
  #registrations = 0;
  #notifications = 0;
  #confirmed = 0;
  #lost = 0;
  #restarts = 0;
  #malformed = 0;

  constructor(options: CoapObservableOptions = {}) {
    this.#options = options;
    this.#clock = options.clock ?? systemSimClock;
    this.#random = new Random(options.seed ?? 1);
    this.#messageId = this.#random.below(65_536);
  }

  /** Celsius of value `n`, so that whoever knows the number can check what arrived. */
  static celsiusOf(n: number): number {
    return Math.round((20 + 5 * Math.sin(n / 10)) * 100) / 100;
  }

  /** @returns the port. @throws where it cannot be bound */
  async start(): Promise<number> {
    const socket = createSocket("udp4");
    this.#socket = socket;
    socket.on("message", (datagram, from) => this.#receive(datagram, from));
    socket.bind(this.#options.port ?? 0, this.#options.host ?? "127.0.0.1");
    await once(socket, "listening");
    socket.on("error", () => {}); // a peer that is gone; the next notification finds out
    this.#cancelProducing = this.#clock.every(this.#options.periodMs ?? 1000, () => this.#produce());
    this.#scheduleSilence();
    if ((this.#options.restartEveryMs ?? 0) > 0) {
      this.#timers.add(this.#clock.every(this.#options.restartEveryMs ?? 0, () => this.restart()));
    }
    return socket.address().port;
  }

  /** Takes no new values; requests and acknowledgements are still answered. */
  stopProducing(): void {
    this.#cancelProducing?.();
    this.#cancelProducing = undefined;
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    this.#silent = false;
    this.#release();
  }

  async stop(): Promise<void> {
    this.stopProducing();
    this.#forgetObservers();
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket === undefined) return;
    const closed = once(socket, "close");
    socket.close();
    await closed;
  }

  /** As a power cut does: observers and message ids are forgotten, nobody is told. The value's number goes on. */
  restart(): void {
    this.#forgetObservers();
    this.#replies.clear();
    this.#delayed = undefined;
    this.#sequence = 0;
    this.#messageId = this.#random.below(65_536);
    this.#restarts += 1;
  }

  stats(): CoapObservableStats {
    return {
      n: this.#n,
      observers: this.#observers.size,
      registrations: this.#registrations,
      notifications: this.#notifications,
      confirmed: this.#confirmed,
      lost: this.#lost,
      restarts: this.#restarts,
      malformed: this.#malformed,
    };
  }

  // ---------------------------------------------------------------- values out

  #produce(): void {
    this.#n += 1;
    this.#sequence = (this.#sequence + 1) & 0xffffff; // 24 bits, RFC 7641 section 3.4
    for (const [key, observer] of this.#observers) this.#notify(key, observer);
  }

  #notify(key: string, observer: Observer): void {
    const confirmable = observer.outstanding === undefined && this.#random.chance(this.#options.confirmable ?? 0.3);
    const messageId = this.#nextMessageId();
    const datagram = encodeDatagram({
      code: "2.05",
      confirmable,
      messageId,
      token: observer.token,
      options: this.#valueOptions(this.#sequence),
      payload: this.#payload(),
    });
    this.#notifications += 1;
    if (confirmable) {
      this.#awaitAck(key, observer, messageId, datagram, ackTimeoutMs * (1 + this.#random.next() / 2), 0);
    } else {
      observer.recent.push(messageId);
      if (observer.recent.length > recentMax) observer.recent.shift();
    }
    this.#sendNotification(observer, datagram);
  }

  #sendNotification(peer: Peer, datagram: Buffer): void {
    if (this.#delayed === undefined && this.#random.chance(this.#options.reorder ?? 0)) {
      this.#delayed = { peer, datagram };
      return;
    }
    this.#send(peer, datagram);
    if (this.#random.chance(this.#options.duplicate ?? 0)) this.#send(peer, datagram);
    this.#release();
  }

  /** What was held back leaves now, too late. */
  #release(): void {
    const delayed = this.#delayed;
    this.#delayed = undefined;
    if (delayed !== undefined) this.#send(delayed.peer, delayed.datagram);
  }

  #awaitAck(key: string, observer: Observer, messageId: number, datagram: Buffer, waitMs: number, tries: number): void {
    const cancel = this.#clock.after(waitMs, () => {
      observer.outstanding = undefined;
      if (tries >= retransmitMax) {
        this.#lost += 1;
        this.#observers.delete(key); // RFC 7641 section 4.5
        return;
      }
      this.#send(observer, datagram);
      this.#awaitAck(key, observer, messageId, datagram, waitMs * 2, tries + 1);
    });
    observer.outstanding = { messageId, cancel };
  }

  // ---------------------------------------------------------------- messages in

  #receive(datagram: Buffer, from: RemoteInfo): void {
    if (this.#silent) return;
    const packet = parseDatagram(datagram);
    if (packet === undefined) {
      this.#malformed += 1;
      return;
    }
    if (packet.ack || packet.reset) this.#settle(packet, from);
    else if (packet.code === "0.00") {
      // An empty CON is a ping, answered with RST (RFC 7252 section 4.3).
      if (packet.confirmable)
        this.#send(from, encodeDatagram({ code: "0.00", reset: true, messageId: packet.messageId }));
    } else if (packet.code.startsWith("0.")) this.#answer(packet, from);
    else if (packet.confirmable) {
      this.#send(from, encodeDatagram({ code: "0.00", reset: true, messageId: packet.messageId }));
    }
  }

  #settle(packet: ParsedPacket, from: Peer): void {
    for (const [key, observer] of this.#observers) {
      if (observer.address !== from.address || observer.port !== from.port) continue;
      const outstanding = observer.outstanding?.messageId === packet.messageId;
      if (outstanding) {
        observer.outstanding?.cancel();
        observer.outstanding = undefined;
      }
      if (packet.ack && outstanding) this.#confirmed += 1;
      if (packet.reset && (outstanding || observer.recent.includes(packet.messageId))) {
        this.#lost += 1;
        this.#observers.delete(key); // RFC 7641 section 3.6
      }
    }
  }

  #answer(packet: ParsedPacket, from: RemoteInfo): void {
    const key = `${from.address}:${from.port}:${packet.messageId}`;
    if (this.#replies.has(key)) {
      const again = this.#replies.get(key);
      if (again !== undefined) this.#send(from, again);
      return;
    }
    const reply = this.#replyTo(packet, from);
    this.#replies.set(key, reply);
    if (this.#replies.size > repliesMax) {
      const oldest = this.#replies.keys().next();
      if (!oldest.done) this.#replies.delete(oldest.value);
    }
    if (reply !== undefined) this.#send(from, reply);
  }

  /** @returns undefined for a NON request that must be passed over in silence */
  #replyTo(packet: ParsedPacket, from: RemoteInfo): Buffer | undefined {
    const frame = {
      ack: packet.confirmable,
      messageId: packet.confirmable ? packet.messageId : this.#nextMessageId(),
      token: packet.token,
    };
    if (hasUnknownCritical(packet)) return packet.confirmable ? encodeDatagram({ ...frame, code: "4.02" }) : undefined;
    const path = pathOf(packet);
    if (path !== "/temp" && path !== "/.well-known/core") return encodeDatagram({ ...frame, code: "4.04" });
    if (packet.code !== "0.01") return encodeDatagram({ ...frame, code: "4.05" });
    if (path === "/.well-known/core") {
      const options = [{ name: "Content-Format" as const, value: uintOption(contentFormats.linkFormat) }];
      const payload = Buffer.from('</temp>;rt="temperature";ct=60;obs');
      return encodeDatagram({ ...frame, code: "2.05", options, payload });
    }
    const accept = readUintOption(packet, "Accept");
    if (accept !== undefined && accept !== contentFormats.cbor) return encodeDatagram({ ...frame, code: "4.06" });
    const sequence = this.#register(packet, from);
    const options = this.#valueOptions(sequence);
    return encodeDatagram({ ...frame, code: "2.05", options, payload: this.#payload() });
  }

  /** @returns the observe number for the answer when the peer is registered now */
  #register(packet: ParsedPacket, from: RemoteInfo): number | undefined {
    const wish = readUintOption(packet, "Observe");
    const key = `${from.address}:${from.port}:${packet.token.toString("hex")}`;
    const known = this.#observers.get(key);
    if (wish === 1) {
      known?.outstanding?.cancel();
      this.#observers.delete(key);
    }
    if (wish !== 0 || (known === undefined && this.#observers.size >= observersMax)) return undefined;
    this.#registrations += 1;
    if (known === undefined) {
      const token = Buffer.from(packet.token);
      const observer = { address: from.address, port: from.port, token, outstanding: undefined, recent: [] };
      this.#observers.set(key, observer);
    }
    this.#sequence = (this.#sequence + 1) & 0xffffff;
    return this.#sequence;
  }

  // ---------------------------------------------------------------- small parts

  #valueOptions(
    sequence: number | undefined,
  ): Array<{ name: "Observe" | "Content-Format" | "Max-Age"; value: Buffer }> {
    const options: Array<{ name: "Observe" | "Content-Format" | "Max-Age"; value: Buffer }> = [
      { name: "Content-Format", value: uintOption(contentFormats.cbor) },
      { name: "Max-Age", value: uintOption(this.#options.maxAgeSeconds ?? 60) },
    ];
    if (sequence !== undefined) options.unshift({ name: "Observe", value: uintOption(sequence) });
    return options;
  }

  #payload(): Buffer {
    return Buffer.from(encode({ celsius: CoapObservable.celsiusOf(this.#n), n: this.#n }));
  }

  #nextMessageId(): number {
    this.#messageId = (this.#messageId + 1) & 0xffff;
    return this.#messageId;
  }

  #send(peer: Peer, datagram: Buffer): void {
    if (!this.#silent) this.#socket?.send(datagram, peer.port, peer.address);
  }

  #forgetObservers(): void {
    for (const observer of this.#observers.values()) observer.outstanding?.cancel();
    this.#observers.clear();
  }

  #scheduleSilence(): void {
    const everyMs = this.#options.silenceEveryMs ?? 0;
    if (everyMs <= 0) return;
    const wait = (ms: number, silent: boolean): void => {
      const cancel = this.#clock.after(ms, () => {
        this.#timers.delete(cancel);
        this.#silent = silent;
        wait(silent ? (this.#options.silenceForMs ?? 3000) : everyMs, !silent);
      });
      this.#timers.add(cancel);
    };
    wait(everyMs, true);
  }
}
