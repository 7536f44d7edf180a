import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";

/** Programs that were not written here, and the Debian package each comes in. */
const packages: Readonly<Record<string, string>> = {
  mosquitto: "mosquitto",
  mosquitto_pub: "mosquitto-clients",
  mosquitto_sub: "mosquitto-clients",
  "coap-client-notls": "libcoap3-bin",
  "coap-server-notls": "libcoap3-bin",
  socat: "socat",
  "systemd-analyze": "systemd",
  openssl: "openssl",
  paho_c_pub: "paho.mqtt.c-examples",
  paho_c_sub: "paho.mqtt.c-examples",
  paho_cs_pub: "paho.mqtt.c-examples",
  paho_cs_sub: "paho.mqtt.c-examples",
  "python3-paho": "python3-paho-mqtt",
  "nats-server": "nats-server",
  "rabbitmq-server": "rabbitmq-server",
};

/** Debian keeps servers in sbin, which is not on every user's PATH. */
export const peerPath = `${process.env["PATH"]}:/usr/sbin:/usr/local/sbin`;

/**
 * For `before`: skips the suite, naming the install command, when a peer is missing on a developer's machine; in CI that is a failure.
 */
export function needPeers(context: Mocha.Context, ...programs: string[]): void {
  const missing = programs.filter((program) => !isThere(program));
  if (missing.length === 0) return;
  const install = `apt-get install ${[...new Set(missing.map((program) => packages[program] ?? program))].join(" ")}`;
  if (process.env["CI"] !== undefined)
    throw new Error(`missing here, where it may not be: ${missing.join(", ")} (${install})`);
  process.stdout.write(`      skipped: ${missing.join(", ")} not found: ${install}\n`);
  context.skip();
}

/** Debian's own python has Debian's modules, whatever python is first on the PATH. */
function isThere(program: string): boolean {
  if (program === "python3-paho") return spawnSync("/usr/bin/python3", ["-c", "import paho.mqtt.client"]).status === 0;
  return spawnSync("which", [program], { env: { PATH: peerPath } }).status === 0;
}

export interface PeerProcess {
  readonly child: ChildProcess;
  /** Everything it printed on stdout and stderr. */
  readonly output: () => string;
  readonly stdout: () => string;
  /** Its exit code, once it ended. */
  readonly ended: Promise<number | null>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** Those that run, and how each is sent a signal. */
const running = new Map<ChildProcess, (signal: NodeJS.Signals) => void>();

/** For `afterEach`: ends what a failed test has left behind, or mocha would wait for it. */
export function stopPeers(): void {
  for (const kill of running.values()) kill("SIGKILL");
}

/** As `input`: the caller writes to `child.stdin` itself. */
export const keepOpen = Symbol("stdin stays open");

export interface PeerOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** It has processes of its own, which get the signals too. */
  readonly group?: boolean;
}

/** @param input what its stdin holds, to the end */
export function startPeer(
  program: string,
  args: string[],
  input?: string | Buffer | typeof keepOpen,
  { env = {}, group = false, cwd }: PeerOptions = {},
): PeerProcess {
  // Programs in C keep what they print to a pipe until 4 KiB are together: stdbuf makes it line by line.
  const child = spawn("stdbuf", ["-oL", program, ...args], {
    env: { ...process.env, PATH: peerPath, ...env },
    stdio: ["pipe", "pipe", "pipe"],
    detached: group,
    ...(cwd === undefined ? {} : { cwd }),
  });
  const kill = (signal: NodeJS.Signals): void => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    if (group) process.kill(-child.pid, signal);
    else child.kill(signal);
  };
  running.set(child, kill);
  child.once("close", () => running.delete(child));
  let output = "";
  let stdout = "";
  // A character a byte, wherever it is cut.
  child.stderr.setEncoding("latin1").on("data", (chunk: string) => (output += chunk));
  child.stdout.setEncoding("latin1").on("data", (chunk: string) => {
    output += chunk;
    stdout += chunk;
  });
  child.stdin.on("error", () => {});
  if (input === undefined) child.stdin.end();
  else if (input !== keepOpen) child.stdin.end(input);
  const ended = once(child, "close").then(() => child.exitCode);
  return {
    child,
    output: () => output,
    stdout: () => stdout,
    ended,
    async stop(signal = "SIGTERM") {
      kill(signal);
      await ended;
    },
  };
}

/** Runs a peer to its end. */
export async function runPeer(
  program: string,
  args: string[],
  input?: string | Buffer,
): Promise<{ code: number | null; output: string }> {
  const peer = startPeer(program, args, input);
  const code = await peer.ended;
  return { code, output: peer.output() };
}
