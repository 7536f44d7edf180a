import type { Clock } from "../base/clock.ts";
import type { Store } from "../base/contracts.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import type { Access } from "./access/access.ts";
import type { AckLedger } from "./ackLedger.ts";
import type { Deliverer } from "./deliverer.ts";
import type { HeldMemory } from "./heldMemory.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import type { Flusher } from "./outbox.ts";
import type { PausedMemory } from "./pausedMemory.ts";
import type { PendingBytes } from "./pendingBytes.ts";
import type { Pipeline } from "./pipeline.ts";
import type { Retained } from "./retained.ts";
import type { Sessions } from "./sessions.ts";
import type { Subscriptions } from "./subscriptions.ts";
import type { TopicCache } from "./topicCache.ts";
import type { TurnShare } from "./turnShare.ts";

/** The broker's parts, as the packet handlers use them. Made once by createBroker. */
export interface BrokerContext {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: BrokerLimits;
  readonly access: Access;
  readonly metrics: BrokerMetrics;
  readonly flusher: Flusher;
  readonly turn: TurnShare;
  readonly ledger: AckLedger;
  readonly pending: PendingBytes;
  /** Of packets of which only a part has come. */
  readonly partials: HeldMemory;
  /** Of what has come from connections that are not read now, but for those that wait for their turn. */
  readonly paused: PausedMemory;
  readonly cache: TopicCache;
  readonly subscriptions: Subscriptions;
  readonly sessions: Sessions;
  readonly retained: Retained;
  readonly deliverer: Deliverer;
  readonly pipeline: Pipeline;
  /** Once per address and 10 s: whoever sends rubbish must not fill the log. */
  readonly faultLog: LogLimiter;
  /** Once per client and hour. */
  readonly clientLog: LogLimiter;
}
