/** What is allowed and will surprise: said, not refused. */
import { filterCovers } from "../base/topic.ts";
import { isLocal, parseAddress } from "./address.ts";
import type { ConfigNode, Reporter } from "./document.ts";
import { pemPaths } from "./namedFiles.ts";
import type { Config } from "./schema.ts";
import { lettersBytesMax } from "./storage.ts";
import { formatSize, parseSize } from "./units.ts";

export function findWarnings(config: Config, root: ConfigNode, report: Reporter): void {
  warnOfCaps(config, root, report);
  warnOfLetters(config, root, report);
  const anonymous = root.get("access")?.get("anonymous");
  const byCertificate = config.mqtt.listeners.some(({ tls }) => tls !== undefined && tls.clientCert !== "none");
  if (anonymous?.scalar === false && config.access.users.length === 0 && !byCertificate) {
    report.node(anonymous, "nobody can connect: there are no users, and no listener asks for certificates");
  }
  for (const source of root.list("sources")) {
    const listen = source.get("listen");
    const address = typeof listen?.scalar === "string" ? parseAddress(listen.scalar, ["coap", "coaps"]) : "";
    if (listen === undefined || typeof address === "string" || address.scheme === "coaps" || isLocal(address)) continue;
    report.node(listen, "whoever reaches this address can send readings: CoAP without DTLS asks nobody who they are");
  }
  warnOfHome(root, report);
  warnOfNoEffect(root, report);
  const links = new Map<string, number>();
  config.uplinks.forEach(({ clientId, urls }, index) => {
    for (const url of urls) {
      const key = `${clientId} ${url}`;
      const other = links.get(key);
      const node = root.nearest(["uplinks", index, "clientId"]);
      if (other !== undefined)
        report.node(node, `same client id and broker as uplinks[${other}]: they would throw each other out`);
      else links.set(key, index);
    }
  });
}

/** Caps that cannot all be kept: some queue would be full before its own limit. */
function warnOfCaps(config: Config, root: ConfigNode, report: Reporter): void {
  const parts: Array<readonly [name: string, bytes: number]> = [
    ...config.uplinks.map(({ queue }, index) => [`uplinks[${index}]`, queue.maxBytes] as const),
    ["retained", config.mqtt.limits.retained.maxBytes],
    ["dead letters", Math.min(config.deadLetters.maxBytes, lettersBytesMax(config.storage.maxBytes))],
  ];
  const sum = parts.reduce((total, [, bytes]) => total + bytes, 0);
  if (sum <= config.storage.maxBytes) return;
  const list = parts.map(([name, bytes]) => `${name} ${formatSize(bytes)}`).join(", ");
  const node = root.nearest(["storage", "maxBytes"]);
  const message = `the queues may hold ${formatSize(sum)} together, storage.maxBytes is ${formatSize(config.storage.maxBytes)} (${list})`;
  if (node === root) report.at(0, "storage.maxBytes", message);
  else report.node(node, message);
}

/** Only what the file says itself: the default gives way in silence. */
function warnOfLetters({ storage }: Config, root: ConfigNode, report: Reporter): void {
  const written = root.get("deadLetters")?.get("maxBytes");
  const bytes =
    typeof written?.scalar === "string" || typeof written?.scalar === "number" ? parseSize(written.scalar) : 0;
  const max = lettersBytesMax(storage.maxBytes);
  if (written !== undefined && (bytes ?? 0) > max)
    report.node(written, `dead letters get ${formatSize(max)}: a quarter of storage.maxBytes at most`);
}

function warnOfRules(uplink: ConfigNode, report: Reporter): void {
  const rules = uplink.list("forward");
  if (rules.length === 0 && uplink.list("receive").length === 0)
    report.node(uplink, 'it forwards nothing and receives nothing (forward: [ { topic: "#" } ])');
  const filters = rules.map((rule) => rule.text("topic")?.split("/") ?? []);
  for (const [at, filter] of filters.entries()) {
    const first = filters.findIndex((other, before) => before < at && filterCovers(other, filter));
    const node = rules[at]?.get("topic");
    if (first >= 0 && node !== undefined)
      report.node(
        node,
        `no message comes to this rule: forward[${first}] takes all of them (the first that matches decides)`,
      );
  }
}

const homePaths: ReadonlyArray<readonly string[]> = [
  ...pemPaths,
  ["gateway", "dataDir"],
  ["access", "usersFile"],
  ["routes", "*", "steps", "*", "validate"],
  ["codecs", "*", "schema"],
];

/** A shell's. Not refused: a gateway that was given one made the folder, and may have its data there. */
function warnOfHome(root: ConfigNode, report: Reporter): void {
  for (const node of homePaths.flatMap((path) => root.match(path)))
    if (typeof node.scalar === "string" && /^~(\/|$)/.test(node.scalar))
      report.node(node, "~ stands for no home folder here: it is a folder of that name, beside the config file");
}

/** Written, allowed, and without any effect beside the other keys. */
function warnOfNoEffect(root: ConfigNode, report: Reporter): void {
  for (const listener of root.get("mqtt")?.list("listeners") ?? []) {
    const tls = listener.get("tls");
    const ca = tls?.get("ca");
    if (ca !== undefined && (tls?.text("clientCert") ?? "none") === "none")
      report.node(ca, "no client is checked with it: clientCert is none (optional or required)");
  }
  for (const uplink of root.list("uplinks")) {
    warnOfRules(uplink, report);
    const meta = uplink.get("meta");
    if (meta !== undefined && (meta.items?.length ?? 0) > 0 && uplink.get("version")?.scalar === 4)
      report.node(meta, "MQTT 3.1.1 has no user properties: none are sent (version: 5, or envelope: json)");
  }
}
