/**
 * A cable between the gateway and its cloud that can be cut without either end being told: two network namespaces with a veth pair between them, whose far end
 * is set down. Nothing of the machine's own network is touched. Inside the far one socat passes each connection to a unix socket of the test. Linux, as root.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { peerPath } from "./peers.ts";

const env = { ...process.env, PATH: peerPath };
const near = "192.0.2.1"; // RFC 5737: for documentation, so nobody's
const far = "192.0.2.2";
const port = 1883;

/** What is missing for it on this machine; undefined when all is there. */
export function noCable(): string | undefined {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "network namespaces need Linux and root";
  if (spawnSync("socat", ["-V"], { env }).status !== 0) return "socat not found: apt-get install socat";
  const tried = spawnSync("unshare", ["-n", "ip", "link", "add", "near", "type", "veth", "peer", "name", "far"], {
    env,
  });
  return tried.status === 0 ? undefined : `no veth pair in a network namespace: ${tried.stderr ?? "no ip"}`;
}

export class CutCable {
  /** The cloud, for who runs behind `prefix`. */
  static readonly url = `mqtt://${far}:${port}`;
  readonly #near: ChildProcess;
  readonly #far: ChildProcess;
  readonly #socket: string;
  #relay: ChildProcess | undefined;

  private constructor(near: ChildProcess, far: ChildProcess, socket: string) {
    this.#near = near;
    this.#far = far;
    this.#socket = socket;
  }

  /** @param socket path of the unix socket behind which the cloud is */
  static async make(socket: string): Promise<CutCable> {
    const [nearHolder, farHolder] = [await holder(), await holder()];
    const cable = new CutCable(nearHolder, farHolder, socket);
    const inNear = (...args: string[]): void => run(nearHolder, args);
    inNear("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", String(farHolder.pid));
    inNear("ip", "addr", "add", `${near}/24`, "dev", "near");
    inNear("ip", "link", "set", "near", "up");
    inNear("ip", "link", "set", "lo", "up");
    run(farHolder, ["ip", "addr", "add", `${far}/24`, "dev", "far"]);
    run(farHolder, ["ip", "link", "set", "far", "up"]);
    await cable.listen();
    return cable;
  }

  /** Before a command that shall see the cloud over this cable. */
  get prefix(): string[] {
    return within(this.#near);
  }

  /** Packets of both directions are gone from now on. */
  cut(): void {
    run(this.#far, ["ip", "link", "set", "far", "down"]);
  }

  mend(): void {
    run(this.#far, ["ip", "link", "set", "far", "up"]);
  }

  /** The cloud's machine is gone at once: no FIN and no RST reaches the other end, though the cable comes back. */
  async lose(): Promise<void> {
    this.cut();
    await end(this.#relay);
  }

  /** It listens (again). */
  async listen(): Promise<void> {
    const to = [`TCP-LISTEN:${port},bind=${far},fork,reuseaddr`, `UNIX-CONNECT:${this.#socket}`];
    const [command = "", ...args] = [...within(this.#far), "socat", "-d", "-d", ...to];
    const relay = spawn(command, args, { env, stdio: ["ignore", "ignore", "pipe"], detached: true });
    this.#relay = relay;
    await new Promise<void>((resolve, reject) => {
      relay.stderr.on("data", (chunk) => String(chunk).includes("listening") && resolve());
      relay.once("close", () => reject(new Error("socat ended")));
    });
  }

  async close(): Promise<void> {
    await end(this.#relay);
    await Promise.all([end(this.#near), end(this.#far)]);
  }
}

const within = ({ pid }: ChildProcess): string[] => ["nsenter", "-t", String(pid), "-n", "--"];

function run(holder: ChildProcess, args: string[]): void {
  const [command = "", ...rest] = [...within(holder), ...args];
  const { status, stderr } = spawnSync(command, rest, { env });
  if (status !== 0) throw new Error(`${args.join(" ")}: ${stderr}`);
}

/** A process that does nothing but hold a new network namespace. */
async function holder(): Promise<ChildProcess> {
  const child = spawn("unshare", ["-n", "sh", "-c", "echo there; exec cat"], { detached: true });
  await once(child.stdout, "data");
  return child;
}

/** With its children: socat forks one for each connection. */
async function end(child: ChildProcess | undefined): Promise<void> {
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "close");
  process.kill(-child.pid, "SIGKILL");
  await ended;
}
