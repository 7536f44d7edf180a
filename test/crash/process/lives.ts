/** One gateway with everything around it, and the ways in which its lives end. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { GatewayProcess } from "../../helpers/gatewayProcess.ts";
import { freePorts } from "../../helpers/ports.ts";
import { RawClient } from "../../helpers/rawClient.ts";
import { until } from "../../helpers/wait.ts";
import { Feeder, wait } from "./feeder.ts";
import { Ledger, numberIn } from "./ledger.ts";
import { parsed, Receiver } from "./receiver.ts";
import { RecordingCloud } from "./recordingCloud.ts";

const config = (mqttPort: number, httpPort: number, cloudPort: number): string => `
gateway: { id: g1, dataDir: ./data }
mqtt:
  listeners: [ { url: "mqtt://127.0.0.1:${mqttPort}" } ]
  limits: { session: { maxMessages: 1000000, maxBytes: 512 MiB } }
http: { listen: "http://127.0.0.1:${httpPort}" }
storage: { maxBytes: 2 GiB, minFreeBytes: 16 MiB }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    version: 5
    backoff: { min: 20ms, max: 100ms }
    forward: [ { topic: "plant/#", to: "{topic}", qos: 1 } ]
`;

export interface Summary {
  readonly kills: Record<string, number>;
  /** Segments and checkpoints that were there once and are gone. */
  freed: number;
  checkpoints: number;
}

/** Messages that the seldom subscriber may be behind: far fewer than its session holds (a thousand lives would fill that, and the oldest be dropped). */
const behindMax = 20_000;

export class Lives {
  readonly ledger = new Ledger();
  readonly kills: Record<string, number> = {};
  readonly #random: () => number;
  readonly #segments = new Set<string>();
  readonly #checkpoints = new Set<string>();
  readonly #feeders: Feeder[] = [];
  readonly #receivers: Receiver[] = [];
  #gateway!: GatewayProcess;
  #cloud!: RecordingCloud;
  #mqttPort = 0;
  #httpPort = 0;
  /** Nothing new is published until the seldom subscriber has caught up; killing goes on. */
  #catchingUp = false;

  constructor(random: () => number) {
    this.#random = random;
  }

