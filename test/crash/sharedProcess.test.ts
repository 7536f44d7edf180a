import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";
import { randomOf } from "../unit/journal/support.ts";
import { Feeder, wait } from "./process/feeder.ts";
import { Ledger, Pool } from "./process/ledger.ts";
import { Receiver } from "./process/receiver.ts";

// A shared group of two durable members on the real binary, killed again and again, its members coming and going: what was acknowledged at QoS 1
// arrives at one of them at least once, at QoS 2 exactly once over both. TIDEGATE_KILLS and TIDEGATE_SEED as in process.test.ts.
const wanted = process.env["TIDEGATE_KILLS"];
const cycles = Number(wanted ?? 15);
const msMax = wanted === undefined ? 60_000 : Number.POSITIVE_INFINITY;
const seed = Number(process.env["TIDEGATE_SEED"] ?? Date.now() % 1_000_000);

const config = (port: number): string => `
gateway: { id: g1, dataDir: ./data }
mqtt:
  listeners: [ { url: "mqtt://127.0.0.1:${port}" } ]
  limits: { session: { maxMessages: 1000000, maxBytes: 512 MiB }, maxInflight: 10 }
http: { listen: false }
storage: { maxBytes: 2 GiB, minFreeBytes: 16 MiB }
`;

describe("process: kill -9 under a shared group", () => {
  it(`everything acknowledged arrives over the group, up to ${cycles} lives (seed ${seed})`, async function () {
    this.timeout(120_000 + cycles * 5000);
    const random = randomOf(seed);
    const [port = 0] = await freePorts(1);
    const gateway = await GatewayProcess.create(config(port));
    const ledger = new Ledger();
    const pool = new Pool(ledger);
    const common = { port, ledger, random };
    const members: Receiver[] = [];
    const feeders: Feeder[] = [];
    const progress = (): Promise<unknown> => {
      const more = ledger.acknowledged + 40;
      return until("the feeders are at work", () => ledger.acknowledged >= more, 60_000);
    };
    try {
      await gateway.start();
      members.push(new Receiver({ ...common, name: "m4", version: 4, qos: 2, pool }));
      members.push(new Receiver({ ...common, name: "m5", version: 5, qos: 2, pool }));
      for (const member of members) await member.subscribed();
      for (const [name, version, persistent] of [
        ["kept4", 4, true],
        ["kept5", 5, true],
        ["clean5", 5, false],
      ] as const)
        feeders.push(new Feeder({ ...common, name, version, persistent }));
      const beganMs = performance.now();
      let lives = 0;
      for (; lives < cycles && performance.now() - beganMs < msMax; lives += 1) {
        await progress();
        for (const member of members) await member.online(random() < 0.7);
        await wait(random() * 200);
        for (const member of members) if (random() < 0.5) await member.online(random() < 0.5);
        await wait(random() * (random() < 0.2 ? 2000 : 100));
        await gateway.end(random() < 0.9 ? "SIGKILL" : "SIGTERM");
        await gateway.start();
        ledger.check();
      }
      for (const member of members) await member.online(true);
      for (const feeder of feeders) feeder.feed(false);
      await until("the feeders' last acknowledgements", () => feeders.every(({ idle }) => idle), 60_000);
      const complete = (): boolean => ledger.faults.length > 0 || pool.missing().length === 0;
      await until("", complete, 60_000).catch(() => {});
      const missing = pool.missing();
      if (missing.length > 0) ledger.fault(`${missing.length} are missing: ${missing.slice(0, 10).join(", ")}`);
      ledger.check();
      process.stdout.write(
        `      ${lives} lives: ${ledger.acknowledged} acknowledged, none missing; ${pool.repeats} repeated at QoS 1\n`,
      );
    } finally {
      await Promise.all([...feeders, ...members].map((peer) => peer.stop()));
      await gateway.remove();
    }
  });
});
