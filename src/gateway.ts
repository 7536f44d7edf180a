/**
 * The composition root: the only file that knows every stage. Starts them in the order in which a reading needs them (disk, broker, uplinks,
 * doors to devices, doors to people), stops in the reverse order. stageOptions.ts maps the config to what each stage takes.
 */
import type { Clock, Timer } from "./base/clock.ts";
import type { BackupInfo, BackupRequest, Forwarding, Intake, Routing, Source, Store } from "./base/contracts.ts";
import { messageOf, TidegateError } from "./base/errors.ts";
import { nodeFiles } from "./base/files.ts";
import { watchForWork } from "./base/frugal.ts";
import { type Log, LogLimiter } from "./base/log.ts";
import type { Meter } from "./base/meter.ts";
import { Scope } from "./base/scope.ts";
import { Seconds } from "./base/seconds.ts";
import { createBroker } from "./broker/broker.ts";
import type { Broker, ListenerHandle } from "./broker/options.ts";
import { Catalogue } from "./catalogue/catalogue.ts";
import { parseAddress } from "./config/address.ts";
import { changesForRestart } from "./config/changes.ts";
import type { Config, SourceConfig } from "./config/schema.ts";
import type { Api } from "./http/api.ts";
import { openControl } from "./http/control.ts";
import { QueueDesk } from "./http/queueDesk.ts";
import { type HttpViews, listenHttp } from "./http/server.ts";
import { DeadLetters } from "./journal/deadLetters.ts";
import { JournalLetterDesk } from "./journal/letterDesk.ts";
import { backupStopped } from "./journal/offlineBackup.ts";
import { openStore } from "./journal/open.ts";
import { createCoapClientSource } from "./sources/coap/coapClientSource.ts";
import { type CoapDeps, createCoapServerSource } from "./sources/coap/coapServerSource.ts";
import { createSerialSource } from "./sources/serial/source.ts";
import {
  accessOptions,
  brokerLimits,
  deadLetterOptions,
  listenerOptions,
  routeDefinition,
  serialOptions,
  uplinkOptions,
  withGateway,
} from "./stageOptions.ts";
import { applyAgain } from "./transform/applyAgain.ts";
import { type CodecRegistry, createCodecs } from "./transform/codecs/registry.ts";
import { createReadingTransform, type ReadingTransform } from "./transform/reading.ts";
import { createRouting } from "./transform/routes.ts";
import { createForwarding } from "./uplink/forwarding.ts";
import { Uplink, type UplinkDeps } from "./uplink/uplink.ts";

export interface GatewayDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly version: string;
}

export interface Gateway {
  /** Where it can be reached, with the ports that were really taken. */
  addresses(): { readonly listeners: readonly string[]; readonly http: string | undefined };
  /**
   * Takes over what it can of a config read anew: users, rules and whether the anonymous may come in, without touching a connection that they do not
   * concern. The certificate files of the listeners that run are read again, for new connections. Uplinks that are down are tried at once; each attempt
   * reads their files anew. What else differs from the running config is named in a warning.
   */
  reload(config: Config): Promise<void>;
  /** Closes all doors, lets what was taken reach the disk, and closes the store. */
  stop(): Promise<void>;
}

/**
 * Starts everything; resolves once every listener accepts. What was started before a failure is stopped again.
 * @throws TidegateError TG_DATA_DIR, TG_STORE_FOREIGN, TG_LISTEN, TG_CONFIG
 */
export async function startGateway(config: Config, deps: GatewayDeps): Promise<Gateway> {
  const scope = new Scope();
  try {
    return await start(config, deps, scope);
  } catch (error) {
    await scope.close().catch((cause: unknown) => deps.log.error({ err: messageOf(cause) }, "cleaning up failed"));
    throw error;
  }
}

