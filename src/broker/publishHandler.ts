import type { RefusalReason } from "../base/contracts.ts";
import type { Message } from "../base/message.ts";
import { topicNameFault } from "../base/topic.ts";
import { decodePacket } from "../wire/mqtt/decode.ts";
import type { PublishPacket } from "../wire/mqtt/packet.ts";
import { ProtocolError } from "../wire/mqtt/protocolError.ts";
import { countPublishRun, newPublishView, scanPublish } from "../wire/mqtt/publish.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { ackByte } from "./ackLedger.ts";
import type { Connection } from "./connection.ts";
import type { BrokerContext } from "./context.ts";
import { pause } from "./pauses.ts";
import { clientKey, mapNames } from "./references.ts";
import type { Session } from "./session.ts";
import type { TopicEntry } from "./topicEntry.ts";

const view = newPublishView(); // filled and used within one call
/** The bits of a PUBLISH that keep it from being passed on as it is: DUP and RETAIN. */
const notPassedOn = 0x09;

/** So many packets that follow on each other may be handled as one: in between it is seen how long it takes and who has to wait. */
const runMax = 64;

/** How many packets may be handled in one go now, when each may leave one more answer open. */
export const runRoom = ({ limits }: BrokerContext, { waitingAcks }: Connection, unacknowledged = 0): number =>
  Math.min(runMax, limits.receiveMaximum - Math.max(waitingAcks, unacknowledged));

/**
 * PUBLISH from a client (section 3.3). The packet is the scanner's current one; those that follow on it and differ in packet id and payload only may be
 * handled with it. @returns how many were @throws ProtocolError
 */
export function handlePublish(context: BrokerContext, connection: Connection, session: Session): number {
  const { buffer, first, start, body, end } = connection.scanner;
  const scanned = scanPublish(buffer, first, body, end, connection.version, view);
  const entry = scanned ? context.cache.find(buffer, view.topicStart, view.topicEnd) : undefined;
  if (entry === undefined) {
    const packet = decodePacket(buffer, first, body, end, connection.version, "client");
    if (packet.kind === "publish") takeDecoded(context, connection, session, packet);
    return 1;
  }
  const { qos, retain, packetId } = view;
  if (
    (first & notPassedOn) === 0 &&
    entry.plain &&
    (qos === 0 || passable(qos, entry, session, packetId)) &&
    context.access.mayPublish(session, entry.topic)
  ) {
    return passOn(context, connection, session, entry);
  }
  context.metrics.received[qos].value += 1;
  context.metrics.payloadReceived.value += end - view.payloadStart;
  if (entry.onlyStored && qos < 2 && !retain && context.access.mayPublish(session, entry.topic)) {
    if (append(context, connection, session, entry, end)) return 1;
  }
  const payload = buffer.subarray(view.payloadStart, end);
  const message = { topic: entry.topic, payload, qos, retain, source: session.source };
  const { came } = context.deliverer;
  if (entry.durable && (first & notPassedOn) === 0)
    came.set(message, buffer, start, end, view.topicEnd - start, connection.version);
  try {
    take(context, connection, session, message, entry, packetId);
  } finally {
    came.forget(); // or the chunk of a client that broke its Receive Maximum stays until another one publishes
  }
  return 1;
}

/** Passes on the PUBLISH in `view`, and as many of the run that it begins as can be treated like it. @returns how many */
function passOn(context: BrokerContext, connection: Connection, session: Session, entry: TopicEntry): number {
  const { scanner, version } = connection;
  const { buffer, start, end } = scanner;
  const { qos, packetId } = view;
  const count = countRun(context, connection, session, entry);
  if (count > 1) scanner.skipTo(start + count * (end - start));
  context.metrics.received[qos].value += count;
  context.metrics.payloadReceived.value += count * (end - view.payloadStart);
  if (qos > 0) countUnacknowledged(context, connection, count);
  context.deliverer.pass(entry, buffer, start, end, count, view, version, session);
  if (qos === 2) for (let at = 0; at < count; at += 1) session.hold(packetId + at, 0);
  if (qos > 0) answer(context, connection, qos, packetId, 0, 0, count);
  return count;
}

