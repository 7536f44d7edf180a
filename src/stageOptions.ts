/** The config, mapped to each stage's own options type; files that it names are read here. For gateway.ts alone. */
import { messageOf, TidegateError } from "./base/errors.ts";
import type { Qos } from "./base/message.ts";
import type { AccessOptions, BrokerLimits, Certificate, ListenerOptions, ListenerTls } from "./broker/options.ts";
import type { ListenerConfig } from "./config/mqtt.ts";
import { readBoundedLater } from "./config/readBounded.ts";
import type { Config, ResolvedUplink, SourceConfig } from "./config/schema.ts";
import { readSecretFile } from "./config/secrets.ts";
import { lettersBytesMax } from "./config/storage.ts";
import type { DeadLetterOptions } from "./journal/deadLetters.ts";
import type { SerialSourceOptions } from "./sources/serial/options.ts";
import type { CodecRegistry } from "./transform/codecs/registry.ts";
import { createCommandEncoder } from "./transform/command.ts";
import type { RouteDefinition } from "./transform/routes.ts";
import type { Credentials, UplinkOptions } from "./uplink/options.ts";

/** With its certificate files read. @throws TidegateError TG_CONFIG when one cannot be read */
export async function listenerOptions(listener: ListenerConfig): Promise<ListenerOptions> {
  const { url, tls, proxyProtocol } = listener;
  return tls === undefined ? { url, proxyProtocol } : { url, proxyProtocol, tls: await listenerTls(tls) };
}

async function listenerTls({ ca, clientCert, sni, ...own }: NonNullable<ListenerConfig["tls"]>): Promise<ListenerTls> {
  const named = Object.entries(sni).map(async ([name, files]) => [name, await certificate(files)] as const);
  return {
    ...(await certificate(own)),
    ca: await readOptionalPem(ca),
    clientCert,
    sni: Object.fromEntries(await Promise.all(named)),
  };
}

async function certificate({ cert, key }: { cert: string; key: string }): Promise<Certificate> {
  const [certPem, keyPem] = await Promise.all([readPem(cert), readPem(key)]);
  return { cert: certPem, key: keyPem };
}

export function brokerLimits({ mqtt, storage }: Config): BrokerLimits {
  const { connectTimeout, maxKeepAlive, outbox, sessionExpiryMax, incompletePackets, ...same } = mqtt.limits;
  const maxPacketSize = Math.min(mqtt.limits.maxPacketSize, storage.maxMessageBytes); // what cannot be stored must not be taken
  return {
    ...same,
    maxPacketSize,
    partialBytes: Math.max(incompletePackets, 2 * maxPacketSize),
    connectTimeoutMs: connectTimeout,
    maxKeepAliveSeconds: maxKeepAlive,
    outboxBytes: outbox,
    sessionExpiryMaxMs: sessionExpiryMax,
  };
}

export function accessOptions({ access }: Config): AccessOptions {
  const { anonymous, users, rules } = access;
  return {
    anonymous,
    users,
    rules: rules.map(({ allow, deny, users: names, topic }) => ({
      effect: deny === undefined ? "allow" : "deny",
      action: deny ?? allow ?? "all", // the config has one of them
      users: names,
      topic,
    })),
  };
}

export async function uplinkOptions(uplink: ResolvedUplink, gatewayId: string): Promise<UplinkOptions> {
  const { name, urls, version, clientId, username, envelope, meta, queue, inflight, maxQos, maxPacketSize } = uplink;
  const credentials = (): Promise<Credentials> => uplinkCredentials(uplink);
  const files = [uplink.passwordFile, ...Object.values(uplink.tls ?? {})].filter((path) => path !== undefined);
  return {
    ...(await credentials()),
    reread: files.length > 0 ? credentials : undefined,
    name,
    gatewayId,
    urls,
    version: version === 4 ? 4 : 5,
    clientId,
    username,
    keepAliveMs: uplink.keepAlive,
    sessionExpiryMs: uplink.sessionExpiry,
    envelope,
    meta,
    forward: uplink.forward.map(({ topic, to, qos, priority, ttl }) => ({
      topic,
      to,
      qos: qos as Qos,
      priority,
      ttlMs: ttl,
    })),
    receive: uplink.receive.map(({ topic, to, qos, expiry }) => ({
      topic,
      to,
      qos: qos as Qos,
      expiryMs: expiry,
    })),
    queue: { maxBytes: queue.maxBytes, maxAgeMs: queue.maxAge, whenFull: queue.whenFull },
    inflight,
    maxQos,
    maxPacketSize,
    drain: uplink.drain,
    backoff: { minMs: uplink.backoff.min, maxMs: uplink.backoff.max },
    refusedRetries: uplink.refusedRetries,
  };
}

