import { isIPv6 } from "node:net";
import { Backoff } from "../../base/backoff.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import type { Intake, Source, SourceState } from "../../base/contracts.ts";
import { errnoOf, messageOf, TidegateError } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import type { Meter } from "../../base/meter.ts";
import { resolveHost } from "../../base/resolve.ts";
import { ServerExchange, type ServerLimits } from "./serverExchange.ts";
import { Tally } from "./tally.ts";
import { openUdp, type Udp } from "./udp.ts";

export interface CoapServerOptions extends Partial<ServerLimits> {
  readonly name: string;
  readonly listen: { readonly host: string; readonly port: number };
}

export interface CoapDeps {
  readonly intake: Intake;
  readonly log: Log;
  readonly clock: Clock;
  readonly meter: Meter;
  /** 0 to below 1, for jitter and message ids. */
  readonly random?: () => number;
  /** How sockets are opened; tests let them fail. */
  readonly open?: typeof openUdp;
}

export const coapServerDefaults: ServerLimits = {
  maxPayloadBytes: 64 * 1024, // of one reading, block-wise or not; more is 4.13
  maxPending: 1024, // readings on their way to the disk; more is 5.03
  maxSeen: 32_768, // requests remembered against copies; beyond it the oldest are forgotten, counted
  maxSeenBytes: 8 * 1024 * 1024,
  maxUploads: 64, // unfinished block-wise uploads; beyond it the one that waits longest ends, counted
  maxUploadBytes: 1024 * 1024,
  separateAfterMs: 1000, // half of what the sensor waits before it sends again
};

/** How long `stop` waits for readings that are on their way to the disk, so that their sensors hear of it. */
const drainMsMax = 1000;

export type CoapServerSource = Source & {
  /** Where it listens. @throws TidegateError TG_INTERNAL before `start`. */
  address(): { host: string; port: number };
};

/** A CoAP server that takes readings by POST and PUT on any path; they are answered 2.04 once they are durable. */
export function createCoapServerSource(options: CoapServerOptions, deps: CoapDeps): CoapServerSource {
  return new ServerSource(options, deps);
}

class ServerSource implements CoapServerSource {
  readonly name: string;
  readonly #host: string;
  #port: number;
  readonly #deps: CoapDeps;
  readonly #tally: Tally;
  readonly #exchange: ServerExchange;
  readonly #backoff: Backoff;
  #udp: Udp | undefined;
  #local: { host: string; port: number } | undefined;
  #link: SourceState["link"] = "idle";
  #problem: string | undefined;
  #reopening: Timer | undefined;
  #draining = false;

