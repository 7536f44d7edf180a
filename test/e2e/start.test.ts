import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import mqtt, { type MqttClient } from "mqtt";
import { GatewayProcess, program, runProgram } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

const minimal = (mqttPort: number, more = ""): string => `
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${mqttPort}" } ] }
http: { listen: false }
${more}`;

describe("e2e: starting and stopping", () => {
  let gateway: GatewayProcess | undefined;
  let dir = "";

  /** MQTT.js reconnects for ever: what a failed test leaves would keep the process. */
  const clients: MqttClient[] = [];
  async function connected(url: string): Promise<MqttClient> {
    const client = await mqtt.connectAsync(url, { reconnectPeriod: 0 });
    client.on("error", () => {});
    clients.push(client);
    return client;
  }

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-"));
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.endAsync(true);
    await gateway?.remove();
    gateway = undefined;
    await rm(dir, { recursive: true, force: true });
  });

  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it(`${signal} stops it cleanly: exit 0 in under 5 s, with clients connected`, async () => {
      const [port = 0] = await freePorts(1);
      gateway = await GatewayProcess.create(minimal(port));
      await gateway.start();
      const client = await connected(`mqtt://127.0.0.1:${port}`);
      const beganMs = performance.now();
      expect(await gateway.end(signal)).to.equal(0);
      expect(performance.now() - beganMs).to.be.below(5000);
      await client.endAsync(true);
    });
  }

  it("SIGHUP does not end it", async () => {
    const [port = 0] = await freePorts(1);
    gateway = await GatewayProcess.create(minimal(port));
    await gateway.start();
    process.kill(gateway.pid, "SIGHUP");
    await gateway.line("reloaded");
    const client = await connected(`mqtt://127.0.0.1:${port}`);
    await client.endAsync();
  });

  it("a port in use: says which, exit 1", async () => {
    const [port = 0] = await freePorts(1);
    gateway = await GatewayProcess.create(minimal(port));
    await gateway.start();
    const file = join(dir, "tidegate.yaml");
    await writeFile(file, minimal(port));
    const second = await runProgram(["run", "-c", file], { cwd: dir });
    expect(second.code).to.equal(1);
    expect(second.stderr)
      .to.contain(String(port))
      .and.to.match(/in use/);
  });

  it("a data folder that another gateway uses: exit 1, and the first goes on", async () => {
    const [first = 0, second = 0] = await freePorts(2);
    gateway = await GatewayProcess.create(minimal(first, `gateway: { dataDir: "${dir}/data" }`));
    await gateway.start();
    const file = join(dir, "tidegate.yaml");
    await writeFile(file, minimal(second, `gateway: { dataDir: "${dir}/data" }`));
    const ended = await runProgram(["run", "-c", file], { cwd: dir });
    expect(ended.code).to.equal(1);
    expect(ended.stderr).to.match(/in use/);
    const client = await connected(`mqtt://127.0.0.1:${first}`);
    await client.endAsync();
  });

  it("a data folder that cannot be made: exit 1, says what to do", async () => {
    const [port = 0] = await freePorts(1);
    await writeFile(join(dir, "file"), "not a folder");
    const config = join(dir, "tidegate.yaml");
    await writeFile(config, minimal(port, "gateway: { dataDir: ./file/data }"));
    const ended = await runProgram(["run", "-c", config], { cwd: dir });
    expect(ended.code).to.equal(1);
    expect(ended.stderr).to.contain(join(dir, "file", "data"));
  });

  it("a wrong config names every error with line and column, exit 2, for run and check alike", async () => {
    const file = join(dir, "tidegate.yaml");
    await writeFile(
      file,
      "gateway:\n  idd: x\nmqtt:\n  limits:\n    maxInflight: many\nuplinks:\n  - name: cloud\n    url: http://x\n",
    );
    for (const command of ["run", "check"]) {
      const ended = await runProgram([command, "-c", file], { cwd: dir });
      expect(ended.code, command).to.equal(2);
      const said = ended.stdout + ended.stderr;
      expect(said).to.match(/tidegate\.yaml:2:\d+: gateway\.idd: .*\bid\b/);
      expect(said).to.match(/tidegate\.yaml:5:\d+: mqtt\.limits\.maxInflight: /);
      expect(said).to.match(/tidegate\.yaml:8:\d+: uplinks\[0\]\.url: |tidegate\.yaml:8:\d+: uplinks\.0\.url: /);
    }
  });

  it("what is not yet available is named, and run refuses, exit 2", async () => {
    const file = join(dir, "tidegate.yaml");
    await writeFile(file, "routes:\n  - name: r\n    from: a\n    steps: [ { map: '{}' } ]\n    to: b\n");
    const checked = await runProgram(["check", "-c", file], { cwd: dir });
    expect(checked.code).to.equal(0);
    const ended = await runProgram(["run", "-c", file], { cwd: dir });
    expect(ended.code).to.equal(2);
    expect(ended.stderr).to.match(/tidegate\.yaml:4:\d+: .*not yet available/);
  });

  it("a reader of its output that goes away is no fault", async () => {
    const file = join(dir, "tidegate.yaml");
    await writeFile(file, minimal(1));
    for (const args of [["check", "-c", file], ["--help"], ["status", "-c", file]]) {
      const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"] });
      child.stdout.destroy();
      let stderr = "";
      child.stderr.on("data", (chunk) => (stderr += chunk));
      await once(child, "close");
      expect(stderr, args[0]).not.to.contain("EPIPE");
      expect(child.exitCode, args[0]).to.equal(args[0] === "status" ? 1 : 0); // no gateway runs
    }
  });

  it("output that cannot be written is: exit 1", async function () {
    if (!existsSync("/dev/full")) this.skip();
    const file = join(dir, "tidegate.yaml");
    await writeFile(file, minimal(1));
    const full = await open("/dev/full", "w");
    const child = spawn(process.execPath, [program, "check", "-c", file], { stdio: ["ignore", full.fd, "pipe"] });
    let stderr = "";
    child.stderr?.on("data", (chunk) => (stderr += chunk));
    await once(child, "close");
    await full.close();
    expect(stderr.trim()).to.match(/^tidegate: .*ENOSPC[^\n]*$/);
    expect(child.exitCode).to.equal(1);
  });

  it("unknown commands and options: exit 2", async () => {
    expect((await runProgram(["frobnicate"])).code).to.equal(2);
    expect((await runProgram(["run", "--frobnicate"])).code).to.equal(2);
    expect((await runProgram(["--version"])).code).to.equal(0);
  });

  it("a missing serial device, a silent CoAP sensor and a cloud that was never there: it runs, says so, and retries", async () => {
    const [mqttPort = 0, httpPort = 0] = await freePorts(2);
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${mqttPort}" } ] }
http: { listen: "http://127.0.0.1:${httpPort}" }
sources:
  - { name: boiler, type: serial, path: ./no-such-device, baudRate: 9600, framing: { type: lines }, decode: text, topic: a }
  - { name: yard, type: coap, url: "coap://127.0.0.1:1/temp", observe: true, decode: cbor, topic: b }
uplinks:
  - { name: cloud, url: "mqtt://127.0.0.1:1", forward: [ { topic: "#", to: "{topic}" } ] }
`);
    await gateway.start();
    const status = async (): Promise<Status> =>
      (await (await fetch(`http://127.0.0.1:${httpPort}/api/v1/status`)).json()) as Status;
    const found = await until("all three are tried", async () => {
      const now = await status();
      return now.sources.every(({ problem }) => problem !== undefined) && now.uplinks[0]?.problem !== undefined && now;
    });
    expect(found.sources[0]?.problem).to.contain("no-such-device");
    expect(found.uplinks[0]?.problem).to.match(/ECONNREFUSED/);
    const client = await connected(`mqtt://127.0.0.1:${mqttPort}`);
    const states = new Map<string, string>();
    client.on("message", (topic, payload) => states.set(topic, String(payload)));
    await client.subscribeAsync("$SYS/tidegate/#");
    const said = (name: string, what: string): boolean =>
      states.get(`$SYS/tidegate/${name}/state`)?.includes(what) === true;
    await until(
      "they tell it as retained messages too",
      () => said("sources/boiler", "no-such-device") && said("uplinks/cloud", "ECONNREFUSED"),
    );
    await client.publishAsync("x", "kept", { qos: 1 });
    await client.endAsync();
    expect((await status()).uplinks[0]?.queue.messages).to.equal(1);
    expect((await fetch(`http://127.0.0.1:${httpPort}/health`)).status).to.equal(200);
  });

  it("a malformed packet closes that connection only", async () => {
    const [port = 0] = await freePorts(1);
    gateway = await GatewayProcess.create(minimal(port));
    await gateway.start();
    const good = await connected(`mqtt://127.0.0.1:${port}`);
    for (const bytes of ["f0ffffffff", "00", "30ffffff7f", "100400044d51", "16030100aa", "474554202f"]) {
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => {});
      socket.write(Buffer.from(bytes, "hex"));
      socket.end();
      await new Promise((resolve) => socket.resume().once("close", resolve));
    }
    await good.publishAsync("still/here", "yes", { qos: 1 });
    await good.endAsync();
  });
});

interface Status {
  sources: Array<{ name: string; link: string; problem?: string }>;
  uplinks: Array<{ link: string; problem?: string; queue: { messages: number } }>;
}
