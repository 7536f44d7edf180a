import { statfs } from "node:fs/promises";
import type { SourceState, StoreStats, UplinkState } from "../base/contracts.ts";
import type { LetterStats } from "../base/deadLetters.ts";
import type { Config } from "../config/load.ts";
import type { Io } from "./backup.ts";
import { type CallOptions, withGateway } from "./gatewayCall.ts";
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

const askMsMax = 5_000;
const hourMs = 3600_000;

/** `tidegate status`: one screen, or with `json` what the API says. Exit code 0, 1 (no gateway answers), 2 (wrong config). */
export function status(options: CallOptions, io: Io): Promise<number> {
  return withGateway(options, io, async (call, config) => {
    const now = await call<GatewayStatus>({ method: "GET", path: "/api/v1/status", msMax: askMsMax });
    if (options.json === true) {
      io.out(jsonText(now));
      return 0;
    }
    // 503 says what is wrong, which is what the screen is for.
    const { reasons } = await call<{ reasons: readonly string[] }>(
      { method: "GET", path: "/health", msMax: askMsMax },
      503,
    );
    const free = await freeBytes(config);
    for (const line of statusLines(now, { reasons, free, maxBytes: config.storage.maxBytes })) io.out(line);
    return 0;
  });
}

async function freeBytes({ gateway }: Config): Promise<number | undefined> {
  return await statfs(gateway.dataDir).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => undefined,
  );
}

/** The screen. */
export function statusLines(
  of: GatewayStatus,
  shown: {
    readonly reasons: readonly string[];
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
    uplinks.flatMap((uplink) => uplinkTexts(uplink, storage.nowMs)),
  );
  lines.push(`dead       ${lettersText(of.deadLetters)}`);
  lines.push(...diskTexts(storage, shown.maxBytes, shown.free));
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

function uplinkTexts(uplink: UplinkState, nowMs: number): string[] {
  const { name, queue, room, rates } = uplink;
  const lines = [stateText(uplink)];
  if (uplink.problem !== undefined) {
    const code = uplink.reason === undefined ? "" : `[${uplink.reason}] `;
    lines.push(`  ${code}${plainText(uplink.problem, 400)}`);
  } else if (uplink.lastError !== undefined) {
    const { code, atMs } = uplink.lastError;
    lines.push(`  the last link ended ${durationText(Date.now() - atMs)} ago: ${code}`);
  }
  const oldest = queue.oldestAcceptedAtMs === undefined ? 0 : nowMs - queue.oldestAcceptedAtMs;
  const what = `${counted(queue.messages, "message")}, ${bytesText(queue.bytes)}, oldest ${durationText(oldest)}`;
  lines.push(`  backlog ${queue.messages === 0 ? "none" : what}${etaText(uplink)}`);
  const [in1, in5, out1, out5] = [rates.inPerSecond1m, rates.inPerSecond5m, rates.outPerSecond1m, rates.outPerSecond5m];
  lines.push(
    `  in ${rateText(in1)}, out ${rateText(out1)} (1 min); in ${rateText(in5)}, out ${rateText(out5)} (5 min)`,
  );
  const lasts =
    room.seconds === null
      ? "nothing comes in"
      : `without the cloud for ${durationText(room.seconds * 1000)} at this rate`;
  lines.push(`  room ${bytesText(room.bytes)}, ${lasts}`);
  const dropped = Object.entries(queue.dropped).map(([reason, count]) => `${reason} ${count}`);
  if (dropped.length > 0) lines.push(`  left unsent: ${dropped.join(", ")} (tidegate queue dropped ${name})`);
  return lines;
}

function stateText({ name, link, sinceMs, url, paused, attempts, retryAtMs }: UplinkState): string {
  const since = `since ${new Date(sinceMs).toISOString()} (${durationText(Date.now() - sinceMs)})`;
  const what = link === "up" ? "up" : link === "stopped" ? "stopped" : "down";
  const next = retryAtMs === undefined ? "trying now" : `next attempt in ${durationText(retryAtMs - Date.now())}`;
  const tries = what === "down" ? `; ${counted(attempts, "attempt")}, ${next}` : "";
  return `${name} ${what}${paused ? ", paused by an operator," : ""} ${since}, ${url}${tries}`;
}

function etaText({ eta }: UplinkState): string {
  switch (eta.state) {
    case "drained":
      return "";
    case "draining":
      return `; through in ${durationText((eta.seconds ?? 0) * 1000)}`;
    case "never":
      return "; never through at this rate";
    case "measuring":
      return "; the link is up too short to tell when it is through";
    case "down":
      return "; waits for the link";
    case "paused":
      return "; waits for tidegate queue resume";
    default:
      return eta.state satisfies never;
  }
}

const rateText = (perSecond: number | null): string =>
  perSecond === null ? "?" : `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)}/s`;

function diskTexts(storage: StoreStats, maxBytes: number, free: number | undefined): string[] {
  const { bytes, segments, room, writtenPerDay, writtenTotalBytes } = storage;
  const left = free === undefined ? "" : `; ${bytesText(free)} free on its disk`;
  const lasts =
    room.seconds === null
      ? "nothing comes in"
      : `if nothing is sent full in ${durationText(room.seconds * 1000)} at this rate`;
  const { bytes: aDay, extrapolated, measuredMs } = writtenPerDay;
  const day = `${bytesText(aDay)} a day${extrapolated ? " at the rate so far" : ""}, `;
  const written = measuredMs < hourMs ? "" : day; // before, preparing the first segments is most of it
  return [
    `disk       ${bytesText(bytes)} of ${bytesText(maxBytes)} in ${counted(segments, "segment")}${left}`,
    `           room ${bytesText(room.bytes)}, ${lasts}`,
    `           written ${written}${bytesText(writtenTotalBytes)} in all, in ${durationText(measuredMs)}`,
  ];
}