  constructor(options: CoapServerOptions, deps: CoapDeps) {
    const { name, listen, ...limits } = options;
    const random = deps.random ?? Math.random;
    this.name = name;
    this.#host = listen.host;
    this.#port = listen.port;
    this.#deps = deps;
    this.#tally = new Tally(deps.meter, name);
    this.#backoff = new Backoff({ minMs: 1000, maxMs: 30_000, random });
    const labels = { source: name };
    const duplicates = deps.meter.counter(
      "tidegate_coap_duplicates_total",
      "Copies of requests, not taken again.",
      labels,
    );
    const forgotten = deps.meter.counter(
      "tidegate_coap_forgotten_total",
      "Requests forgotten before their time, for room.",
      labels,
    );
    this.#exchange = new ServerExchange({
      source: name,
      limits: completeLimits(limits),
      intake: deps.intake,
      clock: deps.clock,
      log: deps.log,
      tally: this.#tally,
      random,
      send: (bytes, peer) => this.#udp?.send(bytes, peer),
      onDuplicate: () => {
        duplicates.value += 1;
      },
      onForgotten: () => {
        forgotten.value += 1;
      },
    });
  }

  async start(): Promise<void> {
    if (this.#link !== "idle") return;
    this.#link = "connecting";
    try {
      await this.#open();
    } catch (error) {
      this.#link = "down";
      this.#problem = `cannot listen on ${this.#url()}: ${reasonOf(error)}`;
      throw new TidegateError("TG_LISTEN", `source ${this.name}: ${this.#problem}`, { cause: error });
    }
    this.#deps.meter.gauge(
      "tidegate_source_up",
      "1 while the source can take readings.",
      () => (this.#link === "up" ? 1 : 0),
      {
        source: this.name,
      },
    );
    const { host, port } = this.address();
    this.#deps.log.info({ source: this.name, host, port }, "listening for CoAP readings");
  }

  async stop(): Promise<void> {
    if (this.#link === "stopped") return;
    this.#link = "stopped";
    this.#problem = undefined;
    this.#reopening?.cancel();
    await this.#drain();
    this.#exchange.close();
    this.#deps.meter.dropGauge("tidegate_source_up", { source: this.name });
    const udp = this.#udp;
    this.#udp = undefined;
    await udp?.close();
  }

  state(): SourceState {
    const { accepted, dropped } = this.#tally;
    return { name: this.name, type: "coap-server", link: this.#link, problem: this.#problem, accepted, dropped };
  }

  address(): { host: string; port: number } {
    if (this.#local === undefined) throw new TidegateError("TG_INTERNAL", `source ${this.name} does not listen yet`);
    return this.#local;
  }

  async #open(): Promise<void> {
    const { address, family } = await resolveHost(this.#host);
    const udp = await (this.#deps.open ?? openUdp)(
      { family, bind: { address, port: this.#port } },
      {
        onDatagram: (datagram, peer) => {
          if (!this.#draining) this.#exchange.receive(datagram, peer);
        },
        onError: (error) => this.#onError(error),
      },
    );
    if (this.#link === "stopped") return udp.close();
    this.#udp = udp;
    this.#port = udp.local.port; // a port chosen by the system stays the same when the socket is opened anew
    this.#local = { host: udp.local.address, port: udp.local.port };
    this.#link = "up";
    this.#problem = undefined;
    this.#backoff.reset();
  }

  /** Datagrams that cannot be sent (no route, a forged address, a full buffer) are the peer's loss; anything else ends the socket. */
  #onError(error: Error): void {
    const harmless = [
      "EACCES",
      "EHOSTUNREACH",
      "ENETUNREACH",
      "ECONNREFUSED",
      "EMSGSIZE",
      "EINVAL",
      "EPERM",
      "ENOBUFS",
      "EAGAIN",
    ];
    if (this.#link !== "up" || harmless.includes(errnoOf(error))) return;
    const udp = this.#udp;
    this.#udp = undefined;
    this.#link = "down";
    this.#problem = reasonOf(error);
    this.#deps.log.warn({ source: this.name, error: this.#problem }, "the CoAP socket failed; opening it anew");
    void udp?.close().then(() => this.#reopenLater());
  }

  #reopenLater(): void {
    if (this.#link === "stopped") return;
    this.#reopening = this.#deps.clock.setTimer(this.#backoff.nextMs(), () => {
      this.#open().catch((error: unknown) => {
        this.#problem = `cannot listen on ${this.#url()}: ${reasonOf(error)}`;
        this.#reopenLater();
      });
    });
  }

  /** Takes nothing new (the sensors will send again), and lets what is on its way to the disk be answered. */
  #drain(): Promise<void> {
    this.#draining = true;
    const { clock } = this.#deps;
    const untilMs = clock.monotonicMs() + drainMsMax;
    return new Promise((resolve) => {
      const look = (): void => {
        if (this.#exchange.pending === 0 || clock.monotonicMs() >= untilMs) resolve();
        else clock.setTimer(20, look);
      };
      look();
    });
  }

  #url(): string {
    return `coap://${isIPv6(this.#host) ? `[${this.#host}]` : this.#host}:${this.#port}`;
  }
}

/** The cheapest attack on memory is small blocks: 16 bytes of body cost 7 times as much here. One upload must fit all the same. */
function completeLimits(given: Partial<ServerLimits>): ServerLimits {
  const limits = { ...coapServerDefaults, ...given };
  return { ...limits, maxUploadBytes: Math.max(limits.maxUploadBytes, 8 * limits.maxPayloadBytes) };
}

function reasonOf(error: unknown): string {
  switch (errnoOf(error)) {
    case "EADDRINUSE":
      return "another program uses this port (EADDRINUSE)";
    case "EADDRNOTAVAIL":
      return "this machine does not have that address (EADDRNOTAVAIL)";
    case "EACCES":
      return "no permission for this port (EACCES)";
    default:
      return messageOf(error);
  }
}