async function start(config: Config, deps: GatewayDeps, scope: Scope): Promise<Gateway> {
  const { log, clock, meter, version } = deps;
  const startedMs = clock.monotonicMs();
  const codecs = createCodecs(config.codecs as Parameters<typeof createCodecs>[0]);
  const seconds = new Seconds(clock);
  const store = await openJournal(config, deps, seconds);
  scope.defer(() => store.close());
  const letters = openLetters(config, store, deps, scope);
  const routing = createRouting(config.routes.map(routeDefinition(config.gateway.id)), codecs, { log, meter });
  // What has to be waited for comes before the broker: what that publishes by itself, the will of a client that was left, must find the uplinks.
  const createUplinks = await uplinkMaker(config);
  // The broker asks which uplinks take a topic; the uplinks publish what the cloud sends. One of the two has to come first.
  let forwarding: Forwarding = { forwardsFor: () => [] };
  const broker = createBroker(
    { ...accessOptions(config), limits: brokerLimits(config), version },
    {
      ...{ store, clock, seconds, meter, routing },
      log: log.child({ stage: "broker" }),
      letters: letters.routes,
      forwarding: { forwardsFor: (topic) => forwarding.forwardsFor(topic) },
    },
  );
  scope.defer(() => broker.close());
  const uplinks = createUplinks({ store, publisher: broker, letters, clock, log, meter });
  forwarding = createForwarding(store, uplinks);
  broker.refresh();
  store.configured();
  for (const uplink of uplinks) scope.defer(() => uplink.stop());

  const sources = createSources(config, codecs, broker, store, deps);
  const handles = await openDoors(config, broker, sources, scope);
  const listeners = handles.map(({ url }) => url);
  startUplinks(uplinks, clock, scope);
  announceSources(sources, broker, seconds, scope);
  const views = {
    api: openApi(config, { store, letters, uplinks, routing, broker }, deps, scope),
    health: () => storageProblems(store),
    metrics: () => meter.expose(),
    status: () => ({
      gateway: { id: config.gateway.id, version, uptimeSeconds: Math.round((clock.monotonicMs() - startedMs) / 1000) },
      listeners,
      clients: [...broker.clients()],
      broker: broker.stats(),
      sources: sources.map((source) => source.state()),
      uplinks: uplinks.map((uplink) => uplink.state()),
      deadLetters: letters.stats(),
      storage: { ...store.stats(), nowMs: store.nowMs() },
    }),
  };
  const http = await openHttp(config, scope, deps, views, broker);
  const work = watchForWork(seconds);
  scope.defer(() => work.cancel());
  const { dataDir, id } = config.gateway;
  const backup = (dir: string, signal: AbortSignal) => store.backup({ dir, gateway: id, version, signal });
  const control = await openControl(dataDir, { ...views, backup }, log.child({ stage: "control" }));
  scope.defer(() => control?.close());
  return {
    addresses: () => ({ listeners, http }),
    reload: (next) => reload(config, next, { broker, handles, uplinks }, log),
    stop: () => scope.close(),
  };
}

interface Reloaded {
  readonly broker: Broker;
  readonly handles: readonly ListenerHandle[];
  readonly uplinks: readonly Uplink[];
}

async function reload(running: Config, next: Config, { broker, handles, uplinks }: Reloaded, log: Log): Promise<void> {
  reloadAccess(running, next, broker, log);
  await reloadCertificates(running, handles, log);
  for (const uplink of uplinks) uplink.refresh(); // what was renewed beside the config may be what it waits for
}

function reloadAccess(running: Config, next: Config, broker: Broker, log: Log): void {
  const access = accessOptions(next);
  // Its default follows from the listeners, and those that run are still the old ones.
  const loosened = access.anonymous && !running.access.anonymous;
  const restart = changesForRestart(running, next);
  const later = loosened && restart.some((path) => path.startsWith("mqtt.listeners"));
  const ended = broker.setAccess({ ...access, anonymous: access.anonymous && !later });
  log.info({ users: access.users.length, rules: access.rules.length, ended }, "reloaded");
  if (later) restart.push("access.anonymous");
  if (restart.length > 0) log.warn({ changed: restart }, `needs a restart: ${restart.join(", ")}`);
}

/** Those that cannot be used are said, and the ones before them stay. @param handles of the running config's listeners, in its order */
async function reloadCertificates(running: Config, handles: readonly ListenerHandle[], log: Log): Promise<void> {
  for (const [at, listener] of running.mqtt.listeners.entries()) {
    if (listener.tls === undefined) continue;
    try {
      const { tls } = await listenerOptions(listener);
      if (tls !== undefined) handles[at]?.setTls(tls);
      log.info({ listener: listener.url }, "certificates read again");
    } catch (error) {
      const why = messageOf(error);
      log.error({ listener: listener.url, err: why }, "certificates not changed: the ones before stay in use");
    }
  }
}

