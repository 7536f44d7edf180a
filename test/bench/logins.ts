import { runLoad } from "./loadProcess.ts";
import type { BenchReport, Figure } from "./record.ts";
import { median, say, thousands } from "./report.ts";
import { stand } from "./storage.ts";
import { type SyncCall, SyncTrace } from "./syncTrace.ts";

/**
 * Syncs while clients log in, by two clocks: the kernel's tracepoints time the system call itself, and what of it its thread waited for a core; the
 * gateway's histogram times writing and syncing a group until the event loop hears of it. The first is what must not be held up; the second
 * has the turns of the loop in it.
 *
 * The flooding client runs on the same machine and takes a core of it. `away` is the nearest to one that does not: with the policy SCHED_IDLE any
 * thread of the gateway has that core as soon as it wants it. As root the
 * gateway may put its syncs first, as its systemd unit lets it.
 */
const rounds = 5;
const secondsEach = 10;

const password = "bench of log-ins";
const flood = { mode: "logins", window: 50, seconds: secondsEach } as const;
const user = { username: "bench", password };
/**
 * nameless: anonymous log-ins; away: the same, with a client that gives way. passwords: half of them right, half of them wrong, from one address, which
 * is slowed down for it. strangers: the same from 4000 addresses, so that there is always one to hash.
 */
const floods = {
  quiet: undefined,
  nameless: flood,
  away: flood,
  passwords: { ...flood, ...user },
  strangers: { ...flood, ...user, addresses: 4000 },
} as const;
type Kind = keyof typeof floods;
const kinds = Object.keys(floods) as Kind[];
type Kinds<T> = Record<Kind, T[]>;
const none = <T>(): Kinds<T> => ({ quiet: [], nameless: [], away: [], passwords: [], strangers: [] });

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

const percentile = (values: readonly number[], share: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN;

export async function syncsUnderLogins(): Promise<BenchReport> {
  const { gateway, port, httpPort } = await stand({}, [], { bench: password });
  let trace: SyncTrace | undefined;
  const heard = none<number>();
  const called = none<SyncCall>();
  const logins = none<number>();
  try {
    await runLoad({ mode: "trickle", port, seconds: 2 }); // from here on the threads that sync are there
    trace = SyncTrace.open(gateway.pid);
    if (trace === undefined) say("\nno tracefs, or not root: the histogram alone");
    for (let round = 0; round < rounds; round += 1) {
      for (const kind of kinds) {
        const before = await metrics(httpPort);
        trace?.take();
        const flooding = floods[kind];
        const [, flooded] = await Promise.all([
          runLoad({ mode: "trickle", port, seconds: secondsEach }),
          flooding === undefined
            ? undefined
            : runLoad({ ...flooding, port }, kind === "away" ? ["chrt", "--idle", "0"] : []),
        ]);
        called[kind].push(...(trace?.take() ?? []));
        heard[kind].push(p99(before, await metrics(httpPort)));
        logins[kind].push(flooded?.perSecond ?? 0);
      }
    }
    return report(logins, heard, called);
  } finally {
    await gateway.remove();
    trace?.close();
  }
}

function report(logins: Kinds<number>, heard: Kinds<number>, called: Kinds<SyncCall>): BenchReport {
  say("\nfdatasync, p99, ms: of the call, of its wait for a core, of its rest, the disk");
  say("  (of a group's write and sync, until the event loop hears of it)");
  const told: Figure[] = [];
  const p99s = (kind: Kind) => {
    const calls = called[kind];
    const of = (value: (call: SyncCall) => number): number => percentile(calls.map(value), 0.99);
    const [call, waited] = [of(({ ms }) => ms), of(({ waitedMs }) => waitedMs)];
    const disk = of(({ ms, waitedMs }) => ms - waitedMs);
    return { call, waited, disk, calls: calls.length, group: median(heard[kind]), logins: median(logins[kind]) };
  };
  const quiet = p99s("quiet");
  for (const kind of kinds) {
    const { call, waited, disk, calls, group, logins: rate } = p99s(kind);
    const ratios =
      kind === "quiet" ? "" : `, ${(call / quiet.call).toFixed(2)} x (${(group / quiet.group).toFixed(2)} x)`;
    const name = `${kind}${kind === "quiet" ? "" : ` ${thousands(rate)}`}`.padEnd(20);
    const parts = `${call.toFixed(2)}, ${waited.toFixed(2)}, ${disk.toFixed(2)} (${group.toFixed(2)})`;
    say(`  ${name} ${parts}${ratios}, ${calls} calls`);
    for (const [part, value] of Object.entries({ "fdatasync p99": call, "its wait for a core, p99": waited }))
      if (Number.isFinite(value)) told.push({ name: `${part}, ${kind}`, unit: "ms", better: "less", values: [value] });
    told.push({ name: `write and sync p99, ${kind}`, unit: "ms", better: "less", values: heard[kind] });
  }
  return { name: "logins", figures: told };
}
