import { readFileSync } from "node:fs";
import { type PeerProcess, runPeer, startPeer } from "../../helpers/peers.ts";
import { until } from "../../helpers/wait.ts";
import type { Door, Kit, MessageProperties, Seen, Version } from "./kit.ts";

const flags = { "3.1": "mqttv31", "3.1.1": "mqttv311", "5": "mqttv5" } as const;

function common({ scheme, port, tls }: Door, version: Version): string[] {
  const secure = scheme === "mqtts" && tls !== undefined ? ["--cafile", tls.ca] : [];
  return ["-h", "127.0.0.1", "-p", String(port), "-V", flags[version], ...secure];
}

function given(properties: MessageProperties = {}): string[] {
  const { userProperties = [], correlationData, responseTopic, contentType, messageExpiry, payloadFormat } = properties;
  const args: string[] = [];
  const one = (name: string, ...values: ReadonlyArray<string | number | undefined>): void => {
    if (values[0] !== undefined) args.push("-D", "publish", name, ...values.map(String));
  };
  for (const [name, value] of userProperties) one("user-property", name, value);
  one("correlation-data", correlationData && Buffer.from(correlationData, "hex").toString("latin1"));
  one("response-topic", responseTopic);
  one("content-type", contentType);
  one("message-expiry-interval", messageExpiry);
  one("payload-format-indicator", payloadFormat);
  return args;
}

/** One line a message; the payload as hex, so that no byte of it is taken for a line's end. %P puts blanks between pairs, so it comes last. */
const format = "message %t %q %r %x |%F|%E|%C|%R|%D|%P";

function parsed(line: string): Seen {
  const [, topic = "", qos, retain, hex = ""] = line.split(" ", 5);
  const [, payloadFormat, expiry, contentType, responseTopic, correlation, pairs] = line.split("|");
  const properties = {
    ...(payloadFormat ? { payloadFormat: Number(payloadFormat) as 0 | 1 } : {}),
    ...(expiry ? { messageExpiry: Number(expiry) } : {}),
    ...(contentType ? { contentType } : {}),
    ...(responseTopic ? { responseTopic } : {}),
    ...(correlation ? { correlationData: Buffer.from(correlation, "latin1").toString("hex") } : {}),
    userProperties: (pairs ?? "")
      .split(" ")
      .filter((pair) => pair !== "")
      .map((pair): readonly [string, string] => {
        const [name = "", value = ""] = pair.split(":");
        return [name, value];
      }),
  };
  const payload = Buffer.from(hex, "hex").toString("latin1");
  return { topic, payload, qos: Number(qos), retain: retain === "1", properties };
}

function seen(peer: PeerProcess): Seen[] {
  const lines = peer.output().split("\n");
  lines.pop(); // not whole yet
  return lines.filter((line) => line.startsWith("message ")).map(parsed);
}

/**
 * Not in the middle of a line: mosquitto_sub 2.0.11 ends in its signal handler, and what the C library has just written to the pipe and not noted yet is
 * written once more (seen with -d: one PUBLISH came, two lines).
 */
async function leave(peer: PeerProcess): Promise<void> {
  const { pid, exitCode } = peer.child;
  if (exitCode === null && process.platform === "linux")
    await until("mosquitto_sub waits", () => / S /.test(readFileSync(`/proc/${pid}/stat`, "latin1")));
  await peer.stop("SIGINT");
}

export const mosquitto: Kit = {
  ...{ name: "mosquitto_pub, mosquitto_sub", needs: ["mosquitto_pub", "mosquitto_sub"], schemes: ["mqtt", "mqtts"] },
  ...{
    keepsSessions: true,
    tellsFlags: true,
    properties: true,
    ordersProperties: true,
    waits: false,
    readsOneFrame: [],
  },
  async subscribe(door, { version, filter, qos, clientId, persistent, will }) {
    const expiry = version === "5" ? ["-x", "3600"] : [];
    const peer = startPeer("mosquitto_sub", [
      ...common(door, version),
      ...["-d", "-q", String(qos), "-t", filter, "-F", format],
      ...(clientId === undefined ? [] : ["-i", clientId]),
      ...(persistent === true ? ["-c", ...expiry] : []),
      ...(will === undefined ? [] : ["--will-topic", will.topic, "--will-payload", will.payload]),
      ...(will === undefined ? [] : ["--will-qos", String(will.qos)]),
    ]);
    await until("mosquitto_sub is subscribed", () => peer.output().includes("Subscribed"));
    return { seen: () => seen(peer), leave: () => leave(peer), kill: () => peer.stop("SIGKILL") };
  },
  async publish(door, { version, topic, qos, retain, properties }, payloads) {
    const options = ["-t", topic, "-q", String(qos), ...(retain === true ? ["-r"] : []), ...given(properties)];
    const whole = payloads.length === 1; // else a line each
    const input = whole ? (payloads[0] ?? "") : `${payloads.join("\n")}\n`;
    const empty = payloads[0] === "" ? ["-n"] : ["-s"];
    const args = [...common(door, version), ...options, ...(whole ? empty : ["-l"])];
    const { code, output } = await runPeer("mosquitto_pub", args, input);
    if (code !== 0) throw new Error(`mosquitto_pub ended with ${code}: ${output}`);
  },
};