/** One file after the other: on a disk that does not answer, each would keep a thread. @throws TidegateError TG_CONFIG */
async function uplinkCredentials({ password, passwordFile, tls }: ResolvedUplink): Promise<Credentials> {
  const secret = passwordFile === undefined ? password : await readSecret(passwordFile);
  if (tls === undefined) return { password: secret, tls };
  const ca = await readOptionalPem(tls.ca);
  const cert = await readOptionalPem(tls.cert);
  return { password: secret, tls: { ca, cert, key: await readOptionalPem(tls.key) } };
}

export function serialOptions(source: SourceConfig & { type: "serial" }, codecs: CodecRegistry): SerialSourceOptions {
  const { name, path, baudRate, dataBits, stopBits, parity, rtscts, framing, ack, commands } = source;
  if (framing.type !== "lines" && framing.type !== "cobs" && framing.type !== "slip")
    throw new TidegateError("TG_NOT_AVAILABLE", `sources.${name}.framing: ${framing.type} is not yet available`);
  const ackCodec = ack === undefined ? undefined : codecs.get(ack);
  return {
    name,
    path,
    baudRate,
    dataBits,
    stopBits,
    parity,
    rtscts,
    framing:
      framing.type === "lines"
        ? { type: "lines", maxFrameBytes: framing.maxFrameBytes }
        : { ...framing, crc: framing.crc === "none" ? undefined : framing.crc },
    ...(ackCodec === undefined ? {} : { ack: ackCodec }),
    ...(commands === undefined
      ? {}
      : {
          commands: {
            topic: commands.topic,
            encode: createCommandEncoder(commands.encode, codecs),
            expiryMs: commands.expiry,
          },
        }),
  };
}

/** Letters may fill a quarter of the store at most, or nothing else would have room: the config has warned of more. */
export function deadLetterOptions({ deadLetters, storage }: Config): DeadLetterOptions {
  const { maxMessages, maxBytes, maxAge } = deadLetters;
  return { maxMessages, maxBytes: Math.min(maxBytes, lettersBytesMax(storage.maxBytes)), maxAgeMs: maxAge };
}

export const withGateway = (template: string, id: string): string => template.replaceAll("{gateway}", () => id);

export const routeDefinition =
  (gatewayId: string) =>
  ({ name, from, steps, to, onError }: Config["routes"][number]): RouteDefinition => ({
    name,
    from,
    to: withGateway(to, gatewayId),
    // The config allows no other step in this version: `unavailable` has said so.
    steps: steps.map(({ decode }) => ({ decode: decode ?? "json" })),
    onError,
  });

/** Every authority of the world, with its text, is one. */
const pemBytesMax = 4 * 1024 * 1024;

async function readPem(path: string): Promise<Buffer> {
  try {
    const pem = await readBoundedLater(path, pemBytesMax);
    if (pem === undefined) throw new Error(`more than ${pemBytesMax} bytes (a PEM file)`);
    return pem;
  } catch (cause) {
    throw new TidegateError("TG_CONFIG", `${path} cannot be read: ${messageOf(cause)}`, { cause });
  }
}

async function readSecret(path: string): Promise<string> {
  try {
    return await readSecretFile(path);
  } catch (cause) {
    throw new TidegateError("TG_CONFIG", messageOf(cause), { cause });
  }
}

const readOptionalPem = (path: string | undefined): Promise<Buffer | undefined> =>
  path === undefined ? Promise.resolve(undefined) : readPem(path);
