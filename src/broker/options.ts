import type { Clock } from "../base/clock.ts";
import type { Forwarding, Publisher, Routing, Store } from "../base/contracts.ts";
import type { Log } from "../base/log.ts";
import type { Meter } from "../base/meter.ts";

/** Durations in milliseconds, sizes in bytes. */
export interface BrokerLimits {
  readonly maxConnections: number;
  /** Connections of one IP address; unix sockets have none. */
  readonly maxConnectionsPerAddress: number;
  /** From accept to a complete CONNECT, the TLS handshake included. */
  readonly connectTimeoutMs: number;
  readonly maxPacketSize: number;
  readonly maxTopicLevels: number;
  /** Of one client. */
  readonly maxSubscriptions: number;
  /** QoS 1 and 2 in flight to us. MQTT 5: announced, 0x93 when exceeded. 3.1.1: reading pauses. */
  readonly receiveMaximum: number;
  /** QoS 1 and 2 in flight to a client, at most; its own Receive Maximum counts too. */
  readonly maxInflight: number;
  readonly topicAliasMaximum: number;
  /** Seconds; MQTT 5 clients that ask for more (or for none) are told this Server Keep Alive. 65535: no limit. */
  readonly maxKeepAliveSeconds: number;
  /** Unsent bytes of one connection: beyond it QoS 0 is dropped and QoS 1 and 2 wait. */
  readonly outboxBytes: number;
  readonly maxSessions: number;
  readonly sessionExpiryMaxMs: number;
  readonly session: {
    readonly maxMessages: number;
    readonly maxBytes: number;
    readonly whenFull: "drop-oldest" | "drop-newest";
    /** QoS 0 messages wait for offline sessions as well. */
    readonly queueQos0: boolean;
  };
  /** References over all sessions. */
  readonly queuedTotal: number;
  readonly retained: { readonly maxMessages: number; readonly maxBytes: number };
}

export const limitDefaults: BrokerLimits = {
  maxConnections: 10_000,
  maxConnectionsPerAddress: 1000,
  connectTimeoutMs: 10_000,
  maxPacketSize: 1024 * 1024,
  maxTopicLevels: 128,
  maxSubscriptions: 1000,
  receiveMaximum: 100,
  maxInflight: 100,
  topicAliasMaximum: 16,
  maxKeepAliveSeconds: 65_535,
  outboxBytes: 1024 * 1024,
  maxSessions: 10_000,
  sessionExpiryMaxMs: 30 * 24 * 3600 * 1000,
  session: { maxMessages: 10_000, maxBytes: 16 * 1024 * 1024, whenFull: "drop-oldest", queueQos0: false },
  queuedTotal: 2_000_000,
  retained: { maxMessages: 100_000, maxBytes: 64 * 1024 * 1024 },
};

export interface BrokerOptions {
  /** Whether a client without a user name may connect. */
  readonly anonymous: boolean;
  readonly limits: BrokerLimits;
  /** The program's version, for `$SYS/broker/version`. */
  readonly version: string;
  /** How often `$SYS/broker/...` is published, in ms. Default 10,000. */
  readonly sysIntervalMs?: number | undefined;
}

/** Whether a client that gave a user name may connect. Synchronous, and must not throw. */
export type Authenticate = (username: string, password: Uint8Array | undefined, clientId: string) => boolean;

export interface BrokerDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly meter: Meter;
  readonly routing: Routing;
  readonly forwarding: Forwarding;
  readonly authenticate?: Authenticate | undefined;
}

/** PEM texts, not paths. */
export interface ListenerTls {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  readonly ca?: string | Buffer | undefined;
  readonly clientCert: "none" | "optional" | "required";
}

export interface ListenerOptions {
  /** `mqtt://host:port`, `mqtts://host:port` (needs `tls`) or `unix:///path`. Port 0 takes a free one; a missing port is 1883 or 8883. */
  readonly url: string;
  readonly tls?: ListenerTls | undefined;
}

export interface ListenerHandle {
  /** With the port that was really taken. */
  readonly url: string;
  /** 0 for a unix socket. */
  readonly port: number;
  /** Stops accepting; connections already made stay. */
  close(): Promise<void>;
}

/** Where a connection comes from. */
export interface PeerInfo {
  /** IP address, or undefined where there is none (unix socket, test). */
  readonly address?: string | undefined;
  readonly listener: string;
  /** It showed a certificate that the listener accepts. */
  readonly certified?: boolean | undefined;
  /** How long it took for its TLS handshake; counts for connectTimeout. */
  readonly waitedMs?: number | undefined;
}

export interface ClientInfo {
  readonly clientId: string;
  readonly connected: boolean;
  readonly address: string | undefined;
  readonly version: 3 | 4 | 5 | undefined;
  readonly durable: boolean;
  readonly subscriptions: number;
  /** Messages that wait for it or are in flight. */
  readonly queued: number;
}

export interface BrokerStats {
  readonly connections: number;
  readonly sessions: number;
  readonly subscriptions: number;
  readonly retained: number;
  /** References over all durable sessions. */
  readonly queued: number;
  readonly received: number;
  readonly sent: number;
  readonly dropped: Readonly<Record<string, number>>;
}

export interface Broker extends Publisher {
  /** Opens a listener, once what was retained is loaded. @throws TidegateError TG_LISTEN, TG_CONFIG */
  listen(listener: ListenerOptions): Promise<ListenerHandle>;
  /** Takes a byte stream as a new connection (WebSocket, tests). */
  attach(socket: import("node:stream").Duplex, peer?: PeerInfo): void;
  /** Resolves when the retained values of the store are in memory. `listen` waits for it. */
  readonly ready: Promise<void>;
  /** To be called when what Routing or Forwarding would answer has changed. */
  refresh(): void;
  /** Ends a client's connection with the reason Administrative action. False when it is not connected. */
  disconnect(clientId: string): boolean;
  clients(): Iterable<ClientInfo>;
  stats(): BrokerStats;
  /** Stops listening, tells the clients (0x8B), writes what is only in memory. */
  close(): Promise<void>;
}
