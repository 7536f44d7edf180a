/** `/api/v1/dead-letters`, `/api/v1/queues` and what an operator does to uplinks. The same on TCP and, with more of it, on control.sock. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { LetterDesk, LetterFilter, LetterSummary } from "../base/deadLetters.ts";
import { TidegateError } from "../base/errors.ts";
import { badRequest, goneSignal, letterFilter, onlyKnown, queryOf, Refusal, readObject, whole } from "./apiRequest.ts";
import { letterJson, peekedJson, summaryJson } from "./messageJson.ts";
import type { QueueDesk } from "./queueDesk.ts";

/** Letters by their catalogue. */
export interface LetterBrowser {
  find(
    filter: LetterFilter,
    page: { limit: number; before?: number | undefined },
  ): Promise<{
    letters: LetterSummary[];
    matching: number;
    next: number | undefined;
    total: number;
    catalogued: number;
  }>;
}

export interface Api {
  readonly letters: LetterDesk;
  readonly browser: LetterBrowser;
  readonly queues: QueueDesk;
}

export type ApiAnswer = (response: ServerResponse) => Promise<object>;

interface Endpoint {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: RegExp;
  /** What asks for more than one thing at once, or shows payloads of what waits: for the machine's own user alone. */
  readonly controlOnly?: true;
  answer(api: Api, call: Call): Promise<object> | object;
}

interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What the path's groups matched. */
  readonly names: readonly string[];
  readonly query: Readonly<Record<string, string>>;
}

const filterKeys = ["uplink", "route", "reason", "topic", "since", "until"];

const endpoints: readonly Endpoint[] = [
  { method: "GET", path: /^\/api\/v1\/dead-letters$/, answer: listLetters },
  { method: "GET", path: /^\/api\/v1\/dead-letters\/([^/]+)$/, answer: showLetter },
  { method: "DELETE", path: /^\/api\/v1\/dead-letters\/([^/]+)$/, answer: purgeLetter },
  { method: "POST", path: /^\/api\/v1\/dead-letters\/([^/]+)\/retry$/, answer: retryLetter },
  { method: "POST", path: /^\/api\/v1\/dead-letters\/retry$/, controlOnly: true, answer: retryLetters },
  { method: "POST", path: /^\/api\/v1\/dead-letters\/purge$/, controlOnly: true, answer: purgeLetters },
  { method: "POST", path: /^\/api\/v1\/uplinks\/([^/]+)\/(pause|resume)$/, answer: pauseUplink },
  { method: "GET", path: /^\/api\/v1\/uplinks\/([^/]+)$/, answer: showUplink },
  { method: "GET", path: /^\/api\/v1\/uplinks\/([^/]+)\/dropped$/, answer: listDropped },
  { method: "GET", path: /^\/api\/v1\/queues$/, answer: ({ queues }) => queues.list() },
  { method: "GET", path: /^\/api\/v1\/queues\/([^/]+)$/, controlOnly: true, answer: peekQueue },
  { method: "POST", path: /^\/api\/v1\/queues\/([^/]+)\/purge$/, controlOnly: true, answer: purgeQueue },
];

/**
 * Who answers a request; undefined: nobody here. A method that the path does not have, for one, is refused by the answer itself.
 * @param control it came by control.sock
 */
export function apiAnswer(request: IncomingMessage, api: Api, control: boolean): ApiAnswer | undefined {
  const [path = "/"] = (request.url ?? "/").split("?", 1);
  const here = endpoints.filter((endpoint) => endpoint.path.test(path) && (control || endpoint.controlOnly !== true));
  if (here.length === 0) return undefined;
  const method = request.method === "HEAD" ? "GET" : request.method;
  const endpoint = here.find((one) => one.method === method);
  return async (response) => {
    try {
      if (endpoint === undefined) {
        response.setHeader("Allow", here.map((one) => one.method).join(", "));
        throw new Refusal(405, "method_not_allowed", `there is ${here.map((one) => one.method).join(", ")} here`);
      }
      const names = (endpoint.path.exec(path) ?? []).slice(1).map(decoded);
      const query = queryOf(request.url ?? "/");
      if (endpoint.method !== "GET") onlyKnown(query, []); // what was meant to choose among many must not be passed over
      return await endpoint.answer(api, { request, response, names, query });
    } catch (error) {
      if (error instanceof TidegateError && error.code !== "TG_INTERNAL")
        throw new Refusal(503, error.code, error.message);
      throw error;
    }
  };
}

