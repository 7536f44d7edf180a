import type { Txn } from "../base/contracts.ts";
import type { Message } from "../base/message.ts";
import { DurableOutgoing } from "./durableOutgoing.ts";
import type { PipelineDeps } from "./pipelineDeps.ts";
import { messageBytes } from "./publishFrames.ts";
import { hasOwn, heldBytes, keepsCopy, keptOrdinals, refer, zeros } from "./publishItem.ts";
import { noBytes } from "./references.ts";
import type { Session } from "./session.ts";
import type { Delivery, StoredForward, TopicEntry } from "./topicEntry.ts";

const none: readonly string[] = [];
export const notStored = -1;

/** How the pipeline stores what is usual (`PlainMessages` aside): the same as the long way, with nothing made on it. */
export class ShortWay {
  readonly #deps: PipelineDeps;
  /** What the store is asked, filled for each question. */
  readonly #admission = { bytes: 0, rejectNewest: none, tentative: true };
  #message: Message | undefined;
  #takers: readonly StoredForward[] = [];
  #targets: readonly Delivery[] = [];
  #heldKey: string | undefined;
  #heldMap = "";
  #ordinals: number[] | undefined;
  /** The list for it, taken while in use too. */
  #spareOrdinals: number[] | undefined = [];
  readonly #writeMessage = (txn: Txn): void => {
    const message = this.#message;
    if (message !== undefined) {
      const position = txn.message(message, this.#takers);
      if (this.#ordinals !== undefined) refer(txn, message, position, this.#targets, this.#ordinals);
    }
    if (this.#heldKey !== undefined) txn.put(this.#heldMap, this.#heldKey, noBytes);
    this.#deps.references.flushInto(txn);
  };

  constructor(deps: PipelineDeps) {
    this.#deps = deps;
  }

  /**
   * A reading for uplinks and durable sessions, not retained, without routes and shared groups: the other usual case, so the same as the long way with
   * nothing made on it.
   * @returns its group; undefined: it is not so simple; `notStored`: the store did not take it
   */
  store(
    message: Message,
    entry: TopicEntry,
    publisher: Session | undefined,
    heldKey: string | undefined,
    heldMap: string,
  ): number | undefined {
    const { store, pending, deliverer } = this.#deps;
    const { deliveries, stored } = entry;
    const bytes = messageBytes(message);
    if (message.source === "sys" || message.source.startsWith("uplink:")) return undefined;
    if (entry.durable && (message.qos === 0 || (publisher !== undefined && hasOwn(deliveries, publisher))))
      return undefined;
    if (!this.#fits(heldKey === undefined ? bytes : bytes + heldBytes, entry)) return undefined;
    const ordinals = entry.durable ? this.#wanted(message, deliveries, bytes) : undefined;
    const keeps = stored.length > 0 || ordinals?.includes(-1) === true;
    this.#message = keeps ? message : undefined;
    this.#heldKey = heldKey;
    this.#heldMap = heldMap;
    this.#takers = stored;
    this.#targets = deliveries;
    this.#ordinals = ordinals;
    let group: number;
    try {
      group = store.commit(this.#writeMessage).group;
    } catch {
      return notStored;
    }
    if (keeps) pending.add(group, bytes);
    if (deliveries.length + entry.handlers.length + entry.live.length > 0)
      group = deliverer.deliver(message, entry, deliveries, publisher, ordinals, group);
    if (ordinals !== undefined && ordinals.length <= keptOrdinals) this.#spareOrdinals = ordinals;
    return group;
  }

  #fits(bytes: number, { rejectNewest }: TopicEntry): boolean {
    const request = this.#admission;
    request.bytes = bytes;
    request.rejectNewest = rejectNewest;
    return this.#deps.store.admit(request) === "ok";
  }

  /** By index in targets, see Item. Those at their limit have made room, or give the message up. */
  #wanted(message: Message, targets: readonly Delivery[], bytes: number): number[] {
    const { queueQos0 } = this.#deps.limits.session;
    const ordinals = zeros(targets.length, this.#spareOrdinals ?? []);
    this.#spareOrdinals = undefined;
    for (let at = 0; at < targets.length; at += 1) {
      const target = targets[at]!;
      const { outgoing } = target.session;
      if (!keepsCopy(message, target, queueQos0) || !(outgoing instanceof DurableOutgoing)) continue;
      if (outgoing.makeRoom(bytes)) ordinals[at] = -1;
    }
    return ordinals;
  }
}
