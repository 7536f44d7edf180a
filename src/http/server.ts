import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import { type AddressInfo, isIPv6 } from "node:net";
import type { Duplex } from "node:stream";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { type Api, apiAnswer } from "./api.ts";
import { Refusal } from "./apiRequest.ts";
import { HttpConnections } from "./connections.ts";

/** What the HTTP side shows; gateway.ts fills it. All three answer from memory. */
export interface HttpViews {
  /** Empty: healthy. Else what is wrong, for people, without secrets. */
  health(): readonly string[];
  /** Prometheus text. */
  metrics(): string;
  /** `/api/v1/status` and its parts by name. */
  status(): Readonly<Record<string, unknown>>;
  /** Dead letters and queues. */
  readonly api?: Api;
}

export interface HttpOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** In which a client has to take an answer; then its connection is ended. */
  readonly answerMsMax?: number | undefined;
}

export interface HttpHandle {
  /** With the host that was asked for and the port that was taken. */
  readonly url: string;
  readonly port: number;
  /** Stops listening and ends its connections, but for those that were given to `mqtt`. */
  close(): Promise<void>;
}

/** Takes an upgrade request for `/mqtt` whose Host and Origin are good, and the socket with it. @param head what came behind the request */
export type MqttUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

/** How often Node looks for requests that do not come to an end, whether there are any or not: each look wakes an idle process. */
export const checkEveryMs = 10_000;
/** In which a client has to take an answer, once it is made. */
const answerMsMaxDefault = 30_000;

/**
 * `/health`, `/metrics` and `/api/v1/*` on node:http alone: they must answer on a machine that has no memory to spare, and a framework costs 15 MB
 * and 200 ms at start. Only loopback is served in this version; Host and Origin are checked, or a page in a browser on the gateway could read it.
 *
 * @param mqtt MQTT over WebSocket on `/mqtt`; without it there is none
 * @throws TidegateError TG_LISTEN when the address cannot be opened
 */
export async function listenHttp(
  options: HttpOptions,
  views: HttpViews,
  log: Log,
  mqtt?: MqttUpgrade,
): Promise<HttpHandle> {
  const server = createServer(
    {
      maxHeaderSize: 8192,
      headersTimeout: 5_000,
      requestTimeout: 10_000,
      keepAliveTimeout: 5_000,
      connectionsCheckingInterval: checkEveryMs,
    },
    (request, response) => {
      answerInTurn(connections, request, response, views).catch((error: unknown) => {
        if (request.destroyed && !request.complete) return; // whoever asked went away before all of it was said
        log.error({ err: messageOf(error), url: request.url?.slice(0, 200) }, "a page could not be made");
        if (!response.headersSent) fail(response, 500, "internal", "this is a fault of the gateway; see its log");
      });
    },
  );
  const connections = new HttpConnections(server, options.answerMsMax ?? answerMsMaxDefault);
  server.on("upgrade", (request, socket, head) => {
    if (!isWebSocket(request)) return answerWithout(server, connections, request, socket, head);
    const refusal = upgradeRefusal(request, mqtt);
    if (refusal !== undefined || mqtt === undefined) return refuseUpgrade(socket, refusal ?? 404);
    if (connections.release(socket)) mqtt(request, socket, head);
    else socket.destroy();
  });
  await open(server, options);
  const { port } = server.address() as AddressInfo;
  return {
    url: urlOf({ ...options, port }),
    port,
    close: async () => {
      server.close(); // its callback would wait for the connections of MQTT as well
      connections.destroy();
    },
  };
}

const isWebSocket = ({ headers }: IncomingMessage): boolean =>
  (headers.upgrade ?? "").split(",").some((name) => name.trim().toLowerCase() === "websocket");

/**
 * Other protocols are offered, not demanded (RFC 9110 section 7.8; h2c by curl --http2 and by Java's HttpClient, with every request). Node 20 takes
 * any offer for an upgrade: the request goes in once more, without it.
 */
function answerWithout(
  server: Server,
  connections: HttpConnections,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): void {
  if (!connections.release(socket)) return void socket.destroy();
  const { method, url, httpVersion, rawHeaders } = request;
  const lines = [`${method} ${url} HTTP/${httpVersion}`, "Connection: close"];
  for (let at = 0; at < rawHeaders.length; at += 2)
    if (!/^(connection|upgrade|http2-settings)$/i.test(rawHeaders[at] ?? ""))
      lines.push(`${rawHeaders[at]}: ${rawHeaders[at + 1]}`);
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), head]));
  server.emit("connection", socket);
}

/** The status that refuses an upgrade, or undefined. */
function upgradeRefusal(request: IncomingMessage, mqtt: MqttUpgrade | undefined): number | undefined {
  const { host, origin } = request.headers;
  if (!isLocalHost(host)) return 421;
  if (origin !== undefined && !isSameOrigin(origin, host)) return 403;
  return mqtt === undefined || pathOf(request) !== "/mqtt" ? 404 : undefined;
}

