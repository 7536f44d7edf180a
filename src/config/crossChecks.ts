/**
 * Rules between keys. They look at what the file says, not at the parsed config, so that they speak up together with everything that the
 * schema finds; what the schema refuses anyway (wrong types) they step over.
 */
import { parseTemplate } from "../base/template.ts";
import { parseAddress } from "./address.ts";
import { builtInCodecs } from "./codecs.ts";
import type { ConfigNode, Reporter } from "./document.ts";
import { nameFault } from "./fields.ts";
import { nearest, pathText } from "./problems.ts";
import { placeholder, shown } from "./shown.ts";
import { checkStruct } from "./structChecks.ts";
import { parseDuration } from "./units.ts";

export function crossCheck(root: ConfigNode, report: Reporter): void {
  for (const section of ["sources", "routes", "uplinks"]) checkNames(root.list(section), section.slice(0, -1), report);
  checkSerialPaths(root.list("sources"), report);
  checkCodecs(root, report);
  for (const rule of root.get("access")?.list("rules") ?? []) checkRule(rule, report);
  for (const source of root.list("sources")) checkSource(source, root, report);
  for (const route of root.list("routes")) checkRoute(route, root, report);
  for (const uplink of root.list("uplinks")) checkUplink(uplink, report);
}

function checkNames(entries: readonly ConfigNode[], what: string, report: Reporter): void {
  const seen = new Set<string>();
  for (const entry of entries) {
    const name = entry.text("name");
    const node = entry.get("name");
    if (name === undefined || node === undefined || node.broken) continue;
    if (seen.has(name)) report.node(node, `another ${what} has the name ${shown(node)} already (each name once)`);
    seen.add(name);
  }
}

/** A port has one reader; the second source would for ever find it locked. */
function checkSerialPaths(sources: readonly ConfigNode[], report: Reporter): void {
  const seen = new Set<string>();
  for (const source of sources) {
    const node = source.get("path");
    if (source.text("type") !== "serial" || typeof node?.scalar !== "string" || node.broken) continue;
    const path = node.scalar.startsWith("usb:") ? node.scalar.toLowerCase() : node.scalar;
    if (seen.has(path)) report.node(node, "another source reads this port already (one source a port)");
    seen.add(path);
  }
}

// ---------------------------------------------------------------- codecs

function checkCodecs(root: ConfigNode, report: Reporter): void {
  for (const [name, codec] of root.get("codecs")?.entries ?? []) {
    const path = pathText(codec.path);
    if (name === "auto" || (builtInCodecs as readonly string[]).includes(name)) {
      report.at(codec.keyAt, path, "the name of a built-in codec (any other name; the built-in ones need no entry)");
    } else if (nameFault(name) !== null) {
      report.at(codec.keyAt, path, "not a name (letters, digits, - _ . and at most 64 of them)");
    }
    if (codec.text("type") === "struct") checkStruct(codec, report);
  }
}

/** @param auto whether the codec may be chosen by Content-Format */
function checkCodecName(holder: ConfigNode, key: string, root: ConfigNode, report: Reporter, auto = false): void {
  const name = holder.text(key);
  const node = holder.get(key);
  if (name === undefined || node === undefined || node.broken || name === "") return;
  const own = root.get("codecs")?.entries?.keys() ?? [];
  const known = [...new Set([...own, ...builtInCodecs, ...(auto ? ["auto"] : [])])];
  if (known.includes(name)) return;
  if (name === "auto")
    return report.node(node, `auto needs a Content-Format, which only coap-server has (${known.join(", ")})`);
  const hint = `did you mean "${nearest(name, known)}"? (under codecs: or built in: ${known.join(", ")})`;
  report.node(node, `there is no codec ${shown(node)}, ${hint}`);
}

// ---------------------------------------------------------------- access, sources, routes

function checkRule(rule: ConfigNode, report: Reporter): void {
  const written = ["allow", "deny"].filter((key) => rule.get(key) !== undefined);
  if (rule.entries !== undefined && written.length !== 1) {
    report.node(rule, `${written.length === 0 ? "neither allow nor deny" : "both allow and deny"} (one of them)`);
  }
  const users = rule.get("users");
  if (users?.items?.length === 0) report.node(users, "nobody (leave users out for everybody)");
  const topic = rule.get("topic");
  if (topic !== undefined && rule.text("topic")?.startsWith("$share/")) {
    report.node(topic, "a shared subscription (the filter without $share: rules hold for shared ones too)");
  }
}

