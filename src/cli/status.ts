import { statfs } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import type { SourceState, StoreStats, UplinkState } from "../base/contracts.ts";
import type { LetterStats } from "../base/deadLetters.ts";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Config } from "../config/load.ts";
import { configOf, type Io } from "./backup.ts";
import { ask, isRunning } from "./controlClient.ts";
import { bytesText, counted, durationText, jsonText, plainText } from "./texts.ts";

/** What `/api/v1/status` says, as far as it is shown here. */
export interface GatewayStatus {
  readonly gateway: { readonly id: string; readonly version: string; readonly uptimeSeconds: number };
  readonly listeners: readonly string[];
  readonly broker: { readonly connections: number; readonly sessions: number; readonly queued: number };
  readonly sources: readonly SourceState[];
  readonly uplinks: readonly UplinkState[];
  readonly deadLetters: LetterStats;
  readonly storage: StoreStats & { readonly nowMs: number };
}

/** How long a backlog is watched to tell how fast it goes. */
const watchMs = 1000;
const askMsMax = 5_000;

/** `tidegate status`: one screen, or with `json` what the API says. Exit code 0, 1 (no gateway answers), 2 (wrong config). */
export async function status(options: { config?: string; json?: boolean }, io: Io): Promise<number> {
  const config = await configOf(options, io);
  if (config === undefined) return 2;
  const { dataDir } = config.gateway;
  try {
    if (!(await isRunning(dataDir)))
      throw new TidegateError("TG_DATA_DIR", `no gateway runs on the data folder ${dataDir} (which config? -c FILE)`);
    const now = await read<GatewayStatus>(dataDir, "/api/v1/status");
    if (options.json === true) {
      io.out(jsonText(now));
      return 0;
    }
    const { reasons } = await read<{ reasons: readonly string[] }>(dataDir, "/health");
    const rates = now.uplinks.some(({ queue }) => queue.messages > 0) ? await watch(dataDir, now) : undefined;
    const free = await freeBytes(config);
    for (const line of statusLines(rates?.last ?? now, { reasons, rates, free, maxBytes: config.storage.maxBytes }))
      io.out(line);
    return 0;
  } catch (error) {
    io.err(`tidegate: ${messageOf(error)}`);
    return 1;
  }
}

async function read<T>(dataDir: string, path: string): Promise<T> {
  return (await ask(dataDir, { method: "GET", path, msMax: askMsMax })).body as T;
}

export interface Rates {
  readonly last: GatewayStatus;
  /** By uplink, a second. */
  readonly acknowledged: ReadonlyMap<string, number>;
  readonly shrinking: ReadonlyMap<string, number>;
}

async function watch(dataDir: string, first: GatewayStatus): Promise<Rates> {
  await pause(watchMs);
  const last = await read<GatewayStatus>(dataDir, "/api/v1/status");
  const seconds = Math.max(0.1, (last.storage.nowMs - first.storage.nowMs) / 1000);
  const acknowledged = new Map<string, number>();
  const shrinking = new Map<string, number>();
  for (const uplink of last.uplinks) {
    const before = first.uplinks.find(({ name }) => name === uplink.name);
    if (before === undefined) continue;
    acknowledged.set(uplink.name, (uplink.acknowledged - before.acknowledged) / seconds);
    shrinking.set(uplink.name, (before.queue.messages - uplink.queue.messages) / seconds);
  }
  return { last, acknowledged, shrinking };
}

async function freeBytes({ gateway }: Config): Promise<number | undefined> {
  return await statfs(gateway.dataDir).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => undefined,
  );
}

/** The screen. `rates` where something waits for the cloud. */
export function statusLines(
  of: GatewayStatus,
  shown: {
    readonly reasons: readonly string[];
    readonly rates: Rates | undefined;
    readonly free: number | undefined;
    readonly maxBytes: number;
  },
): string[] {
  const { gateway, listeners, broker, sources, uplinks, storage } = of;
  const lines = [`${gateway.id}   tidegate ${gateway.version}, up ${durationText(gateway.uptimeSeconds * 1000)}`];
  for (const reason of shown.reasons) lines.push(`PROBLEM    ${reason}`);
  if (shown.reasons.length === 0) lines.push("health     ok");
  section(lines, "listeners", listeners);
  lines.push(
    `clients    ${broker.connections} connected, ${broker.sessions} sessions, ${broker.queued} messages queued`,
  );
  section(lines, "sources", sources.map(sourceText));
  section(
    lines,
    "uplinks",
    uplinks.flatMap((uplink) => uplinkTexts(uplink, storage.nowMs, shown.rates)),
  );
  lines.push(`dead       ${lettersText(of.deadLetters)}`);
  const free = shown.free === undefined ? "" : `; ${bytesText(shown.free)} free on its disk`;
  lines.push(
    `disk       ${bytesText(storage.bytes)} of ${bytesText(shown.maxBytes)} in ${storage.segments} segments${free}`,
  );
  return lines;
}

function section(lines: string[], title: string, texts: readonly string[]): void {
  if (texts.length === 0) lines.push(`${title.padEnd(11)}none`);
  for (const [index, text] of texts.entries()) lines.push(`${(index === 0 ? title : "").padEnd(11)}${text}`);
}

function sourceText({ name, type, link, problem, accepted, dropped }: SourceState): string {
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  const why = problem === undefined ? "" : `: ${problem}`;
  return `${name} (${type}) ${link}${why}; ${accepted} accepted, ${lost} dropped`;
}

function lettersText({ messages, bytes, newest, dropped }: LetterStats): string {
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  const also = lost === 0 ? "" : `; ${lost} not kept`;
  if (messages === 0) return `no letters${also}`;
  const what = `${counted(messages, "letter")}, ${bytesText(bytes)}${also}`;
  if (newest === undefined) return what;
  const { from, code, text, lastMs } = newest;
  const where = from.kind === "unknown" ? "" : `${from.kind} ${from.name}, `;
  const ago = durationText(Date.now() - lastMs);
  return `${what}; newest ${ago} ago: ${plainText(`${where}${code}: ${text}`, 200)} (tidegate dead list)`;
}

function uplinkTexts(
  { name, link, sinceMs, problem, paused, queue }: UplinkState,
  nowMs: number,
  rates?: Rates,
): string[] {
  const since = `since ${new Date(sinceMs).toISOString()} (${durationText(Date.now() - sinceMs)})`;
  const state = `${name} ${link === "up" ? "up" : `down (${link})`}${paused ? ", paused by an operator," : ""} ${since}${problem === undefined ? "" : `: ${problem}`}`;
  if (queue.messages === 0) return [state, "  backlog none"];
  const oldest = queue.oldestAcceptedAtMs === undefined ? 0 : nowMs - queue.oldestAcceptedAtMs;
  const backlog = `  backlog ${queue.messages} messages, ${bytesText(queue.bytes)}, oldest ${durationText(oldest)}`;
  const rate = Math.round(rates?.acknowledged.get(name) ?? 0);
  const shrinking = rates?.shrinking.get(name) ?? 0;
  const eta = shrinking > 0 ? `ETA ${durationText((queue.messages / shrinking) * 1000)}` : "not shrinking";
  return [state, `${backlog}; draining ${rate}/s, ${eta}`];
}
