/** What a request to the coap-server source asks for: read out of the message, checked, without any effect. */
import { topicLevel } from "../../base/template.ts";
import { type Block, decodeBlock, encodeBlock } from "../../wire/coap/block.ts";
import { codes } from "../../wire/coap/codes.ts";
import type { CoapMessage, CoapOption } from "../../wire/coap/message.ts";
import {
  firstOption,
  hasOption,
  type OptionRule,
  optionNumbers,
  refusedOption,
  textOptions,
  uintOf,
  uintOption,
} from "../../wire/coap/options.ts";
import type { DropReason } from "./tally.ts";
import type { Peer } from "./udp.ts";

export interface Reply {
  readonly code: string;
  readonly options?: readonly CoapOption[];
  /** Diagnostic text for errors (RFC 7252 section 5.5.2), short and without internals. */
  readonly payload?: string;
}

export type Screened =
  | { readonly kind: "reading"; readonly request: ReadingRequest }
  | { readonly kind: "reply"; readonly reply: Reply; readonly dropped?: DropReason }
  /** A critical option that we do not know: 4.02 for a Confirmable message, silence for the others (RFC 7252 section 5.4.1). */
  | { readonly kind: "bad-option"; readonly number: number };

export interface ReadingRequest {
  /** Uri-Path segments as topic levels, joined by `/`. */
  readonly path: string;
  readonly contentFormat: number | undefined;
  readonly block1: Block | undefined;
  /** What the client says the body's size will be (RFC 7959 section 4). */
  readonly size1: number | undefined;
  /** Tells uploads of one endpoint apart. */
  readonly uploadKey: string;
}

/** Critical options that this server understands. If-Match, If-None-Match, OSCORE and Q-Block are not among them. */
const understood: ReadonlyMap<number, OptionRule> = new Map([
  [optionNumbers.uriHost, { lengthMin: 1, lengthMax: 255, repeatable: false }],
  [optionNumbers.uriPort, { lengthMin: 0, lengthMax: 2, repeatable: false }],
  [optionNumbers.uriPath, { lengthMin: 0, lengthMax: 255, repeatable: true }],
  [optionNumbers.uriQuery, { lengthMin: 0, lengthMax: 255, repeatable: true }],
  [optionNumbers.accept, { lengthMin: 0, lengthMax: 2, repeatable: false }],
  [optionNumbers.block2, { lengthMin: 0, lengthMax: 3, repeatable: false }],
  [optionNumbers.block1, { lengthMin: 0, lengthMax: 3, repeatable: false }],
  [optionNumbers.proxyUri, { lengthMin: 1, lengthMax: 1034, repeatable: false }],
  [optionNumbers.proxyScheme, { lengthMin: 1, lengthMax: 255, repeatable: false }],
]);

const pathLevelsMax = 16;
const pathBytesMax = 512;

/** RFC 6690: there is one resource, and every path leads to it. */
const linkFormat = 40;
const discovery = '</>;title="POST or PUT readings, any path"';

export function screenRequest(message: CoapMessage, peer: Peer): Screened {
  const refused = refusedOption(message.options, understood);
  if (refused !== undefined) return { kind: "bad-option", number: refused };
  if (hasOption(message, optionNumbers.proxyUri) || hasOption(message, optionNumbers.proxyScheme)) {
    return { kind: "reply", reply: { code: codes.proxyingNotSupported }, dropped: "not-allowed" }; // RFC 7252 section 5.10.2
  }
  const segments = textOptions(message, optionNumbers.uriPath);
  if (segments === undefined) return { kind: "bad-option", number: optionNumbers.uriPath }; // not UTF-8: section 5.4.3
  const isDiscovery = segments.length === 2 && segments[0] === ".well-known" && segments[1] === "core";
  if (message.code === codes.get && isDiscovery) return { kind: "reply", reply: discover(message) };
  if ((message.code !== codes.post && message.code !== codes.put) || isDiscovery) {
    return { kind: "reply", reply: { code: codes.methodNotAllowed }, dropped: "not-allowed" }; // section 5.8
  }
  if (segments.length > pathLevelsMax || Buffer.byteLength(segments.join("/")) > pathBytesMax) {
    return { kind: "reply", reply: { code: codes.badRequest, payload: "path too long" }, dropped: "too-large" };
  }
  return { kind: "reading", request: readingRequest(message, segments, peer) };
}

function readingRequest(message: CoapMessage, segments: readonly string[], peer: Peer): ReadingRequest {
  const block1 = firstOption(message, optionNumbers.block1);
  return {
    path: segments.length === 0 ? topicLevel("") : segments.map(topicLevel).join("/"),
    contentFormat: uintOption(message, optionNumbers.contentFormat, 2),
    block1: block1 === undefined ? undefined : decodeBlock(block1),
    size1: uintOption(message, optionNumbers.size1, 4),
    uploadKey: block1 === undefined ? "" : uploadKey(message, peer),
  };
}

/** Endpoint, method and the options that name the resource, with Request-Tag (RFC 9175 section 3.3). Values are hex: they cannot run together. */
function uploadKey(message: CoapMessage, peer: Peer): string {
  let key = `${peer.address}|${peer.port}|${message.code}`;
  for (const { number, value } of message.options) {
    const names =
      number === optionNumbers.uriPath || number === optionNumbers.uriQuery || number === optionNumbers.requestTag;
    if (names) key += `|${number}:${value.toString("hex")}`;
  }
  return key;
}

function discover(message: CoapMessage): Reply {
  const accept = uintOption(message, optionNumbers.accept, 2);
  if (accept !== undefined && accept !== linkFormat) return { code: codes.notAcceptable };
  const block2 = firstOption(message, optionNumbers.block2);
  const asked = block2 === undefined ? undefined : decodeBlock(block2);
  if (asked === undefined) {
    return { code: codes.content, options: [uintOf(optionNumbers.contentFormat, linkFormat)], payload: discovery };
  }
  // It fits into one block of 64 bytes; smaller ones are cut for whoever asks (RFC 7959 section 2.4).
  const size = 2 ** (asked.szx + 4);
  const start = asked.num * size;
  if (asked.szx === 7 || start >= discovery.length) return { code: codes.badRequest };
  const more = start + size < discovery.length;
  return {
    code: codes.content,
    options: [
      uintOf(optionNumbers.contentFormat, linkFormat),
      { number: optionNumbers.block2, value: encodeBlock({ ...asked, more }) },
    ],
    payload: discovery.slice(start, start + size),
  };
}
