/**
 * MQTT control packets as values (MQTT 3.1.1 and 5, chapter 3), one union for all versions. Before MQTT 5 `properties` are absent and
 * reason codes are 0. Absent fields were not sent.
 */
import type { MessageProperties, Qos } from "../../base/message.ts";

/** Protocol level byte of CONNECT: 3 is MQTT 3.1 (MQIsdp), 4 is MQTT 3.1.1, 5 is MQTT 5. */
export type ProtocolVersion = 3 | 4 | 5;

export interface ConnectProperties {
  sessionExpirySeconds?: number;
  receiveMaximum?: number;
  maximumPacketSize?: number;
  topicAliasMaximum?: number;
  requestResponseInformation?: boolean;
  requestProblemInformation?: boolean;
  authenticationMethod?: string;
  authenticationData?: Uint8Array;
  userProperties?: ReadonlyArray<readonly [string, string]>;
}

export interface Will {
  topic: string;
  payload: Uint8Array;
  qos: Qos;
  retain: boolean;
  properties?: MessageProperties | undefined;
  willDelaySeconds?: number | undefined;
}

export interface ConnectPacket {
  kind: "connect";
  version: ProtocolVersion;
  clientId: string;
  /** Clean Session (3.1.1), Clean Start (5). */
  clean: boolean;
  keepAliveSeconds: number;
  username?: string | undefined;
  password?: Uint8Array | undefined;
  will?: Will | undefined;
  properties?: ConnectProperties | undefined;
}

export interface ConnackProperties {
  sessionExpirySeconds?: number;
  receiveMaximum?: number;
  maximumQos?: 0 | 1;
  retainAvailable?: boolean;
  maximumPacketSize?: number;
  assignedClientId?: string;
  topicAliasMaximum?: number;
  reasonString?: string;
  wildcardSubscriptionAvailable?: boolean;
  subscriptionIdentifiersAvailable?: boolean;
  sharedSubscriptionAvailable?: boolean;
  serverKeepAliveSeconds?: number;
  responseInformation?: string;
  serverReference?: string;
  authenticationMethod?: string;
  authenticationData?: Uint8Array;
  userProperties?: ReadonlyArray<readonly [string, string]>;
}

export interface ConnackPacket {
  kind: "connack";
  sessionPresent: boolean;
  /** Return code (3.1.1) or reason code (5). */
  reasonCode: number;
  properties?: ConnackProperties | undefined;
}

export interface PublishPacket {
  kind: "publish";
  dup: boolean;
  qos: Qos;
  retain: boolean;
  /** Empty only with a topic alias (5). */
  topic: string;
  /** 1-65535 with QoS 1 and 2, 0 with QoS 0. */
  packetId: number;
  /** A view of the read buffer: copy it if it must outlive the chunk. */
  payload: Uint8Array;
  properties?: MessageProperties | undefined;
  topicAlias?: number | undefined;
  /** Only towards a client; several when several of its subscriptions match. */
  subscriptionIdentifiers?: readonly number[] | undefined;
}

export interface AckProperties {
  reasonString?: string;
  userProperties?: ReadonlyArray<readonly [string, string]>;
}

/** PUBACK, PUBREC, PUBREL, PUBCOMP. */
export interface AckPacket {
  kind: "puback" | "pubrec" | "pubrel" | "pubcomp";
  packetId: number;
  reasonCode: number;
  properties?: AckProperties | undefined;
}

export interface Subscription {
  /** As sent, `$share/...` included. */
  filter: string;
  qos: Qos;
  noLocal: boolean;
  retainAsPublished: boolean;
  /** 0 send retained at subscribe, 1 only if the subscription is new, 2 never. */
  retainHandling: 0 | 1 | 2;
}

export interface SubscribePacket {
  kind: "subscribe";
  packetId: number;
  subscriptions: readonly Subscription[];
  subscriptionIdentifier?: number | undefined;
  userProperties?: ReadonlyArray<readonly [string, string]> | undefined;
}

export interface SubackPacket {
  kind: "suback" | "unsuback";
  packetId: number;
  /** Empty for a 3.1.1 UNSUBACK. */
  reasonCodes: readonly number[];
  properties?: AckProperties | undefined;
}

export interface UnsubscribePacket {
  kind: "unsubscribe";
  packetId: number;
  filters: readonly string[];
  userProperties?: ReadonlyArray<readonly [string, string]> | undefined;
}

export interface PingPacket {
  kind: "pingreq" | "pingresp";
}

export interface DisconnectPacket {
  kind: "disconnect";
  reasonCode: number;
  properties?: (AckProperties & { sessionExpirySeconds?: number; serverReference?: string }) | undefined;
}

export interface AuthPacket {
  kind: "auth";
  reasonCode: number;
  properties?: (AckProperties & { authenticationMethod?: string; authenticationData?: Uint8Array }) | undefined;
}

export type Packet =
  | ConnectPacket
  | ConnackPacket
  | PublishPacket
  | AckPacket
  | SubscribePacket
  | SubackPacket
  | UnsubscribePacket
  | PingPacket
  | DisconnectPacket
  | AuthPacket;
