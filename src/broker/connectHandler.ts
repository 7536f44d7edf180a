import { randomUUID } from "node:crypto";
import { topicNameFault } from "../base/topic.ts";
import type { ConnackProperties, ConnectPacket } from "../wire/mqtt/packet.ts";
import { connectReturn, reason } from "../wire/mqtt/reasonCodes.ts";
import type { Connection } from "./connection.ts";
import type { BrokerContext } from "./context.ts";
import { RetainedFeed } from "./retainedFeed.ts";
import { TopicAliases } from "./topicAliases.ts";

/** MQTT asks for 23 at least [MQTT-3.1.3-5]; ids are keys of the store and of every table, so not 65535. In UTF-8 bytes. */
const clientIdBytesMax = 256;
/** MQTT 3.1 allows no more, in characters. */
const clientIdOldMax = 23;
const expiryNever = 0xffff_ffff;

/** CONNECT (section 3.1 of both versions). */
export function handleConnect(context: BrokerContext, connection: Connection, packet: ConnectPacket): void {
  connection.version = packet.version;
  connection.packetSizeMax = packet.properties?.maximumPacketSize ?? Number.POSITIVE_INFINITY;
  context.metrics.connects.value += 1;
  const refusal = refusalOf(context, connection, packet);
  if (refusal !== undefined) {
    context.metrics.refused(refusal.counted).value += 1;
    connection.refuse(refusal.reasonCode, refusal.returnCode, refusal.why);
    return;
  }
  const assigned = packet.clientId === "" ? `auto-${randomUUID()}` : undefined; // [MQTT-3.1.3-6]
  const clientId = assigned ?? packet.clientId;
  const expiryMs = expiryOf(context, packet);
  const keepAliveSeconds = keepAliveOf(context, packet);
  const properties = connackProperties(context, packet, assigned, keepAliveSeconds, expiryMs);
  if (!connection.takes({ kind: "connack", sessionPresent: false, reasonCode: 0, properties })) {
    connection.refuse(reason.packetTooLarge, connectReturn.serverUnavailable); // [MQTT-3.1.2-24]
    return;
  }
  const opened = context.sessions.open(clientId, packet.clean, expiryMs > 0);
  if (opened === undefined) {
    context.metrics.refused("sessions").value += 1;
    connection.refuse(reason.quotaExceeded, connectReturn.serverUnavailable, "mqtt.limits.maxSessions is reached");
    return;
  }
  const { session, present } = opened;
  session.expiryMs = expiryMs;
  session.will = packet.will;
  connection.window = Math.min(context.limits.maxInflight, packet.properties?.receiveMaximum ?? 65_535); // [MQTT-3.3.4-9]
  const aliasesMax = Math.min(context.limits.topicAliasMaximum, packet.properties?.topicAliasMaximum ?? 0);
  if (aliasesMax > 0) connection.outbox.aliases = new TopicAliases(aliasesMax); // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
  connection.keepAliveMs = keepAliveSeconds * 1000;
  connection.connected(session);
  connection.feed = new RetainedFeed(context, session);
  if (session.held.size > 0) connection.resumedIds = new Set(session.held.keys());
  // [MQTT-3.2.2-2], [MQTT-3.2.2-3]; a reserved byte in 3.1
  connection.send({ kind: "connack", sessionPresent: present && packet.version !== 3, reasonCode: 0, properties });
  context.sessions.attached(session, connection);
  session.outgoing.attached();
}

interface Refusal {
  readonly counted: "auth" | "client-id" | "will";
  readonly reasonCode: number;
  readonly returnCode: number;
  readonly why?: string;
}

function refusalOf(context: BrokerContext, connection: Connection, packet: ConnectPacket): Refusal | undefined {
  const { will } = packet;
  if (packet.properties?.authenticationMethod !== undefined) {
    return { counted: "auth", reasonCode: reason.badAuthenticationMethod, returnCode: connectReturn.notAuthorized };
  }
  if (!isClientId(packet)) {
    const { clientIdentifierNotValid: reasonCode } = reason;
    const why = `a client id has ${clientIdBytesMax} bytes at most`;
    return { counted: "client-id", reasonCode, returnCode: connectReturn.identifierRejected, why };
  }
  // Whoever they are: a will is published without another look at its topic.
  if (will !== undefined && topicNameFault(will.topic, context.limits.maxTopicLevels) !== null) {
    return { counted: "will", reasonCode: reason.topicNameInvalid, returnCode: connectReturn.notAuthorized };
  }
  return authRefusal(context, connection, packet);
}

function isClientId({ clientId, version, clean }: ConnectPacket): boolean {
  if (version === 3) return clientId !== "" && [...clientId].length <= clientIdOldMax; // MQTT 3.1 section 3.1
  if (clientId === "" && version === 4) return clean; // [MQTT-3.1.3-8] of 3.1.1
  return Buffer.byteLength(clientId) <= clientIdBytesMax;
}

function authRefusal(
  { anonymous, authenticate }: BrokerContext,
  connection: Connection,
  { username, password, clientId }: ConnectPacket,
): Refusal | undefined {
  if (username === undefined || authenticate === undefined) {
    // The certificate of a listener that requires one says who they are.
    if (anonymous || connection.peer.certified === true) return undefined;
    return { counted: "auth", reasonCode: reason.notAuthorized, returnCode: connectReturn.notAuthorized };
  }
  if (authenticate(username, password, clientId)) return undefined;
  const { badUserNameOrPassword: reasonCode } = reason;
  return { counted: "auth", reasonCode, returnCode: connectReturn.badUserNameOrPassword };
}

/** How long the session outlives its connection; 3.1.1 has only "not" and "for ever", which ends at our maximum. */
function expiryOf(context: BrokerContext, packet: ConnectPacket): number {
  const { sessionExpiryMaxMs } = context.limits;
  if (packet.version !== 5) return packet.clean ? 0 : sessionExpiryMaxMs;
  const seconds = packet.properties?.sessionExpirySeconds ?? 0;
  return seconds === expiryNever ? sessionExpiryMaxMs : Math.min(seconds * 1000, sessionExpiryMaxMs);
}

function keepAliveOf(context: BrokerContext, packet: ConnectPacket): number {
  const { maxKeepAliveSeconds } = context.limits;
  const asked = packet.keepAliveSeconds;
  if (packet.version !== 5 || maxKeepAliveSeconds >= 65_535) return asked; // 3.1.1 cannot be told another
  return asked === 0 || asked > maxKeepAliveSeconds ? maxKeepAliveSeconds : asked;
}

/** What differs from the defaults of the specification, so that the packet stays short. */
function connackProperties(
  context: BrokerContext,
  packet: ConnectPacket,
  assigned: string | undefined,
  keepAliveSeconds: number,
  expiryMs: number,
): ConnackProperties | undefined {
  if (packet.version !== 5) return undefined;
  const { limits } = context;
  const properties: ConnackProperties = {
    receiveMaximum: limits.receiveMaximum,
    maximumPacketSize: limits.maxPacketSize,
    topicAliasMaximum: limits.topicAliasMaximum,
  };
  if (assigned !== undefined) properties.assignedClientId = assigned; // [MQTT-3.2.2-16]
  if (keepAliveSeconds !== packet.keepAliveSeconds) properties.serverKeepAliveSeconds = keepAliveSeconds; // [MQTT-3.2.2-21]
  const asked = packet.properties?.sessionExpirySeconds;
  if (asked !== undefined && asked * 1000 > expiryMs) properties.sessionExpirySeconds = Math.floor(expiryMs / 1000);
  return properties;
}
