import type { Store } from "../base/contracts.ts";
import type { PlainMessage, Qos } from "../base/message.ts";
import type { PendingBytes } from "./pendingBytes.ts";
import type { References } from "./references.ts";
import type { TopicEntry } from "./topicEntry.ts";

const none: readonly string[] = [];
const noView = new DataView(new ArrayBuffer(0));

/**
 * The short way of `Pipeline.publish` for messages without properties, not to be retained and of QoS 0 or 1, that nobody but uplinks takes
 * (`TopicEntry.onlyStored`): what most devices send. Nothing is made for a message, not even one. What comes until `forget` came at once: its time is
 * looked up, and whether it has room is asked, for all of it together.
 */
export class PlainMessages {
  readonly #store: Store;
  readonly #pending: PendingBytes;
  readonly #references: References;
  readonly #message: PlainMessage = { topic: "", source: "", qos: 0, bytes: noView, from: 0, to: 0 };
  readonly #admission = { bytes: 0, rejectNewest: none, tentative: true };
  /** On the store's clock; below 0: not known. */
  #atMs = -1;
  /** For the uplinks of this list `head` may rise so far. */
  #admittedFor: readonly string[] = none;
  #admittedTo = 0;

  constructor(deps: { readonly store: Store; readonly pending: PendingBytes; readonly references: References }) {
    this.#store = deps.store;
    this.#pending = deps.pending;
    this.#references = deps.references;
  }

  /**
   * Stores a message, and does all that `publish` would.
   * @param bytes in which its payload is from..to
   * @returns its group; 0: it is not so simple, or finds no room, and nothing has happened: `publish` has to say what becomes of it
   */
  append(entry: TopicEntry, source: string, qos: Qos, bytes: DataView, from: number, to: number): number {
    const size = to - from + entry.topic.length;
    // What waits to go with the next commit needs one.
    if (this.#references.pending || !this.#fits(size, entry.rejectNewest)) return 0;
    const message = this.#message;
    // Mostly the same as before: for what it points at, V8 has work with each assignment.
    if (message.topic !== entry.topic) message.topic = entry.topic;
    if (message.source !== source) message.source = source;
    if (message.bytes !== bytes) message.bytes = bytes;
    message.qos = qos;
    message.from = from;
    message.to = to;
    let group: number;
    try {
      group = this.#store.append(message, entry.stored, this.#atMs);
    } catch {
      return 0;
    }
    this.#pending.add(group, size);
    return group;
  }

  /** Nothing more comes of the bytes that `append` was given, or time has passed. */
  forget(): void {
    if (this.#atMs < 0) return;
    this.#atMs = -1;
    this.#message.bytes = noView;
  }

  /** Something else was stored, which may have begun a segment: there may be less room than was said. */
  askAgain(): void {
    this.#admittedTo = 0;
  }

  #fits(size: number, rejectNewest: readonly string[]): boolean {
    const store = this.#store;
    if (this.#atMs < 0) this.#atMs = store.nowMs();
    else if (rejectNewest === this.#admittedFor && store.head + size <= this.#admittedTo) return true;
    this.#admittedFor = rejectNewest;
    this.#admittedTo = store.admittedTo(rejectNewest);
    if (store.head + size <= this.#admittedTo) return true;
    this.#admission.bytes = size;
    this.#admission.rejectNewest = rejectNewest;
    return store.admit(this.#admission) === "ok";
  }
}
