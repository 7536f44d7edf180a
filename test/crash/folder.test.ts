import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { expect } from "chai";
import { CountingPublisher, numbersOf } from "../helpers/countingPublisher.ts";
import { FakeCloud } from "../helpers/fakeCloud.ts";
import { hashes } from "../helpers/folderHashes.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import { randomOf } from "../unit/journal/support.ts";

// The real binary in a folder that is not its own, or not its own alone: it says so or leaves alone what it finds.

const kept = join(import.meta.dirname, "..", "vectors", "stores", "format-1", "gateway");

/** Bytes that mean nothing. */
function garbage(seed: number, length: number): Buffer {
  const random = randomOf(seed);
  return Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)));
}

describe("process: folders of others", function () {
  this.timeout(180_000);
  let gateway: GatewayProcess;
  let cloud: FakeCloud;
  let publisher: CountingPublisher | undefined;
  let port = 0;

  const config = (mqttPort: number, dataDir: string): string => `
gateway: { id: g1, dataDir: "${dataDir}" }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${mqttPort}" } ] }
http: { listen: false }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloud.port}
    version: 5
    backoff: { min: 20ms, max: 100ms }
    forward: [ { topic: "plant/#", to: "{topic}", qos: 1 } ]
`;

  beforeEach(async () => {
    cloud = await FakeCloud.open(5, { publish: () => {} }); // takes, and acknowledges nothing: all of it keeps waiting
    [port = 0] = await freePorts(1);
    gateway = await GatewayProcess.create(config(port, "./data"));
    mkdirSync(data());
  });
  afterEach(async () => {
    await publisher?.drop();
    publisher = undefined;
    await gateway.remove();
    await cloud.close();
  });

  const data = (): string => join(gateway.dir, "data");

  /** Publishes, is killed, starts again: the cloud gets all of it. */
  async function works(): Promise<void> {
    await gateway.start();
    publisher = new CountingPublisher(port, "plant/a", 100);
    await publisher.connect();
    for (let count = 0; count < 5; count += 1) expect(await publisher.publish()).to.equal(true);
    await gateway.end("SIGKILL");
    await gateway.start();
    await until("the cloud has all", () => numbersOf(cloud.last?.payloads ?? []).length === 5);
    expect(await gateway.end("SIGTERM")).to.equal(0);
  }

  function untouched(before: Record<string, string>): void {
    const now = hashes(data());
    const same = Object.fromEntries(Object.keys(before).map((name) => [name, now[name]]));
    expect(same).to.deep.equal(before);
  }

  it("full of files of something else: works, and leaves them alone", async () => {
    for (const [index, name] of [
      "notes.txt",
      "seg-1.log",
      "seg-abc.log",
      "segment-000000000001.log",
      "ckpt-1.bin",
      "ckpt-000000000001.bin.bak",
      "spare.log",
      ".hidden",
      "access.tmp",
    ].entries())
      writeFileSync(join(data(), name), garbage(index, 2000));
    const before = hashes(data());
    await works();
    untouched(before);
  });

  it("with files named like its own that never were: works, and leaves them alone", async () => {
    for (const [index, name] of [
      "seg-000000000001.log",
      "seg-000000000009.log",
      "ckpt-000000000001.bin",
      "ckpt-000000000004.bin",
    ].entries())
      writeFileSync(join(data(), name), garbage(index, 3000));
    const before = hashes(data());
    await works();
    untouched(before);
    expect(gateway.lines.filter(({ msg }) => String(msg).includes("left alone")).length).to.be.above(0);
  });

  it("with segments and checkpoints of another gateway beside its own: leaves them alone", async () => {
    await works();
    const other = await GatewayProcess.create(config(port, "./data"));
    try {
      mkdirSync(join(other.dir, "data"));
      cpSync(kept, join(other.dir, "data"), { recursive: true });
      await other.start();
      await other.end("SIGTERM");
      const theirs = readdirSync(join(other.dir, "data")).filter((name) => name.startsWith("seg-"));
      const taken = new Set(readdirSync(data()));
      const free = theirs.filter((name) => !taken.has(name));
      for (const name of free) cpSync(join(other.dir, "data", name), join(data(), name));
      // Under another name than its header says, too.
      cpSync(join(other.dir, "data", theirs[0]!), join(data(), "seg-000000000500.log"));
      const before = hashes(data());
      const foreign = Object.fromEntries(
        [...free, "seg-000000000500.log"].map((name) => [name, before[name] ?? "missing"]),
      );
      await gateway.start();
      const connections = cloud.connections.length;
      await until("its own backlog comes", () => numbersOf(cloud.last?.payloads ?? []).length === 5);
      expect(cloud.connections.length).to.be.at.least(connections);
      expect(await gateway.end("SIGTERM")).to.equal(0);
      untouched(foreign);
    } finally {
      await other.remove();
    }
  });

  it("of a newer version: exit 1, says what to do, changes nothing", async () => {
    cpSync(kept, data(), { recursive: true });
    for (const name of readdirSync(data())) {
      const bytes = readFileSync(join(data(), name));
      for (const at of [0, 512]) {
        bytes.writeUInt16LE(999, at + 8);
        bytes.writeUInt32LE(0, at + 12);
        bytes.writeUInt32LE(crc32(bytes.subarray(at, at + 128)), at + 12);
      }
      writeFileSync(join(data(), name), bytes);
    }
    const before = hashes(data());
    const { code, stderr } = await gateway.failingStart();
    expect(code, stderr).to.equal(1);
    expect(stderr).to.match(/written by a newer tidegate: run that version, or choose another data folder/);
    expect(hashes(data())).to.deep.equal(before);
  });

  it("in use: the second says so, exit 1, and the first has lost nothing", async () => {
    await gateway.start();
    publisher = new CountingPublisher(port, "plant/a", 100);
    await publisher.connect();
    for (let count = 0; count < 3; count += 1) await publisher.publish();
    const [otherPort = 0] = await freePorts(1);
    const second = await GatewayProcess.create(config(otherPort, data()));
    try {
      for (let tries = 0; tries < 3; tries += 1) {
        const { code, stderr } = await second.failingStart();
        expect(code, stderr).to.equal(1);
        expect(stderr).to.contain(data()).and.to.contain("in use by another tidegate: stop it first");
        expect(await publisher.publish(), "the first goes on").to.equal(true);
      }
      await gateway.end("SIGKILL");
      await second.start(); // and now it may
      await until("the cloud has all", () => numbersOf(cloud.last?.payloads ?? []).length === 6);
      expect(await second.end("SIGTERM")).to.equal(0);
    } finally {
      await second.remove();
    }
  });
});
