import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { expect } from "chai";
import mqtt from "mqtt-packet";
import { GatewayProcess, program } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";

/** The policy of each thread by its id: 0 is the usual one, 1 is SCHED_FIFO. */
function policies(pid: number): Map<number, number> {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread): [number, number] => {
    const [, fields = ""] = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8").split(/\) (?!.*\) )/);
    return [Number(thread), Number(fields.split(" ")[38])];
  });
  return new Map(threads);
}

/** The return code of the CONNACK. */
function logIn(port: number, username: string, password: string): Promise<number | undefined> {
  const who = { clientId: "a", username, password: Buffer.from(password) };
  const hello = mqtt.generate({ cmd: "connect", protocolId: "MQTT", protocolVersion: 4, clean: true, ...who });
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(hello));
    socket.once("error", reject);
    socket.once("data", (connack: Buffer) => {
      socket.destroy();
      resolve(connack[3]);
    });
  });
}

describe("e2e: priorities", () => {
  let gateway: GatewayProcess;
  let port = 0;

  beforeEach(async function () {
    if (process.platform !== "linux") this.skip(); // elsewhere all threads of a process have one
    const ports = await freePorts(2);
    port = ports[0] ?? 0;
    gateway = await GatewayProcess.create(`
gateway: { logLevel: debug }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: "http://127.0.0.1:${ports[1]}" }
`);
  });

  afterEach(() => gateway?.remove());

  it("the threads of libuv's pool, and no others, get a core before everything else", async function () {
    if (process.getuid?.() !== 0) this.skip();
    await gateway.start({ UV_THREADPOOL_SIZE: "3" });
    await gateway.line("the journal's threads run at real-time priority");
    const threads = policies(gateway.pid);
    expect(threads.get(gateway.pid), "the event loop").to.equal(0);
    expect([...threads.values()].filter((policy) => policy === 1)).to.have.length(3);
  });

  it("without the privilege it starts as well, and all stays as it was", async function () {
    if (process.getuid?.() !== 0) this.skip(); // it is what all other tests see
    gateway.prefix = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"];
    await gateway.start();
    await gateway.line("the journal's threads have the priority of all others");
    expect([...new Set(policies(gateway.pid).values())]).to.deep.equal([0]);
  });

  it("a password is hashed in no thread of the pool", async () => {
    const command = [program, "passwd", "add", "ann", "-c", gateway.configFile];
    const added = spawnSync(process.execPath, command, { input: "secret of ann", encoding: "utf8" });
    expect(added.status, added.stderr).to.equal(0);
    await gateway.start();
    const before = policies(gateway.pid);
    expect(await logIn(port, "ann", "secret of ann")).to.equal(0);
    const more = [...policies(gateway.pid)].filter(([thread]) => !before.has(thread));
    expect(more.map(([, policy]) => policy)).to.deep.equal([0]);
  });
});
