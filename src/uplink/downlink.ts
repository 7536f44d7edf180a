import type { Clock, Timer } from "../base/clock.ts";
import type { Publisher } from "../base/contracts.ts";
import { linkFault } from "../base/linkFaults.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import { encodeAck } from "../wire/mqtt/ack.ts";
import { encodePacket } from "../wire/mqtt/encode.ts";
import type { PublishPacket, SubackPacket } from "../wire/mqtt/packet.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { type Answer, Answers } from "./answers.ts";
import { type CommandOutcome, Commands } from "./commands.ts";
import { type SubscriptionLimits, takesFilter } from "./greeting.ts";
import { subscribePacket, subscribePacketId } from "./hello.ts";
import { type Link, protocolFault } from "./link.ts";
import type { UplinkCounters } from "./metrics.ts";
import type { UplinkOptions } from "./options.ts";

/** QoS 1 messages of the cloud that wait for our disk at once; announced as Receive Maximum (MQTT 5). */
export const receiveMaximum = 100;
/** Messages of the cloud in work, QoS 0 too, above which nothing more is read. 3.1.1 clouds know no other limit. */
const waitingMax = 200;
/** A refused command of a 3.1.1 cloud is unanswered; it comes again only on another connection, so after this time we make one. */
const unansweredMsMax = 60_000;

export interface DownlinkDeps {
  readonly publisher: Publisher;
  readonly clock: Clock;
  readonly log: Log;
  readonly limiter: LogLimiter;
  readonly count: UplinkCounters;
  /** The cloud refused so many of our subscriptions. */
  readonly onRefused: (subscriptions: number) => void;
}

/** The way down: what the cloud publishes to us, for one connection after the other. */
export class Downlink {
  readonly #options: UplinkOptions;
  readonly #deps: DownlinkDeps;
  readonly #commands: Commands;
  #link: Link | undefined;
  #answers = new Answers(() => {});
  #waiting = 0;
  /** A SUBSCRIBE went out on this connection. */
  #asked = false;
  #subscribed = false;
  #unanswered: Timer | undefined;

  constructor(options: UplinkOptions, deps: DownlinkDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#commands = new Commands(options, deps.publisher, deps.log, deps.limiter);
  }

  attach(link: Link, sessionPresent: boolean, limits: SubscriptionLimits): void {
    const { version } = this.#options;
    this.#link = link;
    this.#waiting = 0;
    this.#asked = false;
    this.#answers = new Answers((packetId, code) => link.send(encodeAck("puback", packetId, code, version)));
    // 3.1.1 sends the retained messages again at each SUBSCRIBE, and an old command must not be obeyed at each reconnect.
    if (version === 4 && sessionPresent && this.#subscribed) return;
    this.#subscribed = false;
    const wanted = this.#commands.subscriptions();
    const packet = subscribePacket(
      wanted.filter(({ filter }) => takesFilter(filter, limits)),
      version,
    );
    const bytes = packet && encodePacket(packet, version);
    const fits = bytes !== undefined && bytes.length <= limits.maximumPacketSize; // [MQTT-3.2.2-15]
    if (fits) link.send(bytes);
    this.#asked = fits;
    const missing = wanted.length - (fits ? (packet?.subscriptions.length ?? 0) : 0);
    if (missing > 0) this.#refused({ filters: missing, why: "its CONNACK" });
  }

  detach(): void {
    this.#link = undefined;
    this.#unanswered?.cancel();
    this.#unanswered = undefined;
  }

  suback(packet: SubackPacket): void {
    if (!this.#asked || packet.packetId !== subscribePacketId)
      return this.#link?.close(protocolFault("a SUBACK for nothing"), reason.protocolError);
    const refused = packet.reasonCodes.filter((code) => code >= 0x80);
    this.#subscribed = refused.length === 0;
    if (refused.length === 0) return;
    this.#refused({ filters: refused.length, codes: refused });
  }

  #refused(refused: { readonly filters: number; readonly codes?: readonly number[]; readonly why?: string }): void {
    if (this.#deps.limiter.due("subscription"))
      this.#deps.log.error({ refused }, "the cloud refused a receive subscription: no commands from there");
    this.#deps.onRefused(refused.filters);
  }

  publish(packet: PublishPacket): void {
    const link = this.#link;
    if (link === undefined) return;
    if (packet.qos === 2) return link.close(protocolFault("QoS 2, which was not asked for"), reason.protocolError);
    const { version } = this.#options;
    if (version === 5 && packet.qos > 0 && this.#answers.size >= receiveMaximum)
      return link.close(protocolFault("more than our receive maximum"), reason.receiveMaximumExceeded); // MQTT 5 section 3.3.4
    const answers = this.#answers;
    const answer = packet.qos === 0 ? undefined : answers.expect(packet.packetId);
    this.#waiting += 1;
    if (this.#waiting >= waitingMax) link.pause();
    this.#deps.count.commands.value += 1;
    this.#commands.take(packet, (outcome) => {
      this.#tally(outcome);
      if (this.#link !== link) return; // that connection is gone: the cloud sends it again
      this.#waiting -= 1;
      if (this.#waiting < waitingMax / 2) link.resume();
      if (answer !== undefined) this.#answer(answers, answer, outcome);
    });
  }

  #tally(outcome: CommandOutcome): void {
    const { count } = this.#deps;
    if (outcome === "refused") count.commandsRefused.value += 1;
    else if (outcome === "ignored") count.commandsIgnored.value += 1;
  }

  #answer(answers: Answers, answer: Answer, outcome: CommandOutcome): void {
    if (outcome !== "refused") return answers.settle(answer, reason.success);
    if (this.#options.version === 5) return answers.settle(answer, reason.quotaExceeded);
    answers.settle(answer, null); // 3.1.1 has no refusal
    this.#unanswered ??= this.#deps.clock.setTimer(unansweredMsMax, () =>
      this.#link?.close(
        linkFault("commands-refused", "commands could not be stored: reconnecting, so that the cloud sends them again"),
      ),
    );
  }
}