function refuseUpgrade(socket: Duplex, status: number): void {
  socket.on("error", () => {});
  socket.once("finish", () => socket.destroy());
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

const urlOf = ({ host, port }: HttpOptions): string => `http://${isIPv6(host) ? `[${host}]` : host}:${port}`;

function open(server: Server, options: HttpOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const why = errnoOf(cause) === "EADDRINUSE" ? "the port is in use by another program" : messageOf(cause);
      reject(new TidegateError("TG_LISTEN", `${urlOf(options)} cannot be opened: ${why} (http.listen)`, { cause }));
    });
    const { host, port } = options;
    server.listen({ host, port }, () => {
      server.removeAllListeners("error");
      server.on("error", () => {}); // an accept that fails (EMFILE) must not end the process
      resolve();
    });
  });
}

async function answerInTurn(
  connections: HttpConnections,
  request: IncomingMessage,
  response: ServerResponse,
  views: HttpViews,
): Promise<void> {
  if (await connections.turn(request, response)) await answer(request, response, views);
}

async function answer(request: IncomingMessage, response: ServerResponse, views: HttpViews): Promise<void> {
  if (!isLocalHost(request.headers.host)) return fail(response, 421, "wrong_host", "unknown Host");
  const { origin } = request.headers;
  if (origin !== undefined && !isSameOrigin(origin, request.headers.host))
    return fail(response, 403, "wrong_origin", "foreign Origin");
  const site = request.headers["sec-fetch-site"];
  if (site !== undefined && request.method !== "GET" && site !== "same-origin" && site !== "none")
    return fail(response, 403, "wrong_origin", "asked by a foreign page");
  if (await answeredByApi(request, response, views, false)) return;
  const path = pathOf(request);
  if (request.method === "GET" || request.method === "HEAD") return answerPath(path, response, views);
  if (!isPage(path, views)) return noPage(path, response);
  response.setHeader("Allow", "GET, HEAD");
  fail(response, 405, "method_not_allowed", "only GET and HEAD are answered here");
}

export const pathOf = ({ url }: IncomingMessage): string => (url ?? "/").split("?", 1)[0] ?? "/";

/** What GET and HEAD get, whoever asks. */
export function answerPath(path: string, response: ServerResponse, views: HttpViews): void {
  if (path === "/health") return health(response, views);
  if (path === "/metrics") return send(response, 200, "text/plain; version=0.0.4; charset=utf-8", views.metrics());
  if (path === "/api/v1/status") return json(response, 200, views.status());
  const part = partOf(path);
  const status = part === undefined ? {} : views.status();
  if (part !== undefined && Object.hasOwn(status, part)) return json(response, 200, status[part]);
  noPage(path, response);
}

/** `/api/v1/NAME` */
const partOf = (path: string): string | undefined => /^\/api\/v1\/([a-z-]+)$/.exec(path)?.[1];

/** What `answerPath` has. */
function isPage(path: string, views: HttpViews): boolean {
  if (path === "/health" || path === "/metrics" || path === "/api/v1/status") return true;
  const part = partOf(path);
  return part !== undefined && Object.hasOwn(views.status(), part);
}

/** What a later version will have. Whoever builds one deletes its line here. */
const toCome: ReadonlyMap<string, string> = new Map([
  ["/", "the dashboard"],
  ["/api/v1/devices", "GET /api/v1/devices"],
  ["/api/v1/publish", "POST /api/v1/publish"],
]);

function noPage(path: string, response: ServerResponse): void {
  const later = toCome.get(path);
  const why = later === undefined ? "there is no such page" : `${later} is not yet available`;
  const pages =
    "/health, /metrics, /api/v1/{status,clients,sources,uplinks,queues,dead-letters}, MQTT over WebSocket on /mqtt";
  fail(response, 404, "not_found", `${why}; there is ${pages}`);
}

/** Whether the API had an answer. @param control it came by control.sock */
export async function answeredByApi(
  request: IncomingMessage,
  response: ServerResponse,
  { api }: HttpViews,
  control: boolean,
): Promise<boolean> {
  const answered = api === undefined ? undefined : apiAnswer(request, api, control);
  if (answered === undefined) return false;
  try {
    json(response, 200, await answered(response));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (!request.complete) response.setHeader("Connection", "close"); // the rest of its body is not read
    fail(response, error.status, error.code, error.message);
  }
  return true;
}

function health(response: ServerResponse, views: HttpViews): void {
  const reasons = views.health();
  json(response, reasons.length === 0 ? 200 : 503, { status: reasons.length === 0 ? "ok" : "failing", reasons });
}

/** A name that only this machine has, so that a foreign page cannot reach us by rebinding its own name to 127.0.0.1. */
function isLocalHost(host: string | undefined): boolean {
  const name = (host ?? "").replace(/:\d+$/, "").toLowerCase();
  return name === "localhost" || name === "[::1]" || /^127(\.\d{1,3}){3}$/.test(name);
}

function isSameOrigin(origin: string, host: string | undefined): boolean {
  return origin.toLowerCase() === `http://${(host ?? "").toLowerCase()}`;
}

export function json(response: ServerResponse, status: number, body: unknown): void {
  send(response, status, "application/json; charset=utf-8", `${JSON.stringify(body)}\n`);
}

export function fail(response: ServerResponse, status: number, code: string, message: string): void {
  json(response, status, { error: { code, message } });
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, {
    "Content-Type": type,
    "Content-Length": Buffer.byteLength(body),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
  });
  response.end(body); // node leaves the body out for HEAD
}
