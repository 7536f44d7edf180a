import { randomUUID } from "node:crypto";
import { topicNameFault } from "../base/topic.ts";
import type { ConnackProperties, ConnectPacket } from "../wire/mqtt/packet.ts";
import { connectReturn, reason } from "../wire/mqtt/reasonCodes.ts";
import { type Identity, identityOf } from "./access/access.ts";
import type { Who } from "./access/rules.ts";
import { beginAuthentication } from "./authHandler.ts";
import type { Connection } from "./connection.ts";
import type { BrokerContext } from "./context.ts";
import type { RefusedReason } from "./metrics.ts";
import { pause } from "./pauses.ts";
import { TopicAliases } from "./topicAliases.ts";

/** MQTT asks for 23 at least [MQTT-3.1.3-5]; ids are keys of the store and of every table, so not 65535. In UTF-8 bytes. */
const clientIdBytesMax = 256;
/** MQTT 3.1 allows no more, in characters. */
const clientIdOldMax = 23;
const expiryNever = 0xffff_ffff;

/**
 * CONNECT (section 3.1 of both versions): what is wrong whoever they are, then who they are, then `admit`. Checking a password takes its time;
 * meanwhile the connection is not read, and may end.
 */
export function handleConnect(context: BrokerContext, connection: Connection, packet: ConnectPacket): void {
  connection.version = packet.version;
  connection.packetSizeMax = packet.properties?.maximumPacketSize ?? Number.POSITIVE_INFINITY;
  context.metrics.connects.value += 1;
  const refusal = refusalOf(context, packet);
  if (refusal !== undefined) refuse(context, connection, refusal);
  else if (packet.properties?.authenticationMethod === undefined) logIn(context, connection, packet);
  else {
    beginAuthentication(context, connection, packet.properties, {
      admit: (identity, answer) => admit(context, connection, packet, identity, answer),
      refuse: (why) => refuse(context, connection, refusals[why]),
    });
  }
}

function logIn(context: BrokerContext, connection: Connection, packet: ConnectPacket): void {
  const { access } = context;
  const { username: name, password } = packet;
  const known = access.withoutPassword(connection.peer, name);
  if (known !== undefined) {
    admit(context, connection, packet, known);
    return;
  }
  if (name === undefined) {
    refuse(context, connection, refusals.notAuthorized);
    return;
  }
  connection.pause(pause.logIn);
  const wanted = (): boolean => connection.open;
  access.logIns.password({ name, password, address: connection.address, wanted }, (result) => {
    if (!connection.open) return;
    connection.resume(pause.logIn);
    context.metrics.logIns(result.kind).value += 1;
    if (result.kind === "wrong") logFailure(context, connection, name);
    connection.attempt(() => {
      if (result.user !== undefined) admit(context, connection, packet, identityOf(result.user, "password"));
      else refuse(context, connection, result.kind === "busy" ? refusals.busy : refusals.wrong);
    });
  });
}

/** A name that nobody has may be a password in the wrong field: it is not written down. */
function logFailure({ access, faultLog, log }: BrokerContext, { address, peer }: Connection, name: string): void {
  if (!faultLog.due(`log-in ${address ?? peer.listener}`)) return;
  const user = access.hasUser(name) ? name : undefined;
  log.warn({ address, listener: peer.listener, user }, "a log-in failed: wrong user name or password");
}

/**
 * They are who they say: the session is theirs and CONNACK goes out.
 * @param answer of enhanced authentication, for the CONNACK
 */
function admit(
  context: BrokerContext,
  connection: Connection,
  packet: ConnectPacket,
  identity: Identity,
  answer: Pick<ConnackProperties, "authenticationMethod" | "authenticationData"> = {},
): void {
  const assigned = packet.clientId === "" ? `auto-${randomUUID()}` : undefined; // [MQTT-3.1.3-6]
  const clientId = assigned ?? packet.clientId;
  const { user } = identity;
  const denied = willRefusal(context, { clientId, user }, packet);
  if (denied !== undefined) {
    refuse(context, connection, denied);
    return;
  }
  const expiryMs = expiryOf(context, packet);
  const keepAliveSeconds = keepAliveOf(context, packet);
  const announced = connackProperties(context, packet, assigned, keepAliveSeconds, expiryMs);
  const properties = announced && { ...announced, ...answer };
  if (!connection.takes({ kind: "connack", sessionPresent: false, reasonCode: 0, properties })) {
    connection.refuse(reason.packetTooLarge, connectReturn.serverUnavailable); // [MQTT-3.1.2-24]
    return;
  }
  const taken = ofOthers(context, clientId, user);
  if (taken !== undefined) {
    refuse(context, connection, taken);
    return;
  }
  const opened = context.sessions.open(clientId, packet.clean, expiryMs > 0);
  if (opened === undefined) {
    refuse(context, connection, refusals.sessions);
    return;
  }
  const { session, present } = opened;
  if (session.user !== user) {
    session.user = user;
    if (session.subscriptions.size > 0) context.cache.invalidate(); // what it may read may be another matter now
  }
  session.expiryMs = expiryMs;
  session.will = packet.will;
  connection.identity = identity;
  connection.window = Math.min(context.limits.maxInflight, packet.properties?.receiveMaximum ?? 65_535); // [MQTT-3.3.4-9]
  const aliasesMax = Math.min(context.limits.topicAliasMaximum, packet.properties?.topicAliasMaximum ?? 0);
  if (aliasesMax > 0) connection.outbox.aliases = new TopicAliases(aliasesMax); // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
  connection.keepAliveMs = keepAliveSeconds * 1000;
  connection.connected(session);
  if (session.held.size > 0) connection.resumedIds = new Set(session.held.keys());
  // [MQTT-3.2.2-2], [MQTT-3.2.2-3]; a reserved byte in 3.1
  connection.send({ kind: "connack", sessionPresent: present && packet.version !== 3, reasonCode: 0, properties });
  context.sessions.attached(session, connection);
}