/** Reads the files that uplinks need. */
async function uplinkMaker({ uplinks, gateway }: Config): Promise<(deps: UplinkDeps) => Uplink[]> {
  const all = await Promise.all(uplinks.map((uplink) => uplinkOptions(uplink, gateway.id)));
  return (deps) => all.map((options) => new Uplink(options, deps));
}

function openJournal(config: Config, { log, clock, meter }: GatewayDeps, seconds: Seconds): Promise<Store> {
  const { maxBytes, minFreeBytes, maxMessageBytes, commitWindow } = config.storage;
  return openStore({
    dir: config.gateway.dataDir,
    files: nodeFiles,
    clock,
    seconds,
    log: log.child({ stage: "storage" }),
    meter,
    maxBytes,
    minFreeBytes,
    maxMessageBytes,
    commitWindowMs: commitWindow,
  });
}

// ---------------------------------------------------------------- dead letters

function openLetters(config: Config, store: Store, { log, clock, meter }: GatewayDeps, scope: Scope): DeadLetters {
  const limiter = new LogLimiter({ nowMs: () => clock.monotonicMs() });
  const deps = { store, clock, meter, limiter, log: log.child({ stage: "dead letters" }) };
  const letters = new DeadLetters(deadLetterOptions(config), deps);
  scope.defer(() => letters.close());
  return letters;
}

interface Operated {
  readonly store: Store;
  readonly letters: DeadLetters;
  readonly uplinks: readonly Uplink[];
  readonly routing: Routing;
  readonly broker: Broker;
}

/** What an operator does with dead letters and queues. The catalogue is loaded when somebody browses. */
function openApi(config: Config, of: Operated, { log, clock }: GatewayDeps, scope: Scope): Api {
  const { store, uplinks, routing, broker } = of;
  const letters = new JournalLetterDesk(of.letters, store, {
    lane(name, priority) {
      const uplink = uplinks.find(({ options }) => options.name === name);
      if (uplink === undefined) return undefined;
      return { lane: uplink.queue.lane(priority), rejectNewest: uplink.options.queue.whenFull === "reject-newest" };
    },
    again: (route, message) => applyAgain(routing, broker, route, message),
  });
  const place = { dir: config.gateway.dataDir, epoch: store.epoch };
  const browser = new Catalogue(place, { letters, clock, log: log.child({ stage: "catalogue" }) });
  scope.defer(() => browser.close());
  return { letters, browser, queues: new QueueDesk(store, broker, uplinks) };
}

// ---------------------------------------------------------------- devices

/** Bytes of a device: decoded, published, and answered for once they are durable. */
function createIntake(broker: Broker, transforms: ReadonlyMap<string, ReadingTransform>): Intake {
  return {
    take(reading, settled) {
      const result = transforms.get(reading.source)?.(reading);
      if (result === undefined) return settled({ kind: "undecodable", why: `no source ${reading.source}` });
      if (result.kind === "undecodable") return settled(result);
      const published = broker.publish(result.message);
      if (!published.accepted) {
        if (published.reason === "invalid") return settled({ kind: "undecodable", why: "not a topic to publish to" });
        return settled({ kind: "refused", reason: published.reason });
      }
      broker.whenDurable(published.group, (durable) =>
        settled(durable ? { kind: "durable", value: result.value } : { kind: "refused", reason: "failed" }),
      );
    },
  };
}

function createSources(
  config: Config,
  codecs: CodecRegistry,
  broker: Broker,
  store: Store,
  deps: GatewayDeps,
): Source[] {
  const transforms = new Map(
    config.sources.map(({ name, decode, topic, qos }) => [
      name,
      createReadingTransform({ source: name, decode, topic: withGateway(topic, config.gateway.id), qos }, codecs),
    ]),
  );
  const intake = createIntake(broker, transforms);
  return config.sources.map((source) => createSource(source, codecs, broker, store, intake, deps));
}

