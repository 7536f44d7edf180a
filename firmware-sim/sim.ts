/** `sim serial|coap|coap-post|mqtt [knobs]`: one simulated device as a process. JSON lines on stdout; SIGTERM ends it with what was accepted. */
import { mkdirSync } from "node:fs";
import { Command, InvalidArgumentError } from "commander";
import type { CoapObservableOptions } from "./coapObservable.ts";
import type { CoapPosterOptions } from "./coapPoster.ts";
import type { MqttFleetOptions } from "./mqttFleet.ts";
import type { SerialDeviceOptions } from "./serialDevice.ts";

/** A device as this program runs it. */
interface RunningDevice {
  stats(): object;
  /** What the gateway accepted, in order; asked once everything is over. */
  accepted(): object;
  /** Readings made and not accepted. */
  waiting(): number;
  stopProducing(): unknown;
  stop(): Promise<void>;
}

interface CommonOptions {
  readonly drain: number;
  readonly statsEvery: number;
}

const write = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

function milliseconds(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text);
  const factor = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match?.[2] ?? "ms"];
  if (match === null || factor === undefined) throw new InvalidArgumentError("a duration: 500ms, 10s, 2m");
  return Number(match[1]) * factor;
}

function probability(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0 && value <= 1)) throw new InvalidArgumentError("a probability: 0 to 1");
  return value;
}

function whole(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("a whole number");
  return Number(text);
}

/** Runs until SIGTERM or SIGINT; then drains, for `drain` at most, and prints the final line. */
async function run(device: string, options: CommonOptions, start: () => Promise<RunningDevice>): Promise<void> {
  const running = await start();
  const ticker = setInterval(() => write({ event: "stats", device, ...running.stats() }), options.statsEvery);
  await new Promise<void>((resolve) => {
    process.once("SIGTERM", resolve);
    process.once("SIGINT", resolve);
  });
  await running.stopProducing();
  const deadlineMs = performance.now() + options.drain;
  while (running.waiting() > 0 && performance.now() < deadlineMs) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  clearInterval(ticker);
  const waiting = running.waiting();
  await running.stop();
  write({ event: "final", device, waiting, ...running.stats(), ...running.accepted() });
}

async function serial(options: SerialDeviceOptions): Promise<RunningDevice> {
  const { SerialDevice } = await import("./serialDevice.ts");
  mkdirSync(options.dir, { recursive: true });
  const device = new SerialDevice(options);
  await device.start();
  write({ event: "started", device: "serial", path: device.path });
  return {
    stats: () => device.stats(),
    accepted: () => ({ numbers: device.accepted.map((reading) => reading.number) }),
    waiting: () => device.stats().unacknowledged,
    stopProducing: () => device.stopProducing(),
    stop: () => device.stop(),
  };
}

async function coap(options: CoapObservableOptions): Promise<RunningDevice> {
  const { CoapObservable } = await import("./coapObservable.ts");
  const device = new CoapObservable(options);
  const port = await device.start();
  write({ event: "started", device: "coap", url: `coap://${options.host ?? "127.0.0.1"}:${port}/temp` });
  return {
    stats: () => device.stats(),
    accepted: () => ({}), // an observation is a value: the sensor does not know what became of it
    waiting: () => 0,
    stopProducing: () => device.stopProducing(),
    stop: () => device.stop(),
  };
}

async function coapPost(options: CoapPosterOptions): Promise<RunningDevice> {
  const { CoapPoster } = await import("./coapPoster.ts");
  const device = new CoapPoster(options);
  device.start();
  write({ event: "started", device: "coap-post", url: options.url });
  return {
    stats: () => device.stats(),
    accepted: () => ({ numbers: device.accepted }),
    waiting: () => device.stats().waiting,
    stopProducing: () => device.stopProducing(),
    stop: () => device.stop(),
  };
}

async function mqtt(options: MqttFleetOptions): Promise<RunningDevice> {
  const { MqttFleet } = await import("./mqttFleet.ts");
  const fleet = new MqttFleet(options);
  await fleet.start();
  write({ event: "started", device: "mqtt", url: options.url, topics: fleet.sensors.map((sensor) => sensor.topic) });
  return {
    stats: () => ({ sensors: fleet.stats() }),
    accepted: () => ({ numbers: Object.fromEntries(fleet.sensors.map((sensor) => [sensor.id, sensor.accepted])) }),
    waiting: () => fleet.stats().reduce((sum, sensor) => sum + sensor.waiting, 0),
    stopProducing: () => fleet.stopProducing(),
    stop: () => fleet.stop(),
  };
}

function withCommon(command: Command): Command {
  return command
    .option("--drain <duration>", "after SIGTERM, wait so long until what waits is accepted", milliseconds, 2000)
    .option("--stats-every <duration>", "between two lines of statistics", milliseconds, 1000);
}

