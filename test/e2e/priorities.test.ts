import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { getPriority } from "node:os";
import { expect } from "chai";
import mqtt from "mqtt-packet";
import { GatewayProcess, program } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";

/** Of each thread by its id. */
function niceness(pid: number): Map<number, number> {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread): [number, number] => {
    const [, fields = ""] = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8").split(/\) (?!.*\) )/);
    return [Number(thread), Number(fields.split(" ")[16])];
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
  const given = getPriority();
  let gateway: GatewayProcess;
  let port = 0;

  /** Starts it at -10, which takes a privilege. */
  function raise(test: Mocha.Context): void {
    if (process.getuid?.() !== 0) test.skip();
    gateway.prefix = ["nice", "-n", `${-10 - given}`];
  }

  beforeEach(async function () {
    if (process.platform !== "linux") this.skip(); // elsewhere all threads of a process have one
    const ports = await freePorts(2);
    port = ports[0] ?? 0;
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: "http://127.0.0.1:${ports[1]}" }
`);
  });

  afterEach(() => gateway?.remove());

  it("a process that was not raised stays as it was started", async () => {
    await gateway.start({ UV_THREADPOOL_SIZE: "4" });
    const threads = [...niceness(gateway.pid).values()];
    expect(threads.length, "libuv's pool at least").to.be.above(4);
    expect([...new Set(threads)]).to.deep.equal([given]);
  });

  it("of a process that was raised, as systemd does it, the event loop goes to where other programs are", async function () {
    raise(this);
    await gateway.start();
    const threads = niceness(gateway.pid);
    expect(threads.get(gateway.pid)).to.equal(0);
    threads.delete(gateway.pid);
    expect([...new Set(threads.values())]).to.deep.equal([-10]);
  });

  it("a password is hashed at the priority of the event loop, not at that of the journal's syncs", async function () {
    raise(this);
    const command = [program, "passwd", "add", "ann", "-c", gateway.configFile];
    const added = spawnSync(process.execPath, command, { input: "secret of ann", encoding: "utf8" });
    expect(added.status, added.stderr).to.equal(0);
    await gateway.start();
    const before = niceness(gateway.pid);
    expect(await logIn(port, "ann", "secret of ann")).to.equal(0);
    const more = [...niceness(gateway.pid)].filter(([thread]) => !before.has(thread));
    expect(more.map(([, nice]) => nice)).to.deep.equal([0]);
  });
});
