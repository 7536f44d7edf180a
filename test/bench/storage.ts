import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { GatewayProcess, program } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import { CloudProcess } from "./cloudProcess.ts";
import { runLoad } from "./loadProcess.ts";
import type { BenchReport, Figure } from "./record.ts";
import { mebibytes, say, thousands } from "./report.ts";

/** The journal under the real binary: a backlog's memory, start and disk; bytes written. */

const scale = Number(process.env["TIDEGATE_BENCH_MESSAGES"] ?? 1_000_000);

export interface Stand {
  readonly gateway: GatewayProcess;
  readonly port: number;
  readonly httpPort: number;
  readonly cloudPort: number;
}

/** @param prefix of its command @param users as `tidegate passwd` writes them, their names with their passwords */
export async function stand(
  env: NodeJS.ProcessEnv = {},
  prefix: readonly string[] = [],
  users: Readonly<Record<string, string>> = {},
): Promise<Stand> {
  const [port = 0, httpPort = 0, cloudPort = 0] = await freePorts(3);
  const gateway = await GatewayProcess.create(`
mqtt:
  listeners: [ { url: "mqtt://127.0.0.1:${port}" } ]
  limits: { maxConnectionsPerAddress: 10000, maxSessions: 20000 }
http: { listen: "http://127.0.0.1:${httpPort}" }
access: { anonymous: true }
storage: { maxBytes: 8 GiB, minFreeBytes: 64 MiB }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    queue: { maxBytes: 6 GiB }
    backoff: { min: 200ms, max: 500ms }
    forward: [ { topic: "bench/sensor/#", to: "{topic}", qos: 1 } ]
`);
  gateway.prefix = prefix;
  for (const [name, password] of Object.entries(users)) {
    const made = spawnSync(process.execPath, [program, "passwd", "add", name, "-c", gateway.configFile], {
      input: password,
    });
    if (made.status !== 0) throw new Error(`tidegate passwd add: ${made.stderr}`);
  }
  await gateway.start(env);
  return { gateway, port, httpPort, cloudPort };
}

/** Resident memory now and at its highest, in bytes. */
function memory(pid: number): { now: number; highest: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const of = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1] ?? 0) * 1024;
  return { now: of("VmRSS"), highest: of("VmHWM") };
}

function folderBytes(gateway: GatewayProcess): number {
  const folder = join(gateway.dir, "tidegate-data");
  let bytes = 0;
  for (const name of readdirSync(folder)) {
    try {
      const { blocks } = statSync(join(folder, name));
      bytes += blocks * 512;
    } catch {
      // removed meanwhile
    }
  }
  return bytes;
}

export async function million(): Promise<BenchReport> {
  say(`\n${scale.toLocaleString("en")} messages of 200 B waiting for a cloud that is away`);
  const { gateway, port, cloudPort } = await stand();
  const cloud = new CloudProcess([cloudPort]);
  try {
    const load = await runLoad({ mode: "qos1", port, publishers: 100, window: 20, messages: scale });
    const filled = memory(gateway.pid);
    say(
      `  in         ${thousands(load.perSecond)}, RSS ${mebibytes(filled.now)}, highest ${mebibytes(filled.highest)}`,
    );
    const disk = folderBytes(gateway);
    await gateway.end("SIGKILL");
    const startMs = performance.now();
    await gateway.start();
    const readyMs = Math.round(performance.now() - startMs);
    say(`  ready      ${readyMs} ms after kill -9, RSS ${mebibytes(memory(gateway.pid).now)}, disk ${mebibytes(disk)}`);
    await cloud.open();
    await until("the link is up", async () => (await cloud.messages()) > 0, 20_000);
    const drainMs = performance.now();
    await until("all of it is in the cloud", async () => (await cloud.messages()) >= scale, 120_000);
    const seconds = (performance.now() - drainMs) / 1000;
    const drained = memory(gateway.pid);
    say(
      `  drain      ${thousands(scale / seconds)}, RSS ${mebibytes(drained.now)}, highest ${mebibytes(drained.highest)}`,
    );
    const endMs = performance.now();
    let leftMs = Number.POSITIVE_INFINITY;
    while (performance.now() - endMs < 10_000) {
      if (folderBytes(gateway) <= 40 * 1024 * 1024) leftMs = Math.min(leftMs, performance.now() - endMs);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const left = folderBytes(gateway);
    const when = Number.isFinite(leftMs) ? `under 40 MiB after ${(leftMs / 1000).toFixed(1)} s` : "not under 40 MiB";
    say(`  disk back  ${when}, ${mebibytes(left)} after 10 s`);
    const less = (name: string, unit: string, value: number): Figure => ({
      name,
      unit,
      better: "less",
      values: [value],
    });
    const more = (name: string, value: number): Figure => ({ name, unit: "msg/s", better: "more", values: [value] });
    return {
      name: "million",
      figures: [
        ...[more("in", Math.round(load.perSecond)), more("drain", Math.round(scale / seconds))],
        ...[
          less("ready after kill -9", "ms", readyMs),
          less("disk when full", "B", disk),
          less("disk 10 s after", "B", left),
        ],
        ...[less("RSS when full", "B", filled.now), less("highest RSS", "B", drained.highest)],
      ],
    };
  } finally {
    await cloud.stop();
    await gateway.remove();
  }
}

/** Bytes that the process caused to be written to the disk. */
const written = (pid: number): number =>
  Number(/^write_bytes: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1] ?? 0);

export async function lonely(): Promise<BenchReport> {
  const { gateway, port } = await stand();
  try {
    await runLoad({ mode: "trickle", port, seconds: 15 }); // until a segment is prepared
    const before = written(gateway.pid);
    const { messages } = await runLoad({ mode: "trickle", port, seconds: 20 });
    const each = (written(gateway.pid) - before) / messages;
    say(`\nOne QoS 1 message of 200 B each 100 ms\n  written    ${Math.round(each)} B each (${messages} messages)`);
    const values = [Math.round(each)];
    return { name: "lonely", figures: [{ name: "written for a message", unit: "B", better: "less", values }] };
  } finally {
    await gateway.remove();
  }
}
