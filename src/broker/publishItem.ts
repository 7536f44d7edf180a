import type { Txn } from "../base/contracts.ts";
import type { Message } from "../base/message.ts";
import { DurableOutgoing } from "./durableOutgoing.ts";
import { lowerQos, messageBytes } from "./publishFrames.ts";
import type { Session } from "./session.ts";
import type { Delivery, TopicEntry } from "./topicEntry.ts";

/** One message of a publish and what is decided about it. */
export interface Item {
  message: Message;
  entry: TopicEntry;
  /** Who gets it, beside the members of shared groups. */
  targets: readonly Delivery[];
  takers: TopicEntry["stored"];
  /** By index in targets: ordinal of its reference; 0 none; -1 wanted. */
  ordinals: number[] | undefined;
  /** The list for it, which is used again with the item. */
  spareOrdinals: number[];
  /** By index in entry.shares, the same; below -1: dropped. */
  shared: number[] | undefined;
  /** How many references are wanted. */
  wanted: number;
  /** now: in this commit. later: QoS 0, lazily. ram: of `sys`. */
  retain: "no" | "now" | "later" | "ram";
  position: number;
}

/** A longer list of ordinals is not kept for the next message. */
export const keptOrdinals = 64;
const noMessage: Message = { topic: "", payload: new Uint8Array(0), qos: 0, retain: false, source: "" };
export const noTakers: TopicEntry["stored"] = [];

export function newItem(message: Message, entry: TopicEntry): Item {
  return {
    ...{ message, entry, targets: entry.deliveries, takers: noTakers },
    ...{ ordinals: undefined, spareOrdinals: [], shared: undefined },
    ...{ wanted: 0, retain: "no", position: 0 },
  };
}

/** For the next publish: lets go of the message, whose payload may hold a whole chunk. False: it is too large to be kept. */
export function forget(item: Item): boolean {
  item.message = noMessage;
  return item.spareOrdinals.length <= keptOrdinals;
}

/** What the publisher itself gets: without its No Local subscriptions [MQTT-3.8.3-3]. */
export function ownOf(target: Delivery): Delivery[] {
  if (target.own === undefined) return [target];
  return target.own === null ? [] : [target.own];
}

/** The uplinks that take it, but for the one that brought it: a command of the cloud must not go back up and round. */
export function takersOf(message: Message, entry: TopicEntry): TopicEntry["stored"] {
  if (!message.source.startsWith("uplink:")) return entry.stored;
  return entry.stored.filter((forward) => message.source !== `uplink:${forward.uplink}`);
}

export function needsStore(item: Item): boolean {
  return item.takers.length > 0 || item.retain === "now" || item.wanted > 0;
}

export function hasOwn(targets: readonly Delivery[], publisher: Session): boolean {
  for (const target of targets) if (target.own !== undefined && target.session === publisher) return true;
  return false;
}

/** Makes the list one of so many zeros. Not by `fill`, which costs more than all of the rest for the one or two that are usual. */
export function zeros(count: number, list: number[]): number[] {
  for (let at = 0; at < count; at += 1) list[at] = 0;
  if (list.length > count) list.length = count;
  return list;
}

/** What a held id counts for. */
export const heldBytes = 64;

/** Whether a session has a copy stored: else it gets it if it is there. */
export function keepsCopy({ qos }: Message, { session, qos: granted }: Delivery, queueQos0: boolean): boolean {
  if (!session.durable) return false;
  return (qos > 0 && granted > 0) || (queueQos0 && session.link === undefined);
}

/** The sessions that want it wait for it. @param ordinals by index in targets: of those that want it, here they get theirs */
export function refer(
  txn: Txn,
  message: Message,
  position: number,
  targets: readonly Delivery[],
  ordinals: number[],
): void {
  for (let at = 0; at < ordinals.length; at += 1) {
    const target = targets[at];
    if (ordinals[at] !== -1 || !(target?.session.outgoing instanceof DurableOutgoing)) continue;
    const qos = lowerQos(message.qos, target.qos);
    const retain = target.retainAsPublished && message.retain;
    ordinals[at] = target.session.outgoing.reference(txn, position, qos, retain, messageBytes(message));
  }
}
