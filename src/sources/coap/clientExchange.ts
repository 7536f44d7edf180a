import { crc32 } from "node:zlib";
import type { Clock, Timer } from "../../base/clock.ts";
import { codes } from "../../wire/coap/codes.ts";
import {
  type CoapMessage,
  type CoapOption,
  encodeEmpty,
  encodeMessage,
  isEmpty,
  isRequest,
  parseMessage,
} from "../../wire/coap/message.ts";
import { type OptionRule, optionNumbers, refusedOption } from "../../wire/coap/options.ts";
import { Retransmissions } from "./retransmissions.ts";
import { SeenMessages } from "./seen.ts";
import type { DropReason } from "./tally.ts";
import { exchangeLifetimeMs, nonLifetimeMs } from "./transmission.ts";

/** A response or notification, whose acknowledgement is the receiver's to give. Exactly one of the two is to be called. */
export interface Incoming {
  readonly message: CoapMessage;
  /** It is taken (or there is no use in sending it again): a Confirmable one is acknowledged now, and so are its copies. */
  accept(): void;
  /** It is not taken: no acknowledgement, and the next copy is handled as if it were the first. */
  release(): void;
}

export type RequestResult =
  | { readonly kind: "response"; readonly incoming: Incoming }
  /** The peer does not want it: Reset, or a response with a critical option that we do not know. */
  | { readonly kind: "rejected" }
  | { readonly kind: "timeout" };

interface PendingRequest {
  readonly tokenHex: string;
  readonly messageId: number;
  readonly done: (result: RequestResult) => void;
  readonly deadline: Timer;
  /** An empty acknowledgement came: the response will be a separate one. */
  acknowledged: boolean;
}

export interface ClientExchangeDeps {
  readonly clock: Clock;
  readonly random: () => number;
  /** To the one peer. */
  readonly transmit: (bytes: Buffer) => void;
  readonly onNotification: (incoming: Incoming) => void;
  readonly onDropped: (reason: DropReason) => void;
}

/** Critical options that may come in a response. */
const understood: ReadonlyMap<number, OptionRule> = new Map([
  [optionNumbers.block1, { lengthMin: 0, lengthMax: 3, repeatable: false }],
  [optionNumbers.block2, { lengthMin: 0, lengthMax: 3, repeatable: false }],
]);

const noReply = (): void => {};

/** Requests at a time: a registration, a block, and what a stop adds. */
const requestsMax = 4;
const seenMax = { entries: 1024, bytes: 512 * 1024 };

/**
 * The client's side of the message layer (RFC 7252 section 4) towards one peer: GET requests, their responses piggybacked or separate,
 * and the notifications of one observation. Never throws on a datagram; bounded.
 */
export class ClientExchange {
  readonly #deps: ClientExchangeDeps;
  readonly #retransmissions: Retransmissions;
  readonly #seen: SeenMessages;
  readonly #byToken = new Map<string, PendingRequest>();
  #observedHex: string | undefined;
  #nextMessageId: number;

  constructor(deps: ClientExchangeDeps, firstMessageId: number) {
    this.#deps = deps;
    this.#nextMessageId = firstMessageId & 0xffff;
    this.#retransmissions = new Retransmissions({ clock: deps.clock, random: deps.random, max: requestsMax });
    this.#seen = new SeenMessages({ clock: deps.clock, entriesMax: seenMax.entries, bytesMax: seenMax.bytes });
  }

