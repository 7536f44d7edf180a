/**
 * The demo as a function: devices, gateway and cloud; the cloud's link goes down; in the middle of it the gateway is killed and started
 * again; a command goes down to the boiler; at the end every reading that a device saw acknowledged must be in the cloud.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Cloud } from "../cloud.ts";
import { ptyProblem } from "../ptyLink.ts";
import { type Arrival, type DeviceReport, isGood, openEnvelope, tableOf } from "./compare.ts";
import { demoConfig } from "./config.ts";
import { DemoDevices } from "./devices.ts";
import { Gateway } from "./gateway.ts";
import { freePort } from "./ports.ts";

export interface ScenarioOptions {
  /** The gateway's program without its arguments: `[process.execPath, "dist/main.js"]`. */
  readonly gatewayCommand: readonly string[];
  /** How to run `sim`; default: the program beside this module. */
  readonly simCommand?: readonly string[];
  /** From the first reading to the last; default 60,000. The link goes down after a quarter of it. */
  readonly durationMs?: number;
  /** How long the cloud is away, at most half the duration; default 15,000. */
  readonly cloudDownMs?: number;
  /** Kill the gateway in the middle of the outage; default true. */
  readonly killGateway?: boolean;
  /** At the end: for devices to get their acknowledgements, and again for the queue to drain; default 60,000. */
  readonly drainMs?: number;
  /** Go on without the serial device where there are no pseudo-terminals; default false: that is an error. */
  readonly allowWithoutSerial?: boolean;
  readonly seed?: number;
  /** Gets what happens, line by line, for people. */
  readonly print?: (line: string) => void;
  /** Ends it early, with everything cleaned up; `runScenario` then rejects. */
  readonly signal?: AbortSignal;
}

export interface ScenarioResult {
  /** Nothing missing, wrong or out of order, and no problem. */
  readonly ok: boolean;
  readonly reports: readonly DeviceReport[];
  /** What else went wrong, for people. */
  readonly problems: readonly string[];
  /** What was left out, and why. */
  readonly skipped: readonly string[];
  /** Milliseconds from start to `ready`: of the first start, of the start after the kill. */
  readonly readyMs: readonly number[];
  /** Milliseconds from the first command to the device's obeying; undefined when it did not, or there was no serial device. */
  readonly commandMs: number | undefined;
  /** Messages that the cloud received, copies included, and how many of them said that they were late. */
  readonly received: number;
  readonly late: number;
}

const gatewayId = "demo-gateway";
const setpoint = 42.5; // Cel; the boiler begins with 60

/** @throws Error when something cannot be started or ends by itself, or `signal` was aborted. Leaves nothing behind either way. */
export async function runScenario(options: ScenarioOptions): Promise<ScenarioResult> {
  const durationMs = options.durationMs ?? 60_000;
  const cloudDownMs = options.cloudDownMs ?? 15_000;
  if (cloudDownMs > durationMs / 2) throw new RangeError("the cloud may be down for half the duration at most");
  options.signal?.throwIfAborted();
  const skipped: string[] = [];
  const noPty = await ptyProblem();
  if (noPty !== undefined) {
    if (options.allowWithoutSerial !== true) throw new Error(noPty);
    skipped.push(`serial device: ${noPty}`);
  }
  const undo: Array<() => unknown> = [];
  const startedMs = performance.now();
  const say = (line: string): void => {
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1).padStart(6);
    options.print?.(`${seconds} s  ${line}`);
  };
  try {
    for (const line of skipped) say(`Left out: ${line}`);
    const stage = await setUp(options, noPty === undefined, undo, say);
    await play(stage, durationMs, cloudDownMs);
    return await settle(stage, skipped);
  } finally {
    await cleanUp(undo, say);
  }
}

interface Stage {
  readonly options: ScenarioOptions;
  readonly say: (line: string) => void;
  readonly cloud: Cloud;
  readonly devices: DemoDevices;
  readonly gateway: Gateway;
  readonly problems: string[];
  readonly readyMs: number[];
  /** What the gateway had counted of the observable before it was killed. */
  observedBefore: number;
  commandMs: number | undefined;
}

