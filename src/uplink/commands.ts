import type { Publisher } from "../base/contracts.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import type { Message, MessageProperties } from "../base/message.ts";
import { parseTemplate } from "../base/template.ts";
import { matchTopic, topicNameFault } from "../base/topic.ts";
import type { PublishPacket } from "../wire/mqtt/packet.ts";
import { fillTopic } from "./forwarding.ts";
import type { UplinkOptions } from "./options.ts";

/** What became of a command of the cloud, and when the cloud may be told. */
export type CommandOutcome = "taken" | "refused" | "ignored";

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
  subscriptions(): Array<{ filter: string; qos: 0 | 1 }> {
    return this.#options.receive.map((rule) => ({
      filter: this.#filter(rule.topic),
      qos: rule.qos,
    }));
  }

  /** Publishes it here. `settled` is called once, when the cloud may be answered: after the disk where something durable took it. */
  take(packet: PublishPacket, settled: (outcome: CommandOutcome) => void): void {
    const message = this.#translate(packet);
    if (message === undefined) {
      settled("ignored");
      return;
    }
    const result = this.#publisher.publish(message);
    if (!result.accepted) {
      settled(result.reason === "invalid" ? "ignored" : "refused");
      return;
    }
    this.#publisher.whenDurable(result.group, (durable) => settled(durable ? "taken" : "refused"));
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
