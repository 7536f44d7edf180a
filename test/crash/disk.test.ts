import { chmodSync, closeSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { CountingPublisher, numbersOf } from "../helpers/countingPublisher.ts";
import { FakeCloud } from "../helpers/fakeCloud.ts";
import { hashes } from "../helpers/folderHashes.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { needNamespaces, PrivateDisk } from "../helpers/privateDisk.ts";
import { RawClient } from "../helpers/rawClient.ts";
import { until } from "../helpers/wait.ts";

// The real binary on a disk that is full, takes no writes, or belongs to somebody else.

describe("process: disks that refuse", function () {
  this.timeout(180_000);
  let gateway: GatewayProcess;
  let disk: PrivateDisk | undefined;
  let cloud: FakeCloud | undefined;
  let publisher: CountingPublisher;
  let [port, httpPort, cloudPort] = [0, 0, 0];

  beforeEach(async () => {
    [port = 0, httpPort = 0, cloudPort = 0] = await freePorts(3);
    gateway = await GatewayProcess.create(`
gateway: { id: g1, dataDir: ./disk/data }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: "http://127.0.0.1:${httpPort}" }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    version: 5
    backoff: { min: 20ms, max: 100ms }
    queue: { whenFull: reject-newest }
    forward: [ { topic: "plant/#", to: "{topic}", qos: 1 }, { topic: "other/#", to: "{topic}", qos: 1 } ]
`);
    mkdirSync(join(gateway.dir, "disk", "data"), { recursive: true });
  });
  afterEach(async () => {
    await publisher?.drop();
    await gateway.end("SIGKILL");
    await disk?.close();
    disk = undefined;
    chmodSync(data(), 0o700);
    await gateway.remove();
    await cloud?.close();
    cloud = undefined;
  });

  const data = (): string => join(gateway.dir, "disk", "data");

  async function small(megabytes: number): Promise<PrivateDisk> {
    disk = await PrivateDisk.small(join(gateway.dir, "disk"), megabytes);
    gateway.prefix = disk.prefix;
    return disk;
  }

  async function health(): Promise<{ status: number; reasons: string }> {
    const response = await fetch(`http://127.0.0.1:${httpPort}/health`);
    const { reasons } = (await response.json()) as { reasons: string[] };
    return { status: response.status, reasons: reasons.join() };
  }

  const healthy = (): Promise<unknown> => until("healthy", async () => (await health()).status === 200, 60_000);

  async function cloudUp(): Promise<FakeCloud> {
    cloud = await FakeCloud.open(5, {}, undefined, cloudPort);
    return cloud;
  }

  async function connected(clientId: string, version: 4 | 5): Promise<RawClient> {
    const client = await RawClient.open({ port, clientId, version, persistent: false });
    if (client === undefined) throw new Error("no gateway");
    return client;
  }

  /** What is refused at QoS 1 and 2 is told or ends the connection; QoS 0 goes through. @param reasons the answers allowed */
  async function refuses(...reasons: number[]): Promise<void> {
    const five = await connected("five", 5);
    five.publish("plant/x", "refused".repeat(10_000), 2, 7);
    expect(reasons).to.include((await five.take("pubrec")).reasonCode);
    const four = await connected("four", 4);
    four.publish("plant/x", "refused".repeat(10_000), 1, 7);
    await four.ended();
    expect(four.packets, "3.1.1 has no other answer").to.deep.equal([]);
    five.subscribe("live/#", 0);
    await five.take("suback");
    five.publish("live/x", "passes", 0, 0);
    expect(String((await five.take("publish")).payload)).to.equal("passes");
    await five.disconnect();
  }

  async function allArrive(): Promise<void> {
    const arrived = (): number[] =>
      numbersOf(
        cloud!.connections.flatMap((connection) =>
          connection
            .seen("publish")
            .filter(({ topic }) => topic === "plant/a")
            .map(({ payload = Buffer.alloc(0) }) => payload.toString("latin1", 0, 10)),
        ),
      );
    const complete = (): boolean => {
      const found = new Set(arrived());
      return publisher.acknowledged.every((number) => found.has(number));
    };
    await until("all are in the cloud", complete, 60_000);
    expect(arrived()).to.deep.equal([...arrived()].sort((a, b) => a - b));
  }

  describe("full", () => {
    before(function () {
      needNamespaces(this);
    });

    it("publishers are told, nothing acknowledged is lost, and it goes on when the cloud has drained it", async () => {
      await small(24);
      await gateway.start();
      publisher = new CountingPublisher(port, "plant/a", 60_000);
      await publisher.connect();
      while (await publisher.publish());
      expect(publisher.refusal).to.equal(0x97);
      expect(publisher.acknowledged.length).to.be.above(100);
      await refuses(0x97);
      const little = new CountingPublisher(port, "other/b", 10); // what is left is too little for one, but not for all
      await little.connect();
      const full = await until("full to the brim", async () => {
        while (await little.publish());
        const found = await health();
        return found.status === 503 && found;
      });
      await little.drop();
      const { reasons } = full;
      expect(reasons).to.match(/full/);
      await gateway.end("SIGKILL");
      await gateway.start();
      await cloudUp();
      await allArrive();
      await healthy();
      await publisher.connect();
      await until("taken again", () => publisher.publish()); // healthy says that something fits, not that all does
      await allArrive();
    });

    /** A file that takes what is left, to the last byte. Returns its path. */
    function ballast(on: PrivateDisk): string {
      const path = on.seen(join(gateway.dir, "disk", "ballast"));
      const fd = openSync(path, "a");
      const bytes = Buffer.alloc(1024 * 1024);
      for (let size = bytes.length; size >= 1; ) {
        try {
          if (writeSync(fd, bytes, 0, size) < size) size = Math.floor(size / 2);
        } catch {
          size = Math.floor(size / 2);
        }
      }
      closeSync(fd);
      return path;
    }

    it("filled by another program to the last byte: it says so, goes on when there is space, and starts while there is none", async () => {
      const on = await small(24);
      await gateway.start();
      publisher = new CountingPublisher(port, "plant/a", 20_000);
      await publisher.connect();
      for (let count = 0; count < 20; count += 1) expect(await publisher.publish()).to.equal(true);

      // A prepared segment has its place already: it takes some megabytes more.
      const fillUp = async (sender: CountingPublisher): Promise<boolean> => {
        for (let count = 0; count < 20 && sender.unanswered < 50; count += 1) sender.send();
        return /full/.test((await health()).reasons);
      };
      let path = ballast(on);
      await until("it is full", () => fillUp(publisher));
      await refuses(0x97);
      rmSync(path);
      await healthy();
      await until("what it had taken before is answered", () => publisher.unanswered === 0);
      expect(await publisher.publish(), "goes on without a restart").to.equal(true);

      path = ballast(on);
      await until("it is full once more", () => fillUp(publisher));
      await gateway.end("SIGKILL");
      await gateway.start();
      await until("it is full again", async () => /full/.test((await health()).reasons));
      await refuses(0x97);
      rmSync(path);
      await healthy();
      await publisher.connect();
      await until("what was not answered is taken now", () => publisher.unanswered === 0);
      expect(await publisher.publish()).to.equal(true);
      await cloudUp();
      await allArrive();
    });
  });

  it("read-only: it starts, gives what it has, says what to do, and refuses what it cannot keep", async function () {
    needNamespaces(this);
    await gateway.start();
    publisher = new CountingPublisher(port, "plant/a", 100);
    await publisher.connect();
    for (let count = 0; count < 20; count += 1) await publisher.publish();
    await gateway.end("SIGKILL");
    const before = hashes(data());
    disk = await PrivateDisk.readOnly(join(gateway.dir, "disk"));
    gateway.prefix = disk.prefix;
    await gateway.start();
    const { status, reasons } = await health();
    expect(status).to.equal(503);
    expect(reasons).to.match(/read-only.*mount it read-write, then restart/);
    await refuses(0x80, 0x83, 0x97);
    await cloudUp();
    await allArrive();
    await gateway.end("SIGTERM");
    expect(hashes(data())).to.deep.equal(before);
    gateway.prefix = [];
    await gateway.start();
    await publisher.connect();
    expect(await publisher.publish(), "after a restart with the disk writable").to.equal(true);
    await allArrive();
  });

  for (const [what, mode] of [
    ["written to", 0o500],
    ["read", 0o000],
  ] as const) {
    it(`a folder that may not be ${what}: exit 1, says which and what to do`, async () => {
      // Root may do anything: without these two it may what any user may.
      if (process.getuid?.() === 0)
        gateway.prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"];
      chmodSync(data(), mode);
      const { code, stderr } = await gateway.failingStart();
      expect(code, stderr).to.equal(1);
      expect(stderr)
        .to.contain(`data folder ${data()}: EACCES`)
        .and.to.contain("chown")
        .and.to.contain("gateway.dataDir");
      chmodSync(data(), 0o700);
      expect(readdirSync(data())).to.deep.equal([]);
    });
  }
});