function checkSource(source: ConfigNode, root: ConfigNode, report: Reporter): void {
  const type = source.text("type");
  checkCodecName(source, "decode", root, report, type === "coap-server");
  checkCodecName(source, "ack", root, report);
  const commands = source.get("commands");
  if (commands !== undefined) checkCodecName(commands, "encode", root, report);
  checkReadingTopic(source, root, report);
  checkAck(source, root, report);
  const every = source.get("every");
  if (type === "coap" && every !== undefined && source.get("observe")?.scalar === true) {
    report.node(every, "observe: true and every exclude each other (one of them)");
  }
  if (type === "coap" && every === undefined && source.get("observe")?.scalar === false) {
    report.missing(source, "every", "is missing (without observe a source asks at an interval: every: 30s)");
  }
  const url = source.get(type === "coap-server" ? "listen" : "url");
  const address = typeof url?.scalar === "string" ? parseAddress(url.scalar, ["coap", "coaps"]) : "";
  if (typeof address === "string" || (type !== "coap" && type !== "coap-server")) return;
  if (type === "coap-server" && address.path !== "" && url !== undefined) {
    report.node(url, "a path is not possible here (coap://HOST:PORT; sensors choose the path, {path} in the topic)");
  }
  const psk = source.get("psk");
  if (address.scheme === "coaps" && psk === undefined)
    report.missing(source, "psk", "is missing (coaps:// needs psk: { identity, key })");
  if (address.scheme === "coap" && psk !== undefined)
    report.node(psk, "not possible with coap:// (coaps://, or take psk away)");
}

/** With a struct all fields are known, so a name in the topic that is none of them would make every reading undecodable. */
function checkReadingTopic(source: ConfigNode, root: ConfigNode, report: Reporter): void {
  const names = templateNames(source, "topic");
  const codec = root.get("codecs")?.get(source.text("decode") ?? "");
  const topic = source.get("topic");
  if (topic === undefined || codec?.text("type") !== "struct") return;
  const fields = codec.list("fields").map((field) => field.text("name") ?? "");
  const known = [...fields, "source", "gateway", ...(source.text("type") === "coap-server" ? ["path"] : [])];
  const unknown = names.find((name) => !known.includes(name.split(".")[0] ?? ""));
  if (unknown !== undefined)
    report.node(topic, `${placeholder(topic, unknown)} is no field of the codec (${known.join(", ")})`);
}

/** What an acknowledgement asks for it takes from the reading: without it the device would never get one, and send for ever. */
function checkAck(source: ConfigNode, root: ConfigNode, report: Reporter): void {
  const [ack, reading] = ["ack", "decode"].map((key) => root.get("codecs")?.get(source.text(key) ?? ""));
  const node = source.get("ack");
  if (node === undefined || ack?.text("type") !== "struct" || reading?.text("type") !== "struct") return;
  const given = reading.list("fields").map((field) => field.text("name"));
  const asked = ack
    .list("fields")
    .find((field) => field.get("const") === undefined && !given.includes(field.text("name")));
  const name = asked?.get("name");
  if (name !== undefined)
    report.node(node, `its field ${shown(name)} is no field of the reading (one of them, or a field with const)`);
}

const stepKeys = ["decode", "map", "validate", "deadband"];

function checkRoute(route: ConfigNode, root: ConfigNode, report: Reporter): void {
  const from = route.text("from");
  const to = route.get("to");
  if (from !== undefined && to !== undefined) checkCaptures(to, templateNames(route, "to"), from, report);
  if (from?.startsWith("$share/"))
    report.node(route.get("from") ?? route, "a shared subscription (a topic filter without $share)");
  for (const step of route.list("steps")) {
    const written = stepKeys.filter((key) => step.get(key) !== undefined);
    if (step.entries !== undefined && written.length !== 1)
      report.node(step, `${written.length} kinds of step (one of ${stepKeys.join(", ")})`);
    checkCodecName(step, "decode", root, report);
  }
  for (const step of route.list("steps").slice(1)) {
    const decode = step.get("decode");
    if (decode !== undefined) report.node(decode, "decode reads the message's bytes (as the first step)");
  }
}