  async begin(): Promise<void> {
    const [mqttPort = 0, httpPort = 0, cloudPort = 0] = await freePorts(3);
    this.#mqttPort = mqttPort;
    this.#httpPort = httpPort;
    this.#gateway = await GatewayProcess.create(config(mqttPort, httpPort, cloudPort));
    const common = { port: mqttPort, ledger: this.ledger, random: this.#random };
    this.#cloud = new RecordingCloud(cloudPort, this.ledger, this.#random);
    await this.#cloud.up();
    await this.#gateway.start();
    this.#receivers.push(new Receiver({ ...common, name: "online1", version: 5, qos: 1 }));
    this.#receivers.push(new Receiver({ ...common, name: "online2", version: 4, qos: 2 }));
    this.#receivers.push(new Receiver({ ...common, name: "seldom2", version: 5, qos: 2 }));
    for (const receiver of this.#receivers) await receiver.subscribed();
    for (const [name, version, persistent] of [
      ["kept4", 4, true],
      ["kept5", 5, true],
      ["clean4", 4, false],
      ["clean5", 5, false],
    ] as const)
      this.#feeders.push(new Feeder({ ...common, name, version, persistent }));
    await this.#progress();
    await this.#seldom.online(false);
  }

  get #seldom(): Receiver {
    return this.#receivers[2]!;
  }

  /** One life to its end, and the start of the next. */
  async cycle(): Promise<void> {
    if (this.#random() < 0.3) await this.#cloud.down();
    else await this.#cloud.up();
    this.#keepBounded();
    await this.#seldom.online(this.#random() < 0.2 || this.#catchingUp);
    const dice = this.#random();
    if (dice < 0.15) await this.#end("right after ready", this.#random() * 30);
    else {
      await this.#progress();
      // Now and then long enough for what happens each second: proofs, checkpoints, freeing.
      const ms = this.#random() * (this.#random() < 0.25 ? 2000 : 300);
      if (dice < 0.25) await this.#stop(ms);
      else await this.#end("at work", ms);
    }
    while (this.#random() < 0.25) {
      this.#gateway.spawn();
      await this.#end("while starting", this.#random() * 600);
    }
    const before = new Map(
      [...this.ledger.topics].map(([topic, { newestAcknowledged }]) => [topic, newestAcknowledged]),
    );
    await this.#gateway.start();
    await this.#retained(before);
    this.#look();
    this.ledger.check();
  }

  /** Everything is up, nothing new is published; resolves when all that was promised has arrived. */
  async drain(): Promise<void> {
    await this.#cloud.up();
    await this.#seldom.online(true);
    for (const feeder of this.#feeders) feeder.feed(false);
    await until("the feeders' last acknowledgements", () => this.#feeders.every(({ idle }) => idle), 60_000);
    const everyone = [...this.#receivers, this.#cloud];
    for (const { arrivals } of everyone) {
      const complete = (): boolean => this.ledger.faults.length > 0 || arrivals.missing("plant/").length === 0;
      await until("", complete, 60_000).catch(() => {});
      const missing = arrivals.missing("plant/");
      if (missing.length > 0) this.ledger.fault(`${missing.length} are missing: ${missing.slice(0, 10).join(", ")}`);
    }
    await this.#agree();
    for (const line of await this.#metricLines("tidegate_mqtt_dropped_total")) this.ledger.fault(`dropped: ${line}`);
    this.ledger.check();
  }

  /**
   * What was not acknowledged is there for everyone or for nobody: one message is one record. But for the subscriber at QoS 1, which need not wait for
   * the disk and may have seen what the disk never had.
   */
  async #agree(): Promise<void> {
    for (const [topic, { qos }] of this.ledger.topics) {
      if (!topic.startsWith("plant/") || qos !== 2) continue;
      const counts = (): number[] =>
        [...this.#receivers.slice(1), this.#cloud].map(({ arrivals }) => arrivals.seen(topic).size);
      await until("", () => new Set(counts()).size === 1).catch(() =>
        this.ledger.fault(`${topic}: the receivers do not agree: ${counts().join(" ")}`),
      );
    }
  }

  summary(): Summary {
    this.#look();
    const now = readdirSync(this.#data);
    const gone = [...this.#segments].filter((name) => !now.includes(name)).length;
    return { kills: this.kills, freed: gone, checkpoints: this.#checkpoints.size };
  }

  get repeats(): number {
    return [...this.#receivers, this.#cloud].reduce((sum, { arrivals }) => sum + arrivals.repeats, 0);
  }

  async remove(): Promise<void> {
    await Promise.all([...this.#feeders, ...this.#receivers].map((peer) => peer.stop()));
    await this.#gateway.remove();
    await this.#cloud.down();
  }

  get #data(): string {
    return join(this.#gateway.dir, "data");
  }

  #look(): void {
    for (const name of readdirSync(this.#data)) {
      if (name.startsWith("seg-")) this.#segments.add(name);
      if (name.endsWith(".bin")) this.#checkpoints.add(name);
    }
  }

  async #end(when: string, ms: number): Promise<void> {
    await wait(ms);
    this.#look();
    const ended = await this.#gateway.end("SIGKILL");
    if (ended !== "SIGKILL")
      this.ledger.fault(`the gateway ended by itself ${when}: ${ended}: ${this.#gateway.stderr}`);
    this.kills[when] = (this.kills[when] ?? 0) + 1;
  }

  async #stop(ms: number): Promise<void> {
    await wait(ms);
    const code = await this.#gateway.end("SIGTERM");
    if (code !== 0) this.ledger.fault(`SIGTERM: exit ${code}`);
    this.kills["SIGTERM"] = (this.kills["SIGTERM"] ?? 0) + 1;
  }

  #keepBounded(): void {
    const behind = this.#behind;
    if (behind > behindMax) this.#catchingUp = true;
    else if (behind < behindMax / 10) this.#catchingUp = false;
    for (const feeder of this.#feeders) feeder.feed(!this.#catchingUp);
  }

  /** What was acknowledged and the seldom subscriber has not got. */
  get #behind(): number {
    let behind = 0;
    for (const [topic, { acknowledged }] of this.ledger.topics)
      if (topic.startsWith("plant/")) behind += acknowledged.size - this.#seldom.arrivals.seen(topic).size;
    return behind;
  }

  /** The feeders are at work again, or the one who catches up is. */
  async #progress(): Promise<void> {
    if (this.#catchingUp) {
      const wanted = Math.max(0, this.#behind - 40);
      await until("it catches up", () => this.#behind <= wanted, 60_000);
      return;
    }
    const wanted = this.ledger.acknowledged + 40;
    await until("the feeders are at work", () => this.ledger.acknowledged >= wanted, 60_000);
  }

  /** Retained values are those acknowledged last before the start, or later ones. */
  async #retained(before: ReadonlyMap<string, number>): Promise<void> {
    const found = new Map<string, number>();
    const watcher = await RawClient.open({
      ...{ port: this.#mqttPort, clientId: "watcher", version: 4, persistent: false },
      onPacket: (packet) => {
        if (packet.cmd !== "publish" || packet.retain !== true) return;
        const number = numberIn(parsed(packet.payload));
        if (number === undefined) this.ledger.fault(`retained ${packet.topic}: not what was sent`);
        found.set(packet.topic ?? "", number ?? 0);
      },
    });
    if (watcher === undefined) throw new Error("no gateway");
    watcher.subscribe("state/#", 0);
    const wanted = [...before].filter(([topic, newest]) => topic.startsWith("state/") && newest > 0);
    await until("", () => wanted.every(([topic]) => found.has(topic))).catch(() => {});
    await watcher.drop();
    for (const [topic, newest] of wanted) {
      const number = found.get(topic) ?? 0;
      if (number < newest) this.ledger.fault(`retained ${topic}: ${number}, but ${newest} was acknowledged`);
    }
  }

  /** One value of /metrics; 0 when it is not there. */
  async metric(name: string): Promise<number> {
    return Number((await this.#metricLines(name))[0]?.split(" ")[1] ?? 0);
  }

  /** Of this name, with any labels, that are not 0. */
  async #metricLines(name: string): Promise<string[]> {
    const text = await (await fetch(`http://127.0.0.1:${this.#httpPort}/metrics`)).text();
    return text.split("\n").filter((line) => /^(\w+)/.exec(line)?.[1] === name && !line.endsWith(" 0"));
  }
}
