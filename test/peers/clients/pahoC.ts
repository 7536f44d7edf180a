/** The programs of Debian's paho.mqtt.c-examples: paho_c_* is the asynchronous library, paho_cs_* the synchronous one. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keepOpen, startPeer } from "../../helpers/peers.ts";
import { until } from "../../helpers/wait.ts";
import { type Door, type Kit, type Seen, urlOf, type Version } from "./kit.ts";

const flags = { "3.1.1": "311", "5": "5" } as const;

/** They trace each packet, which is how we know that they are subscribed, or that everything is acknowledged. */
function common(door: Door, version: Version): string[] {
  const secure = door.scheme.endsWith("s") && door.tls !== undefined ? ["--cafile", door.tls.ca] : [];
  const url = urlOf(door).replace("mqtts:", "ssl:").replace("mqtt:", "tcp:");
  return ["-c", url, "-V", flags[version], "--trace", "protocol", ...secure];
}

/** `LENGTH TOPIC<tab>PAYLOAD<line end>`, and lines of the trace between them. */
function seen(output: string): Seen[] {
  const found: Seen[] = [];
  let at = 0;
  while (at < output.length) {
    const head = /^(\d+) ([^\t\n]+)\t/.exec(output.slice(at, at + 200));
    if (head === null) {
      const end = output.indexOf("\n", at);
      if (end < 0) break;
      at = end + 1;
      continue;
    }
    const start = at + head[0].length;
    const end = start + Number(head[1]);
    if (output.length <= end) break; // its last bytes are not printed yet
    found.push({ topic: head[2] ?? "", payload: output.slice(start, end), qos: undefined, retain: undefined });
    at = end + 1;
  }
  return found;
}

const answers = [/\bPUBLISH msgid/g, /<- PUBACK/g, /<- PUBCOMP/g] as const;

function kit(prefix: "paho_c" | "paho_cs"): Kit {
  return {
    ...{ name: `${prefix}_pub, ${prefix}_sub`, needs: [`${prefix}_pub`, `${prefix}_sub`] },
    ...{ schemes: ["mqtt", "mqtts", "ws", "wss"], keepsSessions: false, tellsFlags: false, properties: false },
    ...{ ordersProperties: false, ending: "\n" },
    async subscribe(door, { version, filter, qos, clientId, will }) {
      const peer = startPeer(`${prefix}_sub`, [
        ...[...common(door, version), "-t", filter, "-q", String(qos), "--verbose"],
        ...(clientId === undefined ? [] : ["-i", clientId]),
        ...(will === undefined ? [] : ["--will-topic", will.topic, "--will-payload", will.payload]),
        ...(will === undefined ? [] : ["--will-qos", String(will.qos)]),
      ]);
      await until(`${prefix}_sub is subscribed`, () => peer.output().includes("<- SUBACK"));
      return { seen: () => seen(peer.output()), leave: () => peer.stop("SIGINT"), kill: () => peer.stop("SIGKILL") };
    },
    async publish(door, { version, topic, qos, retain }, payloads) {
      const folder = await mkdtemp(join(tmpdir(), "tidegate-"));
      const whole = payloads.length === 1;
      if (whole) await writeFile(join(folder, "payload"), payloads[0] ?? "");
      const what = whole ? ["-f", join(folder, "payload")] : ["--maxdatalen", "1000"];
      const args = [...common(door, version), "-t", topic, "-q", String(qos), ...(retain === true ? ["-r"] : [])];
      const empty = payloads[0] === "" ? ["-n"] : what;
      const peer = startPeer(`${prefix}_pub`, [...args, ...empty], keepOpen);
      const acknowledged = (): number => peer.output().match(answers[qos])?.length ?? 0;
      // At the end of its input it would go on with bytes 0xff, so the input stays open until everything is acknowledged.
      if (!whole) peer.child.stdin?.write(`${payloads.join("\n")}\n`);
      await until(
        `${prefix}_pub has sent all of it`,
        () => peer.child.exitCode !== null || acknowledged() >= payloads.length,
      );
      if (!whole) peer.child.kill("SIGINT");
      const code = await peer.ended;
      await rm(folder, { recursive: true, force: true });
      if (code !== 0) throw new Error(`${prefix}_pub ended with ${code}: ${peer.output().slice(-2000)}`);
    },
  };
}

export const pahoC = kit("paho_c");
export const pahoCs = kit("paho_cs");
