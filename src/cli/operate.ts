/** The commands of an operator on a running gateway, for commander. */
import type { Command } from "commander";
import type { Io } from "./backup.ts";
import { type BulkOptions, deadList, deadPurge, deadRetry, deadShow, type ListOptions } from "./deadLetters.ts";
import type { CallOptions } from "./gatewayCall.ts";
import { queueDropped, queueList, queuePause, queuePeek, queuePurge } from "./queues.ts";

type Ended = (exitCode: number) => void;

const config = ["-c, --config <file>", "config file (default: tidegate.yaml here)"] as const;
const json = ["--json", "as JSON, as the API has it"] as const;

export function addOperating(program: Command, io: Io, ended: Ended): void {
  addQueue(program, io, ended);
  addDead(program, io, ended);
}

function addDead(program: Command, io: Io, ended: Ended): void {
  const dead = program
    .command("dead")
    .description("dead letters: messages that a cloud refuses, or a route cannot transform");
  withFilter(dead.command("list").description("the newest first"))
    .option("--limit <count>", "at most so many, 1 to 1000 (default: 20)")
    .option("--before <id>", "older than this one")
    .option(...json)
    .option(...config)
    .action(async (options: ListOptions) => ended(await deadList(options, io)));
  dead
    .command("show")
    .description("headers and payload of one")
    .argument("<id>")
    .option(...json)
    .option(...config)
    .action(async (id: string, options: CallOptions) => ended(await deadShow(id, options, io)));
  withFilter(dead.command("retry").description("back into the uplink's queue, or through the route again"))
    .argument("[id...]")
    .option("--all", "all of them, or all that the other options choose")
    .option("--older <duration>", "that failed longer ago: 12h, 30d")
    .option(...config)
    .action(async (ids: string[], options: BulkOptions) => ended(await deadRetry(ids, options, io)));
  withFilter(dead.command("purge").description("throw away for good"))
    .argument("[id...]")
    .option("--all", "all of them, or all that the other options choose")
    .option("--older <duration>", "that failed longer ago: 12h, 30d")
    .option(...config)
    .action(async (ids: string[], options: BulkOptions) => ended(await deadPurge(ids, options, io)));
}

function withFilter(command: Command): Command {
  return command
    .option("--uplink <name>", "of this uplink")
    .option("--route <name>", "of this route")
    .option("--reason <text>", "with this code (0x87, too-large, decode), or this in the reason")
    .option("--topic <filter>", "whose topic matches this MQTT filter")
    .option("--since <time>", "that failed then or later: 2026-01-31T12:00:00Z")
    .option("--until <time>", "that failed then or earlier");
}

function addQueue(program: Command, io: Io, ended: Ended): void {
  const queue = program.command("queue").description("queues of the uplinks: what waits for the cloud");
  queue
    .command("list")
    .description("all queues, those of uplinks that are not in the config any more as well")
    .option(...json)
    .option(...config)
    .action(async (options: CallOptions) => ended(await queueList(options, io)));
  queue
    .command("peek")
    .description("the next messages, without taking them")
    .argument("<uplink>")
    .option("-n, --count <count>", "how many, 1 to 1000 (default: 10)")
    .option(...json)
    .option(...config)
    .action(async (name: string, options: CallOptions & { count?: string }) =>
      ended(await queuePeek(name, options, io)),
    );
  queue
    .command("dropped")
    .description("the last hundred that will not be sent: when, why, by which rule, and the topic")
    .argument("<uplink>")
    .option(...json)
    .option(...config)
    .action(async (name: string, options: CallOptions) => ended(await queueDropped(name, options, io)));
  for (const [command, paused, description] of [
    ["pause", true, "stay connected, but send nothing until resume; kept over restarts"],
    ["resume", false, "send again; a link that is down is tried at once"],
  ] as const)
    queue
      .command(command)
      .description(description)
      .argument("<uplink>")
      .option(...config)
      .action(async (name: string, options: CallOptions) => ended(await queuePause(name, paused, options, io)));
  queue
    .command("purge")
    .description("throw away what waits, but for what is in flight")
    .argument("<uplink>")
    .option("--yes", "really; without it only said what would go")
    .option(...config)
    .action(async (name: string, options: CallOptions & { yes?: boolean }) =>
      ended(await queuePurge(name, options, io)),
    );
}
