import type * as z from "zod";
import { parseTemplate } from "../base/template.ts";
import { topicFilterFault } from "../base/topic.ts";
import {
  checkedText,
  decimal,
  duration,
  entryName,
  filePath,
  integer,
  list,
  oneOf,
  oneOfNumbers,
  quality,
  remoteAddress,
  secret,
  section,
  size,
  text,
  topicFilter,
  topicTemplate,
} from "./fields.ts";

const forward = () =>
  section({
    topic: topicFilter(),
    to: topicTemplate().prefault("{topic}").describe("{gateway} {topic} {rest} {1}.."),
    qos: quality().prefault(1).describe("What is sent; 0 is never stored"),
    priority: integer(0, 9).prefault(0).describe("9 goes first"),
    ttl: duration(1).optional().describe("Default: none"),
  });

/** The cloud's side of a `receive` entry is a filter that may name the gateway. */
const cloudFilter = () =>
  checkedText("a topic filter at the cloud, {gateway} where our id goes", (value) => {
    try {
      return topicFilterFault(parseTemplate(value).fill(() => "x") ?? "x");
    } catch {
      return "a brace that is not part of {name}";
    }
  });

const receive = () =>
  section({
    topic: cloudFilter(),
    to: topicTemplate().describe("{gateway} {topic} {rest} {1}.."),
    qos: quality().prefault(1),
    expiry: duration(1).optional().describe("An older command is not delivered. Default: none"),
  });

const tls = () =>
  section({
    ca: filePath().optional().describe("Default: the authorities that come with Node"),
    cert: filePath().optional(),
    key: filePath().optional(),
  });

const queue = () =>
  section({
    maxBytes: size(1024).prefault("512 MiB"),
    maxAge: duration(1000).prefault("30d"),
    whenFull: oneOf("drop-oldest", "reject-newest").prefault("drop-oldest"),
  });

const drain = () =>
  section({
    maxPerSecond: decimal(0, 1e9).prefault(0).describe("0: no limit"),
    maxBytesPerSecond: size(0).prefault(0).describe("0: no limit"),
    liveShare: decimal(0, 0.9)
      .prefault(0)
      .describe("Part of the link that fresh readings get while a backlog drains; 0: strict order"),
  });

const backoff = () =>
  section({
    min: duration(1, 86_400_000).prefault("1s"),
    max: duration(1, 86_400_000).prefault("60s"),
  });

export const metaNames = ["gw", "epoch", "seq", "pri", "ts", "late"] as const;
const cloudUrl = () => remoteAddress("mqtt", "mqtts");

const uplink = () =>
  section({
    name: entryName(),
    url: cloudUrl().optional(),
    version: oneOfNumbers(5, 4).prefault(5),
    clientId: text("a text").optional().describe("Default: gateway.id"),
    username: text("a text").optional(),
    password: secret().optional(),
    tls: tls().optional(),
    urls: list(cloudUrl()).prefault([]).describe("Instead of url: tried in order"),
    keepAlive: duration(0, 65_535_000).prefault("60s"),
    sessionExpiry: duration(0, 4_294_967_295_000).prefault("7d"),
    envelope: oneOf("none", "json").prefault("none"),
    meta: list(oneOf(...metaNames))
      .prefault([...metaNames])
      .describe("User properties that are sent (MQTT 5)"),
    forward: list(forward()).prefault([]).describe("The first rule that matches decides"),
    receive: list(receive()).prefault([]),
    queue: queue().prefault({}),
    inflight: integer(1, 65_535).prefault(1000).describe("Lowered by the cloud's Receive Maximum"),
    maxQos: quality().prefault(2).describe("What the cloud does not say itself"),
    maxPacketSize: size(128, 268_435_460).optional().describe("What the cloud does not say itself. Default: no limit"),
    drain: drain().prefault({}),
    backoff: backoff().prefault({}),
    refusedRetries: integer(0, 1_000_000).prefault(10),
  });

export const uplinks = () => list(uplink());

export type UplinkConfig = z.output<ReturnType<typeof uplink>>;
export type ForwardConfig = z.output<ReturnType<typeof forward>>;
export type ReceiveConfig = z.output<ReturnType<typeof receive>>;
