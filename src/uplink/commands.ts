import type { Publisher } from "../base/contracts.ts";
import type { HeldId } from "../base/inFlight.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import type { Message, MessageProperties, Qos } from "../base/message.ts";
import { parseTemplate } from "../base/template.ts";
import { matchTopic, topicNameFault } from "../base/topic.ts";
import type { PublishPacket } from "../wire/mqtt/packet.ts";
import type { Echoes } from "./echoes.ts";
import { fillTopic } from "./forwarding.ts";
import type { UplinkOptions } from "./options.ts";

/** What became of a command of the cloud. returned: it was a message of ours. */
export type CommandOutcome = "taken" | "refused" | "ignored" | "returned";

/** `receive`: messages of the cloud, published here under a local topic. */
export class Commands {
  readonly #rules: ReadonlyArray<{
    filter: string;
    to: ReturnType<typeof parseTemplate>;
    expiryMs: number | undefined;
  }>;
  readonly #options: UplinkOptions;
  readonly #publisher: Publisher;
  readonly #log: Log;
  readonly #limiter: LogLimiter;

  constructor(options: UplinkOptions, publisher: Publisher, log: Log, limiter: LogLimiter) {
    this.#options = options;
    this.#publisher = publisher;
    this.#log = log;
    this.#limiter = limiter;
    this.#rules = options.receive.map((rule) => ({
      filter: this.#filter(rule.topic).replace(/^\$share\/[^/]+\//, ""),
      to: parseTemplate(rule.to),
      expiryMs: rule.expiryMs,
    }));
  }

  /** What to subscribe to at the cloud. */
  subscriptions(): Array<{ filter: string; qos: Qos }> {
    return this.#options.receive.map((rule) => ({
      filter: this.#filter(rule.topic),
      qos: rule.qos,
    }));
  }

  /** The filters at the cloud, without `$share/NAME/`. */
  get filters(): string[] {
    return this.#rules.map(({ filter }) => filter);
  }

  /**
   * Publishes it here. @param held its identifier (QoS 2), noted in the same commit
   * @returns the group that has to be durable before the cloud is answered, or why it was not taken
   */
  take(packet: PublishPacket, echoes: Echoes, held?: HeldId): number | Exclude<CommandOutcome, "taken"> {
    if (echoes.isOurs(packet.topic, packet.payload)) return "returned";
    const message = this.#translate(packet);
    if (message === undefined) return "ignored";
    const result = this.#publisher.publish(message, held);
    if (result.accepted) return result.group;
    return result.reason === "invalid" ? "ignored" : "refused";
  }

  #translate(packet: PublishPacket): Message | undefined {
    const rule = this.#rules.find(({ filter }) => matchTopic(filter, packet.topic) !== null);
    const topic = rule && fillTopic(rule.to, rule.filter, packet.topic, this.#options.gatewayId);
    if (rule === undefined || topic === undefined || topicNameFault(topic) !== null) {
      if (this.#limiter.due("command"))
        this.#log.warn(
          { topic: packet.topic.slice(0, 200) },
          "the cloud sent a message that no receive rule can place",
        );
      return undefined;
    }
    const properties: MessageProperties = { ...packet.properties };
    const { correlationData } = properties;
    if (correlationData !== undefined) properties.correlationData = Uint8Array.prototype.slice.call(correlationData);
    if (rule.expiryMs !== undefined) {
      const seconds = Math.ceil(rule.expiryMs / 1000);
      properties.messageExpirySeconds = Math.min(seconds, properties.messageExpirySeconds ?? seconds);
    }
    return {
      topic,
      payload: Uint8Array.prototype.slice.call(packet.payload), // both are views of the socket's buffer
      qos: packet.qos,
      retain: false, // a command is an event: a retained one would be obeyed again by whoever comes later
      properties,
      source: `uplink:${this.#options.name}`,
    };
  }

  #filter(topic: string): string {
    return parseTemplate(topic).fill((name) => (name === "gateway" ? this.#options.gatewayId : undefined)) ?? topic;
  }
}
