import { isIP } from "node:net";
import { TidegateError } from "../../base/errors.ts";
import type { CoapOption } from "../../wire/coap/message.ts";
import { optionNumbers } from "../../wire/coap/options.ts";

export interface CoapTarget {
  /** Name or address, without the brackets of IPv6. */
  readonly host: string;
  readonly port: number;
  /** Uri-Host, Uri-Path and Uri-Query of a request to it. */
  readonly options: readonly CoapOption[];
}

const portDefault = 5683;
const optionBytesMax = 255;

/**
 * Takes a CoAP URI apart (RFC 7252 section 6.4).
 * @throws TidegateError TG_CONFIG for what is no such URI, TG_NOT_AVAILABLE for coaps.
 */
export function parseCoapUrl(text: string): CoapTarget {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new TidegateError("TG_CONFIG", `"${text}" is not a URL like coap://host:5683/path`);
  }
  if (url.protocol === "coaps:")
    throw new TidegateError("TG_NOT_AVAILABLE", `"${text}": coaps is not available; use coap://`);
  if (url.protocol !== "coap:" || url.hostname === "") {
    throw new TidegateError("TG_CONFIG", `"${text}" is not a URL like coap://host:5683/path`);
  }
  if (url.hash !== "" || url.username !== "" || url.password !== "") {
    throw new TidegateError("TG_CONFIG", `"${text}": a coap URL has no user and no # part`);
  }
  const host = decoded(text, url.hostname.replace(/^\[(.*)\]$/, "$1")).toLowerCase();
  const options: CoapOption[] = [];
  const add = (number: number, part: string): void => {
    const value = Buffer.from(decoded(text, part));
    if (value.length > optionBytesMax)
      throw new TidegateError("TG_CONFIG", `"${text}": a part is longer than 255 bytes`);
    options.push({ number, value });
  };
  if (isIP(host) === 0) add(optionNumbers.uriHost, host); // only a name tells the server more than its address does
  const path = url.pathname.replace(/^\//, "");
  if (path !== "") for (const segment of path.split("/")) add(optionNumbers.uriPath, segment);
  if (url.search.length > 1)
    for (const argument of url.search.slice(1).split("&")) add(optionNumbers.uriQuery, argument);
  return { host, port: url.port === "" ? portDefault : Number(url.port), options };
}

function decoded(url: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new TidegateError("TG_CONFIG", `"${url}": a % that is not followed by two hex digits of UTF-8`);
  }
}