function countRun(context: BrokerContext, connection: Connection, session: Session, entry: TopicEntry): number {
  const { scanner, version, unacknowledged } = connection;
  const { buffer, start, end } = scanner;
  const { qos, packetId } = view;
  const room = runRoom(context, connection, version === 5 ? unacknowledged : 0);
  let count = countPublishRun(buffer, start, end, scanner.limit, view, version, room);
  if (count > 1) count = context.deliverer.passable(entry, end - start, qos, version, session, count);
  if (qos === 2) for (let at = 1; at < count; at += 1) if (session.held.has(packetId + at)) count = at;
  return count;
}

/** The view's message goes to uplinks and nowhere else. False: it is not so simple, and nothing has happened. */
function append(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  entry: TopicEntry,
  end: number,
): boolean {
  const { qos, packetId, payloadStart } = view;
  if (qos > 0 && connection.version === 5 && connection.unacknowledged >= context.limits.receiveMaximum) return false;
  const group = context.pipeline.plain.append(entry, session.source, qos, connection.scanner.view, payloadStart, end);
  if (group === 0) return false;
  if (qos > 0) {
    connection.unacknowledged += 1;
    answer(context, connection, qos, packetId, 0, group);
  }
  if (context.pending.above) connection.pause(pause.store);
  return true;
}

/** QoS 1 or 2 of which nothing is stored, the id of QoS 2 included, and that has not come before. */
function passable(qos: number, entry: TopicEntry, session: Session, packetId: number): boolean {
  return !entry.durable && (qos === 1 || (!session.durable && !session.held.has(packetId)));
}

function takeDecoded(context: BrokerContext, connection: Connection, session: Session, packet: PublishPacket): void {
  const topic = resolveAlias(context, connection, packet);
  const fault = topicNameFault(topic, context.limits.maxTopicLevels);
  if (fault !== null) {
    refuseTopic(context, connection, session, packet, fault);
    return;
  }
  context.metrics.received[packet.qos].value += 1;
  context.metrics.payloadReceived.value += packet.payload.length;
  const { qos, retain, payload, properties, packetId } = packet;
  const message: Message = { topic, payload, qos, retain, properties, source: session.source };
  take(context, connection, session, message, context.cache.get(topic), packetId);
}

/**
 * A topic that is well formed but has more levels than we take: MQTT 5 says so in the answer to that message (section 3.4.2.1). Where there is no answer
 * that could say it, the connection ends, or the device would never know.
 */
function refuseTopic(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  { qos, packetId }: PublishPacket,
  fault: string,
): void {
  context.metrics.dropped("topic-levels").value += 1;
  if (qos === 0 || connection.version !== 5 || session.held.has(packetId)) {
    throw new ProtocolError(reason.topicNameInvalid, fault);
  }
  countUnacknowledged(context, connection);
  answer(context, connection, qos, packetId, reason.topicNameInvalid, 0);
}

/** MQTT 5 section 3.3.2.3.4. */
function resolveAlias(context: BrokerContext, connection: Connection, packet: PublishPacket): string {
  const alias = packet.topicAlias;
  if (alias === undefined) return packet.topic;
  if (alias === 0 || alias > context.limits.topicAliasMaximum) {
    throw new ProtocolError(reason.topicAliasInvalid, `topic alias ${alias}`); // [MQTT-3.3.2-8], [MQTT-3.3.2-9]
  }
  if (packet.topic !== "") {
    connection.aliases[alias] = packet.topic;
    return packet.topic;
  }
  const known = connection.aliases[alias];
  if (known === undefined) throw new ProtocolError(reason.protocolError, `topic alias ${alias} was not set`);
  return known;
}

