/** `npm run demo`: see demo/scenario.ts. Exit code 0 only when nothing is missing. Opens nothing but loopback ports. */
import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { runScenario, type ScenarioOptions } from "./demo/scenario.ts";

function seconds(text: string): number {
  const match = /^(\d+(?:\.\d+)?)s?$/.exec(text);
  if (match === null) throw new InvalidArgumentError("seconds: 60 or 60s");
  return Number(match[1]) * 1000;
}

const program = new Command("demo")
  .description("gateway, simulated devices and a cloud that goes away and comes back; nothing may be lost")
  .option("--duration <seconds>", "from the first reading to the last", seconds, 60_000)
  .option("--cloud-down <seconds>", "how long the cloud is away", seconds, 15_000)
  .option("--no-kill", "do not kill the gateway in the middle of the outage")
  .option("--without-serial", "go on where there are no pseudo-terminals")
  .option("--gateway <command>", "the gateway's program and first arguments, by spaces; default: this build's")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));

const { duration, cloudDown, kill, withoutSerial, gateway } = program.parse().opts<{
  duration: number;
  cloudDown: number;
  kill: boolean;
  withoutSerial?: boolean;
  gateway?: string;
}>();
const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};
const abort = new AbortController();
const interrupt = (): void => {
  print("Interrupted; cleaning up ...");
  abort.abort(new Error("interrupted"));
};
process.once("SIGINT", interrupt);
process.once("SIGTERM", interrupt);
const options: ScenarioOptions = {
  gatewayCommand: gateway?.split(/\s+/) ?? [process.execPath, join(import.meta.dirname, "..", "main.js")],
  durationMs: duration,
  cloudDownMs: cloudDown,
  killGateway: kill,
  allowWithoutSerial: withoutSerial === true,
  print,
  signal: abort.signal,
};
try {
  process.exitCode = (await runScenario(options)).ok ? 0 : 1;
} catch (error) {
  process.stderr.write(
    `The demo could not run to its end: ${error instanceof Error ? error.message : String(error)}\n`,
  );
  process.exitCode = 1;
} finally {
  process.off("SIGINT", interrupt);
  process.off("SIGTERM", interrupt);
}