function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    throw badRequest("a name in the path is not well encoded");
  }
}

// ---------------------------------------------------------------- dead letters

async function listLetters({ browser }: Api, { query }: Call): Promise<object> {
  onlyKnown(query, [...filterKeys, "limit", "before"]);
  const limit = whole(query["limit"], "limit", 1, 1000, 100);
  const before = whole(query["before"], "before", 1, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  const page = await browser.find(letterFilter(query), { limit, before });
  return { ...page, letters: page.letters.map(summaryJson), next: page.next ?? null };
}

async function showLetter({ letters }: Api, { names: [id] }: Call): Promise<object> {
  const letter = await letters.get(idOf(id));
  if (letter === undefined) throw noLetter(id);
  return letterJson(letter);
}

async function purgeLetter({ letters }: Api, { request, names: [id] }: Call): Promise<object> {
  onlyKnown(await readObject(request), []);
  if (!(await letters.purge(idOf(id)))) throw noLetter(id);
  return { purged: 1 };
}

async function retryLetter({ letters }: Api, { request, names: [id] }: Call): Promise<object> {
  onlyKnown(await readObject(request), []);
  const result = await letters.retry(idOf(id));
  if (result === undefined) throw noLetter(id);
  if (!result.ok) throw new Refusal(409, result.code, result.message);
  return { retried: 1 };
}

async function retryLetters({ letters }: Api, { request, response }: Call): Promise<object> {
  const signal = goneSignal(response);
  const body = await readObject(request);
  onlyKnown(body, filterKeys);
  return letters.retryAll(letterFilter(body), signal);
}

async function purgeLetters({ letters }: Api, { request, response }: Call): Promise<object> {
  const signal = goneSignal(response);
  const body = await readObject(request);
  onlyKnown(body, filterKeys);
  return { purged: await letters.purgeAll(letterFilter(body), signal) };
}

function idOf(id: string | undefined): number {
  if (!/^[1-9]\d{0,14}$/.test(id ?? "")) throw noLetter(id);
  return Number(id);
}

const noLetter = (id: string | undefined): Refusal =>
  new Refusal(404, "not_found", `there is no dead letter ${(id ?? "").slice(0, 40)}`);

// ---------------------------------------------------------------- queues

async function pauseUplink({ queues }: Api, { request, names: [name = "", what] }: Call): Promise<object> {
  onlyKnown(await readObject(request), []);
  const paused = what === "pause";
  if (!(await queues.pause(name, paused))) throw noQueue(name);
  return { name, paused };
}

function showUplink({ queues }: Api, { names: [name = ""] }: Call): object {
  const uplink = queues.uplink(name);
  if (uplink === undefined) throw noQueue(name);
  return uplink;
}

function listDropped({ queues }: Api, { names: [name = ""] }: Call): object {
  const dropped = queues.dropped(name);
  if (dropped === undefined) throw noQueue(name);
  return { dropped: dropped.map(({ atMs, ...of }) => ({ ...of, at: new Date(atMs).toISOString() })) };
}

async function peekQueue({ queues }: Api, { names: [name = ""], query }: Call): Promise<object> {
  onlyKnown(query, ["limit"]);
  const peeked = await queues.peek(name, whole(query["limit"], "limit", 1, 1000, 10));
  if (peeked === undefined) throw noQueue(name);
  return { messages: peeked.messages.map(peekedJson), more: peeked.more };
}

async function purgeQueue({ queues }: Api, { request, names: [name = ""] }: Call): Promise<object> {
  onlyKnown(await readObject(request), []);
  const purged = await queues.purge(name);
  if (purged === undefined) throw noQueue(name);
  return purged;
}

const noQueue = (name: string): Refusal => new Refusal(404, "not_found", `there is no uplink ${name.slice(0, 100)}`);
