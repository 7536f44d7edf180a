import { lstat, unlink } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits, ListenerHandle, ListenerOptions, PeerInfo } from "./options.ts";
import { TlsDoor } from "./tlsDoor.ts";

/** Node's default of 511 makes bursts of devices wait whole seconds for their SYN. */
const backlog = 4096;
const ports: Readonly<Record<string, number>> = { "mqtt:": 1883, "mqtts:": 8883 };

export interface ListenerDeps {
  readonly metrics: BrokerMetrics;
  readonly limits: Pick<BrokerLimits, "connectTimeoutMs" | "maxConnections" | "maxConnectionsPerAddress">;
  /** A connection, its TLS handshake done. */
  readonly accept: (socket: Socket, peer: PeerInfo) => void;
}

interface Door {
  readonly server: Server;
  close(): Promise<void>;
}

/** Opens one listener. @throws TidegateError TG_LISTEN when the address cannot be opened, TG_CONFIG when it is none of ours */
export async function openListener(options: ListenerOptions, deps: ListenerDeps): Promise<ListenerHandle> {
  const url = parse(options.url);
  const { server, close } = openDoor(url, options, deps);
  if (url.protocol === "unix:") {
    await listenOnPath(server, decodeURIComponent(url.pathname), options.url);
    return { url: options.url, port: 0, close };
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = url.port === "" ? (ports[url.protocol] ?? 1883) : Number(url.port);
  await listening(server, { host, port, backlog }, options.url);
  const address = server.address();
  const taken = typeof address === "object" && address !== null ? address.port : port;
  return { url: `${url.protocol}//${url.hostname}:${taken}`, port: taken, close };
}

function parse(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && (url.protocol === "unix:" || (url.protocol in ports && url.hostname !== ""))) return url;
  throw new TidegateError("TG_CONFIG", `${text}: a listener is mqtt://HOST:PORT, mqtts://HOST:PORT or unix:///PATH`);
}

function openDoor(url: URL, options: ListenerOptions, deps: ListenerDeps): Door {
  const { limits, metrics } = deps;
  const accept = (socket: Socket, certified: boolean, waitedMs: number): void => {
    socket.setNoDelay(true);
    deps.accept(socket, { address: socket.remoteAddress, listener: options.url, certified, waitedMs });
  };
  if (url.protocol !== "mqtts:") {
    const server = createServer((socket) => accept(socket, false, 0));
    return { server, close: () => closed(server) };
  }
  const { tls } = options;
  if (tls === undefined) throw new TidegateError("TG_CONFIG", `${options.url}: mqtts needs tls: { cert, key }`);
  try {
    const door = new TlsDoor(tls, { limits, metrics, accept });
    return {
      server: door.server,
      close: () => {
        const ended = closed(door.server);
        door.close();
        return ended;
      },
    };
  } catch (cause) {
    throw new TidegateError("TG_LISTEN", `${options.url}: the certificate or key is not usable: ${messageOf(cause)}`, {
      cause,
    });
  }
}

async function listenOnPath(server: Server, path: string, url: string): Promise<void> {
  const where = { path, backlog };
  try {
    await listening(server, where, url);
  } catch (error) {
    if (errnoOf((error as TidegateError).cause) !== "EADDRINUSE") throw error;
    // A file that is no socket refuses a connection as well, but it is somebody's data.
    const isSocket = await lstat(path).then(
      (found) => found.isSocket(),
      () => false,
    );
    if (!isSocket) throw new TidegateError("TG_LISTEN", `${url}: ${path} exists and is not a socket`, { cause: error });
    if (await answers(path)) throw error;
    await unlink(path); // left behind by a process that was killed
    await listening(server, where, url);
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error) => resolve(errnoOf(error) !== "ECONNREFUSED"));
  });
}

function listening(server: Server, where: object, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error): void => {
      server.off("listening", opened);
      reject(new TidegateError("TG_LISTEN", `${url}: ${explain(errnoOf(cause), messageOf(cause))}`, { cause }));
    };
    const opened = (): void => {
      server.off("error", failed);
      server.on("error", () => {}); // a failed accept (too many open files) must not end the process; the peer tries again
      resolve();
    };
    server.once("error", failed);
    server.once("listening", opened);
    server.listen(where);
  });
}

function explain(errno: string, message: string): string {
  switch (errno) {
    case "EADDRINUSE":
      return "the address is in use by another program";
    case "EACCES":
      return "no permission (ports below 1024 need CAP_NET_BIND_SERVICE)";
    case "EADDRNOTAVAIL":
      return "this machine does not have the address";
    default:
      return message;
  }
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