const program = new Command("sim")
  .description("simulated devices to develop and test a gateway against")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2)); // 2: wrong usage, as in the gateway's own program

withCommon(program.command("serial"))
  .description("a microcontroller on a pseudo-terminal: COBS frames with CRC, ACKs, resends, commands")
  .requiredOption("--dir <folder>", "where the symbolic link to the port is put")
  .option("--name <name>", "name of the link", "boiler")
  .option("--period <duration>", "between two readings", milliseconds, 100)
  .option("--seed <number>", "of everything that chance decides", whole, 1)
  .option("--first-number <number>", "number of the first reading", whole, 0)
  .option("--resend <duration>", "a reading without ACK goes out again", milliseconds, 500)
  .option("--noise <probability>", "garbage before a frame", probability, 0)
  .option("--torn <probability>", "a frame is cut", probability, 0)
  .option("--corrupt <probability>", "a bit of a frame is flipped", probability, 0)
  .option("--unplug-every <duration>", "0: never", milliseconds, 0)
  .option("--unplug-for <duration>", "", milliseconds, 1000)
  .option("--silence-every <duration>", "0: never", milliseconds, 0)
  .option("--silence-for <duration>", "", milliseconds, 2000)
  .action(async (o) => {
    const options: SerialDeviceOptions = {
      dir: o.dir,
      name: o.name,
      periodMs: o.period,
      seed: o.seed,
      firstNumber: o.firstNumber,
      resendMs: o.resend,
      noise: o.noise,
      tornFrames: o.torn,
      corrupt: o.corrupt,
      unplugEveryMs: o.unplugEvery,
      unplugForMs: o.unplugFor,
      silenceEveryMs: o.silenceEvery,
      silenceForMs: o.silenceFor,
    };
    await run("serial", o, () => serial(options));
  });

withCommon(program.command("coap"))
  .description("a CoAP server whose /temp can be observed")
  .option("--host <address>", "", "127.0.0.1")
  .option("--port <number>", "0: any free one", whole, 0)
  .option("--period <duration>", "between two values", milliseconds, 1000)
  .option("--seed <number>", "of everything that chance decides", whole, 1)
  .option("--confirmable <share>", "notifications that ask for an ACK", probability, 0.3)
  .option("--max-age <seconds>", "", whole, 60)
  .option("--silence-every <duration>", "0: never", milliseconds, 0)
  .option("--silence-for <duration>", "", milliseconds, 3000)
  .option("--restart-every <duration>", "forgets its observers; 0: never", milliseconds, 0)
  .option("--reorder <probability>", "a notification leaves after its successor", probability, 0)
  .option("--duplicate <probability>", "a notification arrives twice", probability, 0)
  .action(async (o) => {
    const options: CoapObservableOptions = {
      host: o.host,
      port: o.port,
      periodMs: o.period,
      seed: o.seed,
      confirmable: o.confirmable,
      maxAgeSeconds: o.maxAge,
      silenceEveryMs: o.silenceEvery,
      silenceForMs: o.silenceFor,
      restartEveryMs: o.restartEvery,
      reorder: o.reorder,
      duplicate: o.duplicate,
    };
    await run("coap", o, () => coap(options));
  });

withCommon(program.command("coap-post"))
  .description("a CoAP sensor that posts JSON to the gateway (node-coap-client)")
  .requiredOption("--url <url>", "coap://127.0.0.1:5683/greenhouse")
  .option("--period <duration>", "between two readings", milliseconds, 200)
  .option("--answer <duration>", "an answer later than this counts as none", milliseconds, 3000)
  .option("--retry <duration>", "wait after a refusal or a missing answer", milliseconds, 300)
  .action(async (o) => {
    await run("coap-post", o, () => coapPost({ url: o.url, periodMs: o.period, answerMs: o.answer, retryMs: o.retry }));
  });

withCommon(program.command("mqtt"))
  .description("MQTT sensors, 3.1.1 and 5, JSON and binary (MQTT.js)")
  .requiredOption("--url <url>", "mqtt://127.0.0.1:1883")
  .option("--sensors <number>", "JSON sensors", whole, 3)
  .option("--binary <number>", "binary sensors", whole, 1)
  .option("--period <duration>", "between two readings of one sensor", milliseconds, 200)
  .option("--window <number>", "readings of one sensor on their way at once", whole, 4)
  .option("--prefix <text>", "of the client ids", "sim")
  .action(async (o) => {
    const { url, sensors, binary, window, prefix } = o;
    await run("mqtt", o, () => mqtt({ url, sensors, binary, periodMs: o.period, window, prefix }));
  });

program.parseAsync().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
