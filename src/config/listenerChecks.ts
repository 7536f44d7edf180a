/** What listeners need beyond their own keys: TLS files, and somebody who asks who is there ("Start-up refusals"). */
import { isIP } from "node:net";
import { type Address, isLocal, parseAddress } from "./address.ts";
import type { ConfigNode, Reporter } from "./document.ts";
import { defaultHttpUrl } from "./http.ts";
import { defaultListenerUrl } from "./mqtt.ts";

interface Listener {
  readonly node: ConfigNode;
  readonly url: ConfigNode;
  readonly address: Address;
}

/** @param open where to say that a listener asks nobody who they are */
export function checkListeners(root: ConfigNode, report: Reporter, open: Reporter, hasUsers: boolean): void {
  const seen: Address[] = [];
  const byDefault = parseAddress(defaultHttpUrl, ["http"]) as Address;
  const http = root.get("http")?.get("listen");
  if (root.get("mqtt")?.get("listeners") === undefined)
    seen.push(parseAddress(defaultListenerUrl, ["mqtt"]) as Address);
  for (const { node, url, address } of mqttListeners(root)) {
    checkTaken(url, address, seen, report);
    if (http === undefined && clash(address, byDefault))
      report.node(url, "http.listen has this address by default (another port, or http: { listen: false })");
    checkTls(node, address, report);
    checkOpen(root, { node, url, address }, open, hasUsers);
  }
  const address = typeof http?.scalar === "string" ? parseAddress(http.scalar, ["http"]) : "";
  if (http !== undefined && typeof address !== "string") {
    checkTaken(http, address, seen, report);
    checkOpen(root, { node: http, url: http, address }, open, hasUsers);
  }
  checkSensorPorts(root, report);
}

/** UDP ports are others than TCP ports. */
function checkSensorPorts(root: ConfigNode, report: Reporter): void {
  const seen: Address[] = [];
  for (const source of root.list("sources")) {
    const listen = source.get("listen");
    if (source.text("type") !== "coap-server" || typeof listen?.scalar !== "string" || listen.broken) continue;
    const address = parseAddress(listen.scalar, ["coap", "coaps"]);
    if (typeof address !== "string") checkTaken(listen, address, seen, report);
  }
}

function checkTaken(url: ConfigNode, address: Address, seen: Address[], report: Reporter): void {
  if (seen.some((other) => clash(address, other)))
    report.node(url, "another listener has this address already (one listener an address)");
  seen.push(address);
}

/** Whether the second of the two could not be opened. */
function clash(one: Address, other: Address): boolean {
  if (one.scheme === "unix" || other.scheme === "unix") return one.scheme === other.scheme && one.path === other.path;
  if (one.port !== other.port || one.port === 0) return false; // port 0 is any free one, and so never taken
  const [a = "", b = ""] = [one, other].map(({ host }) => host.toLowerCase().replace(/^localhost$/, "127.0.0.1"));
  return a === b || takes(a, b) || takes(b, a);
}

/** Whether `host` is all of the machine's addresses and the other is one of them. Whether [::] is IPv4 too is the machine's to say (bindv6only). */
const takes = (host: string, other: string): boolean =>
  (host === "0.0.0.0" && isIP(other) === 4) || (host === "::" && isIP(other) === 6);

/** True while no listener can be reached from another machine. A balancer in front of one is there to reach it. */
export function everyListenerIsLocal(listeners: readonly { url: string; proxyProtocol: boolean }[]): boolean {
  return listeners.every(({ url, proxyProtocol }) => {
    const address = parseAddress(url, ["mqtt", "mqtts", "ws", "wss", "unix"]);
    return typeof address !== "string" && isLocal(address) && !proxyProtocol;
  });
}

function* mqttListeners(root: ConfigNode): Generator<Listener> {
  for (const node of root.get("mqtt")?.list("listeners") ?? []) {
    const url = node.get("url");
    if (typeof url?.scalar !== "string" || url.broken) continue;
    const address = parseAddress(url.scalar, ["mqtt", "mqtts", "ws", "wss", "unix"]);
    if (typeof address !== "string") yield { node, url, address };
  }
}

function checkTls(node: ConfigNode, address: Address, report: Reporter): void {
  const tls = node.get("tls");
  const wanted = address.scheme === "mqtts" || address.scheme === "wss";
  if (wanted && tls === undefined)
    report.missing(node, "tls", `is missing (${address.scheme}:// needs tls: { cert, key })`);
  if (!wanted && tls !== undefined) {
    report.node(tls, `not possible with ${address.scheme}:// (mqtts:// or wss://, or take tls away)`);
  }
  const clientCert = tls?.text("clientCert") ?? "none";
  if (clientCert !== "none" && tls?.get("ca") === undefined && tls?.entries !== undefined) {
    report.missing(
      tls,
      "ca",
      `is missing (clientCert: ${clientCert === "required" ? clientCert : "optional"} needs the authority's certificate)`,
    );
  }
}

function checkOpen(root: ConfigNode, { node, url, address }: Listener, report: Reporter, hasUsers: boolean): void {
  const proxied = node.get("proxyProtocol")?.scalar === true;
  if ((isLocal(address) && !proxied) || hasUsers) return;
  if (root.get("access")?.get("anonymous")?.scalar === true) return;
  if (node.get("tls")?.text("clientCert") === "required") return;
  const ways = ['"access: { anonymous: true }" lets everybody in', '"tidegate passwd add NAME" makes a user'];
  const { scheme } = address;
  if (scheme === "mqtts" || scheme === "wss")
    ways.push('"clientCert: required" in its tls, with ca, asks for a certificate');
  else if (scheme === "mqtt" || scheme === "ws")
    ways.push(`"url: ${scheme}s://..." with "tls: { cert, key, ca, clientCert: required }" asks for a certificate`);
  if (proxied) ways.push('"proxyProtocol: false" if no balancer stands in front of it');
  else ways.push(`"${url.path.at(-1)}: ${scheme}://127.0.0.1:${address.port}" stays on this machine`);
  report.node(url, `open to the network, and nobody is asked who they are (add one of: ${ways.join("; ")})`);
}
