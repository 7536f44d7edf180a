import type { Qos } from "../base/message.ts";
import type { Counter } from "../base/meter.ts";
import type { ConnackPacket } from "../wire/mqtt/packet.ts";
import type { UplinkOptions } from "./options.ts";
import type { CloudLimits } from "./outgoing.ts";
import { TopicAliases } from "./topicAliases.ts";

/** Which of our subscriptions the cloud can take, as its CONNACK said. */
export interface SubscriptionLimits {
  readonly wildcards: boolean;
  readonly shared: boolean;
  /** Bytes of the SUBSCRIBE. */
  readonly maximumPacketSize: number;
}

/** What the cloud takes, as its CONNACK said, or the config where it says nothing. Aliases are those of this connection. */
export function cloudLimits({ properties }: ConnackPacket, options: UplinkOptions, aliasSaved: Counter): CloudLimits {
  const { maxQos, maxPacketSize = Number.MAX_SAFE_INTEGER } = options;
  const aliases = properties?.topicAliasMaximum ?? 0; // [MQTT-3.2.2-18]
  return {
    receiveMaximum: properties?.receiveMaximum ?? 65_535,
    maximumPacketSize: Math.min(properties?.maximumPacketSize ?? maxPacketSize, maxPacketSize),
    maximumQos: Math.min(properties?.maximumQos ?? 2, maxQos) as Qos,
    retainAvailable: properties?.retainAvailable ?? true,
    aliases: aliases > 0 ? new TopicAliases(aliases, aliasSaved) : undefined,
  };
}

/** @returns what the cloud has no room or no feature for left out */
export function subscriptionLimits({ properties }: ConnackPacket): SubscriptionLimits {
  return {
    wildcards: properties?.wildcardSubscriptionAvailable ?? true,
    shared: properties?.sharedSubscriptionAvailable ?? true,
    maximumPacketSize: properties?.maximumPacketSize ?? Number.MAX_SAFE_INTEGER,
  };
}

/** Seconds for which the cloud keeps our session, where that is less than was asked for (MQTT 5 section 3.2.2.3.2). */
export function shorterSession({ properties }: ConnackPacket, options: UplinkOptions): number | undefined {
  const granted = properties?.sessionExpirySeconds;
  return granted !== undefined && granted * 1000 < options.sessionExpiryMs ? granted : undefined;
}

/** Whether the cloud takes a subscription: to what it cannot do must not be subscribed (MQTT 5 sections 3.2.2.3.11, 3.2.2.3.13). */
export function takesFilter(filter: string, limits: SubscriptionLimits): boolean {
  if (!limits.shared && filter.startsWith("$share/")) return false;
  return limits.wildcards || !/[+#]/.test(filter);
}
