import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";

/**
 * How much the store holds, with how little memory: `node --import tsx test/bench/storageScale.ts '{"messages":5000000,"uplinks":3,"priorities":10}'`.
 * Loads, kills -9, opens again, drains in order and waits for the disk to be given back; prints one JSON line.
 */
export interface ScaleOptions {
  readonly messages: number;
  readonly uplinks: number;
  readonly priorities: number;
  readonly payloadBytes: number;
  /** Handed out and not settled, at most, per uplink. */
  readonly window: number;
  /** `--max-old-space-size` of both processes, MiB. */
  readonly heapMiB: number;
  /** After the load, before memory is looked at. */
  readonly settleMs: number;
  readonly dir: string;
  /** More arguments for node, e.g. --cpu-prof. */
  readonly nodeArguments: readonly string[];
}

/** Memory in MiB. */
export interface StageReport {
  readonly stage: "load" | "drain";
  readonly perSecond: number;
  readonly rssPeak: number;
  readonly rssAfter: number;
  readonly diskBytes: number;
  readonly cpuMs: number;
  readonly heap?: number;
  readonly buffers?: number;
  readonly reopenMs?: number;
  readonly rssOpened?: number;
  /** Not handed out; handed out in another order than put in. */
  readonly missing?: number;
  readonly wrong?: number;
  /** Until the folder was at 40 MiB or less; 30 s at most. */
  readonly givenBackMs?: number;
}

export const scaleDefaults: Omit<ScaleOptions, "dir"> = {
  messages: 1_000_000,
  uplinks: 1,
  priorities: 1,
  payloadBytes: 200,
  window: 1000,
  heapMiB: 64,
  settleMs: 2000,
  nodeArguments: [],
};

async function run(stage: "load" | "drain", script: string, options: ScaleOptions): Promise<StageReport> {
  const flags = [`--max-old-space-size=${options.heapMiB}`, ...options.nodeArguments];
  const child = spawn(process.execPath, [...flags, script, stage, JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = once(child, "close");
  let report: StageReport | undefined;
  for await (const line of createInterface(child.stdout)) {
    report = JSON.parse(line) as StageReport;
    if (stage === "load") child.kill("SIGKILL");
  }
  await closed;
  if (report === undefined) throw new Error(`stage ${stage} ended without a report`);
  return report;
}

/** Both stages; the folder is removed afterwards. */
export async function measureScale(
  given: Partial<ScaleOptions>,
): Promise<{ options: ScaleOptions; load: StageReport; drain: StageReport }> {
  const folder = await mkdtemp(join(given.dir ?? tmpdir(), "tidegate-scale-"));
  const options = { ...scaleDefaults, ...given, dir: join(folder, "data") };
  try {
    const outfile = join(folder, "stage.mjs"); // bundled, so that no loader is in the memory that is measured
    await build({
      entryPoints: [join(import.meta.dirname, "storageStage.ts")],
      ...{ bundle: true, platform: "node", format: "esm", target: "node20", outfile, logLevel: "error" },
      banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
    });
    const load = await run("load", outfile, options);
    const drain = await run("drain", outfile, options);
    return { options, load, drain };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const result = await measureScale(JSON.parse(process.argv[2] ?? "{}") as Partial<ScaleOptions>);
  process.stdout.write(`${JSON.stringify(result, undefined, 1)}\n`);
}
