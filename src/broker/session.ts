import type { Qos } from "../base/message.ts";
import type { ProtocolVersion, Will } from "../wire/mqtt/packet.ts";
import type { Verdicts } from "./access/access.ts";
import type { AckTarget } from "./ackLedger.ts";
import type { Given } from "./givenMessages.ts";
import type { Outbox } from "./outbox.ts";
import { PacketIds } from "./packetIds.ts";
import type { PublishFrames } from "./publishFrames.ts";
import type { ShareGroup } from "./shareGroup.ts";

export interface SubscriptionOptions {
  readonly qos: Qos;
  readonly noLocal: boolean;
  readonly retainAsPublished: boolean;
  /** Subscription identifier; 0: none. */
  readonly id: number;
}

/** A connection, as its session sees it. */
export interface Link extends AckTarget {
  readonly version: ProtocolVersion;
  readonly outbox: Outbox;
  /** What the client takes at most (MQTT 5 Maximum Packet Size); bytes. */
  readonly packetSizeMax: number;
  /** QoS 1 and 2 in flight to it: the smaller of maxInflight and its Receive Maximum. */
  readonly window: number;
  /** Ends the connection, e.g. because another took its session over. @param why for people; a client may be told */
  close(reasonCode: number, why?: string): void;
  readonly address: string | undefined;
}

/** The QoS 1 and 2 messages on their way to one client. */
export interface Outgoing {
  /** Sent and not yet acknowledged to the end. */
  readonly inflight: number;
  /** Not sent yet. */
  readonly waiting: number;
  /** A message of QoS 1 or 2. @param ordinal, group of its reference in a durable queue; 0 for a clean session. */
  deliver(
    frames: PublishFrames,
    qos: Qos,
    retain: boolean,
    ids: readonly number[] | undefined,
    ordinal: number,
    group: number,
  ): void;
  /**
   * The same for messages that need nothing but packet ids of their own: bytes start..end of `buffer` are the first of `count` packets of one size, side
   * by side, and the id goes at `idAt` of each. False: not now, so it is given to `deliver`. What a durable session sends has a reference, so it does not
   * have this.
   */
  pass?(buffer: Buffer, start: number, end: number, count: number, idAt: number, qos: Qos): boolean;
  /** So many would be taken by `pass`. */
  readonly room?: number;
  /** Whether a shared group may give it a message of QoS 1 or 2 now: nothing of its own waits, window and outbox have room. */
  readonly hasRoom: boolean;
  /** Sends a group's message, encoded with any packet id. @param wantedId the id to send it with, if that is free; 0: any */
  share(frame: Buffer, qos: Qos, given: Given, wantedId: number): void;
  puback(packetId: number): void;
  pubrec(packetId: number, reasonCode: number): void;
  pubcomp(packetId: number): void;
  /** Sends what waits, as far as window and outbox allow. */
  pump(): void;
  /** The session's connection came (session.link is set) or went. */
  attached(): void;
  detached(): void;
}

/** Nothing is ever put into it. */
const none = new PacketIds<number>();

/** What the broker keeps of a client between its packets; a durable session also between its connections and over restarts. */
export class Session {
  readonly clientId: string;
  /** Outlives its connection, so it is kept in the store. */
  readonly durable: boolean;
  /** `mqtt:<client id>`, the source of its messages. */
  readonly source: string;
  readonly subscriptions = new Map<string, SubscriptionOptions>();
  #held = none;
  /** Whose it is; undefined: the anonymous one's, and so anybody's. */
  user: string | undefined;
  /** What it may publish to; see Access. */
  verdicts: Verdicts | undefined;
  link: Link | undefined;
  will: Will | undefined;
  /** After the connection ends. Infinity: never. */
  expiryMs = 0;
  /** Store clock; undefined while connected. */
  disconnectedAtMs: number | undefined;
  /** Some subscription has an identifier. */
  usesIds = false;
  /** The groups of its shared subscriptions. */
  readonly shares: ShareGroup[] = [];
  #turn = 0;
  readonly outgoing: Outgoing;

  constructor(clientId: string, durable: boolean, makeOutgoing: (session: Session) => Outgoing) {
    this.clientId = clientId;
    this.durable = durable;
    this.source = `mqtt:${clientId}`;
    this.outgoing = makeOutgoing(this);
  }

  /** QoS 2 packet ids received and not yet released, with the group that made them durable (0: none). */
  get held(): Pick<PacketIds<number>, "size" | "has" | "get" | "keys"> {
    return this.#held;
  }

  hold(packetId: number, group: number): void {
    if (this.#held === none) this.#held = new PacketIds();
    this.#held.set(packetId, group);
  }

  /** False: it was not held. */
  release(packetId: number): boolean {
    return this.#held.delete(packetId);
  }

  /** It has room: its groups may have something for it, each of them first in turn. */
  pull(): void {
    const { shares } = this;
    this.#turn += 1;
    for (let step = 0; step < shares.length; step += 1) shares[(this.#turn + step) % shares.length]?.pump();
  }
}
