/** Brokers that were not written here, in the cloud's place: started on free ports of 127.0.0.1 with folders of their own, never as a service. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { IClientOptions } from "mqtt";
import { type PeerOptions, type PeerProcess, startPeer } from "../helpers/peers.ts";
import { freePorts } from "../helpers/ports.ts";
import { TestCa } from "../helpers/testCa.ts";
import { until } from "../helpers/wait.ts";

export interface CloudBroker {
  readonly version: 4 | 5;
  /** It is there at once again after a kill; where that takes long the test starts it once. */
  readonly quick: boolean;
  /** Its sessions outlive a kill. */
  readonly remembers: boolean;
  /** Makes its folder and files. */
  prepare(): Promise<void>;
  start(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  remove(): Promise<void>;
  /** For the gateway: url and tls of its uplink, as YAML. */
  uplink(): string;
  /** For a consumer. */
  url(): string;
  readonly consumer: () => IClientOptions;
}

abstract class Base implements CloudBroker {
  abstract readonly version: 4 | 5;
  readonly quick: boolean = true;
  readonly remembers: boolean = true;
  protected dir = "";
  protected port = 0;
  protected process: PeerProcess | undefined;

  async prepare(): Promise<void> {
    this.dir = await mkdtemp(join(tmpdir(), "tidegate-"));
    [this.port = 0] = await freePorts(1);
  }

  abstract start(): Promise<void>;

  async kill(): Promise<void> {
    await this.process?.stop("SIGKILL");
    this.process = undefined;
  }

  async remove(): Promise<void> {
    await this.kill();
    if (this.dir !== "") await rm(this.dir, { recursive: true, force: true });
  }

  uplink(): string {
    return `url: ${this.url()}`;
  }

  url(): string {
    return `mqtt://127.0.0.1:${this.port}`;
  }

  consumer: () => IClientOptions = () => ({});

