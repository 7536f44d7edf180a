import type { Intake, ReadingOutcome, RefusalReason } from "../../base/contracts.ts";
import { messageOf } from "../../base/errors.ts";
import type { Log, LogLimiter } from "../../base/log.ts";
import { encodeBlock } from "../../wire/coap/block.ts";
import { codes } from "../../wire/coap/codes.ts";
import type { CoapMessage, CoapOption } from "../../wire/coap/message.ts";
import { optionNumbers, uintOption } from "../../wire/coap/options.ts";
import { BlockDownload } from "./blockDownload.ts";
import type { Incoming, RequestResult } from "./clientExchange.ts";
import type { Tally } from "./tally.ts";

export interface ClientReadingsDeps {
  readonly source: string;
  readonly maxPayloadBytes: number;
  readonly maxPending: number;
  readonly intake: Intake;
  readonly log: Log;
  readonly limiter: LogLimiter;
  readonly tally: Tally;
  /** Asks the sensor for a block; returns the cancel, or undefined when there is no link. */
  readonly fetch: (block2: CoapOption, done: (result: RequestResult) => void) => (() => void) | undefined;
  /** A reading came to its end: durable, or of no use. */
  readonly onTaken: () => void;
  /** A reading was not taken, and the sensor will not send it again by itself. */
  readonly onLost: () => void;
}

/** From a sensor's fresh response or notification to the intake: puts blocks together, acknowledges what is durable. */
export class ClientReadings {
  readonly #deps: ClientReadingsDeps;
  /** The block-wise reading in progress. */
  #download: { readonly origin: Incoming; readonly cancel: () => void } | undefined;
  #pending = 0;

  constructor(deps: ClientReadingsDeps) {
    this.#deps = deps;
  }

  /** Readings on their way to the disk. */
  get pending(): number {
    return this.#pending;
  }

  get assembling(): boolean {
    return this.#download !== undefined;
  }

  /** A newer value ends the assembling of an older one: observations are values, not a queue (RFC 7641 section 1.3). */
  receive(incoming: Incoming): void {
    this.abandon();
    this.#assemble(incoming, new BlockDownload(this.#deps.maxPayloadBytes), incoming.message);
  }

  abandon(): void {
    const download = this.#download;
    if (download === undefined) return;
    this.#download = undefined;
    download.cancel();
    download.origin.release();
    this.#deps.tally.drop("superseded");
  }

  /** @param part the message whose block comes next; at first that of `origin`, which is acknowledged when all of it is durable */
  #assemble(origin: Incoming, download: BlockDownload, part: CoapMessage): void {
    this.#download = undefined;
    const step = download.add(part);
    switch (step.kind) {
      case "complete":
        return this.#take(origin, step.body);
      case "next":
        return this.#fetch(origin, download, { number: optionNumbers.block2, value: encodeBlock(step.block) });
      case "too-large":
        this.#deps.tally.drop("too-large");
        return origin.accept(); // it will not become smaller
      case "broken":
        return this.#broken(origin, step.why);
      default:
        return step satisfies never;
    }
  }

  #fetch(origin: Incoming, download: BlockDownload, block2: CoapOption): void {
    const cancel = this.#deps.fetch(block2, (result) => {
      if (result.kind !== "response") return this.#broken(origin, "a block did not come");
      result.incoming.accept();
      const { message } = result.incoming;
      if (message.code !== codes.content) return this.#broken(origin, `a block was answered ${message.code}`);
      this.#assemble(origin, download, message);
    });
    if (cancel === undefined) origin.release();
    else this.#download = { origin, cancel };
  }

  /** The reading could not be put together: without an acknowledgement the sensor sends it again, and in any case we ask again. */
  #broken(origin: Incoming, why: string): void {
    const { source, tally, limiter, log, onLost } = this.#deps;
    this.#download = undefined;
    tally.drop("malformed");
    if (limiter.due("broken")) log.warn({ source, why }, "a block-wise reading was not complete");
    origin.release();
    onLost();
  }

  #take(incoming: Incoming, payload: Buffer): void {
    const { source, maxPending, intake, limiter, log } = this.#deps;
    if (this.#pending >= maxPending) return this.#refused(incoming, "busy");
    const contentFormat = uintOption(incoming.message, optionNumbers.contentFormat, 2);
    this.#pending += 1;
    let settled = false;
    const settle = (outcome: ReadingOutcome): void => {
      if (settled) return;
      settled = true;
      this.#pending -= 1;
      this.#settled(incoming, outcome);
    };
    try {
      intake.take({ source, payload, contentFormat }, settle);
    } catch (error) {
      // The contract says that it does not throw; a datagram must not be able to end the gateway all the same.
      if (limiter.due("internal")) log.error({ source, error: messageOf(error) }, "the intake threw");
      if (settled) return;
      settled = true;
      this.#pending -= 1;
      this.#refused(incoming, "internal");
    }
  }

  #settled(incoming: Incoming, outcome: ReadingOutcome): void {
    const { source, tally, limiter, log, onTaken } = this.#deps;
    switch (outcome.kind) {
      case "durable":
        tally.accept();
        incoming.accept(); // only now: until then the sensor has it
        return onTaken();
      case "undecodable":
        tally.drop("undecodable");
        if (limiter.due("undecodable")) log.warn({ source, why: outcome.why }, "a reading was not understood");
        incoming.accept(); // sending it again will not help
        return onTaken();
      case "refused":
        return this.#refused(incoming, outcome.reason);
      default:
        return outcome satisfies never;
    }
  }

  /**
   * A Confirmable notification stays without acknowledgement, so the sensor sends it again; what cannot be sent again (a piggybacked or
   * Non-confirmable one) is asked for again.
   */
  #refused(incoming: Incoming, reason: RefusalReason | "busy" | "internal"): void {
    this.#deps.tally.drop(reason);
    if (reason === "invalid") return incoming.accept();
    incoming.release();
    if (incoming.message.type !== "con") this.#deps.onLost();
  }
}
