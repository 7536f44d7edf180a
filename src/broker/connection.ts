import type { Duplex } from "node:stream";
import type { Timer } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { encodeAck } from "../wire/mqtt/ack.ts";
import { mustBeginConnect } from "../wire/mqtt/connect.ts";
import { encodePacket } from "../wire/mqtt/encode.ts";
import { FrameScanner } from "../wire/mqtt/frameScanner.ts";
import type { Packet, ProtocolVersion } from "../wire/mqtt/packet.ts";
import { ProtocolError } from "../wire/mqtt/protocolError.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import type { Identity } from "./access/access.ts";
import { type AckByte, ackByte, ackNames } from "./ackLedger.ts";
import type { Place } from "./admission.ts";
import type { Authentication } from "./authHandler.ts";
import {
  answersMax,
  askCopies,
  askEvery,
  lingerMs,
  livelyBytes,
  lonelyBytes,
  turnPackets,
} from "./connectionLimits.ts";
import type { BrokerContext } from "./context.ts";
import type { MemoryHolder } from "./heldMemory.ts";
import { faultOf } from "./metrics.ts";
import type { PeerInfo } from "./options.ts";
import { Outbox } from "./outbox.ts";
import { heldFor, pause } from "./pauses.ts";
import { explanation, unexplained } from "./reasonText.ts";
import { refuseFault } from "./refuseFault.ts";
import type { RetainedFeed } from "./retainedFeed.ts";
import type { Link, Session } from "./session.ts";
import { bytesIn, readOn, readsStraight, type SocketUser, stopReading, useSocket } from "./socketUser.ts";
import { greedyBytes, type Waiting } from "./turnShare.ts";
import type { WillFate } from "./wills.ts";

type State =
  | { readonly phase: "connecting" }
  | { readonly phase: "connected"; readonly session: Session }
  | { readonly phase: "closed" };

export interface ConnectionHost {
  /** A whole packet is in `connection.scanner`. @returns how many were handled, itself and what lay behind it @throws ProtocolError */
  frame(connection: Connection): number;
  closed(connection: Connection): void;
}

/** One network connection: bytes in, bytes out, and when it ends. What the packets mean is the handlers' part. */
export class Connection implements Link, MemoryHolder, SocketUser, Waiting {
  readonly scanner: FrameScanner;
  readonly outbox: Outbox;
  readonly peer: PeerInfo;
  readonly place: Place;
  version: ProtocolVersion = 4;
  packetSizeMax = Number.POSITIVE_INFINITY;
  window: number;
  keepAliveMs = 0; // none
  lastGroup = 0;
  waitingAcks = 0;
  /** QoS 1 and 2 PUBLISH that the client may count as unacknowledged (MQTT 5 section 4.9). */
  unacknowledged = 0;
  /** QoS 2 ids that the session held before this connection: when they come again they count for the first time here. */
  resumedIds: Set<number> | undefined;
  readonly aliases: Array<string | undefined> = [];
  feed: RetainedFeed | undefined;
  /** Once connected: who it is, for as long as that holds. */
  identity: Identity | undefined;
  /** An exchange of AUTH packets that is under way (MQTT 5 section 4.12). */
  authentication: Authentication | undefined;
  readonly openedMs: number;
  /** When the last whole packet came; for Keep Alive. */
  lastReadMs: number;
  #partialBytes = 0;
  #framing = 0;
  #begun = false;
  #state: State = { phase: "connecting" };
  #pauses = 0;
  unreadBytes = 0;
  #inLineMs = 0; // when it began to wait for its turn
  /** Its turn came when it had nothing, and since then neither have packets. */
  #mayRead = false;
  /** Nothing more comes, but not all that came has been handled. */
  #hungUp = false;
  #linger: Timer | undefined;
  readonly #socket: Duplex;
  readonly #context: BrokerContext;
  readonly #host: ConnectionHost;

  /** @param place its own, which the host gives back */
  constructor(socket: Duplex, peer: PeerInfo, place: Place, context: BrokerContext, host: ConnectionHost) {
    this.#socket = socket;
    this.place = place;
    this.#context = context;
    this.#host = host;
    this.peer = peer;
    this.scanner = new FrameScanner(context.limits.maxPacketSize);
    this.outbox = new Outbox(socket, context.flusher, context.limits.outboxBytes, context.metrics.bytesSent, this);
    this.window = context.limits.maxInflight;
    this.lastReadMs = context.clock.monotonicMs();
    this.openedMs = this.lastReadMs - (peer.waitedMs ?? 0);
    useSocket(socket, this);
  }

