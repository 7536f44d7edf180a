import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Clock } from "../base/clock.ts";
import type { Forwarding, Publisher, Routing, Store } from "../base/contracts.ts";
import type { RouteLetters } from "../base/deadLetters.ts";
import type { Log } from "../base/log.ts";
import type { Meter } from "../base/meter.ts";
import type { User } from "../base/passwords.ts";
import type { Seconds } from "../base/seconds.ts";
import type { AccessOptions } from "./access/access.ts";
import type { Verify } from "./access/logIns.ts";
import type { AccessRule } from "./access/rules.ts";

export type { AccessOptions, AccessRule };

/** Durations in milliseconds, sizes in bytes. */
export interface BrokerLimits {
  readonly maxConnections: number;
  /** Connections of one IP address; unix sockets have none. */
  readonly maxConnectionsPerAddress: number;
  /** From accept to a complete CONNECT: PROXY header, TLS and WebSocket handshake included. */
  readonly connectTimeoutMs: number;
  readonly maxPacketSize: number;
  /** Of packets that have not all come, over all connections; as much again for what lies at paused ones, and a quarter for what waits for its turn. */
  readonly partialBytes: number;
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
  partialBytes: 64 * 1024 * 1024,
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
  /** Who may log in. Default: nobody. */
  readonly users?: readonly User[] | undefined;
  /** What clients may do; the first that matches decides. None: everything. */
  readonly rules?: readonly AccessRule[] | undefined;
  readonly limits: BrokerLimits;
  /** The program's version, for `$SYS/broker/version`. */
  readonly version: string;
  /** How often `$SYS/broker/...` is published, in ms. Default 10,000. */
  readonly sysIntervalMs?: number | undefined;
}

export interface BrokerDeps {
  readonly store: Store;
  readonly clock: Clock;
  /** Of the same clock, shared with others. Default: its own. */
  readonly seconds?: Seconds | undefined;
  readonly log: Log;
  readonly meter: Meter;
  readonly routing: Routing;
  readonly forwarding: Forwarding;
  /** Instead of scrypt, for tests. */
  readonly verify?: Verify | undefined;
  /** Where routes with `onError: dead-letter` put what they cannot transform. */
  readonly letters?: RouteLetters | undefined;
}

/** PEM texts, not paths. */
export interface Certificate {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
}

export interface ListenerTls extends Certificate {
  /** Whose certificates of clients are taken; needed unless `clientCert` is none. */
  readonly ca?: string | Buffer | undefined;
  /** optional: who shows none is let in, who shows one that is not `ca`'s is not. */
  readonly clientCert: "none" | "optional" | "required";
  /** Other certificates by the name that the client asks for (SNI): `gw.example`, or `*.example` for one label. */
  readonly sni?: Readonly<Record<string, Certificate>> | undefined;
}

export interface ListenerOptions {
  /**
   * `mqtt://host:port`, `mqtts://host:port`, `ws://host:port/path`, `wss://host:port/path` or `unix:///path`. mqtts and wss need `tls`. Port 0
   * takes a free one; a missing port is 1883, 8883, 80 or 443, a missing path `/mqtt`.
   */
  readonly url: string;
  readonly tls?: ListenerTls | undefined;
  /** Every connection begins with a PROXY protocol header (version 1 or 2), and the address in it is the client's. */
  readonly proxyProtocol?: boolean | undefined;
}

export interface ListenerHandle {
  /** With the port that was really taken. */
  readonly url: string;
  /** 0 for a unix socket. */
  readonly port: number;
  /**
   * Other certificates for new connections; those already made stay as they are.
   * @throws TidegateError TG_LISTEN when they cannot be used, or the listener has no TLS: those before them stay
   */
  setTls(tls: ListenerTls): void;
  /** Stops accepting; connections already made stay. */
  close(): Promise<void>;
}

/** Where a connection comes from. */
export interface PeerInfo {
  /** IP address, IPv4 never as ::ffff:1.2.3.4; undefined where there is none (unix socket, a proxy that names none, test). */
  readonly address?: string | undefined;
  readonly listener: string;
  /** It showed a certificate that the listener accepts. */
  readonly certified?: boolean | undefined;
  /** The common name of that certificate's subject, if there is one that can be a user name. */
  readonly certificateName?: string | undefined;
  /** How long it took from accept to its first byte of MQTT; counts for connectTimeout, in ms. */
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
  /** Takes a byte stream as a new connection (tests). */
  attach(socket: Duplex, peer?: PeerInfo): void;
  /**
   * Takes an HTTP server's upgrade request as a new connection, MQTT over WebSocket (MQTT 5 section 6). Path, Host and Origin are the caller's to
   * check; everything else, and the socket, is the broker's from here on. @param head what came behind the request @param listener its url
   */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, listener: string): void;
  /** Resolves when the retained values of the store are in memory. `listen` waits for it. */
  readonly ready: Promise<void>;
  /** To be called when what Routing or Forwarding would answer has changed. */
  refresh(): void;
  /**
   * Other users and rules from now on. Connections that would not be let in any more (the user removed, another password, the anonymous) end with
   * Not authorized; for all others the rules hold from the next message on.
   * @returns how many connections ended
   */
  setAccess(access: AccessOptions): number;
  /** Ends a client's connection with the reason Administrative action. False when it is not connected. */
  disconnect(clientId: string): boolean;
  clients(): Iterable<ClientInfo>;
  stats(): BrokerStats;
  /** Stops listening, tells the clients (0x8B), writes what is only in memory. */
  close(): Promise<void>;
}
