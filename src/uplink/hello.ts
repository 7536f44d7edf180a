import type { Qos } from "../base/message.ts";
import type { ConnectPacket, ProtocolVersion, SubscribePacket } from "../wire/mqtt/packet.ts";
import type { UplinkOptions } from "./options.ts";

/**
 * CONNECT as the gateway says it: a session that the cloud keeps, so that commands wait there while the link is down.
 * @param clean one that it has is to be forgotten
 */
export function connectPacket(
  options: UplinkOptions,
  limits: { readonly receiveMaximum: number; readonly maximumPacketSize: number },
  clean = false,
): ConnectPacket {
  const { version, clientId, keepAliveMs, username, password, sessionExpiryMs } = options;
  const sessionExpirySeconds = Math.min(0xffff_ffff, Math.ceil(sessionExpiryMs / 1000));
  return {
    kind: "connect",
    version,
    clientId,
    clean,
    keepAliveSeconds: Math.min(65_535, Math.ceil(keepAliveMs / 1000)),
    username,
    password: password === undefined ? undefined : Buffer.from(password),
    properties: version === 4 ? undefined : { sessionExpirySeconds, ...limits },
  };
}

/** All receive rules in one SUBSCRIBE; undefined when there are none. */
export function subscribePacket(
  subscriptions: ReadonlyArray<{ filter: string; qos: Qos }>,
  version: ProtocolVersion,
): SubscribePacket | undefined {
  if (subscriptions.length === 0) return undefined;
  const five = version === 5;
  return {
    kind: "subscribe",
    packetId: subscribePacketId,
    subscriptions: subscriptions.map(({ filter, qos }) => ({
      filter,
      qos,
      // Or what we forward could come back as a command. Not allowed on a shared subscription [MQTT-3.8.3-4].
      noLocal: five && !filter.startsWith("$share/"),
      retainAsPublished: false,
      retainHandling: five ? 1 : 0,
    })),
  };
}

/** Never given to a PUBLISH, since identifiers of both share one space [MQTT-2.2.1-3]. */
export const subscribePacketId = 65_535;
