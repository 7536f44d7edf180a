import type { Store } from "../base/contracts.ts";
import type { RouteLetters } from "../base/deadLetters.ts";
import type { Deliverer } from "./deliverer.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import type { PendingBytes } from "./pendingBytes.ts";
import type { References } from "./references.ts";
import type { Retained } from "./retained.ts";
import type { TopicCache } from "./topicCache.ts";

/** What a publish needs on its way. */
export interface PipelineDeps {
  readonly store: Store;
  readonly limits: BrokerLimits;
  readonly metrics: BrokerMetrics;
  readonly cache: TopicCache;
  readonly retained: Retained;
  readonly references: References;
  readonly pending: PendingBytes;
  readonly deliverer: Deliverer;
  /** Undefined: what a route would put there is dropped. */
  readonly letters: RouteLetters | undefined;
}
