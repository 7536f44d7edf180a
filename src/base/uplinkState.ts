/** Uplinks, as the outside sees them: the API, `tidegate status`, /metrics. */
import type { LinkFaultCode } from "./linkFaults.ts";

export interface UplinkQueueStats {
  readonly messages: number;
  readonly bytes: number;
  /** Store clock of the oldest waiting message; undefined when empty. */
  readonly oldestAcceptedAtMs: number | undefined;
  /** Accepted since the process started; both only rise. */
  readonly taken: number;
  readonly takenBytes: number;
  /** By reason, over restarts. */
  readonly dropped: Readonly<Record<string, number>>;
  /** By rule and reason, since the process started. A rule is named by its filter; "*": several rules' messages, dropped together and unread. */
  readonly droppedByRule: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** Stored messages that will not be sent: one, or some that were dropped together. */
export interface DroppedTopic {
  /** Null: several together, unread. */
  readonly topic: string | null;
  readonly messages: number;
  readonly reason: string;
  /** As in `droppedByRule`. */
  readonly rule: string;
  readonly uplink: string;
  /** Wall clock, ms since 1970. */
  readonly atMs: number;
}

export interface UplinkState {
  readonly name: string;
  readonly link: "connecting" | "up" | "backoff" | "stopped";
  /** Wall clock, ms since 1970: up since then; or not up since then, whatever was tried meanwhile. */
  readonly sinceMs: number;
  /** In use, tried now, or tried next. */
  readonly url: string;
  /** Why it is not up. */
  readonly reason?: LinkFaultCode | undefined;
  /** The same for people, and how to mend it; or what is wrong although it is up. */
  readonly problem?: string | undefined;
  /** Wall clock of the next attempt. */
  readonly retryAtMs?: number | undefined;
  /** Fruitless ones in a row. */
  readonly attempts: number;
  /** What ended the last link or attempt; stays when the next one is up. */
  readonly lastError?: UplinkFault | undefined;
  /** An operator said so: connected, and nothing is sent. */
  readonly paused: boolean;
  readonly sent: number;
  readonly acknowledged: number;
  readonly inflight: number;
  readonly queue: UplinkQueueStats;
  readonly rates: UplinkRates;
  readonly eta: UplinkEta;
  /** Until the queue's cap drops or refuses; seconds: while nothing goes out, at the rate of the last five minutes. Null: nothing comes in. */
  readonly room: { readonly bytes: number; readonly seconds: number | null };
}

export interface UplinkFault {
  readonly code: LinkFaultCode;
  readonly text: string;
  readonly url: string;
  /** Wall clock, ms since 1970. */
  readonly atMs: number;
}

/** Means over 1 and 5 minutes, out since the link is up if that is shorter; null: not measured yet. */
export interface UplinkRates {
  readonly inPerSecond1m: number | null;
  readonly inPerSecond5m: number | null;
  /** Of records in the journal. */
  readonly inBytesPerSecond5m: number | null;
  /** Acknowledged by the cloud. */
  readonly outPerSecond1m: number | null;
  readonly outPerSecond5m: number | null;
  /** To the socket. */
  readonly outBytesPerSecond1m: number | null;
}

/** never: at this rate the backlog does not shrink. measuring: the link is up too short to tell. */
export interface UplinkEta {
  readonly state: "drained" | "draining" | "never" | "measuring" | "down" | "paused";
  readonly seconds: number | null;
}
