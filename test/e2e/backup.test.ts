import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect } from "chai";
import mqtt, { type MqttClient } from "mqtt";
import { Cloud } from "../../firmware-sim/cloud.ts";
import { GatewayProcess, runProgram } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

// Who restores a backup has every message that was acknowledged before it was asked for.

/** Keeps 20 QoS 1 messages in flight; the acknowledged ones can be counted. */
class Publisher {
  readonly acknowledged: number[] = [];
  readonly #client: MqttClient;
  #next = 0;
  #running = true;

  constructor(port: number) {
    this.#client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { clientId: "p", reconnectPeriod: 50 });
    this.#client.on("error", () => {});
    for (let slot = 0; slot < 20; slot += 1) this.#feed().catch(() => {});
  }

  async #feed(): Promise<void> {
    while (this.#running) {
      const n = this.#next++;
      await this.#client.publishAsync("plant/n", JSON.stringify({ n, pad: "x".repeat(2000) }), { qos: 1 });
      this.acknowledged.push(n);
    }
  }

  async end(): Promise<void> {
    this.#running = false;
    await this.#client.endAsync(true);
  }
}

const configOf = (port: number, cloudPort: number, dataDir = "./data"): string => `
gateway: { id: g1, dataDir: "${dataDir}" }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: false }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    version: 4
    envelope: json
    backoff: { min: 50ms, max: 200ms }
    forward: [ { topic: "plant/#", to: "{topic}", qos: 1 } ]
`;

interface Envelope {
  readonly epoch: number;
  readonly data: { readonly n: number };
}

