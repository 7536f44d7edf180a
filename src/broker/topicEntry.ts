import type { Forward, Route } from "../base/contracts.ts";
import type { Message, Qos } from "../base/message.ts";
import type { Session } from "./session.ts";
import type { ShareGroup } from "./shareGroup.ts";

/** What one session gets of a topic: its matching subscriptions merged, so that it gets one copy with the highest QoS [MQTT-3.3.4-2]. */
export interface Delivery {
  readonly session: Session;
  readonly qos: Qos;
  readonly retainAsPublished: boolean;
  /** Subscription identifiers of all that matched; undefined: none. */
  readonly ids: readonly number[] | undefined;
  /** What it gets of its own messages when a No Local subscription is among them; null: nothing [MQTT-3.8.3-3]. */
  readonly own: Delivery | null | undefined;
}

/** @returns a group that it made durable for the message */
export type Handler = (message: Message) => { readonly group: number } | undefined;

export type StoredForward = Extract<Forward, { kind: "stored" }>;
export type LiveForward = Extract<Forward, { kind: "live" }>;

/** Everything that is known about a topic, worked out once and kept until subscriptions, routes or forwards change. */
export interface TopicEntry {
  readonly topic: string;
  /** Its UTF-8 bytes, to be found by. */
  readonly bytes: Buffer;
  readonly generation: number;
  /** Of those only who may read it. Members of `shares` are looked at one by one. */
  readonly deliveries: readonly Delivery[];
  readonly shares: readonly ShareGroup[];
  readonly handlers: readonly Handler[];
  readonly routes: readonly Route[];
  readonly stored: readonly StoredForward[];
  readonly live: readonly LiveForward[];
  /** Names of the uplinks in `stored` that refuse when they are full. */
  readonly rejectNewest: readonly string[];
  /** Some delivery goes to a durable session at QoS 1 or 2. */
  readonly durable: boolean;
  /** A QoS 0 message needs nothing but its bytes passed on, and another one as well, unless it is stored for durable sessions. */
  readonly plain: boolean;
  /** Uplinks take a copy, and nobody else gets one. */
  readonly onlyStored: boolean;
}
