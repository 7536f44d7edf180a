import type { Duplex } from "node:stream";
import type { Timer } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { encodeAck } from "../wire/mqtt/ack.ts";
import { encodePacket } from "../wire/mqtt/encode.ts";
import { FrameScanner } from "../wire/mqtt/frameScanner.ts";
import type { ConnackPacket, Packet, ProtocolVersion } from "../wire/mqtt/packet.ts";
import { ProtocolError } from "../wire/mqtt/protocolError.ts";
import { connectReturn, reason } from "../wire/mqtt/reasonCodes.ts";
import { type AckByte, ackByte } from "./ackLedger.ts";
import type { BrokerContext } from "./context.ts";
import type { ProtocolFault } from "./metrics.ts";
import type { PeerInfo } from "./options.ts";
import { Outbox } from "./outbox.ts";
import type { RetainedFeed } from "./retainedFeed.ts";
import type { Link, Session } from "./session.ts";

/** Why reading stands still; bits, because several may hold at once. */
export const pause = { acks: 1, store: 2, outbox: 4 } as const;

const ackNames = { 64: "puback", 80: "pubrec", 98: "pubrel", 112: "pubcomp" } as const;
/** How long the peer may take for the last bytes after we ended. */
const lingerMs = 1000;
/** Beyond the outbox limit, which only acknowledgements and answers can pass. */
const answersMax = 256 * 1024;

type State =
  | { readonly phase: "connecting" }
  | { readonly phase: "connected"; readonly session: Session }
  | { readonly phase: "closed" };

export interface ConnectionHost {
  /** One whole packet is in `connection.scanner`. @throws ProtocolError */
  frame(connection: Connection): void;
  closed(connection: Connection): void;
}

/** One network connection: bytes in, bytes out, and when it ends. What the packets mean is the handlers' part. */
export class Connection implements Link {
  readonly scanner: FrameScanner;
  readonly outbox: Outbox;
  readonly peer: PeerInfo;
  version: ProtocolVersion = 4;
  packetSizeMax = Number.POSITIVE_INFINITY;
  window: number;
  /** 0: none. */
  keepAliveMs = 0;
  lastGroup = 0;
  waitingAcks = 0;
  /** QoS 1 and 2 PUBLISH that the client may count as unacknowledged (MQTT 5 section 4.9). */
  unacknowledged = 0;
  readonly aliases: Array<string | undefined> = [];
  feed: RetainedFeed | undefined;
  readonly openedMs: number;
  lastReadMs: number;
  #state: State = { phase: "connecting" };
  #pauses = 0;
  #linger: Timer | undefined;
  readonly #socket: Duplex;
  readonly #context: BrokerContext;
  readonly #host: ConnectionHost;

