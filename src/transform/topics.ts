import { messageOf } from "../base/errors.ts";
import { parseTemplate, topicLevel } from "../base/template.ts";
import { topicNameFault } from "../base/topic.ts";
import { configFault } from "./codecs/fault.ts";

export type TopicResult = { readonly topic: string } | { readonly fault: string };

/** Fills a topic template from names that are known beforehand and from the fields of a decoded value. */
export interface TopicTemplate {
  /** Names used, in order of appearance. */
  readonly names: readonly string[];
  /** @param known names that come before fields, put in as they are; fields go through `topicLevel` */
  fill(known: (name: string) => string | undefined, value: unknown): TopicResult;
}

/** @throws TidegateError TG_CONFIG for a malformed template or one that can make no valid topic */
export function createTopicTemplate(text: string, where: string): TopicTemplate {
  const template = parse(text, where);
  const literal = topicNameFault(text.replace(/\{[^{}]*\}/g, "x"));
  if (literal !== null) throw configFault(`${where}: topic "${text}": ${literal}`);
  const paths = new Map(template.names.map((name) => [name, name.split(".")]));
  const system = text.startsWith("$");
  return {
    names: template.names,
    fill(known, value) {
      let missing = "";
      const topic = template.fill((name) => {
        const filled = known(name) ?? fieldText(value, paths.get(name) ?? []);
        if (filled === undefined) missing = name;
        return filled;
      });
      if (topic === undefined) return { fault: `no value for {${missing}} of the topic` };
      // A device that sends "$SYS" as a field's value must not reach the topics that the broker speaks on.
      if (!system && topic.startsWith("$")) return { fault: "a value would make the topic start with $" };
      const fault = topicNameFault(topic);
      return fault === null ? { topic } : { fault };
    },
  };
}

function parse(text: string, where: string): ReturnType<typeof parseTemplate> {
  try {
    return parseTemplate(text);
  } catch (error) {
    throw configFault(`${where}: ${messageOf(error)}`);
  }
}

/** A field by its dotted path, as one topic level. Undefined for what is missing, null, an object or an array. */
function fieldText(value: unknown, path: readonly string[]): string | undefined {
  let at: unknown = value;
  for (const name of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, name)) return undefined;
    at = (at as Record<string, unknown>)[name];
  }
  if (typeof at !== "string" && typeof at !== "number" && typeof at !== "boolean") return undefined;
  return topicLevel(at);
}