function take(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  message: Message,
  entry: TopicEntry,
  packetId: number,
): void {
  const { qos } = message;
  if (qos === 2 && session.held.has(packetId)) {
    if (connection.resumedIds?.delete(packetId)) countUnacknowledged(context, connection);
    // Sent again: not delivered again [MQTT-4.3.3-10], but answered once the first one is durable.
    context.ledger.add(connection, ackByte.pubrec, packetId, 0, session.held.get(packetId) ?? 0);
    return;
  }
  if (qos > 0) countUnacknowledged(context, connection);
  if (message.topic.startsWith("$")) {
    context.metrics.dropped("sys-topic").value += 1; // ours to write, as in Mosquitto; 3.1.1 has no way to say so
    if (qos > 0) answer(context, connection, qos, packetId, reason.notAuthorized, 0);
    return;
  }
  if (!context.access.mayPublish(session, message.topic)) {
    deny(context, connection, session, message, packetId);
    return;
  }
  const heldKey = qos === 2 && session.durable ? clientKey(session.clientId, packetId) : undefined;
  const result = context.pipeline.publish(message, entry, session, heldKey);
  if (!result.accepted) {
    if (qos > 0) refuse(context, connection, session, qos, packetId, result.reason);
  } else if (qos > 0) {
    if (qos === 2) session.hold(packetId, result.group);
    answer(context, connection, qos, packetId, 0, result.group);
  }
  if (context.pending.above) connection.pause(pause.store);
}

function countUnacknowledged(context: BrokerContext, connection: Connection, count = 1): void {
  connection.unacknowledged += count;
  if (connection.version === 5 && connection.unacknowledged > context.limits.receiveMaximum) {
    throw new ProtocolError(reason.receiveMaximumExceeded, "more unacknowledged PUBLISH than the Receive Maximum");
  }
}

function answer(
  context: BrokerContext,
  connection: Connection,
  qos: number,
  packetId: number,
  reasonCode: number,
  group: number,
  count = 1,
): void {
  const kind = qos === 2 ? ackByte.pubrec : ackByte.puback;
  context.ledger.add(connection, kind, packetId, reasonCode, group, count);
}

/** 3.1.1 has no way to say no: it is acknowledged and goes nowhere, as in Mosquitto. */
function deny(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  message: Message,
  packetId: number,
): void {
  const { qos, topic } = message;
  const { clientId, user } = session;
  context.metrics.dropped("denied").value += 1;
  if (context.clientLog.due(`denied ${clientId}`)) {
    context.log.warn({ clientId, user, topic: topic.slice(0, 200) }, "the access rules do not let it publish this");
  }
  if (qos > 0) answer(context, connection, qos, packetId, reason.notAuthorized, 0);
}

function refuse(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  qos: number,
  packetId: number,
  why: RefusalReason,
): void {
  if (context.clientLog.due(`refused ${session.clientId}`)) {
    context.log.warn({ clientId: session.clientId, why }, "a message was refused: the store or a queue takes no more");
  }
  if (connection.version === 5) answer(context, connection, qos, packetId, reason.quotaExceeded, 0);
  else connection.close(reason.quotaExceeded); // an unanswered PUBLISH would block a 3.1.1 client for ever
}

/** PUBREL (section 3.6): the sender forgets the message, so its id is free again. */
export function handlePubrel(context: BrokerContext, connection: Connection, session: Session, packetId: number): void {
  if (!session.release(packetId)) {
    context.ledger.add(connection, ackByte.pubcomp, packetId, reason.packetIdentifierNotFound, 0);
    return;
  }
  if (!session.durable) {
    connection.writeAck(ackByte.pubcomp, packetId, 0);
    return;
  }
  const key = clientKey(session.clientId, packetId);
  try {
    const { group } = context.store.commit((txn) => txn.delete(mapNames.qos2In, key));
    context.ledger.add(connection, ackByte.pubcomp, packetId, 0, group);
  } catch {
    connection.storeLost();
  }
}
