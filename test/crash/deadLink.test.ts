import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { get } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { CutCable, noCable } from "../helpers/cutCable.ts";
import { FakeCloud } from "../helpers/fakeCloud.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { RawClient } from "../helpers/rawClient.ts";
import { TestCa } from "../helpers/testCa.ts";
import { until } from "../helpers/wait.ts";

// Links that die without a word: nothing is lost, and the gateway says what it sees.

interface Shown {
  link: string;
  problem?: string;
  inflight: number;
  queue: { messages: number };
}

/** A gateway whose own listener is a unix socket, so that it can be reached wherever its network is. */
class Rig {
  readonly dir: string;
  readonly gateway: GatewayProcess;
  #client: RawClient | undefined;
  #next = 1;

  private constructor(dir: string, gateway: GatewayProcess) {
    this.dir = dir;
    this.gateway = gateway;
  }

  static async make(dir: string, url: string, more = ""): Promise<Rig> {
    return new Rig(
      dir,
      await GatewayProcess.create(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "unix://${dir}/mqtt.sock" } ] }
http: { listen: false }
storage: { maxBytes: 256 MiB, minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: ${url}
    keepAlive: 4s
    backoff: { min: 20ms, max: 200ms }
    queue: { maxBytes: 64 MiB }
    forward: [ { topic: "plant/#", to: "up/{rest}" } ]
${more}`),
    );
  }

  async start(): Promise<void> {
    await this.gateway.start();
    const port = join(this.dir, "mqtt.sock");
    this.#client = await RawClient.open({ port, clientId: "c", version: 4, persistent: false });
  }

  /** So many more that the gateway has acknowledged. */
  async feed(count: number): Promise<void> {
    for (const end = this.#next + count; this.#next < end; this.#next += 1)
      this.#client?.publish("plant/a", String(this.#next), 1, this.#next);
    for (let n = 0; n < count; n += 1) await this.#client?.take("puback");
  }

  async state(): Promise<Shown> {
    const socketPath = join(this.gateway.dir, "tidegate-data", "control.sock");
    const text = await new Promise<string>((resolve, reject) => {
      const asked = get({ socketPath, path: "/api/v1/uplinks" }, (answer) => {
        let all = "";
        answer.setEncoding("utf8").on("data", (part: string) => (all += part));
        answer.on("end", () => resolve(all));
      });
      asked.on("error", reject);
    });
    return (JSON.parse(text) as Shown[])[0]!;
  }

  async says(what: string, holds: (shown: Shown) => boolean): Promise<void> {
    let shown: Shown | undefined;
    const held = async (): Promise<boolean> => {
      shown = await this.state();
      return holds(shown);
    };
    await until(what, held, 60_000).catch((error: Error) => {
      throw new Error(`${error.message}; it says ${JSON.stringify(shown)}`);
    });
  }

  /** All that was acknowledged is there; what was on the wire when the link died may be there twice, anything else once, in order. */
  async arrived(cloud: FakeCloud): Promise<void> {
    await until("all are there", () => new Set(cloud.payloads).size === this.#next - 1, 60_000);
    const firsts = [...new Set(cloud.payloads)].map(Number);
    expect(firsts).to.deep.equal(Array.from({ length: this.#next - 1 }, (_, n) => n + 1));
  }

  async close(): Promise<void> {
    await this.#client?.drop();
    await this.gateway.remove();
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** Passes bytes on, until it holds them back: no byte and no FIN comes through, and nothing is lost. */
class Hole {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #closed = false;

  private constructor(socket: string) {
    this.#server = createServer({ allowHalfOpen: true }, (near) => {
      const far = connect({ path: socket, allowHalfOpen: true });
      near.pipe(far);
      far.pipe(near);
      for (const one of [near, far]) {
        this.#sockets.add(one);
        one.on("error", () => {});
        one.on("close", () => this.#sockets.delete(one));
        if (this.#closed) one.pause();
      }
    });
  }

  static async open(socket: string): Promise<Hole> {
    const hole = new Hole(socket);
    hole.#server.listen(0, "127.0.0.1");
    await once(hole.#server, "listening");
    return hole;
  }

  get url(): string {
    return `mqtt://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cut(): void {
    this.#closed = true;
    for (const socket of this.#sockets) socket.pause();
  }

  mend(): void {
    this.#closed = false;
    for (const socket of this.#sockets) socket.resume();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

describe("process: links that die without a word", function () {
  this.timeout(180_000);
  let dir = "";
  let rig: Rig | undefined;
  let cloud: FakeCloud | undefined;
  let way: CutCable | Hole | undefined;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-"));
  });
  afterEach(async () => {
    await rig?.close();
    await way?.close();
    await cloud?.close();
    rig = way = cloud = undefined;
  });

  function needCable(context: Mocha.Context): void {
    const missing = noCable();
    if (missing === undefined) return;
    process.stdout.write(`      skipped: ${missing}\n`);
    context.skip();
  }

  async function begin(how: CutCable | Hole): Promise<Rig> {
    const made = await Rig.make(dir, how instanceof Hole ? how.url : CutCable.url);
    if (how instanceof CutCable) made.gateway.prefix = how.prefix;
    rig = made;
    await made.start();
    await made.feed(50);
    await made.arrived(cloud!);
    return made;
  }

  for (const kind of ["a cable that is cut", "a way that holds every byte back"] as const)
    it(`${kind}: noticed within the keep alive, said why, nothing is lost`, async function () {
      if (kind === "a cable that is cut") needCable(this);
      const socket = join(dir, "cloud.sock");
      cloud = await FakeCloud.open(5, {}, undefined, socket);
      const made = kind === "a cable that is cut" ? await CutCable.make(socket) : await Hole.open(socket);
      way = made;
      const gateway = await begin(made);
      made.cut();
      await gateway.feed(50);
      await gateway.says("it has noticed", ({ link, problem = "" }) => link !== "up" && /PINGRESP/.test(problem));
      await gateway.feed(50);
      made.mend();
      await gateway.arrived(cloud);
      await gateway.says("up, and nothing waits", ({ link, queue }) => link === "up" && queue.messages === 0);
    });

  it("half-open: the cloud's machine is gone without FIN or RST, and another one comes in its place", async function () {
    needCable(this);
    const socket = join(dir, "cloud.sock");
    cloud = await FakeCloud.open(5, {}, undefined, socket);
    const cable = await CutCable.make(socket);
    way = cable;
    const gateway = await begin(cable);
    await cable.lose();
    await gateway.feed(50);
    await gateway.says("it has noticed", ({ link, problem = "" }) => link !== "up" && problem !== "");
    await cable.listen();
    cable.mend();
    await gateway.arrived(cloud);
    // And once more, with the cable mended at once: the new machine answers with RST what it does not know.
    await cable.lose();
    await cable.listen();
    cable.mend();
    await gateway.feed(50);
    await gateway.arrived(cloud);
    await gateway.says("up, and nothing waits", ({ link, queue }) => link === "up" && queue.messages === 0);
  });

  it("a certificate that expires meanwhile: said, tried again, and well with a new one", async function () {
    const ca = TestCa.make();
    if (ca === undefined) return this.skip();
    try {
      const [port = 0] = await freePorts(1);
      rig = await Rig.make(dir, `mqtts://127.0.0.1:${port}`, `    tls: { ca: ${ca.caFile} }\n`);
      await rig.start();
      await rig.feed(50);
      // Its eight seconds are for one connection alone: all else has been started.
      const short = (() => {
        try {
          return ca.issueShort("/CN=cloud", 8);
        } catch {
          process.stdout.write("      skipped: faketime not found: apt-get install faketime\n");
          return this.skip();
        }
      })();
      cloud = await FakeCloud.open(5, {}, { key: short.key, cert: short.cert }, port);
      await rig.arrived(cloud);
      const endsMs = Date.parse(new X509Certificate(short.cert).validTo);
      await until("it has expired", () => Date.now() > endsMs + 1000, 60_000);
      cloud.last?.close();
      await rig.feed(50);
      await rig.says("it says why", ({ link, problem = "" }) => link !== "up" && /expired/i.test(problem));
      await cloud.close();
      const { key, cert } = ca.issue("/CN=cloud");
      const before = cloud.payloads;
      cloud = await FakeCloud.open(5, {}, { key, cert }, port);
      const after = cloud;
      await until("the rest is there", () => new Set([...before, ...after.payloads]).size === 100, 60_000);
      expect([...new Set([...before, ...after.payloads])].map(Number)).to.deep.equal(
        Array.from({ length: 100 }, (_, n) => n + 1),
      );
      await rig.says("up, and nothing waits", ({ link, queue }) => link === "up" && queue.messages === 0);
    } finally {
      ca.remove();
    }
  });
});