describe("e2e: backup", function () {
  this.timeout(180_000);
  let cloud: Cloud;
  let port: number;
  let gateway: GatewayProcess;
  let publisher: Publisher | undefined;

  beforeEach(async () => {
    cloud = new Cloud();
    read = [];
    await cloud.up();
    [port = 0] = await freePorts(1);
    gateway = await GatewayProcess.create(configOf(port, cloud.port));
  });
  afterEach(async () => {
    await publisher?.end();
    publisher = undefined;
    await gateway.remove();
    await cloud.close();
  });

  const tidegate = (...args: string[]) => runProgram([...args, "-c", gateway.configFile], { cwd: gateway.dir });
  const inDir = (name: string): string => join(gateway.dir, name);
  /** What the cloud has. Each is read once: who reads 10 MiB again at every look has no time left for the cloud, which lives in this process. */
  let read: Envelope[] = [];
  const envelopes = (): readonly Envelope[] => {
    for (const { payload } of cloud.messages.slice(read.length)) read.push(JSON.parse(String(payload)) as Envelope);
    return read;
  };

  async function cloudHas(numbers: readonly number[]): Promise<void> {
    const complete = (): boolean => {
      const had = new Set(envelopes().map(({ data }) => data.n));
      return numbers.every((n) => had.has(n));
    };
    await until("the cloud has all", complete, 60_000);
  }

  async function published(count: number): Promise<void> {
    publisher ??= new Publisher(port);
    await until(`${count} are acknowledged`, () => (publisher?.acknowledged.length ?? 0) >= count, 60_000);
  }

  it("under load: a second gateway from it brings all that was acknowledged before, with a higher epoch", async () => {
    await gateway.start();
    await published(100);
    await until("the cloud has some", () => cloud.messages.length > 0);
    const { epoch } = envelopes()[0]!;
    await cloud.down();
    await published((publisher?.acknowledged.length ?? 0) + 5000); // 10 MiB: a sealed segment and one being written
    const before = [...publisher!.acknowledged];
    const made = await tidegate("backup", "saved");
    expect(made.code, made.stderr).to.equal(0);
    expect(made.stdout).to.match(/^backup of g1 in .*saved: \d+ files, [\d.]+ MiB, [\d.]+ MiB of them hard links\n$/);
    await published((publisher?.acknowledged.length ?? 0) + 100); // it goes on meanwhile
    await publisher!.end();
    await gateway.end("SIGKILL");
    const had = new Set(envelopes().map(({ data }) => data.n));
    const manifest = JSON.parse(await readFile(inDir("saved/backup.json"), "utf8")) as { epoch: number };
    expect(manifest.epoch).to.equal(epoch);

    await cp(inDir("saved"), inDir("restored"), { recursive: true });
    await gateway.configure(configOf(port, cloud.port, "./restored"));
    await cloud.up();
    await gateway.start();
    await until(
      "the cloud has all",
      () => {
        for (const { data, epoch: of } of envelopes()) if (of > epoch) had.add(data.n);
        return before.every((n) => had.has(n));
      },
      60_000,
    );
    expect(await readdir(inDir("restored"))).not.to.include("backup.json");
    // The backup stayed what it was: it can be started from again.
    const names = (await readdir(inDir("saved"))).sort();
    expect(names).to.include("backup.json");
    await gateway.end("SIGTERM");
    await gateway.configure(configOf(port, cloud.port, "./saved"));
    const from = gateway.logged;
    await gateway.start();
    expect(gateway.since(from).map(({ msg }) => msg)).to.include("journal: restored from a backup");
  });

  it("each file of it cut short in turn: refused, named, untouched", async () => {
    await gateway.start();
    await published(300);
    expect((await tidegate("backup", inDir("saved"))).code).to.equal(0);
    await publisher!.end();
    await gateway.end("SIGTERM");
    const names = (await readdir(inDir("saved"))).sort();
    expect(names.length).to.be.above(1);
    for (const name of names) {
      const broken = inDir(`broken-${name}`);
      await cp(inDir("saved"), broken, { recursive: true });
      const { size } = await stat(join(broken, name));
      await truncate(join(broken, name), size - 10);
      await gateway.configure(configOf(port, cloud.port, broken));
      const { code, stderr, stdout } = await tidegate("run");
      expect(code, stdout).to.equal(1);
      expect(stderr).to.contain(name).and.contain("Nothing was changed");
      expect(stdout).to.contain("TG_BACKUP_BROKEN");
      expect((await readdir(broken)).sort()).to.deep.equal(names);
    }
  });

  it("kill -9 while it is made: what is left is refused, and the gateway has lost nothing", async () => {
    await gateway.start();
    await published(200);
    await cloud.down();
    await published(publisher!.acknowledged.length + 5000);
    const making = tidegate("backup", "saved");
    await until("it has begun", async () => (await readdir(inDir("saved")).catch(() => [])).length > 0);
    await gateway.end("SIGKILL");
    const made = await making;
    const left = await readdir(inDir("saved"));
    if (!left.includes("backup.json")) {
      expect(made.code).to.equal(1);
      expect(made.stderr).to.contain("went away").and.contain("of no use");
      await gateway.configure(configOf(port, cloud.port, "./saved"));
      const { code, stderr } = await tidegate("run");
      expect(code).to.equal(1);
      expect(stderr).to.contain("never finished");
    }
    await gateway.configure(configOf(port, cloud.port));
    await cloud.up();
    await gateway.start();
    await publisher!.end();
    await cloudHas([...publisher!.acknowledged]);
  });

  it("while no gateway runs: of the folder as it lies there, also after kill -9", async () => {
    await gateway.start();
    await cloud.down();
    await published(300);
    await publisher!.end();
    const before = [...publisher!.acknowledged];
    await gateway.end("SIGKILL"); // leaves a stale control.sock
    const made = await tidegate("backup", "saved");
    expect(made.code, made.stderr).to.equal(0);
    expect(await readdir(inDir("saved"))).not.to.include("control.sock");
    await gateway.configure(configOf(port, cloud.port, "./saved"));
    await cloud.up();
    await gateway.start();
    await cloudHas(before);
  });

  it("control.sock: the owner's only, there while it runs, over a long path too", async () => {
    const long = inDir(`${"deep".repeat(20)}/${"deeper".repeat(15)}`);
    await mkdir(long, { recursive: true });
    await gateway.configure(configOf(port, cloud.port, long));
    await gateway.start();
    const socket = await stat(join(long, "control.sock"));
    expect(socket.isSocket()).to.equal(true);
    expect(socket.mode & 0o777).to.equal(0o600);
    const shown = await tidegate("status");
    expect(shown.code, shown.stderr).to.equal(0);
    expect(shown.stdout)
      .to.contain("g1   tidegate")
      .and.contain(`mqtt://127.0.0.1:${port}`)
      .and.contain("cloud up since");
    const second = await tidegate("run"); // does not take it away
    expect(second.code).to.equal(1);
    const json = await tidegate("status", "--json");
    expect(JSON.parse(json.stdout)).to.have.nested.property("gateway.id", "g1");
    expect(await gateway.end("SIGTERM")).to.equal(0);
    expect(await readdir(long)).not.to.include("control.sock");
    const none = await tidegate("status");
    expect(none.code).to.equal(1);
    expect(none.stderr).to.contain("no gateway runs on the data folder");
  });

  it("shows a backlog: messages, bytes, age", async () => {
    await cloud.down();
    await gateway.start();
    await published(50);
    await publisher!.end();
    const { stdout } = await tidegate("status");
    expect(stdout).to.match(
      /cloud down since .*\n +\[connection-refused\] .*\n +backlog \d+ messages, [\d.]+ \wiB, oldest \d+ s; waits for the link\n/,
    );
    expect(stdout).to.match(/disk +[\d.]+ \wiB of 1\.0 GiB in \d+ segments?; [\d.]+ \wiB free on its disk/);
  });

  it("says what is wrong: usage 2, everything else 1", async () => {
    expect((await tidegate("backup")).code).to.equal(2);
    const nothing = await tidegate("backup", "saved");
    expect(nothing.code).to.equal(1);
    expect(nothing.stderr).to.contain("does not exist");
    await gateway.start();
    await mkdir(inDir("used"));
    await writeFile(inDir("used/letter.txt"), "mine");
    await writeFile(inDir("file"), "mine");
    const cases = [
      ["used", "not empty"],
      ["file", "not a folder"],
      ["data/saved", "inside the data folder"],
      ["/proc/saved", "backup folder /proc/saved"],
    ] as const;
    for (const [dir, says] of cases) {
      const { code, stderr } = await tidegate("backup", dir);
      expect(code, dir).to.equal(1);
      expect(stderr).to.contain(says);
    }
    expect(await readFile(inDir("used/letter.txt"), "utf8")).to.equal("mine");
  });

  it("a gateway that is there and does not answer is said to be so", async () => {
    await gateway.start();
    process.kill(gateway.pid, "SIGSTOP");
    const { code, stderr } = await tidegate("backup", "saved");
    process.kill(gateway.pid, "SIGCONT");
    expect(code).to.equal(1);
    expect(stderr).to.contain("does not answer");
    await rm(join(gateway.dir, "data", "control.sock"));
    const without = await tidegate("backup", "saved");
    expect(without.code).to.equal(1);
    expect(without.stderr).to.contain("a gateway has the data folder");
  });

  it("another program's socket under that name is not stolen, and keeps nobody from starting", async () => {
    await mkdir(inDir("data"));
    await writeFile(inDir("data/control.sock"), "not a socket");
    await gateway.start();
    expect(
      (await gateway.line("control.sock is off: tidegate status and backup cannot reach this gateway"))["err"],
    ).to.contain("is not a socket");
    await gateway.end("SIGTERM");
    await rm(inDir("data/control.sock"));
    const other = createServer();
    other.listen(inDir("data/control.sock"));
    await once(other, "listening");
    const { code, stderr } = await tidegate("run");
    other.close();
    expect(code).to.equal(1);
    expect(stderr).to.contain("another gateway answers");
  });

  it("a client that goes away takes its backup with it", async () => {
    await gateway.start();
    await cloud.down();
    await published(5000);
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, "../../dist/main.js"), "backup", "saved", "-c", gateway.configFile],
      {
        cwd: gateway.dir,
        stdio: "ignore",
      },
    );
    await until("it has begun", async () => (await readdir(inDir("saved")).catch(() => [])).length > 0);
    child.kill("SIGKILL");
    await once(child, "exit");
    await until("it is removed, or was whole", async () => {
      const left = await readdir(inDir("saved"));
      return left.length === 0 || left.includes("backup.json");
    });
    expect((await tidegate("status")).code).to.equal(0);
  });
});
