import type { z } from "zod";
import { address, duration, filePath, flag, integer, list, oneOf, section, size } from "./fields.ts";

/** A certificate of the server's own; `ca` is what clients' certificates are checked with. */
const listenerTls = section({
  cert: filePath().describe("Certificate chain, PEM"),
  key: filePath().describe("Private key, PEM"),
  ca: filePath().optional().describe("Authorities whose client certificates are accepted, PEM"),
  clientCert: oneOf("none", "optional", "required").prefault("none"),
});

const listener = section({
  url: address("mqtt", "mqtts", "ws", "wss", "unix"),
  tls: listenerTls.optional().describe("Needed by mqtts:// and wss://"),
  proxyProtocol: flag()
    .prefault(false)
    .describe("Connections come through a proxy that sends the PROXY protocol header"),
});

const session = section({
  maxMessages: integer(1, 100_000_000).prefault(10_000),
  maxBytes: size(1024).prefault("16 MiB"),
  whenFull: oneOf("drop-oldest", "drop-newest").prefault("drop-oldest"),
  queueQos0: flag().prefault(false).describe("Keep QoS 0 messages for a client that is away as well"),
});

const retained = section({
  maxMessages: integer(0, 10_000_000).prefault(100_000),
  maxBytes: size(0).prefault("64 MiB"),
});

const limits = section({
  maxConnections: integer(1, 1_000_000).prefault(10_000),
  maxConnectionsPerAddress: integer(1, 1_000_000).prefault(1000),
  connectTimeout: duration(100, 3_600_000).prefault("10s").describe("From the connection to its CONNECT packet"),
  maxPacketSize: size(1024, 268_435_460).prefault("1 MiB"),
  maxTopicLevels: integer(1, 32_768).prefault(128),
  maxSubscriptions: integer(1, 1_000_000).prefault(1000).describe("Of one client"),
  receiveMaximum: integer(1, 65_535).prefault(100).describe("QoS 1 and 2 messages in flight from a client to us"),
  maxInflight: integer(1, 65_535).prefault(100).describe("QoS 1 and 2 messages in flight from us to a client"),
  topicAliasMaximum: integer(0, 65_535).prefault(16),
  maxKeepAlive: integer(1, 65_535).prefault(65_535).describe("Seconds"),
  outbox: size(1024).prefault("1 MiB").describe("Unsent bytes of a slow subscriber; beyond it QoS 0 is dropped"),
  maxSessions: integer(1, 1_000_000).prefault(10_000),
  sessionExpiryMax: duration(0).prefault("30d"),
  session: session.prefault({}),
  queuedTotal: integer(1, 1_000_000_000).prefault(2_000_000).describe("References to messages over all sessions"),
  retained: retained.prefault({}),
});

export const defaultListenerUrl = "mqtt://127.0.0.1:1883";

export const mqtt = section({
  listeners: list(listener).prefault([{ url: defaultListenerUrl }]),
  limits: limits.prefault({}),
});

export type ListenerConfig = z.output<typeof listener>;
export type MqttLimits = z.output<typeof limits>;