/** Ports, cloud, devices that listen, config, gateway, devices that send. */
async function setUp(
  options: ScenarioOptions,
  serial: boolean,
  undo: Array<() => unknown>,
  say: Stage["say"],
): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), "tidegate-demo-"));
  undo.push(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  const ports = {
    mqttPort: await freePort("tcp"),
    httpPort: await freePort("tcp"),
    coapServerPort: await freePort("udp"),
  };
  const cloud = new Cloud({ port: await freePort("tcp") });
  undo.push(() => cloud.close());
  await cloud.up();
  say(`The cloud (a stand-in broker) listens at 127.0.0.1:${cloud.port}.`);

  const serialDir = join(folder, "by-id");
  mkdirSync(serialDir);
  const devices = new DemoDevices({
    ...ports,
    serialDir: serial ? serialDir : undefined,
    simCommand: options.simCommand ?? defaultSimCommand(),
    seed: options.seed ?? 1,
  });
  undo.push(() => devices.stop());
  const observablePort = await devices.startServers();
  if (devices.serial !== undefined) say(`A boiler is plugged in at ${devices.serial.path} (bad cable, loose plug).`);

  const configFile = join(folder, "tidegate.yaml");
  const addresses = { ...ports, gatewayId, cloudPort: cloud.port, observablePort, serialPath: devices.serial?.path };
  writeFileSync(configFile, demoConfig(addresses));
  const gateway = new Gateway(options.gatewayCommand, configFile, ports.httpPort);
  undo.push(() => gateway.stop());
  const readyMs = await gateway.start();
  say(`The gateway is ready after ${readyMs} ms; its state is at http://127.0.0.1:${ports.httpPort}/api/v1/status.`);
  await devices.startClients();
  say("MQTT sensors (3.1.1 and 5, two of them binary) and CoAP sensors begin to send.");
  return {
    options,
    say,
    cloud,
    devices,
    gateway,
    problems: [],
    readyMs: [readyMs],
    observedBefore: 0,
    commandMs: undefined,
  };
}

/** The part with the clock: outage after a quarter, kill in its middle, command after it. */
async function play(stage: Stage, durationMs: number, cloudDownMs: number): Promise<void> {
  const { say, cloud, gateway } = stage;
  const endMs = performance.now() + durationMs;
  await pause(stage, durationMs / 4);
  await cloud.down();
  say(`THE CLOUD IS GONE, for ${cloudDownMs / 1000} s. The gateway goes on accepting and keeps everything on disk.`);
  const upAtMs = performance.now() + cloudDownMs;
  await pause(stage, cloudDownMs / 2);
  if (stage.options.killGateway !== false) {
    stage.observedBefore = (await gateway.accepted("yard")) ?? 0;
    await gateway.kill();
    say("THE GATEWAY WAS KILLED (SIGKILL), its backlog on disk. Starting it again ...");
    const readyMs = await gateway.start();
    stage.readyMs.push(readyMs);
    say(`The gateway is back, ready after ${readyMs} ms.`);
  }
  await pause(stage, upAtMs - performance.now());
  say(`Waiting in the gateway for the cloud: ${(await gateway.waiting()) ?? "unknown"} messages.`);
  await cloud.up();
  say("The cloud is back; the backlog drains while new readings come in.");
  await until(stage, 30_000, async () => cloud.isConnected(gatewayId));
  if (!cloud.isConnected(gatewayId)) stage.problems.push("the gateway did not connect to the cloud again within 30 s");
  await sendCommand(stage);
  await pause(stage, endMs - performance.now());
}

/** Repeated, because the boiler's plug may be out just then and a command is not a reading: it may be lost. */
async function sendCommand(stage: Stage): Promise<void> {
  const { devices, cloud, say } = stage;
  const serial = devices.serial;
  if (serial === undefined) return;
  const startedMs = performance.now();
  const obeys = (): boolean => serial.stats().setpoint === setpoint;
  for (let tries = 1; tries <= 5 && !obeys(); tries += 1) {
    await cloud.publish(`gw/${gatewayId}/cmd/boiler`, JSON.stringify({ setpoint }));
    say(`The cloud tells the boiler: setpoint ${setpoint} Cel${tries > 1 ? ` (attempt ${tries})` : ""}.`);
    await until(stage, 3000, async () => obeys());
  }
  if (!obeys()) {
    stage.problems.push("the boiler never got the setpoint command");
    return;
  }
  stage.commandMs = Math.round(performance.now() - startedMs);
  say(`The boiler obeys, ${stage.commandMs} ms later.`);
}

/** Lets everything come to rest, then compares. */
async function settle(stage: Stage, skipped: readonly string[]): Promise<ScenarioResult> {
  const { devices, gateway, cloud, say, problems } = stage;
  const drainMs = stage.options.drainMs ?? 60_000;
  await devices.stopProducing();
  say("The devices make no new readings; waiting until each has its acknowledgement ...");
  if (!(await until(stage, drainMs, async () => devices.unaccepted().length === 0))) {
    problems.push(`not acknowledged after ${drainMs / 1000} s: ${devices.unaccepted().join(", ")}`);
  }
  say(`Acknowledged: ${devices.progress()}.`);
  const inbox = new Inbox(cloud);
  let observed = stage.observedBefore;
  let reports: DeviceReport[] = [];
  const drained = await until(stage, drainMs, async () => {
    const now = await gateway.accepted("yard");
    if (now === undefined) return false;
    observed = stage.observedBefore + now;
    reports = devices.compare(inbox.read().arrivals, observed);
    const waiting = await gateway.waiting();
    // What is missing while nothing waits does not come any more.
    return waiting === 0 || (waiting === undefined && reports.every((report) => report.missing === 0));
  });
  const { arrivals, faults } = inbox.read();
  reports = devices.compare(arrivals, observed);
  if (!drained) problems.push(`the gateway's queue did not drain within ${drainMs / 1000} s`);
  for (const fault of faults.slice(0, 5)) problems.push(`in the cloud: ${fault}`);
  const stopped = await gateway.stop();
  if (stopped !== "0") problems.push(`the gateway's stop was not clean: it ended with ${stopped}`);
  say("The gateway was stopped. What the devices saw accepted, and what the cloud has:");
  const late = arrivals.filter((arrival) => arrival.late).length;
  const ok = problems.length === 0 && reports.every(isGood);
  const { readyMs, commandMs } = stage;
  const result = { ok, reports, problems, skipped, readyMs, commandMs, received: cloud.received, late };
  explain(result, stage.options.print ?? (() => {}));
  return result;
}

