import { spawnSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { peerPath } from "../helpers/peers.ts";
import { until } from "../helpers/wait.ts";
import { runLoad } from "./loadProcess.ts";
import type { BenchReport, Figure } from "./record.ts";
import { median, say, thousands } from "./report.ts";
import { stand } from "./storage.ts";

/**
 * Syncs while clients log in, by two clocks: `strace` times the system call itself, in its thread (only that call is traced, by a seccomp filter,
 * so the others run at their speed), and the gateway's histogram times writing and syncing a group until the event loop hears of it. The
 * first is what must not be held up; the second has the turns of the loop in it.
 */
const rounds = 5;
const secondsEach = 10;

const password = "bench of log-ins";
const flood = { mode: "logins", window: 50, seconds: secondsEach } as const;
const user = { username: "bench", password };
/** nameless: anonymous log-ins. passwords: half of them right, half of them wrong. */
const kinds = ["quiet", "nameless", "passwords"] as const;
type Kind = (typeof kinds)[number];
type Kinds = Record<Kind, number[]>;

interface Reading {
  /** Bytes of the trace so far. */
  readonly traced: number;
  readonly histogram: string;
}

async function metrics(httpPort: number): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
}

/** Buckets of the sync histogram, cumulative. */
function syncs(text: string): Array<{ le: number; count: number }> {
  const lines = text.matchAll(/^tidegate_storage_sync_seconds_bucket\{le="([^"]+)"\} (\d+)/gm);
  return [...lines].map(([, le, count]) => ({
    le: le === "+Inf" ? Number.POSITIVE_INFINITY : Number(le),
    count: Number(count),
  }));
}

/** The 99th percentile between two readings, by linear interpolation in its bucket; ms. */
function p99(before: string, after: string): number {
  const old = syncs(before);
  const grown = syncs(after).map(({ le, count }, at) => ({ le, count: count - (old[at]?.count ?? 0) }));
  const wanted = (grown.at(-1)?.count ?? 0) * 0.99;
  let below = { le: 0, count: 0 };
  for (const bucket of grown) {
    if (bucket.count >= wanted) {
      const share = (wanted - below.count) / Math.max(1, bucket.count - below.count);
      return 1000 * (below.le + share * (Math.min(bucket.le, 60) - below.le));
    }
    below = bucket;
  }
  return Number.NaN;
}

/** Times of the calls in a part of a trace, ms. */
function calls(trace: string): number[] {
  return [...trace.matchAll(/fdatasync(?:\(\d+\)| resumed>\)) += 0 <([\d.]+)>/g)].map(
    ([, seconds]) => Number(seconds) * 1000,
  );
}

const percentile = (values: readonly number[], share: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN;

export async function syncsUnderLogins(): Promise<BenchReport> {
  const dir = await mkdtemp(join(tmpdir(), "tidegate-bench-"));
  const file = join(dir, "trace");
  const tracer = ["strace", "-D", "-f", "--seccomp-bpf", "-T", "-e", "trace=fdatasync", "-o", file, "--"];
  const hasStrace = spawnSync("which", ["strace"], { env: { PATH: peerPath } }).status === 0;
  if (!hasStrace) say("\nstrace is not on the PATH: the histogram alone (apt-get install strace)");
  const { gateway, port, httpPort } = await stand({}, hasStrace ? tracer : [], { bench: password });
  const trace = async (): Promise<string> => (hasStrace ? await readFile(file, "latin1") : "");
  const read = async (): Promise<Reading> => ({ traced: (await trace()).length, histogram: await metrics(httpPort) });
  const heard: Kinds = { quiet: [], nameless: [], passwords: [] };
  const called: Kinds = { quiet: [], nameless: [], passwords: [] };
  const logins: Record<Kind, number> = { quiet: 0, nameless: 0, passwords: 0 };
  try {
    await runLoad({ mode: "trickle", port, seconds: 2 });
    for (let round = 0; round < rounds; round += 1) {
      for (const kind of kinds) {
        const before = await read();
        const [, flooding] = await Promise.all([
          runLoad({ mode: "trickle", port, seconds: secondsEach }),
          kind === "quiet" ? undefined : runLoad({ ...flood, port, ...(kind === "passwords" ? user : {}) }),
        ]);
        logins[kind] = flooding?.perSecond ?? 0;
        heard[kind].push(p99(before.histogram, await metrics(httpPort)));
        if (hasStrace)
          await until("the trace has them", async () => calls((await trace()).slice(before.traced)).length > 0);
        called[kind].push(...calls((await trace()).slice(before.traced)));
      }
    }
    return report(logins, heard, called);
  } finally {
    await gateway.remove();
    await rm(dir, { recursive: true, force: true });
  }
}

function report(logins: Record<Kind, number>, heard: Kinds, called: Kinds): BenchReport {
  say(`\nfdatasync, p99, ms: of the call (of a group's write and sync, until the event loop hears of it)`);
  const calls = percentile(called.quiet, 0.99);
  const groups = median(heard.quiet);
  const figures: Figure[] = [];
  for (const kind of kinds) {
    const [call, group] = [percentile(called[kind], 0.99), median(heard[kind])];
    const ratios = kind === "quiet" ? "" : `, ${(call / calls).toFixed(2)} x (${(group / groups).toFixed(2)} x)`;
    const rate = kind === "quiet" ? "" : ` ${thousands(logins[kind])}`;
    say(
      `  ${`${kind}${rate}`.padEnd(20)} ${call.toFixed(2)} (${group.toFixed(2)})${ratios}, ${called[kind].length} calls`,
    );
    if (Number.isFinite(call))
      figures.push({ name: `fdatasync p99, ${kind}`, unit: "ms", better: "less", values: [call] });
    figures.push({ name: `write and sync p99, ${kind}`, unit: "ms", better: "less", values: heard[kind] });
  }
  return { name: "logins", figures };
}
