import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Clock, Timer } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { type LinkFault, linkFault } from "../base/linkFaults.ts";
import { lookupHost } from "../base/resolve.ts";
import { decodePacket } from "../wire/mqtt/decode.ts";
import { encodePacket } from "../wire/mqtt/encode.ts";
import { FrameScanner } from "../wire/mqtt/frameScanner.ts";
import type {
  AckPacket,
  ConnackPacket,
  ConnectPacket,
  Packet,
  PublishPacket,
  SubackPacket,
} from "../wire/mqtt/packet.ts";
import { ProtocolError } from "../wire/mqtt/protocolError.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import type { UplinkOptions } from "./options.ts";
import { endFault, type LinkContext, type LinkPhase, socketFault, timeoutFault } from "./socketFaults.ts";
import { disconnectFault, notVersion5, refusalFault } from "./texts.ts";

/** From the first SYN to CONNACK, name look-up and TLS included. */
const connectMsMax = 15_000;
/**
 * A packet of the cloud towards us: commands, not bulk. Announced as Maximum Packet Size, so that an MQTT 5 cloud discards a larger one
 * instead of sending it again on each connection [MQTT-3.1.2-24].
 */
export const inboundPacketBytesMax = 1024 * 1024;
/** Unsent bytes in the socket above which no more is sent until it drains. */
export const pieceBytes = 64 * 1024;
const sparePieces = 4;
const unsentBytesMax = 256 * 1024;
/** What a peer that reads nothing may take to close after our DISCONNECT. */
const closeMsMax = 500;
/** A packet that comes slower holds up what lies behind it for too long; GPRS is ten times as fast. */
const partBytesPerSecondMin = 256;
/** A cloud that takes less takes no message with a topic and its properties: a whole backlog would become dead letters. */
const packetBytesMin = 64;

export interface LinkEvents {
  /** CONNACK with success. */
  up(connack: ConnackPacket): void;
  puback(packet: AckPacket): void;
  pubrec(packet: AckPacket): void;
  pubrel(packet: AckPacket): void;
  pubcomp(packet: AckPacket): void;
  publish(packet: PublishPacket): void;
  suback(packet: SubackPacket): void;
  /** The socket took what was unsent: more may be sent. */
  drained(): void;
  /** Once, whatever ended it; nothing comes after it. Never from within the constructor. */
  down(fault: LinkFault): void;
}

/** One connection to the cloud broker, from connect to its end. A new object for each attempt. */
export class Link {
  /** Resolves when the socket is gone. */
  readonly closed: Promise<void>;
  readonly #options: UplinkOptions;
  readonly #clock: Clock;
  readonly #events: LinkEvents;
  readonly #url: string;
  readonly #socket: Socket;
  #phase: LinkPhase;
  readonly #scanner = new FrameScanner(inboundPacketBytesMax);
  #state: "connecting" | "up" | "down" = "connecting";
  #timer: Timer | undefined;
  #keepAliveMs: number;
  #lastSentMs = 0;
  /** When the PINGREQ went out that has no answer yet; moved on by whatever the cloud sends meanwhile. */
  #pingSentMs: number | undefined;
  /** Of the packet that has begun and is not whole yet. */
  #partBytes = 0;
  #partSinceMs = 0;
  #corked = false;
  /** Packets that wait for the end of the turn, side by side. */
  #piece: Buffer | undefined;
  #pieceUsed = 0;
  readonly #spare: Buffer[] = [];
  #paused = false;

