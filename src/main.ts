#!/usr/bin/env node
import "./base/youngHeap.ts";
import "./base/frugalStart.ts";
import { Command, CommanderError } from "commander";
import { errnoOf, messageOf } from "./base/errors.ts";
import { backup, type Io } from "./cli/backup.ts";
import { check } from "./cli/check.ts";
import { addOperating } from "./cli/operate.ts";
import { type PasswdIo, type PasswdOptions, passwdAdd, passwdList, passwdRemove } from "./cli/passwd.ts";
import { run } from "./cli/run.ts";
import { sim } from "./cli/sim.ts";
import { status } from "./cli/status.ts";
import { version } from "./cli/version.ts";

const io: Io = {
  out: (line) => void process.stdout.write(`${line}\n`),
  err: (line) => void process.stderr.write(`${line}\n`),
};

const passwdIo: PasswdIo = { ...io, input: process.stdin, show: (text) => void process.stderr.write(text) };

/** What a later version will have: named, not unknown. Whoever builds one deletes it here. */
const commandsToCome = ["init", "decode", "test", "doctor"];

/** Exit codes: 0 clean, 1 failure at run time, 2 wrong config or usage. */
async function main(argv: readonly string[]): Promise<number> {
  let exitCode = 0;
  const ended = (code: number): void => {
    exitCode = code;
  };
  const program = new Command("tidegate")
    .description("Edge gateway: MQTT, serial and CoAP sensors in; JSON out; kept on disk until the cloud has it.")
    .version(version)
    .exitOverride()
    .showHelpAfterError();
  program
    .command("run", { isDefault: argv[0] === undefined || argv[0].startsWith("-") }) // else any mistyped command is an argument of it
    .description("run the gateway (the default command)")
    .option("-c, --config <file>", "config file (default: tidegate.yaml here, else built-in defaults)")
    .action(async (options: { config?: string }) => ended(await run(options)));
  program
    .command("check")
    .description("validate the config: every error with line and column; exit 0 or 2")
    .option("-c, --config <file>", "config file (default: tidegate.yaml here)")
    .action(async (options: { config?: string }) => ended(await check(options, io)));
  program
    .command("status")
    .description("how the running gateway is, on one screen")
    .option("-c, --config <file>", "config file (default: tidegate.yaml here)")
    .option("--json", "as JSON, as /api/v1/status has it")
    .action(async (options: { config?: string; json?: boolean }) => ended(await status(options, io)));
  program
    .command("backup")
    .description("consistent copy of the data into a new or empty folder, while the gateway runs or not")
    .argument(
      "<dir>",
      "new or empty folder; a gateway whose gateway.dataDir is this folder, or a copy of it, goes on from there",
    )
    .option("-c, --config <file>", "config file (default: tidegate.yaml here)")
    .action(async (dir: string, options: { config?: string }) => ended(await backup(dir, options, io)));
  addPasswd(program, ended);
  addOperating(program, io, ended);
  program
    .command("sim")
    .description("firmware simulators: serial, coap, coap-post, mqtt (tidegate sim serial --help)")
    .helpOption(false)
    .allowUnknownOption()
    .argument("[args...]")
    .action(async (_args: string[], _options: unknown, command: Command) => {
      exitCode = await sim(command.args);
    });
  addCommandsToCome(program, ended);
  try {
    await program.parseAsync([...argv], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : 2; // commander has already said what is wrong
  }
  return exitCode;
}

function addCommandsToCome(program: Command, ended: (exitCode: number) => void): void {
  for (const name of commandsToCome)
    program
      .command(name, { hidden: true })
      .helpOption(false)
      .allowUnknownOption()
      .allowExcessArguments()
      .action(() => {
        io.err(`tidegate: ${name} is not yet available (CHANGELOG.md has what this version cannot do)`);
        ended(2);
      });
}

function addPasswd(program: Command, ended: (exitCode: number) => void): void {
  const passwd = program.command("passwd").description("users of the access file (access.usersFile)");
  const usersConfig = [
    "-c, --config <file>",
    "config file (default: tidegate.yaml here, else users.yaml here)",
  ] as const;
  passwd
    .command("add")
    .description("makes a user or changes its password, asked for twice, or read from stdin when that is no terminal")
    .argument("<name>")
    .option(...usersConfig)
    .action(async (name: string, options: PasswdOptions) => {
      ended(await passwdAdd(name, options, passwdIo));
    });
  passwd
    .command("remove")
    .description("removes a user")
    .argument("<name>")
    .option(...usersConfig)
    .action(async (name: string, options: PasswdOptions) => {
      ended(await passwdRemove(name, options, passwdIo));
    });
  passwd
    .command("list")
    .description("the users, or whether there is one of that name (exit code 1: no)")
    .argument("[name]")
    .option(...usersConfig)
    .action(async (name: string | undefined, options: PasswdOptions) => {
      ended(await passwdList(name, options, passwdIo));
    });
}

/** A reader that goes away (`| head`) has seen what it wanted, and what was asked for is still done. */
process.stdout.on("error", (error) => {
  if (errnoOf(error) === "EPIPE") return;
  io.err(`tidegate: the output cannot be written: ${messageOf(error)}`);
  process.exitCode = 1;
});
process.stderr.on("error", () => {});

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode ||= code;
  },
  (error: unknown) => {
    console.error(`tidegate: ${messageOf(error)}`);
    process.exitCode = 1;
  },
);
