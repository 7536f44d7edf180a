/** What the tests ask of a client that was not written here, whatever its language. */
import type { TlsFiles } from "../../helpers/certificate.ts";

export type Version = "3.1" | "3.1.1" | "5";
export type Scheme = "mqtt" | "mqtts" | "ws" | "wss";
export type Qos = 0 | 1 | 2;

/** Where the gateway listens. */
export interface Door {
  readonly scheme: Scheme;
  readonly port: number;
  readonly tls: TlsFiles | undefined;
}

/** As user sees it: 127.0.0.1, and /mqtt behind it for WebSocket. */
export function urlOf({ scheme, port }: Door): string {
  return `${scheme}://127.0.0.1:${port}${scheme.startsWith("ws") ? "/mqtt" : ""}`;
}

export interface Seen {
  readonly topic: string;
  /** Compare it with trimEnd: paho's C programs put a line end behind each of several payloads, and show none. */
  readonly payload: string;
  readonly qos: number | undefined;
  readonly retain: boolean | undefined;
  readonly properties?: MessageProperties | undefined;
}

/** MQTT 5 properties in words that every client's own can be put into. */
export interface MessageProperties {
  readonly userProperties?: ReadonlyArray<readonly [string, string]>;
  /** Hex. */
  readonly correlationData?: string;
  readonly responseTopic?: string;
  readonly contentType?: string;
  /** Seconds. */
  readonly messageExpiry?: number;
  readonly payloadFormat?: 0 | 1;
  /** To the gateway only. */
  readonly topicAlias?: number;
}

export interface SubscribeOptions {
  readonly version: Version;
  readonly filter: string;
  readonly qos: Qos;
  readonly clientId?: string;
  /** Its session outlives its connection, for an hour. */
  readonly persistent?: boolean;
  readonly will?: { readonly topic: string; readonly payload: string; readonly qos: Qos };
}

/** A client that is connected and subscribed. */
export interface Subscriber {
  seen(): readonly Seen[];
  /** Says goodbye and ends. */
  leave(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

export interface PublishOptions {
  readonly version: Version;
  readonly topic: string;
  readonly qos: Qos;
  readonly retain?: boolean;
  readonly properties?: MessageProperties;
}

export interface Kit {
  readonly name: string;
  /** Programs, for needPeers. */
  readonly needs: readonly string[];
  readonly schemes: readonly Scheme[];
  /** It can keep a session. */
  readonly keepsSessions: boolean;
  /** It says with which QoS and retain flag a message came. */
  readonly tellsFlags: boolean;
  /** It publishes and shows properties. */
  readonly properties: boolean;
  /** User properties of different names stay in the order in which they were given. */
  readonly ordersProperties: boolean;
  /** It sleeps a tenth of a second for each acknowledgement, with any broker. */
  readonly waits: boolean;
  /** Over these it reads only the first of several WebSocket frames that come together, until more comes: whoever sends it. */
  readonly readsOneFrame: readonly Scheme[];
  subscribe(door: Door, options: SubscribeOptions): Promise<Subscriber>;
  /** On one connection, in order; resolves when everything is acknowledged as its QoS asks and the client has ended. ASCII, no line breaks. */
  publish(door: Door, options: PublishOptions, payloads: readonly string[]): Promise<void>;
}
