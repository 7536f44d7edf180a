import { isIP } from "node:net";
import * as z from "zod";
import { address, duration, filePath, flag, integer, list, oneOf, otherwise, section, size } from "./fields.ts";

const certificate = () => ({
  cert: filePath().describe("Certificate chain, PEM"),
  key: filePath().describe("Private key, PEM"),
});

/** As clients send it in TLS (RFC 6066: a host name, never an address), or with its first label open. */
const serverName = /^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i;
const serverNames = 'a host name: gateway.example, or "*.example" for one label';

const sni = () =>
  z
    .record(z.string(), section(certificate()), {
      error: otherwise("%k where a map is expected", "gateway.example: { cert, key }"),
    })
    .superRefine((byName, context) => {
      const seen = new Set<string>();
      for (const name of Object.keys(byName)) {
        const known = seen.has(name.toLowerCase());
        seen.add(name.toLowerCase());
        const message = known ? `the name is here already (${serverNames})` : `not a name (${serverNames})`;
        if (known || name.length > 253 || isIP(name) !== 0 || !serverName.test(name))
          context.addIssue({ code: "custom", path: [name], message });
      }
    });

/** A certificate of the server's own; `ca` is what clients' certificates are checked with. */
const listenerTls = () =>
  section({
    ...certificate(),
    ca: filePath().optional().describe("Authorities whose client certificates are accepted, PEM"),
    clientCert: oneOf("none", "optional", "required")
      .prefault("none")
      .describe("A certificate that is shown and is not the authority's is refused with optional as well"),
    sni: sni().prefault({}).describe("Other certificates, by the host name that a client asks for"),
  });

const pathFault = "a ? is not possible here (ws://HOST:PORT/PATH; without a path it is /mqtt)";

const listener = () =>
  section({
    url: address("mqtt", "mqtts", "ws", "wss", "unix")
      .superRefine((url, context) => {
        if (/^wss?:.*\?/i.test(url)) context.addIssue({ code: "custom", message: pathFault });
      })
      .describe("A WebSocket listener answers at the url's path, /mqtt without one"),
    tls: listenerTls().optional().describe("Needed by mqtts:// and wss://"),
    proxyProtocol: flag()
      .prefault(false)
      .describe(
        "Every connection comes through a balancer that sends a PROXY protocol header (version 1 or 2); the address in it counts for limits and logs",
      ),
  });

const session = () =>
  section({
    maxMessages: integer(1, 100_000_000).prefault(10_000),
    maxBytes: size(1024).prefault("16 MiB"),
    whenFull: oneOf("drop-oldest", "drop-newest").prefault("drop-oldest"),
    queueQos0: flag().prefault(false).describe("Keep QoS 0 messages for a client that is away as well"),
  });

const retained = () =>
  section({
    maxMessages: integer(0, 10_000_000).prefault(100_000),
    maxBytes: size(0).prefault("64 MiB"),
  });

const limits = () =>
  section({
    maxConnections: integer(1, 1_000_000).prefault(10_000),
    maxConnectionsPerAddress: integer(1, 1_000_000).prefault(1000),
    connectTimeout: duration(100, 3_600_000).prefault("10s").describe("From the connection to its CONNECT packet"),
    maxPacketSize: size(1024, 268_435_460).prefault("1 MiB"),
    incompletePackets: size(64 * 1024)
      .prefault("64 MiB")
      .describe(
        "Memory for packets that have not all come, over all connections, and as much again for what lies at paused ones; never less than two of maxPacketSize",
      ),
    maxTopicLevels: integer(1, 32_768).prefault(128),
    maxSubscriptions: integer(1, 1_000_000).prefault(1000).describe("Of one client"),
    receiveMaximum: integer(1, 65_535).prefault(100).describe("QoS 1 and 2 messages in flight from a client to us"),
    maxInflight: integer(1, 65_535).prefault(100).describe("QoS 1 and 2 messages in flight from us to a client"),
    topicAliasMaximum: integer(0, 65_535).prefault(16),
    maxKeepAlive: integer(1, 65_535).prefault(65_535).describe("Seconds"),
    outbox: size(1024).prefault("1 MiB").describe("Unsent bytes of a slow subscriber; beyond it QoS 0 is dropped"),
    maxSessions: integer(1, 1_000_000).prefault(10_000),
    sessionExpiryMax: duration(0).prefault("30d"),
    session: session().prefault({}),
    queuedTotal: integer(1, 1_000_000_000).prefault(2_000_000).describe("References to messages over all sessions"),
    retained: retained().prefault({}),
  });

export const defaultListenerUrl = "mqtt://127.0.0.1:1883";

export const mqtt = () =>
  section({
    listeners: list(listener()).prefault([{ url: defaultListenerUrl }]),
    limits: limits().prefault({}),
  });

export type ListenerConfig = z.output<ReturnType<typeof listener>>;
export type MqttLimits = z.output<ReturnType<typeof limits>>;
