import { lstat, unlink } from "node:fs/promises";
import { connect, type Server } from "node:net";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import { certificateWarnings } from "./certificates.ts";
import { Door, type DoorDeps, type DoorOptions } from "./door.ts";
import type { ListenerHandle, ListenerOptions, ListenerTls } from "./options.ts";
import { MqttUpgrade } from "./webSocketDoor.ts";

/** Node's default of 511 makes bursts of devices wait whole seconds for their SYN. */
const backlog = 4096;
const ports: Readonly<Record<string, number>> = { "mqtt:": 1883, "mqtts:": 8883, "ws:": 80, "wss:": 443 };

/** Opens one listener. @throws TidegateError TG_LISTEN when the address or a certificate cannot be used, TG_CONFIG when the url is none of ours */
export async function openListener(options: ListenerOptions, deps: DoorDeps): Promise<ListenerHandle> {
  const url = parse(options.url);
  const path = webSocketPath(url);
  const upgrade = path === undefined ? undefined : await MqttUpgrade.load(deps.limits.maxPacketSize);
  const webSocket = path === undefined || upgrade === undefined ? undefined : { path, upgrade };
  const door = openDoor(url, options, webSocket, deps);
  const { server } = door;
  const handle = {
    setTls: (tls: ListenerTls): void => {
      try {
        door.setTls(tls);
      } catch (cause) {
        throw unusable(options.url, cause);
      }
      warnOf(tls, options.url, deps);
    },
    close: (): Promise<void> => {
      const ended = closed(server);
      door.close();
      return ended;
    },
  };
  if (url.protocol === "unix:") {
    await listenOnPath(server, decodeURIComponent(url.pathname), options.url);
    return { ...handle, url: options.url, port: 0 };
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = url.port === "" ? (ports[url.protocol] ?? 1883) : Number(url.port);
  await listening(server, { host, port, backlog }, options.url);
  const address = server.address();
  const taken = typeof address === "object" && address !== null ? address.port : port;
  return { ...handle, url: `${url.protocol}//${url.hostname}:${taken}${path ?? ""}`, port: taken };
}

function parse(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && (url.protocol === "unix:" || (url.protocol in ports && url.hostname !== ""))) return url;
  throw new TidegateError(
    "TG_CONFIG",
    `${text}: a listener is mqtt://HOST:PORT, mqtts://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH or unix:///PATH`,
  );
}

/** Where WebSockets are answered; undefined for a listener without them. */
function webSocketPath({ protocol, pathname }: URL): string | undefined {
  if (protocol !== "ws:" && protocol !== "wss:") return undefined;
  return pathname === "/" ? "/mqtt" : pathname;
}

function openDoor(
  url: URL,
  { url: text, tls, proxyProtocol }: ListenerOptions,
  webSocket: DoorOptions["webSocket"],
  deps: DoorDeps,
): Door {
  const secured = url.protocol === "mqtts:" || url.protocol === "wss:";
  if (secured && tls === undefined)
    throw new TidegateError("TG_CONFIG", `${text}: ${url.protocol.slice(0, -1)} needs tls: { cert, key }`);
  const used = secured ? tls : undefined;
  const options = { url: text, proxyProtocol: proxyProtocol === true, tls: used, webSocket };
  try {
    const door = new Door(options, deps);
    if (used !== undefined) warnOf(used, text, deps);
    return door;
  } catch (cause) {
    throw unusable(text, cause);
  }
}

const unusable = (url: string, cause: unknown): TidegateError =>
  new TidegateError("TG_LISTEN", `${url}: the certificate or key is not usable: ${messageOf(cause)}`, { cause });

function warnOf(tls: ListenerTls, listener: string, { log, clock }: DoorDeps): void {
  for (const warning of certificateWarnings(tls, clock.wallMs())) log.warn({ listener }, warning);
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
