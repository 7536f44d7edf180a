#!/usr/bin/env node
import "./base/youngHeap.ts";
import { Command, CommanderError } from "commander";
import { messageOf } from "./base/errors.ts";
import { check } from "./cli/check.ts";
import { run } from "./cli/run.ts";
import { sim } from "./cli/sim.ts";
import { version } from "./cli/version.ts";

/** Exit codes: 0 clean, 1 failure at run time, 2 wrong config or usage. */
async function main(argv: readonly string[]): Promise<number> {
  let exitCode = 0;
  const program = new Command("tidegate")
    .description("Edge gateway: MQTT, serial and CoAP sensors in; JSON out; kept on disk until the cloud has it.")
    .version(version)
    .exitOverride()
    .showHelpAfterError();
  program
    .command("run", { isDefault: true })
    .description("run the gateway (the default command)")
    .option("-c, --config <file>", "config file (default: tidegate.yaml here, else built-in defaults)")
    .action(async (options: { config?: string }) => {
      exitCode = await run(options);
    });
  program
    .command("check")
    .description("validate the config: every error with line and column; exit 0 or 2")
    .option("-c, --config <file>", "config file (default: tidegate.yaml here)")
    .action(async (options: { config?: string }) => {
      exitCode = await check(options, {
        out: (line) => process.stdout.write(`${line}\n`),
        err: (line) => process.stderr.write(`${line}\n`),
      });
    });
  program
    .command("sim")
    .description("firmware simulators: serial, coap, coap-post, mqtt (tidegate sim serial --help)")
    .helpOption(false)
    .allowUnknownOption()
    .argument("[args...]")
    .action(async (_args: string[], _options: unknown, command: Command) => {
      exitCode = await sim(command.args);
    });
  try {
    await program.parseAsync([...argv], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : 2; // commander has already said what is wrong
  }
  return exitCode;
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(`tidegate: ${messageOf(error)}`);
    process.exitCode = 1;
  },
);
