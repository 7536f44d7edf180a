import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";

/** What the HTTP side shows; gateway.ts fills it. All three answer from memory. */
export interface HttpViews {
  /** Empty: healthy. Else what is wrong, for people, without secrets. */
  health(): readonly string[];
  /** Prometheus text. */
  metrics(): string;
  /** `/api/v1/status` and its parts by name. */
  status(): Readonly<Record<string, unknown>>;
}

export interface HttpOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
}

export interface HttpHandle {
  readonly host: string;
  readonly port: number;
  close(): Promise<void>;
}

const connectionsMax = 64;

/**
 * `/health`, `/metrics` and `/api/v1/*` on node:http alone: they must answer on a machine that has no memory to spare, and a framework costs 15 MB
 * and 200 ms at start. Only loopback is served in this version; Host and Origin are checked, or a page in a browser on the gateway could read it.
 *
 * @throws TidegateError TG_LISTEN when the address cannot be opened
 */
export async function listenHttp(options: HttpOptions, views: HttpViews, log: Log): Promise<HttpHandle> {
  const server = createServer(
    {
      maxHeaderSize: 8192,
      headersTimeout: 5_000,
      requestTimeout: 10_000,
      keepAliveTimeout: 5_000,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => {
      try {
        answer(request, response, views);
      } catch (error) {
        log.error({ err: messageOf(error), url: request.url?.slice(0, 200) }, "a page could not be made");
        fail(response, 500, "internal", "this is a fault of the gateway; see its log");
      }
    },
  );
  server.maxConnections = connectionsMax;
  await open(server, options);
  const { address, port } = server.address() as AddressInfo;
  return {
    host: address,
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function open(server: Server, { host, port }: HttpOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const why = errnoOf(cause) === "EADDRINUSE" ? "the port is in use by another program" : messageOf(cause);
      reject(
        new TidegateError("TG_LISTEN", `http://${host}:${port} cannot be opened: ${why} (http.listen)`, { cause }),
      );
    });
    server.listen({ host, port }, () => {
      server.removeAllListeners("error");
      server.on("error", () => {}); // an accept that fails (EMFILE) must not end the process
      resolve();
    });
  });
}

function answer(request: IncomingMessage, response: ServerResponse, views: HttpViews): void {
  if (!isLocalHost(request.headers.host)) return fail(response, 421, "wrong_host", "unknown Host");
  const { origin } = request.headers;
  if (origin !== undefined && !isSameOrigin(origin, request.headers.host))
    return fail(response, 403, "wrong_origin", "foreign Origin");
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("Allow", "GET, HEAD");
    return fail(response, 405, "method_not_allowed", "only GET and HEAD are answered");
  }
  answerPath(pathOf(request), response, views);
}

export const pathOf = ({ url }: IncomingMessage): string => (url ?? "/").split("?", 1)[0] ?? "/";

/** What GET and HEAD get, whoever asks. */
export function answerPath(path: string, response: ServerResponse, views: HttpViews): void {
  if (path === "/health") return health(response, views);
  if (path === "/metrics") return send(response, 200, "text/plain; version=0.0.4; charset=utf-8", views.metrics());
  if (path === "/api/v1/status") return json(response, 200, views.status());
  const part = /^\/api\/v1\/([a-z-]+)$/.exec(path)?.[1];
  const status = part === undefined ? {} : views.status();
  if (part !== undefined && Object.hasOwn(status, part)) return json(response, 200, status[part]);
  return fail(response, 404, "not_found", "there is /health, /metrics and /api/v1/status");
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
