import type { Route, Routing } from "../base/contracts.ts";
import type { RouteFailure } from "../base/deadLetters.ts";
import { messageOf } from "../base/errors.ts";
import { type Log, LogLimiter } from "../base/log.ts";
import type { Message, MessageProperties, Qos } from "../base/message.ts";
import type { Counter, Meter } from "../base/meter.ts";
import { matchTopic, topicFilterFault } from "../base/topic.ts";
import { configFault } from "./codecs/fault.ts";
import type { CodecRegistry } from "./codecs/registry.ts";
import { jsonPayload, jsonProperties } from "./jsonMessage.ts";
import { type CompiledStep, compileStep, type StepDefinition } from "./steps/table.ts";
import { createTopicTemplate, type TopicTemplate } from "./topics.ts";

/** An entry of `routes:`. */
export interface RouteDefinition {
  readonly name: string;
  /** Topic filter of the messages that it takes. */
  readonly from: string;
  /** In order; without any the payload stays as it is and only the topic changes. */
  readonly steps: readonly StepDefinition[];
  /** Topic template: {1}, {2}... what the + matched, {rest} what # matched, {topic}, then decoded fields. Default {topic}. */
  readonly to?: string | undefined;
  /** Default: as the message that came in. */
  readonly qos?: Qos | undefined;
  readonly retain?: boolean | undefined;
  /** A message that a step refuses: dropped, passed on to `to` as it came, or kept as a dead letter. */
  readonly onError: "drop" | "pass" | "dead-letter";
}

export interface RoutingDeps {
  readonly log: Log;
  readonly meter: Meter;
}

/** What all topics of a route share. */
interface CompiledRoute {
  readonly definition: RouteDefinition;
  readonly source: string;
  readonly steps: ReadonlyArray<CompiledStep & { readonly failed: Counter }>;
  readonly template: TopicTemplate;
  readonly messages: Counter;
  readonly failedTopics: Counter;
  readonly logFailure: (reason: string, why: string) => void;
}

const nothing: readonly Message[] = Object.freeze([]);

/**
 * Compiles the routes. @throws TidegateError TG_CONFIG, naming route and step.
 * Counts `tidegate_route_messages_total{route}` (messages made) and `tidegate_route_errors_total{route,reason}`, reason being the kind of step, or `topic`.
 */
export function createRouting(
  definitions: readonly RouteDefinition[],
  codecs: CodecRegistry,
  deps: RoutingDeps,
): Routing {
  const limiter = new LogLimiter();
  const names = new Set<string>();
  const routes = definitions.map((definition) => {
    if (names.has(definition.name)) throw configFault(`route ${definition.name}: the name is taken already`);
    names.add(definition.name);
    return compileRoute(definition, codecs, deps, limiter);
  });
  return {
    routesFor(topic) {
      const bound: Route[] = [];
      for (const route of routes) {
        const captures = matchTopic(route.definition.from, topic);
        if (captures !== null) bound.push(new BoundRoute(route, topic, captures));
      }
      return bound;
    },
  };
}

function compileRoute(
  definition: RouteDefinition,
  codecs: CodecRegistry,
  { log, meter }: RoutingDeps,
  limiter: LogLimiter,
): CompiledRoute {
  const { name: route, from } = definition;
  const where = `route ${route}`;
  const fault = from.startsWith("$share/") ? "a shared subscription is no filter here" : topicFilterFault(from);
  if (fault !== null) throw configFault(`${where}: from "${from}": ${fault}`);
  const template = createTopicTemplate(definition.to ?? "{topic}", where);
  checkCaptures(template, from, where);
  const errors = (reason: string): Counter =>
    meter.counter("tidegate_route_errors_total", "Messages that a route could not transform.", { route, reason });
  const steps = definition.steps.map((step, index) => {
    const compiled = compileStep(step, { codecs, where: `${where}: step ${index + 1}`, index });
    return { ...compiled, failed: errors(compiled.kind) };
  });
  return {
    definition,
    source: `route:${route}`,
    steps,
    template,
    messages: meter.counter("tidegate_route_messages_total", "Messages that a route made.", { route }),
    failedTopics: errors("topic"),
    logFailure(reason, why) {
      if (limiter.due(`${route} ${reason}`)) log.warn({ route, reason, why }, "route could not transform a message");
    },
  };
}

