import { BlockList, isIP } from "node:net";

export type AddressScheme = "mqtt" | "mqtts" | "ws" | "wss" | "unix" | "coap" | "coaps" | "http";

/** A url of the config, taken apart. */
export interface Address {
  readonly scheme: AddressScheme;
  /** Host name or address, an IPv6 address without brackets; "" for a unix socket. */
  readonly host: string;
  /** 0 to 65535; the scheme's own when the url has none; 0 for a unix socket. */
  readonly port: number;
  /** What follows the host: "" or `/mqtt` or `/temp?x=1`; the socket's path for unix. */
  readonly path: string;
}

const defaultPorts: Readonly<Record<AddressScheme, number>> = {
  mqtt: 1883,
  mqtts: 8883,
  ws: 80,
  wss: 443,
  unix: 0,
  coap: 5683,
  coaps: 5684,
  http: 80,
};

const portMax = 65_535;
const takesPath: readonly AddressScheme[] = ["ws", "wss", "coap", "coaps"];

/** @returns what is wrong, as text that never repeats the url: it may hold a password. */
export function parseAddress(url: string, schemes: readonly AddressScheme[]): Address | string {
  const allowed = schemes.map((scheme) => `${scheme}://`).join(", ") + (schemes.length === 1 ? "HOST:PORT" : "");
  const split = /^([a-z]+):\/\/(.*)$/is.exec(url);
  const scheme = schemes.find((known) => known === split?.[1]?.toLowerCase());
  if (split === null) return `not a url (${allowed})`;
  if (scheme === undefined) return `${split[1]?.toLowerCase()}:// is not possible here (${allowed})`;
  if (scheme === "unix") return unixAddress(split[2] ?? "");
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    const wrongPort = /:(\d+)(?:[/?]|$)/.exec(split[2] ?? "");
    if (wrongPort !== null && Number(wrongPort[1]) > portMax)
      return `the port is above ${portMax} (${scheme}://HOST:PORT)`;
    return `not a url (${scheme}://HOST:PORT)`;
  }
  if (parsed.username !== "" || parsed.password !== "")
    return `user and password do not belong into a url (${scheme}://HOST:PORT, and keys of their own)`;
  if (parsed.hostname === "") return `the host is missing (${scheme}://HOST:PORT)`;
  if (parsed.hostname.includes("*")) return "* is not an address (0.0.0.0, or [::], is all of them)";
  if (parsed.hash !== "") return "a url with # is not possible here";
  if (!isPercentEncoded(parsed.pathname + parsed.search)) return "% must be followed by two hex digits of UTF-8";
  // WHATWG drops a port that is the default one of http and ws; what was written and what is meant are then the same.
  const port = parsed.port === "" ? defaultPorts[scheme] : Number(parsed.port);
  const path = `${parsed.pathname === "/" ? "" : parsed.pathname}${parsed.search}`;
  if (path !== "" && !takesPath.includes(scheme)) return `a path is not possible here (${scheme}://HOST:PORT)`;
  return { scheme, host: parsed.hostname.replace(/^\[|\]$/g, ""), port, path };
}

function isPercentEncoded(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

/** Linux keeps 108 bytes for a socket's path, one of them the closing zero. */
const socketPathBytesMax = 107;

function unixAddress(path: string): Address | string {
  if (path === "" || path.endsWith("/") || path.includes("\u0000"))
    return "the path is missing (unix:///PATH/TO/SOCKET)";
  if (Buffer.byteLength(path) > socketPathBytesMax) return `longer than ${socketPathBytesMax} bytes`;
  return { scheme: "unix", host: "", port: 0, path };
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Whether only programs of this machine can reach it. A host name other than localhost counts as reachable from outside. */
export function isLocal(address: Address): boolean {
  if (address.scheme === "unix") return true;
  if (address.host.toLowerCase() === "localhost") return true;
  const family = isIP(address.host);
  return family !== 0 && loopback.check(address.host, family === 6 ? "ipv6" : "ipv4");
}
