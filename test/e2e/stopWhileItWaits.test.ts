import { execFileSync, spawnSync } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { expect } from "chai";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

/** What CONTRACT.md gives a stop. */
const stopMsMax = 5000;

describe("e2e: stopping while something does not answer", () => {
  let gateway: GatewayProcess;
  afterEach(() => gateway.remove());

  const preload = (code: string): NodeJS.ProcessEnv => ({
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(code)}`,
  });

  async function stopsInTime(): Promise<void> {
    const sentMs = performance.now();
    expect(await gateway.end("SIGTERM")).to.equal(0);
    expect(performance.now() - sentMs).to.be.below(stopMsMax);
  }

  const opens = (port: number): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });

  it("a start that takes long: exit 0, nothing was promised yet", async () => {
    const [port = 0, http = 0] = await freePorts(2);
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: "http://127.0.0.1:${http}" }
`);
    gateway.spawn(
      preload(`
        import { Server } from "node:net";
        const { listen } = Server.prototype;
        Server.prototype.listen = function (...of) { return of[0].port === ${http} ? this : listen.apply(this, of); };
      `),
    );
    await until("its first listener is open", () => opens(port));
    await stopsInTime();
    expect(gateway.lines.map(({ msg }) => msg))
      .to.include("stopped during the start; what is on disk is safe")
      .but.not.include("ready");
  });

  it("a file that cannot be read to its end: the second signal ends it, whatever hangs", async () => {
    const [port = 0, secured = 0] = await freePorts(2);
    gateway = await GatewayProcess.create(`
mqtt:
  listeners:
    - url: "mqtt://127.0.0.1:${port}"
    - { url: "mqtts://127.0.0.1:${secured}", tls: { cert: cert.pem, key: cert.pem } }
http: { listen: false }
`);
    // Opening it waits for a writer that never comes: a thread of the pool, as a disk that does not answer would hold it. The process waits for its threads.
    execFileSync("mkfifo", [join(gateway.dir, "cert.pem")]);
    gateway.spawn();
    await until("its first listener is open", () => opens(port));
    process.kill(gateway.pid, "SIGTERM");
    await gateway.line("stopped during the start; what is on disk is safe");
    expect(await gateway.end("SIGTERM")).to.equal("SIGTERM");
  });

  it("a file of an uplink that does not answer any more, read anew while it runs: one signal is enough", async () => {
    const [port = 0, cloud = 0] = await freePorts(2);
    const uplink = `name: cloud, url: "mqtts://127.0.0.1:${cloud}", tls: { ca: ca.pem }, forward: [ { topic: "#" } ]`;
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: false }
uplinks: [ { ${uplink} } ]
`);
    const ca = join(gateway.dir, "ca.pem");
    await writeFile(ca, "");
    await gateway.start();
    await rm(ca);
    execFileSync("mkfifo", [ca]);
    process.kill(gateway.pid, "SIGHUP");
    await gateway.line("password and TLS files of before stay in use");
    expect(await gateway.end("SIGTERM")).to.equal("SIGTERM");
    expect(gateway.lines.map(({ msg }) => msg)).to.include("stopped");
  });

  it("a dead name server that getaddrinfo asks", async function () {
    const namespaces = ["-n", "-m"];
    const cable = "ip link add near type veth peer name far; ip link set near up; ip link set far up";
    if (spawnSync("unshare", [...namespaces, "sh", "-ec", cable]).status !== 0) this.skip();
    const [port = 0] = await freePorts(1);
    gateway = await GatewayProcess.create(`
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: false }
uplinks: [ { name: cloud, url: "mqtt://cloud.example.com", forward: [ { topic: "#", to: "{topic}" } ] } ]
`);
    const servers = join(gateway.dir, "resolv.conf");
    await writeFile(servers, "nameserver 192.0.2.1\nsearch lan\n");
    // What the neighbour at the other end is sent it never answers.
    const neighbour = "ip addr add 192.0.2.2/24 dev near; ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev near";
    const silent = `ip link set lo up; ${cable}; ${neighbour}; mount --bind "$0" /etc/resolv.conf; exec "$@"`;
    gateway.prefix = ["unshare", ...namespaces, "sh", "-ec", silent, servers];
    // Node's own resolver gives up at once, so that getaddrinfo is asking by the time it is ready.
    await gateway.start(
      preload(`
        import { Resolver } from "node:dns";
        const { prototype } = Resolver;
        prototype.resolve4 = prototype.resolve6 = (_, answered) => answered(new Error("ETIMEOUT"));
      `),
    );
    await stopsInTime();
  });
});
