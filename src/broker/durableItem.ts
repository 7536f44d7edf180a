import type { Store } from "../base/contracts.ts";
import type { Message, Qos } from "../base/message.ts";
import type { Access } from "./access/access.ts";
import type { AckLedger } from "./ackLedger.ts";
import type { Given } from "./givenMessages.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";
import type { KeptPacket } from "./publishFrames.ts";
import type { References } from "./references.ts";
import type { Session } from "./session.ts";

export interface DurableDeps {
  readonly store: Store;
  readonly ledger: AckLedger;
  readonly references: References;
  readonly metrics: BrokerMetrics;
  readonly limits: BrokerLimits;
  /** What waited is looked at again: rules may have changed since it was queued. */
  readonly access: Pick<Access, "mayRead">;
  /** The identifiers of the session's subscriptions that match a topic; asked only when it uses any. @param tag see metaOf */
  readonly idsFor: (session: Session, topic: string, tag: number) => readonly number[] | undefined;
}

/** A message that goes out from the store. */
export interface Item {
  readonly ordinal: number;
  readonly message: Message;
  readonly qos: Qos;
  readonly retain: boolean;
  readonly ids: readonly number[] | undefined;
  readonly acceptedAtMs: number;
  readonly group: number;
  readonly packet?: undefined;
  /** A shared group gave it, and may have it back as long as it is not sent. */
  readonly given?: Given | undefined;
}

/** One of which the packet is known before it goes out on the present connection, but for its id; without DUP. */
export interface KeptItem {
  readonly ordinal: number;
  readonly qos: Qos;
  readonly group: number;
  readonly packet: KeptPacket;
  readonly given?: undefined;
}

/** A reference's meta byte. @param tag 1-31: which shared group it came from (`ShareGroup.tag`); 0: none */
export const metaOf = (qos: Qos, retain: boolean, tag: number): number => qos | (retain ? 4 : 0) | (tag << 3);