  get open(): boolean {
    return this.#state.phase !== "closed";
  }

  get session(): Session | undefined {
    return this.#state.phase === "connected" ? this.#state.session : undefined;
  }

  get address(): string | undefined {
    return this.peer.address;
  }

  /**
   * Acknowledgements that may wait for the disk before we stop reading: 3.1.1 has no Receive Maximum, and PUBREL, PUBREC and what is sent
   * again count for none in MQTT 5 either. No getter: a private one is a call into V8's runtime, and this is asked with each packet.
   */
  #waitingAcksMax(): number {
    const { receiveMaximum } = this.#context.limits;
    return this.version === 5 ? 2 * receiveMaximum + this.window : receiveMaximum;
  }

  connected(session: Session): void {
    this.#state = { phase: "connected", session };
  }

  /** False: it is larger than the client takes [MQTT-3.1.2-24], even without its Reason String [MQTT-3.2.2-19], so it was not sent. */
  send(packet: Packet): boolean {
    let bytes = encodePacket(packet, this.version);
    if (bytes.length > this.packetSizeMax) bytes = encodePacket(unexplained(packet), this.version);
    if (bytes.length > this.packetSizeMax) return false;
    this.outbox.append(bytes, 0, bytes.length);
    this.#context.metrics.othersSent.value += 1;
    return true;
  }

  /** Whether `send` would send it. */
  takes(packet: Packet): boolean {
    return !Number.isFinite(this.packetSizeMax) || encodePacket(packet, this.version).length <= this.packetSizeMax;
  }

  writeAck(kind: AckByte, packetId: number, reasonCode: number, count = 1): void {
    if (kind === ackByte.puback || kind === ackByte.pubcomp || (kind === ackByte.pubrec && reasonCode >= 0x80)) {
      this.unacknowledged = Math.max(0, this.unacknowledged - count);
    }
    this.#context.metrics.othersSent.value += count;
    if (reasonCode === 0 || this.version !== 5) return this.outbox.appendAck(kind, packetId, count);
    for (let id = packetId; id < packetId + count; id += 1) {
      const bytes = encodeAck(ackNames[kind], id, reasonCode, this.version);
      this.outbox.append(bytes, 0, bytes.length);
    }
  }

  acksSettled(): void {
    if (this.waitingAcks * 2 <= this.#context.limits.receiveMaximum) this.resume(pause.acks);
  }

  /** The publisher learns that nothing more is acknowledged by losing its connection; it sends again elsewhere or later. */
  storeLost(): void {
    this.close(reason.quotaExceeded);
  }

  /** Stops reading until `resume` with the same bit. */
  pause(bit: number): void {
    this.#pauses |= bit;
  }

  resume(bit: number): void {
    if ((this.#pauses & bit) === 0) return;
    this.#pauses &= ~bit;
    if (this.#pauses !== 0) return this.#countPaused(); // what it held for the client it may hold for the disk now
    if (!this.open) return;
    this.#alive(this.#context.clock.monotonicMs()); // Keep Alive stood still with us; at once, or a look at it before our turn would end us
    setImmediate(() => this.#resumeReading());
  }

  /** Refuses the CONNECT, then closes. @param why for people; only MQTT 5 can be told */
  refuse(reasonCode: number, returnCode: number, why?: string): void {
    const code = this.version === 5 ? reasonCode : returnCode;
    this.send({ kind: "connack", sessionPresent: false, reasonCode: code, properties: explanation(why) });
    this.#finish("discard", true);
  }

  /** Ends the connection from our side: MQTT 5 is told why [MQTT-4.13.2-1], 3.1.1 has no packet for it. @param why for people */
  close(reasonCode: number, why?: string, will: WillFate = "publish"): void {
    if (this.#state.phase === "connected" && this.version === 5) {
      this.send({ kind: "disconnect", reasonCode, properties: explanation(why) });
    }
    this.#finish(will, true);
  }

  /** The client said DISCONNECT. @param normally with reason 0, which removes its will [MQTT-3.1.2-10] */
  leave(normally: boolean): void {
    this.#finish(normally ? "discard" : "publish", true);
  }

  /** Keep Alive and the time for CONNECT. @param nowMs monotonic @returns how long until one of them may be over, ms */
  tick(nowMs: number): number {
    if (this.#pauses !== 0) this.#countPaused();
    if (this.#state.phase === "connecting") {
      const leftMs = this.openedMs + this.#context.limits.connectTimeoutMs - nowMs;
      if (leftMs > 0) return leftMs;
      this.#context.metrics.refused("timeout").value += 1;
      this.#finish("discard", false);
    } else if (this.keepAliveMs > 0 && this.#pauses === 0) {
      const leftMs = this.lastReadMs + this.keepAliveMs * 1.5 - nowMs;
      if (leftMs >= 0) return leftMs;
      this.#context.metrics.protocolError("keep-alive").value += 1; // [MQTT-3.1.2-22]
      this.close(reason.keepAliveTimeout, "nothing came for one and a half times the Keep Alive");
    }
    return Number.POSITIVE_INFINITY;
  }

  /** Work for this connection outside of a packet's own turn: what it throws ends the connection, as it would there. */
  attempt(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fault(error);
    }
  }

  received(chunk: Buffer): void {
    if (!this.open) return;
    this.#context.metrics.bytesReceived.value += chunk.length;
    this.#partialBytes += chunk.length;
    this.scanner.push(chunk);
    if ((this.#pauses & pause.turn) !== 0) return this.#grown();
    const alone = chunk.length <= lonelyBytes && this.#context.turn.fresh;
    this.#readPackets(chunk);
    if (alone) this.#context.flusher.flush();
  }

  framed(bytes: number): void {
    this.#framing = bytes;
    this.#countPartial(bytes === 0);
  }

  /** What came before that still counts, its DISCONNECT above all: paused streams tell it as soon as they have nothing left themselves. */
  ended(): void {
    if (this.scanner.unreadBytes > 0) this.#hungUp = true;
    else this.#finish("publish", false);
  }

  /** What had come whole before an error counts, too, but for a log-in that nobody waits for any more. */
  closed(): void {
    this.#linger?.cancel();
    this.#hungUp = this.scanner.unreadBytes > 0 && this.#state.phase === "connected";
    if (!this.#hungUp) this.#finish("publish", false);
    else this.resume(pause.outbox); // which nobody reads
  }

  #alive(nowMs: number): void {
    this.#partialBytes = 0;
    this.lastReadMs = nowMs;
  }

  #readPackets(first?: Buffer): void {
    let left = turnPackets;
    const { limits, turn, deliverer, pipeline, paused } = this.#context;
    const unread = this.scanner.unreadBytes;
    let askAt = deliverer.copies + askCopies;
    let askLeft = left - askEvery;
    try {
      if (!this.#begun && first !== undefined) {
        this.#begun = true;
        mustBeginConnect(first[0] ?? 0);
      }
      if (unread > 0 && turn.spent() && turn.holds(unread)) this.#pauses |= pause.turn;
      while (this.#pauses === 0 && this.#state.phase !== "closed" && this.scanner.next()) {
        left -= this.#host.frame(this);
        if (left <= askLeft || deliverer.copies >= askAt) {
          askLeft = left - askEvery;
          askAt = deliverer.copies + askCopies;
          if ((left <= 0 || turn.spent()) && turn.holds(unread)) this.#pauses |= pause.turn;
        }
        if (this.waitingAcks > 0 && this.waitingAcks >= this.#waitingAcksMax()) this.#pauses |= pause.acks;
      }
      if (left < turnPackets || this.#partialBytes >= livelyBytes) this.#alive(turn.nowMs);
      this.#countPartial(left < turnPackets);
    } catch (error) {
      this.#fault(error);
      return;
    } finally {
      pipeline.plain.forget();
    }
    // Who asks without reading the answers is not read either, until `full` has ended.
    if (this.outbox.bytes > limits.outboxBytes + answersMax && this.outbox.full && !this.#socket.destroyed) {
      this.#pauses |= pause.outbox;
    }
    if (unread >= greedyBytes && turn.crowded) this.#pauses |= pause.turn;
    if (this.#pauses === 0 && !this.#hungUp && paused.turnsAway(this)) this.#pauses |= pause.crowd;
    if (this.#pauses !== 0 && this.open) this.#stop(left < turnPackets);
  }

  #stop(handledSome: boolean): void {
    this.scanner.rest();
    this.unreadBytes = this.scanner.unreadBytes;
    const waits = (this.#pauses & pause.turn) !== 0;
    const hasMore = this.unreadBytes === 0 || this.unreadBytes >= greedyBytes || this.#pauses !== pause.turn;
    if (hasMore || !readsStraight(this.#socket)) stopReading(this.#socket);
    if (waits) this.#inLineMs = this.#context.turn.wait(this, this.#mayRead && !handledSome);
    else this.#countPaused();
    this.#mayRead = false;
  }

  /** More has come before its turn did. */
  #grown(): void {
    stopReading(this.#socket);
    this.#context.turn.grown(this.scanner.unreadBytes - this.unreadBytes);
    this.unreadBytes = this.scanner.unreadBytes;
  }

  /** What others hold takes too much memory: this one is not read until it is better, unless it is the one that is handled now. @param bit turn or crowd */
  standBack(bit: number): void {
    if (this.#pauses !== 0 && this.open) return stopReading(this.#socket); // while it waits for its turn it may be read on
    if (!this.open || this.scanner.unreadBytes > 0 || this.scanner.buffer.length > 0) return;
    this.#pauses = bit;
    this.#stop(false);
  }

  /** Who waits for its turn is counted there. */
  #countPaused(): void {
    const counts = this.open && this.#pauses !== 0 && (this.#pauses & pause.turn) === 0;
    const bytes = counts ? this.scanner.unreadBytes + bytesIn(this.#socket) : 0;
    this.#context.paused.set(this, bytes, heldFor(this.#pauses));
  }

  #countPartial(begun: boolean): void {
    if (this.open) this.#context.partials.set(this, this.scanner.bufferedBytes + this.#framing, begun);
  }

  giveWay(fault: "incomplete" | "paused", why: string): void {
    this.#context.metrics.protocolError(fault).value += 1;
    this.close(reason.quotaExceeded, why);
  }

  nextTurn(): void {
    this.#pauses &= ~pause.turn;
    this.lastReadMs += this.#context.turn.nowMs - this.#inLineMs; // Keep Alive stood still with us
    this.#mayRead = this.unreadBytes === 0;
    this.#resumeReading();
  }

  #fault(error: unknown): void {
    const { metrics, log } = this.#context;
    const clientId = this.session?.clientId;
    if (!(error instanceof ProtocolError)) {
      log.error({ clientId, listener: this.peer.listener, error }, `TG_INTERNAL: ${messageOf(error)}`);
      this.close(reason.unspecifiedError);
      return;
    }
    metrics.protocolError(faultOf(error.reasonCode)).value += 1;
    const { address, listener } = this.peer;
    if (this.#context.faultLog.due(address ?? listener)) {
      log.info({ clientId, address, reasonCode: error.reasonCode }, `TG_PROTOCOL: ${error.message}`);
    }
    if (this.#state.phase === "connecting") refuseFault(this, error);
    else this.close(error.reasonCode, error.message);
  }

  /** The outbox has room again. */
  onRoom(): void {
    this.resume(pause.outbox);
    this.session?.outgoing.pump();
    this.feed?.pump();
  }

  #resumeReading(): void {
    this.#countPaused();
    if (this.#pauses !== 0 || !this.open) return;
    this.#readPackets(); // what was left of the last chunk
    if (this.#pauses !== 0 || !this.open) return;
    if (this.#hungUp) this.#finish("publish", false);
    else readOn(this.#socket);
  }

  #finish(will: WillFate, polite: boolean): void {
    if (this.#state.phase === "closed") return;
    const session = this.session;
    this.#state = { phase: "closed" };
    if (polite) this.outbox.flush();
    this.outbox.close();
    this.feed?.close();
    this.feed = undefined;
    if (polite && !this.#socket.destroyed) {
      this.#socket.end();
      readOn(this.#socket); // or the peer's end is never seen
      this.#linger = this.#context.clock.setTimer(lingerMs, () => this.#socket.destroy());
    } else this.#socket.destroy();
    this.scanner.drop();
    this.#context.partials.set(this, 0, false);
    this.#context.paused.set(this, 0, "disk");
    if (session !== undefined && session.link === this) this.#context.sessions.detached(session, will);
    this.#host.closed(this);
  }
}
