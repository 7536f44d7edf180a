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
};

/** Debian keeps servers in sbin, which is not on every user's PATH. */
export const peerPath = `${process.env["PATH"]}:/usr/sbin:/usr/local/sbin`;

/**
 * For `before`: skips the suite, naming the install command, when a peer is missing on a developer's machine; in CI that is a failure.
 */
export function needPeers(context: Mocha.Context, ...programs: string[]): void {
  const missing = programs.filter((program) => spawnSync("which", [program], { env: { PATH: peerPath } }).status !== 0);
  if (missing.length === 0) return;
  const install = `apt-get install ${[...new Set(missing.map((program) => packages[program] ?? program))].join(" ")}`;
  if (process.env["CI"] !== undefined)
    throw new Error(`missing here, where it may not be: ${missing.join(", ")} (${install})`);
  process.stdout.write(`      skipped: ${missing.join(", ")} not found: ${install}\n`);
  context.skip();
}

export interface PeerProcess {
  readonly child: ChildProcess;
  /** Everything it printed on stdout and stderr. */
  readonly output: () => string;
  /** Its exit code, once it ended. */
  readonly ended: Promise<number | null>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

export function startPeer(program: string, args: string[], input?: string | Buffer): PeerProcess {
  // Programs in C keep what they print to a pipe until 4 KiB are together: stdbuf makes it line by line.
  const child = spawn("stdbuf", ["-oL", program, ...args], {
    env: { ...process.env, PATH: peerPath },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  child.stderr.on("data", (chunk) => (output += chunk));
  child.stdin.on("error", () => {});
  if (input === undefined) child.stdin.end();
  else child.stdin.end(input);
  const ended = once(child, "close").then(() => child.exitCode);
  return {
    child,
    output: () => output,
    ended,
    async stop(signal = "SIGTERM") {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
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
