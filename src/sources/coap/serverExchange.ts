import { crc32 } from "node:zlib";
import type { Clock, Timer } from "../../base/clock.ts";
import type { Intake, ReadingOutcome } from "../../base/contracts.ts";
import { messageOf } from "../../base/errors.ts";
import { type Log, LogLimiter } from "../../base/log.ts";
import { encodeBlock } from "../../wire/coap/block.ts";
import { codes } from "../../wire/coap/codes.ts";
import {
  type CoapMessage,
  type CoapOption,
  encodeEmpty,
  encodeMessage,
  isRequest,
  parseMessage,
} from "../../wire/coap/message.ts";
import { optionNumbers, uintOf, uintOption } from "../../wire/coap/options.ts";
import { BlockUploads } from "./blockUploads.ts";
import { type ReadingRequest, type Reply, screenRequest } from "./requests.ts";
import { Retransmissions } from "./retransmissions.ts";
import { type SeenMessage, SeenMessages } from "./seen.ts";
import type { DropReason, Tally } from "./tally.ts";
import { exchangeLifetimeMs, nonLifetimeMs } from "./transmission.ts";
import type { Peer } from "./udp.ts";

export interface ServerLimits {
  readonly maxPayloadBytes: number;
  /** Requests whose reading is on its way to the disk; beyond it 5.03. */
  readonly maxPending: number;
  readonly maxSeen: number;
  readonly maxSeenBytes: number;
  readonly maxUploads: number;
  readonly maxUploadBytes: number;
  /** After this wait a Confirmable request gets an empty acknowledgement, and its response separately. Below ACK_TIMEOUT. */
  readonly separateAfterMs: number;
}

export interface ServerExchangeDeps {
  readonly source: string;
  readonly limits: ServerLimits;
  readonly intake: Intake;
  readonly clock: Clock;
  readonly log: Log;
  readonly tally: Tally;
  readonly random: () => number;
  readonly send: (bytes: Buffer, peer: Peer) => void;
  readonly onDuplicate: () => void;
  readonly onForgotten: () => void;
}

/** One request, from its arrival to its response. */
interface Exchange {
  readonly peer: Peer;
  readonly confirmable: boolean;
  readonly messageId: number;
  readonly token: Buffer;
  readonly seen: SeenMessage;
  /** Response classes that the client does not want to hear (RFC 7967): bit 1 is 2.xx, bit 3 4.xx, bit 4 5.xx. */
  readonly noResponse: number;
  /** Block1 to repeat in the response to an upload's last block. */
  readonly block1: CoapOption | undefined;
  readonly arrivedMs: number;
  /** The empty acknowledgement went out: the response will be a separate one. */
  acknowledged: boolean;
  settled: boolean;
}

/** Seconds a refused sensor is asked to wait, drawn at random so that a fleet does not come back in step. */
const retryAfterSeconds = { min: 5, max: 30 };

/**
 * The server's side of the message layer (RFC 7252 sections 4 and 5): datagrams in, readings to the intake, responses out once the
 * reading is durable. Never throws on a datagram; all its memory is bounded by `limits`.
 */
export class ServerExchange {
  readonly #deps: ServerExchangeDeps;
  readonly #seen: SeenMessages;
  readonly #uploads: BlockUploads;
  readonly #separate: Retransmissions;
  readonly #limiter: LogLimiter;
  /** Waiting for the disk and not acknowledged yet, oldest first. */
  readonly #fresh = new Set<Exchange>();
  /** Waiting for the disk, empty acknowledgement sent (or none due: Non-confirmable), oldest first. */
  readonly #late = new Set<Exchange>();
  #timer: Timer | undefined;
  #nextMessageId: number;