/** {3} without a third +, or {rest} without #, could never be filled. */
function checkCaptures(template: TopicTemplate, from: string, where: string): void {
  const plus = from.split("/").filter((level) => level === "+").length;
  for (const name of template.names) {
    if (/^\d+$/.test(name) && (Number(name) < 1 || Number(name) > plus)) {
      throw configFault(`${where}: to has {${name}}, but from has ${plus} times +`);
    }
    if (name === "rest" && !from.endsWith("#")) throw configFault(`${where}: to has {rest}, but from has no #`);
  }
}

/** A route on one topic: what the wildcards matched is known, so a message costs its steps and, at most, the fields in the topic. */
class BoundRoute implements Route {
  readonly name: string;
  readonly #route: CompiledRoute;
  readonly #known: (name: string) => string | undefined;
  /** The topic when no decoded field is part of it. */
  readonly #fixedTopic: string | undefined;

  constructor(route: CompiledRoute, topic: string, captures: { plus: readonly string[]; rest: string | undefined }) {
    this.name = route.definition.name;
    this.#route = route;
    this.#known = (name) => {
      if (name === "topic") return topic;
      if (name === "rest") return captures.rest;
      return /^\d+$/.test(name) ? captures.plus[Number(name) - 1] : undefined;
    };
    const filled = route.template.fill(this.#known, undefined);
    this.#fixedTopic = "topic" in filled ? filled.topic : undefined;
  }

  apply(message: Message, dead: (failure: RouteFailure) => void): readonly Message[] {
    const route = this.#route;
    if (message.source === route.source) return nothing; // a route never takes its own output; longer loops the broker ends
    if (message.retain && message.payload.length === 0) return this.#clear(message);
    let value: unknown = message.payload;
    for (const step of route.steps) {
      try {
        value = step.run(value, message);
      } catch (error) {
        step.failed.value += 1;
        const why = messageOf(error);
        route.logFailure(step.kind, why);
        if (route.definition.onError === "pass") return this.#pass(message, dead);
        this.#bury(message, step.kind, why, dead);
        return nothing;
      }
    }
    return route.steps.length === 0 ? this.#pass(message, dead) : this.#derive(message, value, dead);
  }

  #bury(message: Message, code: string, text: string, dead: (failure: RouteFailure) => void): void {
    if (this.#route.definition.onError === "dead-letter") dead({ route: this.name, code, text, message });
  }

  /** An empty retained payload deletes the topic's retained value [MQTT-3.3.1-6]; the value derived from it goes too, where its topic is known. */
  #clear(message: Message): readonly Message[] {
    const topic = this.#fixedTopic;
    return topic === undefined ? nothing : this.#made(message, topic, message.payload, message.properties);
  }

  #derive(message: Message, value: unknown, dead: (failure: RouteFailure) => void): readonly Message[] {
    const topic = this.#topicFor(message, value, dead);
    if (topic === undefined) return nothing;
    return this.#made(message, topic, jsonPayload(value), asJson(message.properties));
  }

  /** The message as it came, under the new topic. */
  #pass(message: Message, dead: (failure: RouteFailure) => void): readonly Message[] {
    const topic = this.#topicFor(message, undefined, dead);
    return topic === undefined ? nothing : this.#made(message, topic, message.payload, message.properties);
  }

  #made(
    message: Message,
    topic: string,
    payload: Uint8Array,
    properties: MessageProperties | undefined,
  ): readonly Message[] {
    const { definition, source, messages } = this.#route;
    messages.value += 1;
    const { qos = message.qos, retain = message.retain } = definition;
    return [{ topic, payload, qos, retain, properties, source }];
  }

  #topicFor(message: Message, value: unknown, dead: (failure: RouteFailure) => void): string | undefined {
    if (this.#fixedTopic !== undefined) return this.#fixedTopic;
    const filled = this.#route.template.fill(this.#known, value);
    if ("topic" in filled) return filled.topic;
    this.#route.failedTopics.value += 1;
    this.#route.logFailure("topic", filled.fault);
    this.#bury(message, "topic", filled.fault, dead);
    return undefined;
  }
}

/** Content type and payload format describe the payload, which changed; everything else belongs to the message. */
function asJson(properties: MessageProperties | undefined): MessageProperties {
  return properties === undefined ? jsonProperties : { ...properties, ...jsonProperties };
}