  /** @throws Error when the url, the TLS files or the credentials cannot be used at all */
  constructor(url: string, connectPacket: ConnectPacket, options: UplinkOptions, clock: Clock, events: LinkEvents) {
    this.#options = options;
    this.#clock = clock;
    this.#events = events;
    this.#url = url;
    this.#keepAliveMs = options.keepAliveMs;
    const hello = encodePacket(connectPacket, options.version);
    this.#phase = isIP(hostOf(url)) === 0 ? "lookup" : "tcp";
    this.#socket = openSocket(url, options, () => {
      this.#phase = "connack";
      this.send(hello);
    });
    this.#socket.on("lookup", (error: unknown) => {
      if (!error) this.#phase = "tcp";
    });
    if (url.startsWith("mqtts:")) this.#socket.on("connect", () => (this.#phase = "tls"));
    this.#timer = clock.setTimer(connectMsMax, () => this.#end(timeoutFault(connectMsMax, this.#context)));
    this.#socket.setNoDelay(true);
    this.#socket.on("data", (chunk: Buffer) => this.#read(chunk));
    this.#socket.on("drain", () => this.#state === "up" && this.#events.drained());
    this.#socket.on("error", (error) => this.#end(socketFault(error, this.#context)));
    this.closed = new Promise((resolve) => {
      this.#socket.on("close", () => {
        this.#end(endFault("the cloud closed the connection", this.#context));
        resolve();
      });
    });
  }

  /** False once so much is unsent that the caller should wait for `drained`. */
  send(packet: Uint8Array): boolean {
    if (this.#state === "down") return false;
    this.#cork();
    this.#flush();
    this.#socket.write(packet);
    return this.#unsent < unsentBytesMax;
  }

  /** Sends the first `length` bytes of a buffer that will be used again: they are copied together, many packets to one write. */
  append(bytes: Buffer, length: number): void {
    if (this.#state === "down") return;
    if (length > pieceBytes / 4) {
      this.send(Buffer.from(bytes.subarray(0, length)));
      return;
    }
    this.#cork();
    if (this.#pieceUsed + length > pieceBytes) this.#flush();
    this.#piece ??= this.#spare.pop() ?? Buffer.allocUnsafeSlow(pieceBytes);
    bytes.copy(this.#piece, this.#pieceUsed, 0, length);
    this.#pieceUsed += length;
  }

  /** To the socket, so far. */
  get bytesSent(): number {
    return this.#socket.bytesWritten;
  }

  get writable(): boolean {
    return this.#state === "up" && this.#unsent < unsentBytesMax;
  }

  get reading(): boolean {
    return !this.#paused;
  }

  get midPacket(): boolean {
    return this.#partBytes > 0;
  }

  get #unsent(): number {
    return this.#socket.writableLength + this.#pieceUsed;
  }

  /** All that one turn sends leaves in one write. */
  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#lastSentMs = this.#clock.monotonicMs();
    this.#socket.cork();
    process.nextTick(() => {
      this.#corked = false;
      this.#flush();
      this.#socket.uncork();
    });
  }

  #flush(): void {
    const piece = this.#piece;
    if (piece === undefined) return;
    const used = piece.subarray(0, this.#pieceUsed);
    this.#piece = undefined;
    this.#pieceUsed = 0;
    this.#socket.write(used, () => {
      if (this.#spare.length < sparePieces) this.#spare.push(piece);
    });
  }

  get #context(): LinkContext {
    return { phase: this.#phase, url: this.#url, tls: this.#options.tls, wallMs: this.#clock.wallMs() };
  }

  get #isDown(): boolean {
    return this.#state === "down";
  }

  /** Reads nothing more for now, beyond the chunk at hand; the cloud's pings of life are not expected meanwhile. */
  pause(): void {
    if (this.#paused || this.#state === "down") return;
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#partBytes = 0; // what was not read meanwhile is no fault of the cloud's
    this.#socket.resume();
  }

  /** Says DISCONNECT, with the reason where MQTT 5 can say it, and closes; `down` follows at once. */
  close(fault: LinkFault, reasonCode: number = reason.success): void {
    if (this.#state === "down") return;
    const wasUp = this.#state === "up";
    // A 3.1.1 DISCONNECT means that all is well, so a fault is answered by closing alone (3.1.1 section 4.8).
    const says = wasUp && (this.#options.version === 5 || reasonCode === reason.success);
    if (says) this.send(encodePacket({ kind: "disconnect", reasonCode }, this.#options.version));
    this.#end(fault, says);
  }

  #read(chunk: Buffer): void {
    if (this.#isDown) return; // closing: what still comes in is not kept
    const nowMs = this.#clock.monotonicMs();
    if (this.#pingSentMs !== undefined) this.#pingSentMs = nowMs; // a sign of life: a PINGRESP may lie behind bulk
    let whole = false;
    try {
      this.#scanner.push(chunk);
      while (!this.#isDown && this.#scanner.next()) {
        whole = true;
        const { buffer, first, body, end } = this.#scanner;
        this.#take(decodePacket(buffer, first, body, end, this.#options.version, "server"));
      }
      if (whole || !this.#scanner.partial) this.#partBytes = 0;
      if (this.#scanner.partial) this.#partial(chunk.length, nowMs);
    } catch (error) {
      // A fault of ours on a packet of the cloud's ends the link, not the gateway: the message would come again after each restart.
      if (!(error instanceof ProtocolError))
        return this.#end(linkFault("internal", `internal fault: ${messageOf(error)}`));
      const refused = this.#state === "connecting" && error.reasonCode === reason.unsupportedProtocolVersion;
      if (refused) this.#end(linkFault("version-refused", `the cloud refused the connection: ${notVersion5}`));
      else this.#violation(error.message, error.reasonCode);
    }
  }

  /** While a packet drips in nothing behind it is heard, neither PUBACK nor PINGRESP, and each byte would look like a sign of life. */
  #partial(bytes: number, nowMs: number): void {
    if (this.#partBytes === 0) this.#partSinceMs = nowMs;
    this.#partBytes += bytes;
    const ms = nowMs - this.#partSinceMs;
    if (ms > this.#answerMsMax && this.#partBytes < (ms / 1000) * partBytesPerSecondMin)
      this.#violation(`a packet that drips: ${this.#partBytes} bytes of it in ${Math.round(ms / 1000)} s`);
  }

  get #answerMsMax(): number {
    return this.#keepAliveMs === 0 ? 30_000 : Math.min(30_000, Math.max(2_000, this.#keepAliveMs / 2));
  }

  #take(packet: Packet): void {
    if (this.#state === "connecting") {
      if (packet.kind === "connack") this.#connected(packet);
      else if (packet.kind === "disconnect") this.#end(disconnectFault(packet));
      else this.#violation(`${packet.kind} before CONNACK`); // [MQTT-3.2.0-1]
      return;
    }
    switch (packet.kind) {
      case "puback":
        return this.#events.puback(packet);
      case "pubrec":
        return this.#events.pubrec(packet);
      case "pubrel":
        return this.#events.pubrel(packet);
      case "pubcomp":
        return this.#events.pubcomp(packet);
      case "publish":
        // We announce no Topic Alias Maximum, so there is none [MQTT-3.1.2-26].
        if (packet.topicAlias !== undefined) return this.#violation("a topic alias", reason.topicAliasInvalid);
        return this.#events.publish(packet);
      case "suback":
        return this.#events.suback(packet);
      case "pingresp":
        this.#pingSentMs = undefined;
        return;
      case "disconnect":
        return this.#end(disconnectFault(packet));
      default:
        return this.#violation(`unexpected ${packet.kind}`);
    }
  }

  #violation(what: string, reasonCode: number = reason.protocolError): void {
    this.close(protocolFault(what), reasonCode);
  }

  #connected(connack: ConnackPacket): void {
    if (connack.reasonCode !== 0) {
      this.#end(refusalFault(connack, this.#options.version));
      return;
    }
    if (connack.properties?.authenticationMethod !== undefined) return this.#violation("an authentication method"); // [MQTT-4.12.0-6]
    const { maximumPacketSize = packetBytesMin } = connack.properties ?? {};
    if (maximumPacketSize < packetBytesMin) return this.#violation(`a Maximum Packet Size of ${maximumPacketSize}`);
    this.#timer?.cancel();
    this.#state = "up";
    this.#phase = "up";
    const serverKeepAlive = connack.properties?.serverKeepAliveSeconds;
    // The cloud's instead of ours [MQTT-3.2.2-21]; one that wants to hear of us less often, or never, is pinged as often as we would all the same:
    // or a link that is dead would not be noticed.
    if (serverKeepAlive)
      this.#keepAliveMs = Math.min(serverKeepAlive * 1000, this.#keepAliveMs || Number.POSITIVE_INFINITY);
    this.#watch();
    this.#events.up(connack);
  }

  /** Pings so that the cloud hears of us in time [MQTT-3.1.2-20], and notices a dead link by the missing answer. */
  #watch(): void {
    if (this.#keepAliveMs === 0) return;
    const nowMs = this.#clock.monotonicMs();
    const answerMsMax = this.#answerMsMax;
    if (this.#paused && this.#pingSentMs !== undefined) this.#pingSentMs = nowMs; // the answer may be there, unread
    if (this.#pingSentMs !== undefined && nowMs - this.#pingSentMs >= answerMsMax) {
      this.#end(linkFault("ping-timeout", `no PINGRESP within ${answerMsMax / 1000} s`));
      return;
    }
    // Half of the keep alive: one lost timer or a slow link still keeps the promise, and what the cloud
    // has not acknowledged is noticed while it is fresh.
    const idleMs = this.#keepAliveMs / 2;
    if (nowMs - this.#lastSentMs >= idleMs) {
      this.#pingSentMs ??= nowMs;
      this.send(encodePacket({ kind: "pingreq" }, this.#options.version));
    }
    this.#timer = this.#clock.setTimer(Math.min(idleMs, answerMsMax) / 4, () => this.#watch());
  }

  #end(fault: LinkFault, graceful = false): void {
    if (this.#state === "down") return;
    this.#state = "down";
    this.#timer?.cancel();
    if (graceful) {
      this.resume(); // or the peer's end of the connection is never read
      this.#socket.end();
      const timer = this.#clock.setTimer(closeMsMax, () => this.#socket.destroy());
      this.#socket.once("close", () => timer.cancel());
    } else this.#socket.destroy();
    this.#events.down(fault);
  }
}

/** The cloud said what MQTT does not allow. */
export const protocolFault = (what: string): LinkFault =>
  linkFault("protocol-error", `the cloud broke the protocol: ${what}`);

const hostOf = (url: string): string => new URL(url).hostname.replace(/^\[|\]$/g, "");

function openSocket(url: string, options: UplinkOptions, connected: () => void): Socket {
  const { protocol, port } = new URL(url);
  const host = hostOf(url);
  if (protocol === "mqtts:") {
    const { ca, cert, key } = options.tls ?? {};
    const servername = /^[\d.]+$|:/.test(host) ? undefined : host; // SNI takes names only (RFC 6066 section 3)
    return connectTls(
      {
        host,
        port: port === "" ? 8883 : Number(port),
        lookup: lookupHost,
        ...(servername === undefined ? {} : { servername }),
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
      },
      connected,
    );
  }
  return connectTcp({ host, port: port === "" ? 1883 : Number(port), lookup: lookupHost, keepAlive: true }, connected);
}
