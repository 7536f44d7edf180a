/** `tidegate dead list|show|retry|purge` */
import { parseDuration } from "../config/units.ts";
import type { Io } from "./backup.ts";
import { type CallOptions, withGateway, wrongUsage } from "./gatewayCall.ts";
import { messageLines, type ShownMessage } from "./messageText.ts";
import { bytesText, counted, durationText, jsonText, plainText, table } from "./texts.ts";

/** As `/api/v1/dead-letters` has it. */
interface Summary {
  readonly id: number;
  readonly uplink?: string;
  readonly route?: string;
  readonly priority?: number;
  readonly seq?: number;
  readonly rule?: unknown;
  readonly code: string;
  readonly reason: string;
  readonly attempts: number;
  readonly taken: string;
  readonly first: string;
  readonly last: string;
  readonly topic: string;
  readonly source: string;
  readonly bytes: number;
}

interface Page {
  readonly letters: readonly Summary[];
  readonly matching: number;
  readonly next: number | null;
  readonly total: number;
  readonly catalogued: number;
}

export interface FilterOptions extends CallOptions {
  readonly uplink?: string;
  readonly route?: string;
  readonly reason?: string;
  readonly topic?: string;
  readonly since?: string;
  readonly until?: string;
}

export interface ListOptions extends FilterOptions {
  readonly limit?: string;
  readonly before?: string;
}

export interface BulkOptions extends FilterOptions {
  readonly all?: boolean;
  /** A duration: those whose last failure is longer ago. */
  readonly older?: string;
}

const path = "/api/v1/dead-letters";
const filterNames = ["uplink", "route", "reason", "topic", "since", "until"] as const;

export function deadList(options: ListOptions, io: Io): Promise<number> {
  return withGateway(options, io, async (call) => {
    const query = new URLSearchParams(filterOf(options));
    query.set("limit", options.limit ?? "20");
    if (options.before !== undefined) query.set("before", options.before);
    const page = await call<Page>({ method: "GET", path: `${path}?${query}` });
    if (options.json === true) io.out(jsonText(page));
    else for (const line of pageLines(page)) io.out(line);
    return 0;
  });
}

function pageLines({ letters, matching, next, total, catalogued }: Page): string[] {
  if (total === 0) return ["no dead letters"];
  const rows = letters.map(({ id, last, code, reason, bytes, topic, ...where }) => [
    ...[String(id), shortTime(last), whereText(where), plainText(code, 40), plainText(reason, 60), bytesText(bytes)],
    plainText(topic, 80),
  ]);
  const lines = letters.length === 0 ? [] : table(["ID", "FAILED", "AT", "CODE", "REASON", "SIZE", "TOPIC"], rows);
  const which = matching === total ? "" : ` of ${matching} that match;`;
  const all = counted(total, "dead letter");
  const older = next === null ? "" : `; older ones: --before ${next}`;
  lines.push(
    matching === total
      ? `${letters.length} shown of ${all}${older}`
      : `${letters.length} shown${which} ${all} in all${older}`,
  );
  if (catalogued < total)
    lines.push(`only the newest ${catalogued} can be listed; show and retry reach the others by id`);
  return lines;
}

const whereText = ({ uplink, route }: Pick<Summary, "uplink" | "route">): string =>
  plainText(uplink === undefined ? (route === undefined ? "?" : `route ${route}`) : `uplink ${uplink}`, 40);

const shortTime = (time: string): string => time.slice(0, 19).replace("T", " ");

export function deadShow(id: string, options: CallOptions, io: Io): Promise<number> {
  return withGateway(options, io, async (call) => {
    const letter = await call<Summary & ShownMessage>({ method: "GET", path: `${path}/${encodeURIComponent(id)}` });
    if (options.json === true) io.out(jsonText(letter));
    else for (const line of letterLines(letter)) io.out(line);
    return 0;
  });
}