function createSource(
  source: SourceConfig,
  codecs: CodecRegistry,
  broker: Broker,
  store: Store,
  intake: Intake,
  deps: GatewayDeps,
): Source {
  const { clock, meter } = deps;
  const log = deps.log.child({ source: source.name });
  const coap: CoapDeps = { intake, log, clock, meter };
  switch (source.type) {
    case "serial":
      return createSerialSource(serialOptions(source, codecs), { intake, publisher: broker, store, log, clock, meter });
    case "coap": {
      const { name, url, observe, every } = source;
      return createCoapClientSource({ name, url, observe, ...(every === undefined ? {} : { everyMs: every }) }, coap);
    }
    case "coap-server": {
      const address = parseAddress(source.listen, ["coap"]);
      if (typeof address === "string")
        throw new TidegateError("TG_CONFIG", `sources.${source.name}.listen: ${address}`);
      return createCoapServerSource({ name: source.name, listen: { host: address.host, port: address.port } }, coap);
    }
    default:
      return source satisfies never;
  }
}

/** `$SYS/tidegate/sources/NAME/state`, retained: published when a source's link or problem changes, looked at each second. */
function announceSources(sources: readonly Source[], broker: Broker, seconds: Seconds, scope: Scope): void {
  const announced = new Map<string, string>();
  const look = (): void => {
    for (const source of sources) {
      const { name, type, link, problem } = source.state();
      const state = JSON.stringify({ type, link, problem });
      if (announced.get(name) === state) continue;
      announced.set(name, state);
      const topic = `$SYS/tidegate/sources/${name}/state`;
      broker.publish({ topic, payload: Buffer.from(state), qos: 0, retain: true, source: "sys" });
    }
  };
  if (sources.length === 0) return;
  look();
  const timer = seconds.each(look);
  scope.defer(() => timer.cancel());
}

/** And measures their rates from then on, whether somebody asks or not. */
function startUplinks(uplinks: readonly Uplink[], clock: Clock, scope: Scope): void {
  for (const uplink of uplinks) uplink.start();
  let timer: Timer | undefined;
  const look = (): void => {
    for (const uplink of uplinks) uplink.look();
    timer = clock.setTimer(5000, look);
  };
  if (uplinks.length > 0) look();
  scope.defer(() => timer?.cancel());
}

// ---------------------------------------------------------------- doors

/** Opens every listener; one that cannot open is fatal. Sources retry by themselves, but a CoAP server's address must open as well. */
async function openDoors(
  config: Config,
  broker: Broker,
  sources: readonly Source[],
  scope: Scope,
): Promise<ListenerHandle[]> {
  const opened: ListenerHandle[] = [];
  for (const source of sources) {
    scope.defer(() => source.stop());
    await source.start();
  }
  for (const listener of config.mqtt.listeners) opened.push(await broker.listen(await listenerOptions(listener))); // broker.close() closes it
  return opened;
}

async function openHttp(
  config: Config,
  scope: Scope,
  { log }: GatewayDeps,
  views: HttpViews,
  broker: Broker,
): Promise<string | undefined> {
  if (config.http.listen === false) return undefined;
  const address = parseAddress(config.http.listen, ["http"]);
  if (typeof address === "string") throw new TidegateError("TG_CONFIG", `http.listen: ${address}`);
  const { host, port } = address;
  const listener = `${config.http.listen}/mqtt`;
  const handle = await listenHttp({ host, port }, views, log.child({ stage: "http" }), (request, socket, head) =>
    broker.upgrade(request, socket, head, listener),
  );
  scope.defer(() => handle.close());
  return handle.url;
}

/** A backup of the data folder while no gateway runs. @throws TidegateError TG_DATA_DIR, TG_STORE_FOREIGN, TG_BACKUP */
export function backupOffline(
  config: Config,
  request: BackupRequest,
  { log, clock }: Pick<GatewayDeps, "log" | "clock">,
): Promise<BackupInfo> {
  const { gateway, storage } = config;
  return backupStopped(
    { dir: gateway.dataDir, files: nodeFiles, clock, log, minFreeBytes: storage.minFreeBytes },
    request,
  );
}

/** What keeps durable messages from being taken, for people. */
function storageProblems(store: Store): string[] {
  const { state, problem } = store.stats();
  return state === "ok" ? [] : [`storage: ${state}: ${problem}`];
}
