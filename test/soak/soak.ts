/**
 * 24 hours of work in small: 500 clients of MQTT 3.1.1 and 5 that connect, subscribe, publish at all QoS, vanish without DISCONNECT and take their
 * own ids over. Exit code 1 when an acknowledged message is missing or came twice at QoS 2, an order was broken, a will was forgotten, or memory
 * and descriptors are not back where they were.
 *
 *     TIDEGATE_SOAK_SECONDS=300 TIDEGATE_SOAK_CLIENTS=500 TIDEGATE_SEED=1 npm run soak
 */
import { descriptorTolerance, rssTolerance, runSoak, shown, told } from "./runSoak.ts";

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const given = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);
const seconds = given("TIDEGATE_SOAK_SECONDS", 300);
const clients = given("TIDEGATE_SOAK_CLIENTS", 500);
const seed = given("TIDEGATE_SEED", Math.floor(Math.random() * 1_000_000));

say(`soak: ${clients} clients, ${seconds} s, the first third of it to warm up; again with TIDEGATE_SEED=${seed}`);
const { faults, faultCount, book, before, after } = await runSoak({ seconds, clients, seed, say });
say(`\nIn all: ${told(book)}`);
if (before !== undefined && after !== undefined) {
  const { factor, bytes } = rssTolerance;
  say(`The gateway with nobody connected: ${shown(before)} after the warm-up, ${shown(after)} at the end`);
  say(`(allowed: ${factor} times the memory and ${bytes / 1024 / 1024} MiB, ${descriptorTolerance} descriptors more)`);
}
if (faultCount > 0) say(`\n${faultCount} broken promises:\n  ${faults.join("\n  ")}`);
else
  say(
    "\nEvery acknowledged message reached every durable subscriber of its topic, in order, at QoS 2 once. Nothing is left behind.",
  );
process.exit(faultCount > 0 ? 1 : 0);
