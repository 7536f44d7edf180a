/**
 * control.sock: the command line's way to a running gateway, a unix socket in the data folder that only its owner may open. The same HTTP as on
 * TCP, and beside it what only the machine's own user may ask for.
 */
import { chmod, lstat, unlink } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { controlAddress, controlName } from "../base/controlPath.ts";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { answeredByApi, answerPath, checkEveryMs, fail, type HttpViews, json, pathOf } from "./server.ts";

export interface ControlViews extends HttpViews {
  /** POST /api/v1/backup `{ "dir": "/absolute" }`. The signal: whoever asked went away. */
  backup(dir: string, signal: AbortSignal): Promise<object>;
}

export interface ControlHandle {
  close(): Promise<void>;
}

const connectionsMax = 16;
const bodyBytesMax = 64 * 1024;
const probeMs = 1000;

/**
 * The command line's way in, in the data folder, whose lock the caller holds. Not every file system has sockets: then undefined, and said.
 * @throws TidegateError TG_DATA_DIR when another gateway answers there
 */
export async function openControl(dir: string, views: ControlViews, log: Log): Promise<ControlHandle | undefined> {
  try {
    return await listenControl(dir, views, log);
  } catch (error) {
    if (error instanceof TidegateError && error.code === "TG_DATA_DIR") throw error;
    log.warn({ err: messageOf(error) }, "control.sock is off: tidegate status and backup cannot reach this gateway");
    return undefined;
  }
}

/**
 * Opens it in the data folder, whose lock the caller holds: what lies there under that name is left over from a crash, unless it answers (a
 * gateway in another container, whose lock is not seen).
 * @throws TidegateError TG_DATA_DIR when another gateway answers; TG_LISTEN when it cannot be opened
 */
async function listenControl(dir: string, views: ControlViews, log: Log): Promise<ControlHandle> {
  const path = join(dir, controlName);
  const short = await controlAddress(dir);
  try {
    await removeStale(path, short.path);
    const server = createControl(views, log);
    await listen(server, short.path);
    await chmod(path, 0o600);
    return {
      close: async () => {
        await new Promise<void>((resolve) => {
          server.close(() => resolve()); // removes the socket too
          server.closeAllConnections();
        });
        await short.close();
      },
    };
  } catch (error) {
    await short.close();
    throw error;
  }
}

async function removeStale(path: string, short: string): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  });
  if (found === undefined) return;
  if (!found.isSocket()) throw new TidegateError("TG_LISTEN", `${path} is there and is not a socket: move it away`);
  if (await answers(short))
    throw new TidegateError("TG_DATA_DIR", `another gateway answers on ${path}: stop it, or set gateway.dataDir`);
  await unlink(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    const done = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(probeMs, () => done(true)); // somebody holds it and is busy
    socket.once("connect", () => done(true));
    socket.once("error", () => done(false));
  });
}

function createControl(views: ControlViews, log: Log): Server {
  const server = createServer(
    { maxHeaderSize: 8192, headersTimeout: 5_000, requestTimeout: 10_000, connectionsCheckingInterval: checkEveryMs },
    (request, response) => {
      answer(request, response, views).catch((error: unknown) => {
        if (request.destroyed && !request.complete) return; // whoever asked went away before all of it was said
        log.error({ err: messageOf(error), url: request.url?.slice(0, 200) }, "a control request failed");
        if (!response.headersSent) fail(response, 500, "internal", "this is a fault of the gateway; see its log");
      });
    },
  );
  server.maxConnections = connectionsMax;
  return server;
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // The name appears within this call, and must never be open to others, not even until chmod.
    const before = process.umask(0o177);
    server.listen({ path }, () => {
      server.removeListener("error", reject);
      server.on("error", () => {}); // an accept that fails (EMFILE) must not end the process
      resolve();
    });
    process.umask(before);
  });
}

async function answer(request: IncomingMessage, response: ServerResponse, views: ControlViews): Promise<void> {
  if (await answeredByApi(request, response, views, true)) return;
  const path = pathOf(request);
  if (request.method === "GET" || request.method === "HEAD") return answerPath(path, response, views);
  if (request.method !== "POST" || path !== "/api/v1/backup")
    return fail(response, 404, "not_found", "there is POST /api/v1/backup here");
  const body = await readBody(request);
  if (body === undefined) return fail(response, 413, "too_large", `at most ${bodyBytesMax} bytes`);
  const dir = dirIn(body);
  if (dir === undefined)
    return fail(response, 400, "bad_request", 'a JSON object { "dir": "/absolute/path" } is expected');
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  try {
    json(response, 200, await views.backup(dir, gone.signal));
  } catch (error) {
    if (!(error instanceof TidegateError)) throw error;
    fail(response, 409, error.code, error.message);
  }
}

function dirIn(body: string): string | undefined {
  try {
    const { dir } = JSON.parse(body) as { dir?: unknown };
    return typeof dir === "string" && dir.startsWith("/") && !dir.includes("\0") ? dir : undefined;
  } catch {
    return undefined;
  }
}

/** Undefined: more than may come. @throws when the connection ends before the body does */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > bodyBytesMax) return undefined;
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString("utf8");
}