  constructor(socket: Duplex, peer: PeerInfo, context: BrokerContext, host: ConnectionHost) {
    this.#socket = socket;
    this.#context = context;
    this.#host = host;
    this.peer = peer;
    this.scanner = new FrameScanner(context.limits.maxPacketSize);
    this.outbox = new Outbox(socket, context.flusher, context.limits.outboxBytes, context.metrics.bytesSent, () =>
      this.#onRoom(),
    );
    this.window = context.limits.maxInflight;
    this.lastReadMs = context.clock.monotonicMs();
    this.openedMs = this.lastReadMs - (peer.waitedMs ?? 0);
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("end", () => this.#finish(true, false));
    socket.on("error", () => this.#finish(true, false));
    socket.on("close", () => {
      this.#linger?.cancel();
      this.#finish(true, false);
    });
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

  get paused(): boolean {
    return this.#pauses !== 0;
  }

  /**
   * Acknowledgements that may wait for the disk before we stop reading: 3.1.1 has no Receive Maximum, and PUBREL, PUBREC and what is sent
   * again count for none in MQTT 5 either.
   */
  get #waitingAcksMax(): number {
    const { receiveMaximum } = this.#context.limits;
    return this.version === 4 ? receiveMaximum : 2 * receiveMaximum + this.window;
  }

  connected(session: Session): void {
    this.#state = { phase: "connected", session };
  }

  send(packet: Packet): void {
    const bytes = encodePacket(packet, this.version);
    if (bytes.length > this.packetSizeMax) return;
    this.outbox.append(bytes, 0, bytes.length);
    this.#context.metrics.othersSent.value += 1;
  }

  writeAck(kind: AckByte, packetId: number, reasonCode: number): void {
    if (kind === ackByte.puback || kind === ackByte.pubcomp || (kind === ackByte.pubrec && reasonCode >= 0x80)) {
      if (this.unacknowledged > 0) this.unacknowledged -= 1;
    }
    this.#context.metrics.othersSent.value += 1;
    if (reasonCode === 0 || this.version === 4) {
      this.outbox.appendAck(kind, packetId);
      return;
    }
    const bytes = encodeAck(ackNames[kind], packetId, reasonCode, this.version);
    this.outbox.append(bytes, 0, bytes.length);
  }

  acksSettled(): void {
    if ((this.#pauses & pause.acks) !== 0 && this.waitingAcks * 2 <= this.#context.limits.receiveMaximum) {
      this.#pauses &= ~pause.acks;
      this.#resumeSoon();
    }
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
    this.#resumeSoon();
  }

  /** Refuses the CONNECT, then closes. */
  refuse(reasonCode: number, returnCode: number): void {
    const code = this.version === 5 ? reasonCode : returnCode;
    this.send({ kind: "connack", sessionPresent: false, reasonCode: code });
    this.#finish(false, true);
  }

  connack(packet: ConnackPacket): void {
    this.send(packet);
  }

  /** Ends the connection from our side: MQTT 5 is told why [MQTT-4.13.2-1], 3.1.1 has no packet for it. */
  close(reasonCode: number, sendWill = true): void {
    if (this.#state.phase === "connected" && this.version === 5) this.send({ kind: "disconnect", reasonCode });
    this.#finish(sendWill, true);
  }

  /** The client said DISCONNECT. @param sendWill it asked for its will all the same (0x04) */
  leave(sendWill: boolean): void {
    this.#finish(sendWill, true);
  }

  /** Keep Alive and the time for CONNECT. @param nowMs monotonic */
  tick(nowMs: number): void {
    if (this.#state.phase === "connecting") {
      if (nowMs - this.openedMs < this.#context.limits.connectTimeoutMs) return;
      this.#context.metrics.refused("timeout").value += 1;
      this.#finish(false, false);
    } else if (this.keepAliveMs > 0 && this.#pauses === 0 && nowMs - this.lastReadMs > this.keepAliveMs * 1.5) {
      this.#context.metrics.protocolError("keep-alive").value += 1; // [MQTT-3.1.2-22]
      this.close(reason.keepAliveTimeout);
    }
  }

  #onData(chunk: Buffer): void {
    if (!this.open) return;
    this.lastReadMs = this.#context.clock.monotonicMs();
    this.#context.metrics.bytesReceived.value += chunk.length;
    this.scanner.push(chunk);
    this.#readPackets();
  }

  #readPackets(): void {
    try {
      while (this.#pauses === 0 && this.#state.phase !== "closed" && this.scanner.next()) {
        this.#host.frame(this);
        if (this.waitingAcks > 0 && this.waitingAcks >= this.#waitingAcksMax) this.#pauses |= pause.acks;
      }
    } catch (error) {
      this.#fault(error);
      return;
    }
    // Who asks without reading the answers is not read either, until `full` has ended.
    if (this.outbox.bytes > this.#context.limits.outboxBytes + answersMax && this.outbox.full) {
      this.#pauses |= pause.outbox;
    }
    if (this.#pauses !== 0 && this.open) this.#socket.pause();
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
    if (this.#state.phase === "connecting" && error.reasonCode === reason.unsupportedProtocolVersion) {
      this.refuse(error.reasonCode, connectReturn.unacceptableProtocolVersion); // [MQTT-3.1.2-2]
    } else this.close(error.reasonCode);
  }

  #onRoom(): void {
    this.resume(pause.outbox);
    this.session?.outgoing.pump();
    this.feed?.pump();
  }

  #resumeSoon(): void {
    if (this.#pauses === 0 && this.open) setImmediate(() => this.#resumeReading());
  }

  #resumeReading(): void {
    if (this.#pauses !== 0 || !this.open) return;
    this.lastReadMs = this.#context.clock.monotonicMs(); // Keep Alive stood still with us
    this.#readPackets(); // what was left of the last chunk
    if (this.#pauses === 0 && this.open) this.#socket.resume();
  }

  #finish(sendWill: boolean, polite: boolean): void {
    if (this.#state.phase === "closed") return;
    const session = this.session;
    this.#state = { phase: "closed" };
    if (polite) this.outbox.flush();
    this.outbox.close();
    this.feed?.close();
    this.feed = undefined;
    if (polite) {
      this.#socket.end();
      this.#socket.resume(); // or the peer's end is never seen
      this.#linger = this.#context.clock.setTimer(lingerMs, () => this.#socket.destroy());
    } else this.#socket.destroy();
    if (session !== undefined && session.link === this) this.#context.sessions.detached(session, sendWill);
    this.#host.closed(this);
  }
}

function faultOf(reasonCode: number): ProtocolFault {
  switch (reasonCode) {
    case reason.malformedPacket:
      return "malformed";
    case reason.protocolError:
      return "protocol";
    case reason.packetTooLarge:
      return "too-large";
    case reason.receiveMaximumExceeded:
      return "receive-maximum";
    case reason.topicNameInvalid:
    case reason.topicFilterInvalid:
    case reason.topicAliasInvalid:
      return "topic";
    default:
      return "other";
  }
}
