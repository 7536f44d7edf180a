/**
 * Where the stages meet. Stages (journal, broker, sources, transform, uplink, http) import nothing of each other, only this file;
 * gateway.ts joins them. Everything here is called from the event loop's thread and never throws for what came from outside.
 *
 *   sources -> Intake -> (transform) -> Publisher.publish -> Store.commit -> durable -> Outcome back to the source
 *                                          |-> Forwarding (uplink) : which lanes take this topic
 *                                          |-> Routing (transform) : which routes derive messages from it
 *   uplink <- UplinkQueue <- Store                uplink -> Publisher.publish (commands from the cloud)
 */
import type { BackupInfo, BackupRequest } from "./backup.ts";
import type { RouteFailure } from "./deadLetters.ts";
import type { TidegateError } from "./errors.ts";
import type { HeldId, InFlight, Resumable } from "./inFlight.ts";
import type { Message, PlainMessage, Qos } from "./message.ts";
import type { DroppedTopic, UplinkQueueStats, UplinkState } from "./uplinkState.ts";

// ---------------------------------------------------------------- into the broker

/**
 * What became of a publish, known at once.
 * - accepted: `group` is the commit group that must be durable before the sender may be told; 0 means nothing durable took it, tell at once.
 * - refused: nothing happened at all (not delivered, not retained, queued nowhere), so a retry makes no duplicate.
 */
export type PublishResult =
  | { readonly accepted: true; readonly group: number }
  | { readonly accepted: false; readonly reason: RefusalReason };

/** full: a reject-newest queue or the store is full. failed: the disk does not take writes. invalid: not a topic that can be published to. */
export type RefusalReason = "full" | "failed" | "invalid";

/** The broker as everything that is not an MQTT client sees it. */
export interface Publisher {
  /**
   * Takes a message in: routes, retained, subscribers, durable queues. Synchronous, so arrival order is kept.
   * @param held the identifier of a QoS 2 PUBLISH, noted in the same commit; an accepted message then always has a group
   */
  publish(message: Message, held?: HeldId): PublishResult;
  /**
   * Calls back once when `group` is durable (true) or can no longer become so (false: the store failed or closes). Group 0 and groups
   * already durable call back at once, synchronously. Callbacks come in group order, and in call order within a group.
   */
  whenDurable(group: number, settled: (durable: boolean) => void): void;
  /**
   * Delivers matching messages to a handler inside the gateway, at most once. The handler must not throw and must be quick; a `group` that it returns is
   * what it made durable, and the publisher is told after that. Returns the unsubscribe.
   */
  subscribe(filter: string, handler: (message: Message) => { readonly group: number } | undefined): () => void;
}

// ---------------------------------------------------------------- readings of devices

/** One frame or datagram of a device, before decoding. `payload` belongs to the receiver (it is not reused by the source). */
export interface Reading {
  readonly source: string;
  readonly payload: Uint8Array;
  /** CoAP Content-Format number (RFC 7252 section 12.3), when there was one. */
  readonly contentFormat?: number | undefined;
  /** Extra names for the topic template besides the decoded fields, e.g. `path` of a CoAP request. Already checked with `topicLevel` where they need it. */
  readonly variables?: Readonly<Record<string, string>> | undefined;
}

/** What became of a reading. `value` is the decoded reading, from which a serial ACK takes its fields. */
export type ReadingOutcome =
  | { readonly kind: "durable"; readonly value: unknown }
  | { readonly kind: "refused"; readonly reason: RefusalReason }
  /** The bytes do not match the codec, or the topic template cannot be filled: sending them again will not help. */
  | { readonly kind: "undecodable"; readonly why: string };

/** Where sources put what they received; made by gateway.ts out of transform and broker. */
export interface Intake {
  /** `settled` is called exactly once, possibly before `take` returns. */
  take(reading: Reading, settled: (outcome: ReadingOutcome) => void): void;
}

/** A source: owns its port or socket, reconnects by itself until `stop`. */
export interface Source {
  readonly name: string;
  /** Resolves when it listens or has begun to try; rejects (TG_LISTEN) only where a server's address cannot be opened. */
  start(): Promise<void>;
  stop(): Promise<void>;
  state(): SourceState;
}