function letterLines(letter: Summary & ShownMessage): string[] {
  const { id, code, reason, attempts, first, last, priority, seq, rule } = letter;
  const more = priority === undefined ? "" : `, priority ${priority}, seq ${seq}`;
  const lines = [`dead letter ${id}`, `failed at   ${whereText(letter)}${more}`];
  if (rule !== undefined) lines.push(`rule        ${plainText(JSON.stringify(rule), 300)}`);
  lines.push(`reason      ${plainText(code, 40)}: ${plainText(reason, 300)}`);
  lines.push(`attempts    ${attempts}; first ${first}, last ${last} (${ago(last)} ago)`);
  return [...lines, ...messageLines(letter)];
}

const ago = (time: string): string => durationText(Date.now() - Date.parse(time));

/** Exit code 1 when a letter stays. */
export function deadRetry(ids: readonly string[], options: BulkOptions, io: Io): Promise<number> {
  const fault = selectionFault(ids, options);
  if (fault !== undefined) return Promise.resolve(wrongUsage(io, fault));
  return withGateway(options, io, async (call) => {
    if (ids.length > 0)
      return eachOf(ids, io, async (id) => {
        await call({ method: "POST", path: `${path}/${encodeURIComponent(id)}/retry` });
        io.out(`dead letter ${id}: queued again`);
      });
    const body = filterOf(options);
    const { retried, kept, keptCount } = await call<{
      retried: number;
      keptCount: number;
      kept: ReadonlyArray<{ id: number; message: string }>;
    }>({ method: "POST", path: `${path}/retry`, body });
    io.out(`${counted(retried, "dead letter")} queued again${keptCount === 0 ? "" : `; not sent again: ${keptCount}`}`);
    for (const { id, message } of kept) io.out(`  ${id}: ${plainText(message, 200)}`);
    if (keptCount > kept.length) io.out(`  and ${keptCount - kept.length} more`);
    return keptCount === 0 ? 0 : 1;
  });
}

export function deadPurge(ids: readonly string[], options: BulkOptions, io: Io): Promise<number> {
  const fault = selectionFault(ids, options);
  if (fault !== undefined) return Promise.resolve(wrongUsage(io, fault));
  return withGateway(options, io, async (call) => {
    if (ids.length > 0)
      return eachOf(ids, io, async (id) => {
        await call({ method: "DELETE", path: `${path}/${encodeURIComponent(id)}` });
        io.out(`dead letter ${id}: purged`);
      });
    const { purged } = await call<{ purged: number }>({
      method: "POST",
      path: `${path}/purge`,
      body: filterOf(options),
    });
    io.out(`${counted(purged, "dead letter")} purged`);
    return 0;
  });
}

/** One after the other; what fails is said, and the others go on. */
async function eachOf(ids: readonly string[], io: Io, act: (id: string) => Promise<void>): Promise<number> {
  let code = 0;
  for (const id of new Set(ids)) {
    try {
      await act(id);
    } catch (error) {
      io.err(`tidegate: dead letter ${plainText(id, 40)}: ${error instanceof Error ? error.message : String(error)}`);
      code = 1;
    }
  }
  return code;
}

/** What is wrong with a choice of letters; a filter alone must not mean all of them by accident. */
function selectionFault(ids: readonly string[], options: BulkOptions): string | undefined {
  const wide = options.all === true || options.older !== undefined;
  if (ids.length > 0 && wide) return "ids, or --all or --older, not both";
  if (ids.length > 0 && filterNames.some((name) => options[name] !== undefined)) return "ids go without other choices";
  if (ids.length === 0 && !wide)
    return "which dead letters? ids, or --all (with --uplink, --reason, ... : all of those)";
  if (options.older === undefined) return undefined;
  if (options.until !== undefined) return "--older or --until, not both";
  return parseDuration(options.older) === undefined ? "--older takes a duration, such as 12h or 30d" : undefined;
}

function filterOf(options: BulkOptions): Record<string, string> {
  const filter: Record<string, string> = {};
  for (const name of filterNames) {
    const value = options[name];
    if (value !== undefined) filter[name] = value;
  }
  const age = options.older === undefined ? undefined : parseDuration(options.older);
  if (age !== undefined) filter["until"] = String(Math.floor(Date.now() - age));
  return filter;
}
