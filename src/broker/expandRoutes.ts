import type { RouteFailure } from "../base/deadLetters.ts";
import type { Message } from "../base/message.ts";
import { topicNameFault } from "../base/topic.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { TopicCache } from "./topicCache.ts";
import type { TopicEntry } from "./topicEntry.ts";

const depthMax = 8;
const derivedMax = 64;

export interface Derived {
  readonly message: Message;
  readonly entry: TopicEntry;
}

interface Step extends Derived {
  /** Routes that led here. */
  readonly trail: readonly string[];
}

/**
 * All messages that routes derive from one, breadth first. A route is not applied to what came out of itself, so a circle ends; depth and
 * number are bounded beside that, and the size: what the store does not take would be refused with the message that it was made of.
 */
export function expandRoutes(
  message: Message,
  entry: TopicEntry,
  deps: {
    cache: TopicCache;
    metrics: BrokerMetrics;
    levelsMax: number;
    /** Bytes of a derived message's payload. */
    payloadMax: number;
    dead: (failure: RouteFailure) => void;
  },
): Derived[] {
  const derived: Derived[] = [];
  const steps: Step[] = [{ message, entry, trail: [] }];
  for (let at = 0; at < steps.length; at += 1) {
    const step = steps[at];
    if (step === undefined) break;
    for (const route of step.entry.routes) {
      if (step.trail.includes(route.name) || step.trail.length >= depthMax) {
        deps.metrics.dropped("route-loop").value += 1;
        continue;
      }
      for (const made of route.apply(step.message, deps.dead)) {
        const fits = derived.length < derivedMax && made.payload.length <= deps.payloadMax;
        if (!fits || topicNameFault(made.topic, deps.levelsMax) !== null) {
          deps.metrics.dropped("route-limit").value += 1;
          continue;
        }
        const next = { message: made, entry: deps.cache.get(made.topic), trail: [...step.trail, route.name] };
        derived.push(next);
        steps.push(next);
      }
    }
  }
  return derived;
}