  /** Started as given, until it accepts connections. */
  protected async run(program: string, args: string[], options: PeerOptions = {}): Promise<void> {
    const started = startPeer(program, args, undefined, options);
    this.process = started;
    let code: number | null | undefined;
    void started.ended.then((ended) => {
      code = ended ?? -1;
    });
    await until(`${program} listens`, async () => code !== undefined || (await accepts(this.port)), 60_000).catch(
      (error: Error) => {
        throw new Error(`${error.message}: ${started.output().slice(-2000)}`);
      },
    );
    if (code !== undefined) throw new Error(`${program} ended (${code}): ${started.output().slice(-2000)}`);
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

export type Security = "none" | "tls" | "mutual";

export class Mosquitto extends Base {
  readonly version: 4 | 5;
  readonly security: Security;
  override readonly remembers: boolean;
  #ca: TestCa | undefined;
  #own = { certFile: "", keyFile: "" };

  constructor(version: 4 | 5, security: Security, remembers: boolean) {
    super();
    this.version = version;
    this.security = security;
    this.remembers = remembers;
  }

  override async prepare(): Promise<void> {
    await super.prepare();
    const lines = [`listener ${this.port} 127.0.0.1`, "allow_anonymous true", "user root", "max_queued_messages 0"];
    if (this.remembers) lines.push("persistence true", `persistence_location ${this.dir}/`);
    if (this.remembers) lines.push("autosave_on_changes true", "autosave_interval 1"); // or a kill -9 takes the sessions with it
    if (this.security !== "none") {
      const ca = TestCa.make()!;
      this.#ca = ca;
      const { certFile, keyFile } = ca.issue("/CN=cloud");
      lines.push(`cafile ${ca.caFile}`, `certfile ${certFile}`, `keyfile ${keyFile}`);
      if (this.security === "mutual") {
        lines.push("require_certificate true");
        this.#own = ca.issue("/CN=gw");
      }
    }
    await writeFile(join(this.dir, "mosquitto.conf"), `${lines.join("\n")}\n`);
  }

  async start(): Promise<void> {
    await this.run("mosquitto", ["-c", join(this.dir, "mosquitto.conf")]);
  }

  override async remove(): Promise<void> {
    await super.remove();
    this.#ca?.remove();
  }

  /** @param shown whether the gateway has a certificate to show */
  override uplink(shown = true): string {
    if (this.security === "none") return super.uplink();
    const { certFile, keyFile } = this.#own;
    const own = this.security === "mutual" && shown ? `, cert: ${certFile}, key: ${keyFile}` : "";
    return `url: ${this.url()}\n    tls: { ca: ${this.#ca?.caFile}${own} }`;
  }

  override url(): string {
    return `${this.security === "none" ? "mqtt" : "mqtts"}://127.0.0.1:${this.port}`;
  }

  override consumer = (): IClientOptions => {
    const ca = this.#ca;
    if (ca === undefined) return {};
    return { ca: ca.ca, ...(this.security === "mutual" ? ca.issue("/CN=consumer") : {}) };
  };
}

export class NatsServer extends Base {
  readonly version = 4;

  async start(): Promise<void> {
    const config = [
      "server_name: cloud",
      'listen: "127.0.0.1:-1"',
      `jetstream { store_dir: "${this.dir}" }`,
      `mqtt { listen: "127.0.0.1:${this.port}" }`,
    ];
    await writeFile(join(this.dir, "nats.conf"), `${config.join("\n")}\n`);
    await this.run("nats-server", ["-c", join(this.dir, "nats.conf")]);
  }
}

export class AedesBroker extends Base {
  readonly version = 4;
  override readonly remembers = false;

  async start(): Promise<void> {
    await this.run(process.execPath, [join(import.meta.dirname, "..", "bench", "aedesBroker.mjs"), String(this.port)]);
  }
}

const rabbitFolder = "/usr/lib/rabbitmq/bin"; // Debian's wrappers on the PATH insist on the service's own user and folders

export class RabbitMq extends Base {
  readonly version = 4;
  override readonly quick = false;
  #epmd: PeerProcess | undefined;

  async start(): Promise<void> {
    const [epmdPort = 0, distPort = 0] = await freePorts(2);
    const at = (name: string): string => join(this.dir, name);
    for (const folder of ["home", "log", "mnesia"]) await mkdir(at(folder), { recursive: true });
    await writeFile(at("enabled_plugins"), "[rabbitmq_mqtt].\n");
    await writeFile(at("env.conf"), "");
    const config = [
      "listeners.tcp = none",
      `mqtt.listeners.tcp.1 = 127.0.0.1:${this.port}`,
      "mqtt.allow_anonymous = true",
    ];
    await writeFile(at("rabbitmq.conf"), `${config.join("\n")}\n`);
    // Erlang's name server, which it would leave behind as a daemon.
    this.#epmd = startPeer("epmd", ["-port", String(epmdPort), "-address", "127.0.0.1"]);
    await until("epmd listens", () => accepts(epmdPort));
    const env = {
      ...{ ERL_EPMD_PORT: String(epmdPort), ERL_EPMD_ADDRESS: "127.0.0.1", HOME: at("home") },
      ...{ RABBITMQ_NODENAME: "cloud@localhost", RABBITMQ_DIST_PORT: String(distPort) },
      ...{ RABBITMQ_MNESIA_BASE: at("mnesia"), RABBITMQ_LOG_BASE: at("log"), RABBITMQ_PID_FILE: at("pid") },
      ...{ RABBITMQ_ENABLED_PLUGINS_FILE: at("enabled_plugins"), RABBITMQ_CONF_ENV_FILE: at("env.conf") },
      RABBITMQ_CONFIG_FILE: at("rabbitmq.conf"),
    };
    await this.run(`${rabbitFolder}/rabbitmq-server`, [], { env, group: true });
  }

  override async kill(): Promise<void> {
    await super.kill();
    await this.#epmd?.stop("SIGKILL");
  }
}