  constructor(deps: ServerExchangeDeps) {
    const { limits, clock, random, tally } = deps;
    this.#deps = deps;
    this.#seen = new SeenMessages({
      clock,
      entriesMax: limits.maxSeen,
      bytesMax: limits.maxSeenBytes,
      onForgotten: deps.onForgotten,
    });
    this.#uploads = new BlockUploads({ clock, limits, onDropped: (reason) => tally.drop(reason) });
    this.#separate = new Retransmissions({ clock, random, max: limits.maxPending });
    this.#limiter = new LogLimiter({ nowMs: () => clock.monotonicMs() });
    this.#nextMessageId = Math.floor(random() * 0x10000) & 0xffff;
  }

  /** What it holds, for tests and diagnosis. */
  get usage(): {
    pending: number;
    seen: number;
    seenBytes: number;
    uploads: number;
    uploadBytes: number;
    separate: number;
  } {
    return {
      pending: this.pending,
      seen: this.#seen.size,
      seenBytes: this.#seen.bytes,
      uploads: this.#uploads.size,
      uploadBytes: this.#uploads.bytes,
      separate: this.#separate.size,
    };
  }

  /** Readings that wait for the disk. */
  get pending(): number {
    return this.#fresh.size + this.#late.size;
  }

  receive(datagram: Buffer, peer: Peer): void {
    const parsed = parseMessage(datagram);
    if (parsed.kind !== "message") {
      this.#deps.tally.drop("malformed");
      if (parsed.kind === "malformed" && parsed.type === "con") this.#reset(parsed.messageId, peer); // section 4.2
      return;
    }
    const { message } = parsed;
    if (message.type === "ack" || message.type === "rst") {
      this.#separate.settle(separateKey(peer, message.messageId)); // of a separate response; unknown ones in silence (section 4.2)
      return;
    }
    if (isRequest(message)) {
      this.#request(message, datagram, peer);
      return;
    }
    // A ping (section 4.3), or a response to something we never asked.
    if (message.type === "con") this.#reset(message.messageId, peer);
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const exchange of [...this.#fresh, ...this.#late]) exchange.settled = true;
    this.#fresh.clear();
    this.#late.clear();
    this.#separate.clear();
    this.#uploads.clear();
    this.#seen.clear();
  }

  #reset(messageId: number, peer: Peer): void {
    this.#deps.send(encodeEmpty("rst", messageId), peer);
  }

  #request(message: CoapMessage, datagram: Buffer, peer: Peer): void {
    const key = `${peer.address}|${peer.port}|${message.messageId}`;
    const digest = crc32(datagram);
    const copy = this.#seen.find(key, digest);
    const confirmable = message.type === "con";
    if (copy !== undefined) {
      this.#deps.onDuplicate();
      if (confirmable && copy.reply !== undefined) this.#deps.send(copy.reply, peer); // section 4.5
      return;
    }
    const screened = screenRequest(message, peer);
    if (screened.kind === "bad-option" && !confirmable) {
      this.#deps.tally.drop("bad-option"); // rejected in silence: sections 5.4.1 and 4.3
      return;
    }
    const exchange: Exchange = {
      peer,
      confirmable,
      messageId: message.messageId,
      token: message.token,
      seen: this.#seen.note(key, digest, confirmable ? exchangeLifetimeMs : nonLifetimeMs),
      noResponse: uintOption(message, optionNumbers.noResponse, 1) ?? 0,
      block1: screened.kind === "reading" ? lastBlock(screened.request) : undefined,
      arrivedMs: this.#deps.clock.monotonicMs(),
      acknowledged: false,
      settled: false,
    };
    if (screened.kind === "bad-option") {
      this.#refuse(exchange, "bad-option", { code: codes.badOption, payload: `option ${screened.number}` });
    } else if (screened.kind === "reply") {
      if (screened.dropped === undefined) this.#respond(exchange, screened.reply);
      else this.#refuse(exchange, screened.dropped, screened.reply);
    } else {
      this.#body(exchange, screened.request, message.payload);
    }
  }

  #body(exchange: Exchange, request: ReadingRequest, payload: Buffer): void {
    const { maxPayloadBytes } = this.#deps.limits;
    if (payload.length > maxPayloadBytes || (request.size1 ?? 0) > maxPayloadBytes) return this.#tooLarge(exchange);
    if (request.block1 === undefined) return this.#take(exchange, request, payload);
    const step = this.#uploads.add(request.uploadKey, request.block1, payload, request.contentFormat);
    switch (step.kind) {
      case "continue":
        return this.#respond(exchange, {
          code: codes.continue,
          options: [{ number: optionNumbers.block1, value: encodeBlock(request.block1) }],
        });
      case "complete":
        return this.#take(exchange, request, step.body);
      case "gap":
        return this.#refuse(exchange, "block-gap", { code: codes.requestEntityIncomplete });
      case "too-large":
        return this.#tooLarge(exchange);
      case "broken":
        return this.#refuse(exchange, "malformed", { code: codes.badRequest, payload: "block" });
      default:
        return step satisfies never;
    }
  }

  #tooLarge(exchange: Exchange): void {
    // Size1 says what would be taken (RFC 7959 section 2.9.3).
    const options = [uintOf(optionNumbers.size1, this.#deps.limits.maxPayloadBytes)];
    this.#refuse(exchange, "too-large", { code: codes.requestEntityTooLarge, options });
  }

  #take(exchange: Exchange, request: ReadingRequest, payload: Buffer): void {
    const { source, limits, intake, log } = this.#deps;
    if (this.pending >= limits.maxPending) return this.#refuse(exchange, "busy", this.#tryLater());
    (exchange.confirmable ? this.#fresh : this.#late).add(exchange);
    const { path, contentFormat } = request;
    try {
      intake.take({ source, payload, contentFormat, variables: { path } }, (outcome) =>
        this.#settle(exchange, outcome),
      );
    } catch (error) {
      // The contract says that it does not throw; a datagram must not be able to end the gateway all the same.
      if (this.#limiter.due("internal")) log.error({ source, error: messageOf(error) }, "the intake threw");
      if (exchange.settled) return;
      this.#finish(exchange);
      this.#refuse(exchange, "internal", { code: codes.internalServerError });
      return;
    }
    this.#arm();
  }

  #settle(exchange: Exchange, outcome: ReadingOutcome): void {
    if (exchange.settled) return;
    this.#finish(exchange);
    switch (outcome.kind) {
      case "durable":
        this.#deps.tally.accept();
        return this.#respond(exchange, { code: codes.changed });
      case "refused":
        if (outcome.reason === "invalid")
          return this.#refuse(exchange, "invalid", { code: codes.badRequest, payload: "topic" });
        return this.#refuse(exchange, outcome.reason, this.#tryLater());
      case "undecodable": {
        const { source, log } = this.#deps;
        const { address } = exchange.peer;
        if (this.#limiter.due("undecodable"))
          log.warn({ source, address, why: outcome.why }, "a reading was not understood");
        const unsupported = /unsupported|unknown/i.test(outcome.why) && /content.?format/i.test(outcome.why);
        const code = unsupported ? codes.unsupportedContentFormat : codes.badRequest;
        return this.#refuse(exchange, "undecodable", { code, payload: unsupported ? "" : "payload not understood" });
      }
      default:
        return outcome satisfies never;
    }
  }

  #finish(exchange: Exchange): void {
    exchange.settled = true;
    this.#fresh.delete(exchange);
    this.#late.delete(exchange);
  }

  #tryLater(): Reply {
    const { min, max } = retryAfterSeconds;
    const seconds = min + Math.floor(this.#deps.random() * (max - min + 1));
    return { code: codes.serviceUnavailable, options: [uintOf(optionNumbers.maxAge, Math.min(max, seconds))] }; // section 5.9.3.4
  }

  #refuse(exchange: Exchange, reason: DropReason, reply: Reply): void {
    this.#deps.tally.drop(reason);
    this.#respond(exchange, reply);
  }

  #respond(exchange: Exchange, reply: Reply): void {
    const { peer, token, seen } = exchange;
    // RFC 7967 section 2.1; without 2.31 an upload could not go on.
    const muted = (exchange.noResponse & (1 << (Number(reply.code.charAt(0)) - 1))) !== 0;
    const silent = muted && reply.code !== codes.continue;
    const options = exchange.block1 === undefined ? (reply.options ?? []) : [...(reply.options ?? []), exchange.block1];
    const content = { code: reply.code, token, options, payload: Buffer.from(reply.payload ?? "") };
    if (exchange.confirmable && !exchange.acknowledged) {
      const { messageId } = exchange;
      const bytes = silent ? encodeEmpty("ack", messageId) : encodeMessage({ type: "ack", messageId, ...content });
      this.#seen.answer(seen, bytes);
      this.#deps.send(bytes, peer);
      return;
    }
    if (silent) return;
    const messageId = this.#takeMessageId();
    if (
      exchange.confirmable &&
      this.#respondSeparately(peer, messageId, encodeMessage({ type: "con", messageId, ...content }))
    )
      return;
    this.#deps.send(encodeMessage({ type: "non", messageId, ...content }), peer); // section 5.2.3
  }

  /** RFC 7252 section 5.2.2. False: too many wait for their acknowledgement already. */
  #respondSeparately(peer: Peer, messageId: number, bytes: Buffer): boolean {
    return this.#separate.start(
      separateKey(peer, messageId),
      () => this.#deps.send(bytes, peer),
      () => this.#deps.tally.drop("response-lost"),
    );
  }

  /**
   * Counted up from a random start, for all endpoints together. One endpoint would have to get two ids 65536 apart within an
   * exchange lifetime to mistake the second for a copy (section 4.4); a counter for each would be memory for any forged address.
   */
  #takeMessageId(): number {
    const messageId = this.#nextMessageId;
    this.#nextMessageId = (messageId + 1) & 0xffff;
    return messageId;
  }

  /** One timer for all: exchanges wait equally long, so the oldest is due first. */
  #arm(): void {
    if (this.#timer !== undefined) return;
    const [oldestFresh] = this.#fresh;
    const [oldestLate] = this.#late;
    const dueMs = Math.min(
      oldestFresh === undefined ? Infinity : oldestFresh.arrivedMs + this.#deps.limits.separateAfterMs,
      oldestLate === undefined ? Infinity : oldestLate.arrivedMs + exchangeLifetimeMs,
    );
    if (dueMs === Infinity) return;
    this.#timer = this.#deps.clock.setTimer(dueMs - this.#deps.clock.monotonicMs(), () => {
      this.#timer = undefined;
      this.#sweep();
      this.#arm();
    });
  }

  #sweep(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const exchange of this.#fresh) {
      if (exchange.arrivedMs + this.#deps.limits.separateAfterMs > nowMs) break;
      this.#fresh.delete(exchange);
      this.#late.add(exchange);
      exchange.acknowledged = true;
      const bytes = encodeEmpty("ack", exchange.messageId);
      this.#seen.answer(exchange.seen, bytes);
      this.#deps.send(bytes, exchange.peer);
    }
    for (const exchange of this.#late) {
      if (exchange.arrivedMs + exchangeLifetimeMs > nowMs) break;
      this.#finish(exchange); // nobody waits for its response any more (section 4.8.2)
      this.#deps.tally.drop("response-lost");
    }
  }
}

const separateKey = (peer: Peer, messageId: number): string => `${peer.address}|${peer.port}|${messageId}`;

function lastBlock({ block1 }: ReadingRequest): CoapOption | undefined {
  if (block1 === undefined || block1.more) return undefined;
  return { number: optionNumbers.block1, value: encodeBlock(block1) };
}