export interface SourceState {
  readonly name: string;
  readonly type: "serial" | "coap" | "coap-server";
  readonly link: "idle" | "connecting" | "up" | "down" | "stopped";
  /** Why it is not up, for people. */
  readonly problem?: string | undefined;
  /** Readings that became durable, so that their acknowledgement is due (serial, coap-server); observed values likewise. */
  readonly accepted: number;
  /** Frames, datagrams or readings that were not taken, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
}

// ---------------------------------------------------------------- transform

/** Turns bytes into a plain JSON value. @throws TidegateError TG_DECODE, with offset and field in the message. */
export interface Codec {
  readonly name: string;
  decode(payload: Uint8Array): unknown;
  /** @throws TidegateError TG_DECODE when a field is missing or out of range. */
  encode(value: unknown): Uint8Array;
}

/** The routes that derive messages from a topic. Asked once per topic; the answer is cached with the topic until the broker's `refresh`. */
export interface Routing {
  routesFor(topic: string): readonly Route[];
}

export interface Route {
  readonly name: string;
  /**
   * The messages made of this one; an empty array drops. Never throws: failures are counted and, by `onError`, dropped, passed, or given to `dead`.
   */
  apply(message: Message, dead: (failure: RouteFailure) => void): readonly Message[];
}

// ---------------------------------------------------------------- uplinks, as the broker sees them

/** Which uplinks take a topic. Asked once per topic; the answer is cached with the topic. */
export interface Forwarding {
  forwardsFor(topic: string): readonly Forward[];
}

export type Forward =
  /** Stored in a lane at acceptance and sent from there. */
  | {
      readonly kind: "stored";
      readonly uplink: string;
      readonly lane: number;
      readonly rule: number;
      readonly ttlMs: number | undefined;
      /** With reject-newest a full queue refuses the publisher. */
      readonly whenFull: "drop-oldest" | "reject-newest";
    }
  /** `qos: 0` rules: handed to the link if it is up now, else counted as dropped; never stored. */
  | { readonly kind: "live"; readonly uplink: string; send(message: Message): void };

/** One uplink queue's message, ready to send. Durable when handed out. */
export interface QueuedMessage {
  readonly position: number;
  readonly lane: number;
  readonly priority: number;
  /** This uplink's own number, given at acceptance; with gateway id and epoch it is the message's identity. */
  readonly seq: number;
  /** Id of the forward rule that was in force when it was accepted; see Store.ruleDefinition. */
  readonly rule: number;
  /** Store clock at acceptance; compare with Store.nowMs(). */
  readonly acceptedAtMs: number;
  /** Wall clock at acceptance, ms since 1970. */
  readonly wallMs: number;
  readonly message: Message;
}

export interface PeekedMessage extends QueuedMessage {
  readonly inFlight: boolean;
}

/** All lanes of one uplink. Only durable messages come out; what expired (ttl, maxAge) is skipped and counted inside. */
export interface UplinkQueue extends Resumable {
  readonly name: string;
  /** The lane of a priority, 0-9; made durable when new. */
  lane(priority: number): number;
  /** The next message by priority then age, or undefined: `readable` fires when there is one again. @param passing lanes to pass over */
  next(passing?: { has(lane: number): boolean }): QueuedMessage | undefined;
  /** One listener. Fired at most once per `next() === undefined`. */
  onReadable(listener: () => void): void;
  /**
   * The link is up. What was accepted before `head` is backlog; while it drains, fresh readings get `liveShare` (0 to 0.9) of the bytes, so order
   * holds within late and within fresh ones. 0: strict order. `rewind` ends it.
   */
  shareLink(head: number, liveShare: number): void;
  /** The cloud has it (or `dropped` says why it will never): it no longer waits. Durable within a second; a crash before that repeats it. */
  settle(message: QueuedMessage, dropped?: "refused" | "expired" | "too-large"): void;
  /** Everything handed out and not settled comes out again, in order. @param inFlight as with `keep` */
  rewind(inFlight?: readonly InFlight[]): void;
  stats(): UplinkQueueStats;
  /** The last hundred that will not be sent, the newest first; since the process started. */
  recentDrops(): DroppedTopic[];
}

// ---------------------------------------------------------------- the store

export interface Taker {
  readonly lane: number;
  readonly rule: number;
  readonly ttlMs: number | undefined;
}

/** What a message is about to need; asked before any effect. */
export interface Admission {
  /** Payload plus topic plus properties, of all messages of this publish. */
  readonly bytes: number;
  /** Uplinks that would take it with whenFull reject-newest. */
  readonly rejectNewest: readonly string[];
  /** Where the answer is no, it is asked again before anybody is told so: that counts, this does not. */
  readonly tentative?: boolean;
}

/** A message read back. */
export interface StoredMessage {
  readonly position: number;
  readonly acceptedAtMs: number;
  readonly wallMs: number;
  readonly message: Message;
}

/** What can be written in one commit. Each call is an absolute, idempotent statement; all of one commit share one group. */
export interface Txn {
  /** Writes a message; returns its position. Takers get their seq here. The payload is copied at once. @param wallMs when it was taken: now */
  message(message: Message, takers: readonly Taker[], wallMs?: number): number;
  /** Which of an uplink's messages are done is said in full in this commit's group: what follows may rely on it. */
  laneStates(uplink: string): void;
  /** As UplinkQueue.settle, but durable with this commit. Done when the function has returned. */
  settle(message: QueuedMessage, dropped: "dead-letter"): void;
  /** A queue (session, shared group) waits for the message at `position`. `meta` is the queue's own small number (0-255: qos, retain...). Returns its ordinal, rising by 1 from 1. @param bytes its size, should the record not be in memory any more */
  reference(queue: string, position: number, meta: number, bytes?: number): number;
  /** The reference no longer waits, nor those of the ordinals that follow it. Unknown ordinals are ignored. @param count how many; 1 */
  release(queue: string, ordinal: number, count?: number): void;
  /** The queue and all its references go. */
  dropQueue(queue: string): void;
  /** `topic`'s retained value is the message at `position`. Pins it. */
  retain(topic: string, position: number): void;
  unretain(topic: string): void;
  put(map: string, key: string, value: Uint8Array): void;
  delete(map: string, key: string): void;
}

/** References in ordinal order. */
export interface ReferenceQueue {
  readonly name: string;
  /** It was dropped: what has its name now is another one. */
  readonly ended: boolean;
  readonly size: number;
  readonly bytes: number;
  /** Ordinal that the next reference will get. */
  readonly nextOrdinal: number;
  /** Ordinal and meta of the oldest that waits. */
  oldest(): { readonly ordinal: number; readonly meta: number } | undefined;
  /** The oldest ordinal above `after` that waits; 0 when there is none. */
  nextAfter(after: number): number;
  /**
   * Messages with ordinal > `after`, at most so many and so many bytes (at least one when any is waiting). A rotten record is skipped,
   * released and counted; when nothing can be read now it rejects with TG_STORE_READ. Payloads may come from RAM or disk; the order is by ordinal. Not yet durable references are included.
   */
  read(after: number, limits: { messages: number; bytes: number }): Promise<ReferencedMessage[]>;
}

export interface ReferencedMessage extends StoredMessage {
  readonly ordinal: number;
  readonly meta: number;
  /** The group that must be durable before a QoS 2 copy may go out. */
  readonly group: number;
}

export interface Store {
  /** Rises with each new or restored data folder; with gateway id and seq it identifies a message for ever. */
  readonly epoch: number;
  /** Position that the next record will get. What is below was accepted before now. */
  readonly head: number;
  readonly durableGroup: number;
  /** Set once the disk refused twice: durable publishes are refused until a restart. */
  readonly failed: TidegateError | undefined;
  /** Store clock in ms: monotonic while running, never behind what was journalled before. */
  nowMs(): number;
  admit(request: Admission): "ok" | "full" | "failed";
  /** Up to where `head` may rise in what is done at once, before `admit` might say no. @param rejectNewest as for `admit` */
  admittedTo(rejectNewest: readonly string[]): number;
  /** There will be room, and little more fits before: publishers that can wait should, for an onDurable that finds it false. Cheap: to be asked after each commit. */
  readonly crowded: boolean;
  /** One listener. Asked to let go of references of about so many bytes, because the store is full; returns how many it did. Not within a commit. */
  onCrowded(listener: (bytes: number) => number): void;
  /** All uplinks of the configuration were named by `uplink`: the others are orphaned, and the store may give way when it is full. */
  configured(): void;
  /** What waits for an uplink, but for what is in flight, is dropped; resolves when that is durable. @throws TidegateError TG_STORE_FAILED */
  purgeUplink(name: string): Promise<{ messages: number; bytes: number }>;
  /**
   * What goes next, orphaned uplinks' too, without taking it: what is in flight first. `more`: something waits behind that. Fewer than `count` may
   * come, for it ends with what is read ahead. Undefined: no such uplink.
   */
  peekUplink(name: string, count: number): Promise<{ messages: PeekedMessage[]; more: boolean } | undefined>;
  /** Runs `fn` at once; reads see its effects at once; `group` is durable later. If `fn` throws, nothing of it is written and it is rethrown. */
  commit<T>(fn: (txn: Txn) => T): { value: T; group: number };
  /**
   * The same as a commit of this message and nothing else, for less: most commits are that.
   * @param atMs when it was taken, as `nowMs` said @returns the group @throws as `commit`
   */
  append(message: PlainMessage, takers: readonly Taker[], atMs: number): number;
  /** Called with the newest durable group, once per sync. */
  onDurable(listener: (group: number) => void): void;
  /** Called once, when `failed` is set. */
  onFailed(listener: (error: TidegateError) => void): void;
  /** The queue of an uplink; made when new. */
  uplink(name: string, limits: UplinkLimits): UplinkQueue;
  /** A durable id for a forward rule's definition (JSON text); the same text gives the same id. */
  rule(uplink: string, definition: string): number;
  ruleDefinition(id: number): string | undefined;
  /** Undefined when nothing was ever referenced under that name. */
  references(name: string): ReferenceQueue | undefined;
  referenceNames(): Iterable<string>;
  retained(): Iterable<readonly [topic: string, position: number]>;
  /** The message at a position that is pinned (reference, retained); undefined when it is gone or rotten. */
  read(position: number): Promise<StoredMessage | undefined>;
  /**
   * The same for several positions, best in rising order, since neighbours come with one read. Answers for the first of them, at least one and
   * about so many bytes; undefined where `read` would say so, "later" where the disk could not be asked now.
   */
  readMany(positions: readonly number[], bytes: number): Promise<Array<StoredMessage | "later" | undefined>>;
  get(map: string, key: string): Uint8Array | undefined;
  entries(map: string): Iterable<readonly [key: string, value: Uint8Array]>;
  stats(): StoreStats;
  /**
   * A consistent copy while everything goes on: all that is durable at this moment. `dir` must be new or empty. One at a time.
   * @throws TidegateError TG_BACKUP; what was written is removed again
   */
  backup(request: BackupRequest): Promise<BackupInfo>;
  close(): Promise<void>;
}

export interface UplinkLimits {
  readonly maxBytes: number;
  readonly maxAgeMs: number;
  readonly whenFull: "drop-oldest" | "reject-newest";
}

export interface StoreStats {
  /** Bytes of all files of the folder. */
  readonly bytes: number;
  readonly segments: number;
  /** Prepared segments; their bytes count, and go first when the disk is full. */
  readonly spares: number;
  readonly pendingBytes: number;
  readonly state: "ok" | "full" | "failed";
  /** Why it is not ok, and what to do about it, for people. */
  readonly problem?: string | undefined;
  /** What the disk was made to write since the start, in whole 4 KiB blocks. */
  readonly writtenBytes: number;
  /** The same since the data folder was made, but for the last hour before a crash. */
  readonly writtenTotalBytes: number;
  readonly writtenPerDay: WrittenPerDay;
  /** What may come to wait until something is dropped or refused; seconds: while nothing is freed, as the last five minutes brought it. Null: nothing. */
  readonly room: { readonly bytes: number; readonly seconds: number | null };
  /** Of groups: how many since the start, and what one takes and covers on average. */
  readonly syncs: { readonly count: number; readonly meanMs: number; readonly meanRecords: number };
  /** Lost to damage: when it opened and since. */
  readonly corruptRecords: number;
  /** Publishes refused for want of room, since the start. */
  readonly refused: number;
  /** Stored messages that will not be sent, by uplink and reason; kept over restarts. */
  readonly dropped: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Messages that sessions and other queues of references lost to damage since the start. */
  readonly droppedReferences: number;
  /** Uplinks that are not configured any more and for which messages wait. The first to be dropped when the store is full. */
  readonly orphaned: readonly OrphanedUplink[];
  /** What recovery found when it opened. */
  readonly recovery: RecoveryReport;
}

export interface WrittenPerDay {
  readonly bytes: number;
  /** It is younger than a day: what a day makes at the rate so far. */
  readonly extrapolated: boolean;
  /** Since the first count: how far to trust that. */
  readonly measuredMs: number;
}

export interface OrphanedUplink {
  readonly name: string;
  readonly orphaned: true;
  readonly messages: number;
  readonly bytes: number;
  readonly dropped: Readonly<Record<string, number>>;
}

export interface RecoveryReport {
  readonly clean: boolean;
  readonly records: number;
  readonly corruptRecords: number;
  /** Bytes after the last whole group that were cut off: never acknowledged. */
  readonly tornBytes: number;
  /** What the corrupt records were, as far as can be told; the first 20. */
  readonly losses: readonly string[];
  readonly ms: number;
}

export type { BackupInfo, BackupRequest, DroppedTopic, Qos, UplinkQueueStats, UplinkState };