interface Refusal {
  readonly counted: RefusedReason;
  readonly reasonCode: number;
  readonly returnCode: number;
  readonly why?: string;
}

const { notAuthorized, badUserNameOrPassword, serverUnavailable, identifierRejected } = connectReturn;

const refusals = {
  notAuthorized: { counted: "auth", reasonCode: reason.notAuthorized, returnCode: notAuthorized },
  wrong: { counted: "auth", reasonCode: reason.badUserNameOrPassword, returnCode: badUserNameOrPassword },
  /** It may try again: nothing was said about its password. */
  busy: {
    ...{ counted: "log-ins", reasonCode: reason.serverBusy, returnCode: serverUnavailable },
    why: "too many log-ins at a time",
  },
  method: { counted: "auth", reasonCode: reason.badAuthenticationMethod, returnCode: notAuthorized },
  sessions: {
    ...{ counted: "sessions", reasonCode: reason.quotaExceeded, returnCode: serverUnavailable },
    why: "mqtt.limits.maxSessions is reached",
  },
  clientId: {
    ...{ counted: "client-id", reasonCode: reason.clientIdentifierNotValid, returnCode: identifierRejected },
    why: `a client id has ${clientIdBytesMax} bytes at most`,
  },
  willTopic: { counted: "will", reasonCode: reason.topicNameInvalid, returnCode: notAuthorized },
  will: {
    ...{ counted: "will", reasonCode: reason.notAuthorized, returnCode: notAuthorized },
    why: "the access rules do not let it publish its will",
  },
  owner: {
    ...{ counted: "owner", reasonCode: reason.notAuthorized, returnCode: notAuthorized },
    why: "another user is connected with this client id",
  },
} as const satisfies Record<string, Refusal>;

function refuse(context: BrokerContext, connection: Connection, refusal: Refusal): void {
  context.metrics.refused(refusal.counted).value += 1;
  connection.refuse(refusal.reasonCode, refusal.returnCode, refusal.why);
}

/** What is wrong with it, whoever they are. */
function refusalOf(context: BrokerContext, packet: ConnectPacket): Refusal | undefined {
  const { will } = packet;
  if (!isClientId(packet)) return refusals.clientId;
  // A will is published without another look at its topic.
  if (will !== undefined && topicNameFault(will.topic, context.limits.maxTopicLevels) !== null) {
    return refusals.willTopic;
  }
  return undefined;
}

function isClientId({ clientId, version, clean }: ConnectPacket): boolean {
  if (version === 3) return clientId !== "" && [...clientId].length <= clientIdOldMax; // MQTT 3.1 section 3.1
  if (clientId === "" && version === 4) return clean; // [MQTT-3.1.3-8] of 3.1.1
  return Buffer.byteLength(clientId) <= clientIdBytesMax;
}

function willRefusal({ access }: BrokerContext, who: Who, { will }: ConnectPacket): Refusal | undefined {
  return will === undefined || access.mayWill(who, will.topic) ? undefined : refusals.will;
}

/**
 * A client id is no secret, so it must not be a way to what waits for another user, nor to throw that user out. While the other one is connected it
 * keeps the id; afterwards its session ends and nothing of it is handed over. A session of the anonymous one is anybody's.
 */
function ofOthers(context: BrokerContext, clientId: string, user: string | undefined): Refusal | undefined {
  const session = context.sessions.get(clientId);
  if (session?.user === undefined || session.user === user) return undefined;
  const online = session.link !== undefined;
  if (context.clientLog.due(`owner ${clientId}`)) {
    const what = online ? "refused while it is connected" : "its session ends";
    context.log.warn({ clientId, user, owner: session.user }, `a client id of another user: ${what}`);
  }
  if (online) return refusals.owner;
  context.sessions.end(session);
  return undefined;
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
