import type { Forward, Forwarding, Store, UplinkQueue } from "../base/contracts.ts";
import type { Message, Qos } from "../base/message.ts";
import { parseTemplate, type Template } from "../base/template.ts";
import { matchTopic } from "../base/topic.ts";
import type { ForwardRule, UplinkOptions } from "./options.ts";

/**
 * A rule as it is stored with the messages it accepted, so that a message is sent as its rule said at acceptance, even when the config
 * has changed since.
 */
export interface RuleDefinition {
  readonly filter: string;
  readonly to: Template;
  readonly qos: Qos;
}

/** The stored text of a rule; the same rule always gives the same text. */
export function ruleText(rule: ForwardRule): string {
  return JSON.stringify({ filter: rule.topic, to: rule.to, qos: rule.qos });
}

/** Reads `ruleText` back. A text that cannot be read (a newer version's) gives the plain rule: the same topic, QoS 1. */
export function parseRule(text: string | undefined): RuleDefinition {
  try {
    const { filter, to, qos } = JSON.parse(text ?? "") as {
      filter: unknown;
      to: unknown;
      qos: unknown;
    };
    if (typeof filter === "string" && typeof to === "string") {
      return { filter, to: parseTemplate(to), qos: qos === 0 || qos === 2 ? qos : 1 };
    }
  } catch {
    // fall through to the plain rule: a message must not be lost because its rule cannot be read
  }
  return { filter: "#", to: parseTemplate("{topic}"), qos: 1 };
}

/** Fills a topic template for a message that `filter` matched; undefined when a name has no value. */
export function fillTopic(to: Template, filter: string, topic: string, gatewayId: string): string | undefined {
  const match = matchTopic(filter, topic);
  return to.fill((name) => {
    if (name === "gateway") return gatewayId;
    if (name === "topic") return topic;
    if (name === "rest") return match?.rest;
    return /^[1-9][0-9]?$/.test(name) ? match?.plus[Number(name) - 1] : undefined;
  });
}

/** A rule of QoS 0: never stored, so what it says now holds. */
export interface LiveRule extends RuleDefinition {
  readonly priority: number;
}

/** One uplink as a topic's possible taker. */
export interface ForwardTarget {
  readonly options: UplinkOptions;
  readonly queue: UplinkQueue;
  /** Sends now if the link is up (QoS 0 rules). */
  sendLive(message: Message, rule: LiveRule): void;
}

/** The answer to "which uplinks take this topic": per uplink, the first rule that matches. */
export function createForwarding(store: Store, targets: readonly ForwardTarget[]): Forwarding {
  const compiled = targets.map((target) => ({
    target,
    rules: target.options.forward.map((rule) => ({
      rule,
      forward: compileRule(store, target, rule),
    })),
  }));
  return {
    forwardsFor(topic) {
      const forwards: Forward[] = [];
      for (const { rules } of compiled) {
        const first = rules.find(({ rule }) => matchTopic(rule.topic, topic) !== null);
        if (first !== undefined) forwards.push(first.forward);
      }
      return forwards;
    },
  };
}

function compileRule(store: Store, target: ForwardTarget, rule: ForwardRule): Forward {
  const { options, queue } = target;
  const text = ruleText(rule);
  if (rule.qos === 0) {
    const definition = { ...parseRule(text), priority: rule.priority };
    return {
      kind: "live",
      uplink: options.name,
      send: (message) => target.sendLive(message, definition),
    };
  }
  return {
    kind: "stored",
    uplink: options.name,
    lane: queue.lane(rule.priority),
    rule: store.rule(options.name, text),
    ttlMs: rule.ttlMs,
    whenFull: options.queue.whenFull,
  };
}
