/** The programs of Debian's paho.mqtt.c-examples: paho_c_* is the asynchronous library, paho_cs_* the synchronous one. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keepOpen, startPeer } from "../../helpers/peers.ts";
import { until } from "../../helpers/wait.ts";
import { type Door, type Kit, type Seen, urlOf, type Version } from "./kit.ts";

const flags = { "3.1": "31", "3.1.1": "311", "5": "5" } as const;

/** They trace each packet, which is how we know that they are subscribed, or that everything is acknowledged. */
function common(door: Door, version: Version): string[] {
  const secure =
    (door.scheme === "mqtts" || door.scheme === "wss") && door.tls !== undefined ? ["--cafile", door.tls.ca] : [];
  const url = urlOf(door).replace("mqtts:", "ssl:").replace("mqtt:", "tcp:");
  return ["-c", url, "-V", flags[version], "--trace", "protocol", ...secure];
}

/** `TOPIC<tab>PAYLOAD`, with a length in front in the asynchronous one; the trace goes to stderr. */
function seen(stdout: string): Seen[] {
  const lines = stdout.split("\n");
  lines.pop(); // not whole yet
  return lines.flatMap((line) => {
    const [, topic, payload] = /^(?:\d+ )?([^\t]+)\t(.*)$/.exec(line) ?? [];
    return topic === undefined ? [] : [{ topic, payload: payload ?? "", qos: undefined, retain: undefined }];
  });
}

const stepMax = 50;
const answers = [/-> PUBLISH/g, /<- PUBACK/g, /<- PUBCOMP/g] as const;

function kit(prefix: "paho_c" | "paho_cs"): Kit {
  return {
    ...{ name: `${prefix}_pub, ${prefix}_sub`, needs: [`${prefix}_pub`, `${prefix}_sub`] },
    ...{
      schemes: prefix === "paho_c" ? ["mqtt", "mqtts", "ws", "wss"] : ["mqtt", "mqtts"],
      keepsSessions: false,
      tellsFlags: false,
      properties: false,
    },
    ...{ ordersProperties: false, waits: prefix === "paho_cs", readsOneFrame: ["ws", "wss"] },
    async subscribe(door, { version, filter, qos, clientId, will }) {
      const peer = startPeer(`${prefix}_sub`, [
        ...[...common(door, version), "-t", filter, "-q", String(qos), "--verbose"],
        ...(clientId === undefined ? [] : ["-i", clientId]),
        ...(will === undefined ? [] : ["--will-topic", will.topic, "--will-payload", will.payload]),
        ...(will === undefined ? [] : ["--will-qos", String(will.qos)]),
      ]);
      await until(`${prefix}_sub is subscribed`, () => peer.output().includes("<- SUBACK"));
      return { seen: () => seen(peer.stdout()), leave: () => peer.stop("SIGINT"), kill: () => peer.stop("SIGKILL") };
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
      const sent = (count: number): Promise<unknown> =>
        until(
          `${prefix}_pub has sent ${count}; ${peer.output().slice(-1500)}`,
          () => peer.child.exitCode !== null || acknowledged() >= count,
        );
      // At the end of its input it would go on with bytes 0xff, so the input stays open until everything is acknowledged; and what is more than
      // the library's buffer of 100 messages it throws away.
      for (let at = 0; at < payloads.length && !whole; at += stepMax) {
        peer.child.stdin?.write(`${payloads.slice(at, at + stepMax).join("\n")}\n`);
        await sent(Math.min(at + stepMax, payloads.length));
      }
      if (!whole) peer.child.kill("SIGKILL"); // it hears no other signal while it waits for input
      const code = await peer.ended;
      await rm(folder, { recursive: true, force: true });
      if (whole && code !== 0) throw new Error(`${prefix}_pub ended with ${code}: ${peer.output().slice(-2000)}`);
    },
  };
}

export const pahoC = kit("paho_c");
export const pahoCs = kit("paho_cs");