function explain(result: ScenarioResult, print: (line: string) => void): void {
  print("");
  for (const line of tableOf(result.reports)) print(line);
  print("");
  print(
    "accepted: acknowledged to the device (ACK frame, 2.xx, PUBACK); observations: counted by the gateway as durable, last read just",
  );
  print(
    "before the kill, so the cloud may have a few more. sent twice: the uplink repeated a copy (same gw, epoch, seq). taken twice: the",
  );
  print(
    "device repeated a reading whose acknowledgement it did not see. Both are allowed, losing is not. order: ACK order found in the",
  );
  print("cloud (serial), numbers rising (the others).");
  for (const report of result.reports) {
    if (report.missingNumbers.length > 0)
      print(`MISSING of ${report.device}: ${report.missingNumbers.slice(0, 20).join(", ")}`);
    if (report.wrong.length > 0) print(`WRONG VALUES of ${report.device}: ${report.wrong.slice(0, 20).join(", ")}`);
  }
  for (const problem of result.problems) print(`PROBLEM: ${problem}`);
  print(
    `${result.received} messages in the cloud, ${result.late} of them late (accepted before the link's connection).`,
  );
  print(result.ok ? "NOTHING IS MISSING." : "FAILED: see above.");
}

/** What the cloud has received, opened once each: it is looked at again and again while the queue drains. */
class Inbox {
  readonly arrivals: Arrival[] = [];
  readonly faults: string[] = [];
  readonly #cloud: Cloud;
  #read = 0;

  constructor(cloud: Cloud) {
    this.#cloud = cloud;
  }

  /** Reads what is new. */
  read(): this {
    for (const message of this.#cloud.messages.slice(this.#read)) {
      const opened = openEnvelope(message, gatewayId);
      if (typeof opened === "string") this.faults.push(opened);
      else this.arrivals.push(opened);
    }
    this.#read = this.#cloud.messages.length;
    return this;
  }
}

/** Looks every 100 ms. @returns whether the condition came true in time. @throws when the gateway or a device ended by itself */
async function until(stage: Stage, ms: number, condition: () => Promise<boolean>): Promise<boolean> {
  const deadlineMs = performance.now() + ms;
  for (;;) {
    stage.options.signal?.throwIfAborted();
    const { ended, lastLines } = stage.gateway;
    if (ended !== undefined) throw new Error(`the gateway ended by itself with ${ended}\n${lastLines.join("\n")}`);
    const problem = stage.devices.problem();
    if (problem !== undefined) throw new Error(problem);
    if (await condition()) return true;
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) return false;
    await sleep(Math.min(100, leftMs));
  }
}

/** Lets time pass, with a line of progress every 5 s. */
async function pause(stage: Stage, ms: number): Promise<void> {
  let nextMs = performance.now() + 5000;
  await until(stage, ms, async () => {
    if (performance.now() >= nextMs) {
      nextMs += 5000;
      const waiting = await stage.gateway.waiting();
      const queue = waiting === undefined ? "" : `, ${waiting} waiting in the gateway`;
      stage.say(`acknowledged: ${stage.devices.progress()}; in the cloud ${stage.cloud.received}${queue}`);
    }
    return false;
  });
}

/** `sim` beside this module: bundled (`dist/firmware-sim/sim.js`), or the source, which tsx runs. */
function defaultSimCommand(): string[] {
  for (const path of [join(import.meta.dirname, "sim.js"), join(import.meta.dirname, "..", "sim.ts")]) {
    if (!existsSync(path)) continue;
    return path.endsWith(".ts")
      ? [process.execPath, "--import", pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href, path]
      : [process.execPath, path];
  }
  throw new Error("the program sim is not beside the demo: run npm run build");
}

async function cleanUp(undo: Array<() => unknown>, say: Stage["say"]): Promise<void> {
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) {
    try {
      await step();
    } catch (error) {
      say(`While cleaning up: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}
