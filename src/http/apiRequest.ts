/** What the API's handlers share: reading a request, and refusing it in the contract's form. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { LetterFilter } from "../base/deadLetters.ts";
import { topicFilterFault } from "../base/topic.ts";

/** A request that is refused: status, code and message of the answer. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const badRequest = (message: string): Refusal => new Refusal(400, "bad_request", message);

const bodyBytesMax = 64 * 1024;

/**
 * The body of a POST or DELETE: a JSON object, {} when there is none. A body must say that it is JSON, which a form of a foreign page cannot without
 * asking first (CORS).
 * @throws Refusal 400, 413, 415
 */
export async function readObject(request: IncomingMessage): Promise<Readonly<Record<string, unknown>>> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > bodyBytesMax) throw new Refusal(413, "too_large", `at most ${bodyBytesMax} bytes`);
    pieces.push(piece);
  }
  if (bytes === 0) return {};
  const type = (request.headers["content-type"] ?? "").split(";", 1)[0]?.trim().toLowerCase();
  if (type !== "application/json")
    throw new Refusal(415, "unsupported_media_type", "the body must be application/json, or empty");
  try {
    const value: unknown = JSON.parse(Buffer.concat(pieces).toString("utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // said below
  }
  throw badRequest("the body must be a JSON object");
}

/** Which letters are asked for, out of a query or a body. @throws Refusal 400 */
export function letterFilter(fields: Readonly<Record<string, unknown>>): LetterFilter {
  const topic = text(fields, "topic");
  const fault = topic === undefined ? null : topicFilterFault(topic);
  if (fault !== null) throw badRequest(`topic: ${fault}`);
  return {
    uplink: text(fields, "uplink"),
    route: text(fields, "route"),
    reason: text(fields, "reason"),
    topic,
    sinceMs: time(fields, "since"),
    untilMs: time(fields, "until"),
  };
}

function text(fields: Readonly<Record<string, unknown>>, name: string): string | undefined {
  const value = fields[name];
  if (value === undefined || typeof value === "string") return value;
  throw badRequest(`${name}: a text is expected`);
}

/** Date, or date and time, of RFC 3339 (without an offset: of this machine). `Date.parse` alone makes 2001-03-07 of "last 3 days 7". */
const dateTime = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?$/i;
/** Milliseconds since 1970; four digits are rather a year. */
const milliseconds = /^(?!\d{4}$)\d{1,16}$/;

/** RFC 3339, or milliseconds since 1970. */
function time(fields: Readonly<Record<string, unknown>>, name: string): number | undefined {
  const value = fields[name];
  if (value === undefined) return undefined;
  const written = typeof value === "number" ? String(value) : value;
  let ms = Number.NaN;
  if (typeof written === "string")
    ms = milliseconds.test(written) ? Number(written) : dateTime.test(written) ? Date.parse(written) : Number.NaN;
  if (Number.isNaN(ms)) throw badRequest(`${name}: a time is expected, such as 2026-01-31T12:00:00Z`);
  return ms;
}

/** The query of a request. @throws Refusal 400 for a name that is given twice: only one of the two could count */
export function queryOf(url: string): Readonly<Record<string, string>> {
  const at = url.indexOf("?");
  const query: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, value] of new URLSearchParams(at < 0 ? "" : url.slice(at + 1))) {
    if (name in query) throw badRequest(`${name.slice(0, 100)}: given twice`);
    query[name] = value;
  }
  return query;
}

/** @throws Refusal 400 */
export function whole(value: unknown, name: string, min: number, max: number, otherwise: number): number {
  if (value === undefined) return otherwise;
  const number = typeof value === "string" && /^\d+$/.test(value) ? Number(value) : value;
  if (typeof number === "number" && Number.isInteger(number) && number >= min && number <= max) return number;
  throw badRequest(`${name}: a whole number from ${min} to ${max} is expected`);
}

/** Keys that the endpoint does not know are refused: a filter that was misspelt must not mean "all". @throws Refusal 400 */
export function onlyKnown(fields: Readonly<Record<string, unknown>>, known: readonly string[]): void {
  for (const name of Object.keys(fields))
    if (!known.includes(name))
      throw badRequest(
        `${name.slice(0, 100)}: not known (there is ${known.length === 0 ? "none here" : known.join(", ")})`,
      );
}

/** Aborted when whoever asked has gone away. */
export function goneSignal(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  return gone.signal;
}
