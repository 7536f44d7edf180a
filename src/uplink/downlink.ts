import type { Clock, Timer } from "../base/clock.ts";
import type { Publisher, Store } from "../base/contracts.ts";
import { messageOf } from "../base/errors.ts";
import { linkFault } from "../base/linkFaults.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import { encodeAck } from "../wire/mqtt/ack.ts";
import { encodePacket } from "../wire/mqtt/encode.ts";
import type { AckPacket, PublishPacket, SubackPacket } from "../wire/mqtt/packet.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { type Answer, Answers } from "./answers.ts";
import { AnswerWatch, type Head } from "./answerWatch.ts";
import { type CommandOutcome, Commands } from "./commands.ts";
import { Echoes } from "./echoes.ts";
import { type SubscriptionLimits, takesFilter } from "./greeting.ts";
import { HeldIds } from "./heldIds.ts";
import { subscribePacket, subscribePacketId } from "./hello.ts";
import { type Link, protocolFault } from "./link.ts";
import type { UplinkCounters } from "./metrics.ts";
import type { UplinkOptions } from "./options.ts";

/** QoS 1 and 2 messages of the cloud that are in work at once; announced as Receive Maximum (MQTT 5). */
export const receiveMaximum = 100;
/** Messages of the cloud in work, QoS 0 too, above which nothing more is read. 3.1.1 clouds know no other limit. */
const waitingMax = 200;
/** A refused command of a 3.1.1 cloud is unanswered; it comes again only on another connection, so after this time we make one. */
const unansweredMsMax = 60_000;

export interface DownlinkDeps {
  readonly store: Pick<Store, "commit" | "entries">;
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
  /** Has to be told what is sent. */
  readonly echoes: Echoes;
  readonly #options: UplinkOptions;
  readonly #deps: DownlinkDeps;
  readonly #commands: Commands;
  readonly #held: HeldIds;
  #link: Link | undefined;
  #answers = new Answers(() => {});
  #waiting = 0;
  /** What our Receive Maximum counts on this connection: QoS 1 without PUBACK, and identifiers of QoS 2 without PUBCOMP. */
  #qos1 = 0;
  #qos2 = new Set<number>();
  /** A SUBSCRIBE went out on this connection. */
  #asked = false;
  /** The one that has no SUBACK yet. */
  #unheard: Head | undefined;
  readonly #watch = new AnswerWatch(() => [this.#unheard]);
  /** A connection was left for a SUBACK that did not come, and none has come since. */
  #leftUnheard = false;
  #problem: string | undefined;
  #subscribed = false;
  #unanswered: Timer | undefined;

