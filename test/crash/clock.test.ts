import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { FakeCloud } from "../helpers/fakeCloud.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { RawClient } from "../helpers/rawClient.ts";
import { until } from "../helpers/wait.ts";

// A Pi has no clock chip: it starts years ago, and jumps when NTP comes. The real binary under libfaketime, which moves the wall clock only.

const libraries = "/usr/lib";
const preload = existsSync(libraries)
  ? readdirSync(libraries)
      .map((folder) => join(libraries, folder, "faketime", "libfaketime.so.1"))
      .find((path) => existsSync(path))
  : undefined;

describe("process: clocks that jump", function () {
  this.timeout(180_000);
  let gateway: GatewayProcess;
  let cloud: FakeCloud | undefined;
  let [port, cloudPort] = [0, 0];

  before(function () {
    if (preload !== undefined) return;
    if (process.env["CI"] !== undefined) throw new Error("missing here, where it may not be: apt-get install faketime");
    process.stdout.write("      skipped: libfaketime not found: apt-get install faketime\n");
    this.skip();
  });
  beforeEach(async () => {
    [port = 0, cloudPort = 0] = await freePorts(2);
    gateway = await GatewayProcess.create(`
gateway: { id: g1, dataDir: ./data }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: false }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    version: 5
    backoff: { min: 20ms, max: 100ms }
    queue: { maxAge: 7d }
    forward:
      - { topic: "hour/#", to: "{topic}", qos: 1, ttl: 1h }
      - { topic: "soon/#", to: "{topic}", qos: 1, ttl: 1s }
      - { topic: "#", to: "{topic}", qos: 1 }
`);
    jump("+0");
  });
  afterEach(async () => {
    await gateway?.remove();
    await cloud?.close();
    cloud = undefined;
  });

  const now = (): string => join(gateway.dir, "now");
  /** The wall clock jumps; a running gateway sees it at once. */
  const jump = (offset: string): void => writeFileSync(now(), `${offset}\n`);

  const start = (): Promise<void> =>
    gateway.start({
      LD_PRELOAD: preload!,
      FAKETIME_TIMESTAMP_FILE: now(),
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      DONT_FAKE_MONOTONIC: "1",
    });

  async function connected(clientId: string): Promise<RawClient> {
    const client = await RawClient.open({ port, clientId, version: 5, persistent: true });
    if (client === undefined) throw new Error("no gateway");
    return client;
  }

  /** One message with a lifetime and one without, acknowledged. */
  async function feed(text: string): Promise<void> {
    const client = await connected("feeder");
    for (const [index, topic] of ["hour/a", "plant/a"].entries()) {
      client.publish(topic, text, 1, index + 1);
      expect((await client.take("puback")).reasonCode ?? 0).to.equal(0);
    }
    await client.disconnect();
  }

  /** What comes to the cloud once it is there: topic, text, and the year in which it was accepted. */
  async function delivered(count: number): Promise<string[]> {
    cloud = await FakeCloud.open(5, {}, undefined, cloudPort);
    const seen = () => cloud!.connections.flatMap((connection) => connection.seen("publish"));
    await until("the cloud has them", () => seen().length >= count, 60_000);
    return seen().map(({ topic, payload, properties }) => {
      const { userProperties } = properties as { userProperties: { ts: string } };
      return `${topic} ${String(payload)} ${userProperties.ts.slice(0, 4)}`;
    });
  }

  const year = new Date().getFullYear();

  it("between runs, two years forward and a year back: nothing expires, a session stays", async () => {
    await start();
    const reader = await connected("reader");
    reader.subscribe("plant/#", 1);
    await reader.take("suback");
    await reader.disconnect();
    await feed("today");
    await gateway.end("SIGKILL");
    jump("+2y");
    await start();
    await feed("later");
    await gateway.end("SIGTERM");
    jump("-1y");
    await start();
    await feed("before");
    await gateway.end("SIGKILL");
    jump("+0");
    await start();
    const years = [`today ${year}`, `later ${year + 2}`, `before ${year - 1}`];
    const wanted = years.flatMap((text) => [`hour/a ${text}`, `plant/a ${text}`]);
    expect(await delivered(wanted.length)).to.deep.equal(wanted);
    const again = await connected("reader");
    expect(again.sessionPresent).to.equal(true);
    const texts: string[] = [];
    while (texts.length < 3) texts.push(String((await again.take("publish")).payload));
    expect(texts).to.deep.equal(["today", "later", "before"]);
    await again.drop();
  });

  it("while running: nothing expires, and a lifetime still ends when its time has passed", async () => {
    await start();
    await feed("today");
    jump("+2y");
    await feed("later");
    jump("-1y");
    await feed("before");
    const client = await connected("feeder");
    client.publish("soon/a", "short", 1, 9);
    await client.take("puback");
    // Its second is over when one taken after it has aged as much.
    const takenMs = performance.now();
    await until("a second has passed", () => performance.now() - takenMs > 1500);
    await client.disconnect();
    const years = [`today ${year}`, `later ${year + 2}`, `before ${year - 1}`];
    const wanted = years.flatMap((text) => [`hour/a ${text}`, `plant/a ${text}`]);
    expect(await delivered(wanted.length)).to.deep.equal(wanted);
    expect(await gateway.end("SIGTERM")).to.equal(0);
  });
});