  /** Messages remembered and requests pending, for tests. */
  get usage(): { seen: number; requests: number } {
    return { seen: this.#seen.size, requests: this.#byToken.size };
  }

  /** Notifications with this token are wanted from now on; undefined: none are. */
  observe(token: Buffer | undefined): void {
    this.#observedHex = token?.toString("hex");
  }

  /** A Confirmable GET. `done` is called once, unless cancelled. A pending request with the same token is replaced. Returns the cancel. */
  get(
    token: Buffer,
    options: readonly CoapOption[],
    deadlineMs: number,
    done: (result: RequestResult) => void,
  ): () => void {
    const tokenHex = token.toString("hex");
    const messageId = this.#takeMessageId();
    this.#remove(this.#byToken.get(tokenHex));
    const bytes = encodeMessage({ type: "con", code: codes.get, messageId, token, options, payload: Buffer.alloc(0) });
    const deadline = this.#deps.clock.setTimer(deadlineMs, () => this.#finish(request, { kind: "timeout" }));
    const request: PendingRequest = { tokenHex, messageId, done, deadline, acknowledged: false };
    this.#byToken.set(tokenHex, request);
    const giveUp = (): void => this.#finish(request, { kind: "timeout" });
    this.#retransmissions.start(String(messageId), () => this.#deps.transmit(bytes), giveUp);
    return () => this.#remove(request);
  }

  receive(datagram: Buffer): void {
    const parsed = parseMessage(datagram);
    if (parsed.kind !== "message") {
      this.#deps.onDropped("malformed");
      if (parsed.kind === "malformed" && parsed.type === "con")
        this.#deps.transmit(encodeEmpty("rst", parsed.messageId));
      return;
    }
    const { message } = parsed;
    switch (message.type) {
      case "ack":
        return this.#acknowledgement(message);
      case "rst":
        return this.#finish(this.#byMessageId(message.messageId), { kind: "rejected" });
      case "con":
      case "non":
        return this.#carrier(message, datagram);
      default:
        return message.type satisfies never;
    }
  }

  close(): void {
    for (const request of [...this.#byToken.values()]) this.#remove(request);
    this.#retransmissions.clear();
    this.#seen.clear();
    this.#observedHex = undefined;
  }

  #acknowledgement(message: CoapMessage): void {
    const request = this.#byMessageId(message.messageId);
    if (request === undefined) return; // of something long settled, or forged
    if (isEmpty(message)) {
      this.#retransmissions.settle(String(message.messageId));
      request.acknowledged = true; // section 5.2.2
      return;
    }
    // A piggybacked response must match the token as well (section 5.3.2).
    if (isRequest(message) || message.token.toString("hex") !== request.tokenHex)
      return this.#deps.onDropped("unknown-token");
    if (refusedOption(message.options, understood) !== undefined) {
      this.#deps.onDropped("bad-option");
      return this.#finish(request, { kind: "rejected" });
    }
    this.#finish(request, { kind: "response", incoming: { message, accept: noReply, release: noReply } });
  }

  /** A Confirmable or Non-confirmable message: a separate response, a notification, or nothing of ours. */
  #carrier(message: CoapMessage, datagram: Buffer): void {
    const confirmable = message.type === "con";
    if (isRequest(message) || isEmpty(message)) {
      // A ping, or a request to an endpoint that serves nothing: Reset (sections 4.2 and 4.3).
      if (confirmable) this.#deps.transmit(encodeEmpty("rst", message.messageId));
      return;
    }
    const key = String(message.messageId);
    const digest = crc32(datagram);
    const copy = this.#seen.find(key, digest);
    if (copy !== undefined) {
      if (copy.reply !== undefined) this.#deps.transmit(copy.reply);
      return;
    }
    const seen = this.#seen.note(key, digest, confirmable ? exchangeLifetimeMs : nonLifetimeMs);
    const reply = (type: "ack" | "rst"): void => {
      this.#seen.answer(seen, encodeEmpty(type, message.messageId));
      this.#deps.transmit(encodeEmpty(type, message.messageId));
    };
    const incoming: Incoming = {
      message,
      accept: confirmable ? () => reply("ack") : noReply,
      release: () => this.#seen.forget(seen),
    };
    const tokenHex = message.token.toString("hex");
    const request = this.#byToken.get(tokenHex);
    const observed = tokenHex === this.#observedHex;
    if (refusedOption(message.options, understood) !== undefined) {
      this.#deps.onDropped("bad-option");
      reply("rst"); // section 5.4.1
    } else if (request !== undefined && (request.acknowledged || !observed)) {
      // Before its acknowledgement, a message with the token of a renewed registration is a notification that crossed it.
      this.#finish(request, { kind: "response", incoming });
    } else if (observed) {
      this.#deps.onNotification(incoming);
    } else {
      this.#deps.onDropped("unknown-token");
      reply("rst"); // RFC 7641 section 3.6: so the server forgets us
    }
  }

  #byMessageId(messageId: number): PendingRequest | undefined {
    for (const request of this.#byToken.values()) if (request.messageId === messageId) return request;
    return undefined;
  }

  #finish(request: PendingRequest | undefined, result: RequestResult): void {
    if (this.#remove(request)) request?.done(result);
  }

  #remove(request: PendingRequest | undefined): boolean {
    if (request === undefined || this.#byToken.get(request.tokenHex) !== request) return false;
    this.#byToken.delete(request.tokenHex);
    this.#retransmissions.settle(String(request.messageId));
    request.deadline.cancel();
    return true;
  }

  #takeMessageId(): number {
    const messageId = this.#nextMessageId;
    this.#nextMessageId = (messageId + 1) & 0xffff;
    return messageId;
  }
}