  constructor(options: UplinkOptions, deps: DownlinkDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#commands = new Commands(options, deps.publisher, deps.log, deps.limiter);
    this.#held = new HeldIds(options.name, deps.store);
    this.echoes = new Echoes(options, this.#commands.filters, deps.clock);
  }

  /** A connection is up. @param knowsHeld the cloud's session is the one to which the identifiers belong that we hold */
  attach(link: Link, sessionPresent: boolean, knowsHeld: boolean, limits: SubscriptionLimits): void {
    const { version } = this.#options;
    this.#link = link;
    this.#waiting = 0;
    this.#qos1 = 0;
    this.#qos2 = new Set();
    this.#asked = false;
    this.#unheard = undefined;
    this.#watch.restart();
    this.#answers = new Answers((packetId, code, qos) => {
      link.send(encodeAck(qos === 1 ? "puback" : "pubrec", packetId, code, version));
    });
    if (!knowsHeld) this.#forget();
    if (!sessionPresent) this.echoes.forget();
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
    if (fits) this.#unheard = { answer: "SUBACK", is: { message: undefined, bytes: bytes.length }, times: 0 };
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
    this.#unheard = undefined;
    this.#leftUnheard = false;
    this.#problem = undefined;
    const refused = packet.reasonCodes.filter((code) => code >= 0x80);
    this.#subscribed = refused.length === 0;
    if (refused.length === 0) return;
    this.#refused({ filters: refused.length, codes: refused });
  }

  /** Why commands may not come although the link is up, for people. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /**
   * Every few seconds: a cloud that does not answer SUBSCRIBE is left once, for the next connection may do better. After that it is said, and the link
   * stays: what goes up is not to suffer for it.
   */
  look(): void {
    const link = this.#link;
    const overdue = this.#watch.lookOver(link, this.#deps.clock.monotonicMs());
    if (link === undefined || overdue === undefined || this.#problem !== undefined) return;
    const within = `within ${Math.round(overdue.waitedMs / 1000)} s`;
    if (this.#leftUnheard) {
      this.#problem = "the cloud has not answered our SUBSCRIBE: commands may not come (see its log)";
      this.#deps.log.warn({ within }, "the cloud has not answered our SUBSCRIBE: commands may not come");
      return;
    }
    this.#leftUnheard = true;
    link.close(linkFault("ack-timeout", `no SUBACK ${within}`), reason.unspecifiedError);
  }

  #refused(refused: { readonly filters: number; readonly codes?: readonly number[]; readonly why?: string }): void {
    if (this.#deps.limiter.due("subscription"))
      this.#deps.log.error({ refused }, "the cloud refused a receive subscription: no commands from there");
    this.#deps.onRefused(refused.filters);
  }

  publish(packet: PublishPacket): void {
    const link = this.#link;
    if (link === undefined) return;
    const { qos, packetId } = packet;
    const { count, publisher } = this.#deps;
    if (!this.#count(qos, packetId))
      return link.close(protocolFault("more than our receive maximum"), reason.receiveMaximumExceeded); // MQTT 5 section 3.3.4
    const answers = this.#answers;
    const answer = qos === 0 ? undefined : answers.expect(packetId, qos);
    this.#waiting += 1;
    if (this.#waiting >= waitingMax) link.pause();
    const settled = (outcome: CommandOutcome): void => {
      this.#tally(outcome);
      if (outcome === "refused" && qos === 2) this.#held.drop(packetId);
      if (this.#link !== link) return; // that connection is gone: the cloud sends it again
      this.#waiting -= 1;
      if (this.#waiting < waitingMax / 2) link.resume();
      if (answer !== undefined) this.#answer(answers, answer, outcome);
    };
    const held = qos === 2 ? this.#held.groupOf(packetId) : undefined;
    if (held === undefined) count.commands.value += 1;
    else count.commandsRepeated.value += 1; // taken before, on this connection, an earlier one, or before a restart [MQTT-4.3.3-10]
    const taken = held ?? this.#take(packet);
    if (typeof taken !== "number") settled(taken);
    else publisher.whenDurable(taken, (durable) => settled(durable ? "taken" : "refused"));
  }

  /** PUBREL: the cloud has seen our PUBREC, and the identifier is free for another message once it has our PUBCOMP. */
  pubrel({ packetId }: AckPacket): void {
    const link = this.#link;
    if (link === undefined) return;
    const { count, publisher, log } = this.#deps;
    const { version } = this.#options;
    let group: number | undefined;
    try {
      group = this.#held.release(packetId);
    } catch (error) {
      log.error({ error: messageOf(error) }, "a packet identifier of the cloud could not be released"); // PUBREL comes again
      return;
    }
    if (group === undefined) {
      count.strayAcks.value += 1;
      link.send(encodeAck("pubcomp", packetId, reason.packetIdentifierNotFound, version)); // MQTT 5 section 3.7.2.1
      return;
    }
    publisher.whenDurable(group, (durable) => {
      if (!durable || this.#link !== link) return; // the cloud asks again
      this.#qos2.delete(packetId);
      link.send(encodeAck("pubcomp", packetId, reason.success, version));
    });
  }

  #take(packet: PublishPacket): number | Exclude<CommandOutcome, "taken"> {
    const { qos, packetId } = packet;
    const record = qos === 2 ? this.#held.recordOf(packetId) : undefined;
    const taken = this.#commands.take(packet, this.echoes, record);
    // What goes nowhere has its four packets too, but nothing that a restart must not forget.
    if (qos === 2 && taken !== "refused") this.#held.hold(packetId, typeof taken === "number" ? taken : 0);
    return taken;
  }

  /** False: it is more than we said that we take at once. A 3.1.1 cloud was told nothing. */
  #count(qos: number, packetId: number): boolean {
    if (qos === 1) this.#qos1 += 1;
    else if (qos === 2) this.#qos2.add(packetId);
    return this.#options.version === 4 || this.#qos1 + this.#qos2.size <= receiveMaximum;
  }

  #forget(): void {
    try {
      this.#held.forget();
    } catch (error) {
      this.#deps.log.error({ error: messageOf(error) }, "packet identifiers of a lost session are still on record");
    }
  }

  #tally(outcome: CommandOutcome): void {
    const { count } = this.#deps;
    if (outcome === "refused") count.commandsRefused.value += 1;
    else if (outcome === "ignored") count.commandsIgnored.value += 1;
    else if (outcome === "returned") count.commandsReturned.value += 1;
  }

  #answer(answers: Answers, answer: Answer, outcome: CommandOutcome): void {
    const { qos, packetId } = answer;
    if (qos === 1) this.#qos1 -= 1;
    if (outcome !== "refused") return answers.settle(answer, reason.success);
    if (qos === 2) this.#qos2.delete(packetId);
    if (this.#options.version === 5) return answers.settle(answer, reason.quotaExceeded);
    answers.settle(answer, null); // 3.1.1 has no refusal
    this.#unanswered ??= this.#deps.clock.setTimer(unansweredMsMax, () =>
      this.#link?.close(
        linkFault("commands-refused", "commands could not be stored: reconnecting, so that the cloud sends them again"),
      ),
    );
  }
}