// ---------------------------------------------------------------- uplinks

function checkUplink(uplink: ConfigNode, report: Reporter): void {
  checkUplinkUrls(uplink, report);
  const password = uplink.get("password");
  if (password !== undefined && uplink.get("username") === undefined && uplink.get("version")?.scalar === 4) {
    report.missing(uplink, "username", "is missing (MQTT 3.1.1 has no password without a user name)"); // [MQTT-3.1.2-22]
  }
  const tls = uplink.get("tls");
  for (const [one, other] of [
    ["cert", "key"],
    ["key", "cert"],
  ] as const) {
    if (tls?.get(one) !== undefined && tls.get(other) === undefined)
      report.missing(tls, other, "is missing (cert and key go together)");
  }
  const backoff = uplink.get("backoff");
  const [min, max] = [durationOf(backoff?.get("min")) ?? 1000, durationOf(backoff?.get("max")) ?? 60_000];
  if (backoff !== undefined && min > max) report.node(backoff, "min is above max (min: 1s, max: 60s)");
  for (const rule of uplink.list("forward")) checkRuleTemplate(rule, rule.text("topic"), report);
  for (const rule of uplink.list("receive")) {
    const topic = rule.text("topic");
    checkRuleTemplate(rule, topic?.replaceAll("{gateway}", "x"), report);
    const unknown = templateNames(rule, "topic").find((name) => name !== "gateway");
    const node = rule.get("topic");
    if (unknown !== undefined && node !== undefined)
      report.node(node, `${placeholder(node, unknown)} has no value here ({gateway})`);
  }
}

function checkUplinkUrls(uplink: ConfigNode, report: Reporter): void {
  if (uplink.entries === undefined) return;
  const url = uplink.get("url");
  const urls = uplink.list("urls");
  if (url === undefined && urls.length === 0)
    report.missing(uplink, "url", "is missing (mqtts://HOST:8883; or urls, a list)");
  if (url !== undefined && urls.length > 0) report.node(url, "url and urls exclude each other (one of them)");
  const tls = uplink.get("tls");
  const written = url === undefined ? urls : [url];
  const plain = (node: ConfigNode): boolean => typeof node.scalar === "string" && /^mqtt:/i.test(node.scalar);
  if (tls !== undefined && written.length > 0 && written.every(plain)) {
    report.node(tls, "not possible with mqtt:// (mqtts://, or take tls away)");
  }
}

function checkRuleTemplate(rule: ConfigNode, filter: string | undefined, report: Reporter): void {
  const to = rule.get("to");
  if (to === undefined || filter === undefined) return;
  const names = templateNames(rule, "to");
  const unknown = names.find((name) => !/^(gateway|topic|rest|\d+)$/.test(name));
  if (unknown !== undefined)
    report.node(to, `${placeholder(to, unknown)} has no value here ({gateway}, {topic}, {rest}, {1}...)`);
  checkCaptures(to, names, filter, report);
}

/** {3} without a third +, or {rest} without #, could never be filled. */
function checkCaptures(to: ConfigNode, names: readonly string[], filter: string, report: Reporter): void {
  const plus = filter.split("/").filter((level) => level === "+").length;
  for (const name of names) {
    if (/^\d+$/.test(name) && (Number(name) < 1 || Number(name) > plus)) {
      report.node(
        to,
        `${placeholder(to, name)} has no value (the filter has ${plus === 0 ? "no" : `${plus} times`} +)`,
      );
    }
    if (name === "rest" && !filter.endsWith("#")) report.node(to, "{rest} has no value (the filter has no #)");
  }
}

function templateNames(holder: ConfigNode, key: string): readonly string[] {
  try {
    return parseTemplate(holder.text(key) ?? "").names;
  } catch {
    return []; // the schema says so
  }
}

const durationOf = (node: ConfigNode | undefined): number | undefined =>
  typeof node?.scalar === "string" || typeof node?.scalar === "number" ? parseDuration(node.scalar) : undefined;
