import type { Qos } from "../base/message.ts";
import type { ProtocolVersion } from "../wire/mqtt/packet.ts";

/** One `forward` entry: the first whose filter matches decides. */
export interface ForwardRule {
  readonly topic: string;
  /** Topic template towards the cloud: {gateway} {topic} {rest} {1}.. */
  readonly to: string;
  /** 0 is sent if the link is up and never stored. */
  readonly qos: Qos;
  /** 0 to 9, 9 goes first. */
  readonly priority: number;
  readonly ttlMs: number | undefined;
}

/** One `receive` entry: a subscription at the cloud, published here. */
export interface ReceiveRule {
  /** Filter at the cloud; {gateway} is allowed. */
  readonly topic: string;
  readonly to: string;
  readonly qos: Qos;
  /** A command older than this is not delivered any more. */
  readonly expiryMs: number | undefined;
}

export interface TlsOptions {
  readonly ca?: string | Buffer | undefined;
  readonly cert?: string | Buffer | undefined;
  readonly key?: string | Buffer | undefined;
}

/** What the cloud knows us by, and we the cloud. */
export interface Credentials {
  readonly password: string | undefined;
  readonly tls: TlsOptions | undefined;
}

export type MetaName = "gw" | "epoch" | "seq" | "pri" | "ts" | "late";

export interface UplinkOptions extends Credentials {
  readonly name: string;
  readonly gatewayId: string;
  /** mqtt:// or mqtts://, tried in order. */
  readonly urls: readonly string[];
  readonly version: Exclude<ProtocolVersion, 3>;
  readonly clientId: string;
  readonly username: string | undefined;
  /** Reads anew what lies in files, for each connection; undefined: nothing does. Rejects with what is wrong with which file. */
  readonly reread?: (() => Promise<Credentials>) | undefined;
  readonly keepAliveMs: number;
  readonly sessionExpiryMs: number;
  readonly envelope: "none" | "json";
  readonly meta: readonly MetaName[];
  readonly forward: readonly ForwardRule[];
  readonly receive: readonly ReceiveRule[];
  readonly queue: {
    readonly maxBytes: number;
    readonly maxAgeMs: number;
    readonly whenFull: "drop-oldest" | "reject-newest";
  };
  /** QoS 1 and 2 messages sent and not acknowledged, at most; lowered by the cloud's Receive Maximum. */
  readonly inflight: number;
  /** What the cloud does not say itself. */
  readonly maxQos: Qos;
  /** Bytes of a whole PUBLISH; what is larger is dropped and counted. Undefined: what the cloud announces, else no limit. */
  readonly maxPacketSize: number | undefined;
  /** 0: no limit. */
  readonly drain: {
    readonly maxPerSecond: number;
    readonly maxBytesPerSecond: number;
    /** Part of the bytes that fresh readings get while a backlog drains, 0 to 0.9; 0: strict order. */
    readonly liveShare: number;
  };
  readonly backoff: { readonly minMs: number; readonly maxMs: number };
  /** How often a message is offered that the cloud refuses with a reason code (MQTT 5) before it is dropped and counted. */
  readonly refusedRetries: number;
}
