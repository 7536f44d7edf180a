import { topicFilterFault } from "../base/topic.ts";
import { isShared, splitSharedFilter } from "../wire/mqtt/filter.ts";
import type { SubackPacket, SubscribePacket, Subscription, UnsubscribePacket } from "../wire/mqtt/packet.ts";
import { ProtocolError } from "../wire/mqtt/protocolError.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import type { Connection } from "./connection.ts";
import type { BrokerContext } from "./context.ts";
import { RetainedFeed } from "./retainedFeed.ts";
import type { Session, SubscriptionOptions } from "./session.ts";
import type { Delivery } from "./topicEntry.ts";

/** SUBSCRIBE (section 3.8): what it may have is subscribed, answered in order, then the retained messages follow. */
export function handleSubscribe(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  packet: SubscribePacket,
): void {
  const id = packet.subscriptionIdentifier ?? 0;
  const { version } = connection;
  const reasonCodes: number[] = [];
  const before = new Map<string, SubscriptionOptions | undefined>();
  const changes: Array<readonly [string, SubscriptionOptions]> = [];
  const wantRetained: Array<{ filter: string; delivery: Delivery }> = [];
  for (const wanted of packet.subscriptions) {
    const fault = faultOf(context, session, wanted.filter);
    // MQTT 3.1 has no code for a refusal: the client gets a positive answer (its section 3.9).
    reasonCodes.push(fault === undefined || version === 3 ? wanted.qos : fault);
    if (fault !== undefined) continue;
    if (!before.has(wanted.filter)) before.set(wanted.filter, session.subscriptions.get(wanted.filter));
    const { qos, noLocal, retainAsPublished } = wanted;
    const options: SubscriptionOptions = { qos, noLocal, retainAsPublished, id };
    const isNew = context.subscriptions.add(session, wanted.filter, options);
    if (id !== 0) session.usesIds = true;
    changes.push([wanted.filter, options]);
    if (sendsRetained(wanted, isNew)) {
      const ids = id === 0 ? undefined : [id];
      const own = noLocal ? null : undefined;
      wantRetained.push({ filter: wanted.filter, delivery: { session, qos, retainAsPublished, ids, own } });
    }
  }
  if (!context.sessions.persistSubscriptions(session, changes)) {
    putBack(context, session, before);
    reasonCodes.fill(reason.implementationSpecificError);
    wantRetained.length = 0;
  }
  answer(connection, { kind: "suback", packetId: packet.packetId, reasonCodes });
  if (!connection.open || wantRetained.length === 0) return;
  const feed = feedOf(context, connection, session);
  if (feed.waiting + wantRetained.length > 2 * context.limits.maxSubscriptions) {
    throw new ProtocolError(reason.quotaExceeded, "subscribes again and again without taking the retained messages");
  }
  for (const { filter, delivery } of wantRetained) feed.add(filter, delivery);
  feed.pump();
}

/** There is one only while it has something to send. */
function feedOf(context: BrokerContext, connection: Connection, session: Session): RetainedFeed {
  connection.feed ??= new RetainedFeed(context, session, (ended) => {
    if (connection.feed === ended) connection.feed = undefined;
  });
  return connection.feed;
}

export function handleUnsubscribe(
  context: BrokerContext,
  connection: Connection,
  session: Session,
  packet: UnsubscribePacket,
): void {
  const { version } = connection;
  const removed: Array<readonly [string]> = [];
  const reasonCodes = packet.filters.map((filter) => {
    if (!context.subscriptions.remove(session, filter)) return reason.noSubscriptionExisted;
    removed.push([filter]);
    return reason.success;
  });
  context.sessions.persistSubscriptions(session, removed);
  answer(connection, { kind: "unsuback", packetId: packet.packetId, reasonCodes: version === 5 ? reasonCodes : [] });
}

/** @throws ProtocolError 0x95 when the client takes none of that size: without the answer it would wait for ever */
function answer(connection: Connection, packet: SubackPacket): void {
  if (!connection.send(packet)) {
    throw new ProtocolError(reason.packetTooLarge, `the ${packet.kind} is larger than the Maximum Packet Size`);
  }
}

/** The store did not take what was subscribed, so all is as it was. */
function putBack(
  context: BrokerContext,
  session: Session,
  before: ReadonlyMap<string, SubscriptionOptions | undefined>,
): void {
  for (const [filter, options] of before) {
    if (options === undefined) context.subscriptions.remove(session, filter);
    else context.subscriptions.add(session, filter, options);
  }
}

function faultOf(context: BrokerContext, session: Session, sent: string): number | undefined {
  const { filter } = splitSharedFilter(sent);
  if (topicFilterFault(filter, context.limits.maxTopicLevels) !== null) {
    context.metrics.refusedFilter("levels").value += 1;
    return reason.topicFilterInvalid;
  }
  if (!context.access.maySubscribe(session, sent)) return reason.notAuthorized;
  const { subscriptions } = session;
  if (subscriptions.has(sent) || subscriptions.size < context.limits.maxSubscriptions) return undefined;
  context.metrics.refusedFilter("count").value += 1;
  return reason.quotaExceeded;
}

/** Section 3.3.1.3 and the Retain Handling option [MQTT-3.3.1-9..11]; shared subscriptions get none (section 4.8.2). */
function sendsRetained(wanted: Subscription, isNew: boolean): boolean {
  if (isShared(wanted.filter) || wanted.retainHandling === 2) return false;
  return wanted.retainHandling === 0 || isNew;
}
