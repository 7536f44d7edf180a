import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect } from "chai";
import { Echoes } from "../../../src/uplink/echoes.ts";
import { parseRule } from "../../../src/uplink/forwarding.ts";
import { ForwardWriter } from "../../../src/uplink/forwardWriter.ts";
import { TopicAliases } from "../../../src/uplink/topicAliases.ts";
import { MovedClock } from "../../helpers/memoryUplink.ts";
import { until } from "../../helpers/wait.ts";
import { uplinkOptions } from "./bench.ts";

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;

function bytesInUse(): number {
  gc();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

const rule = parseRule('{"filter":"plant/#","to":"{topic}","qos":1}');
const longTopic = (n: number): string => `plant/${n}/`.padEnd(60_000, "x");

/** Waits until no more than `max` is in use after many long topics. What nobody holds is given back by V8's own threads, on a busy machine late. */
async function growsLittle(use: (topic: string) => void): Promise<void> {
  const before = bytesInUse();
  for (let n = 0; n < 800; n += 1) use(longTopic(n));
  let growth = 0;
  const little = (): boolean => {
    growth = bytesInUse() - before;
    return growth < max;
  };
  await until("", little, 10_000).catch(() => {});
  expect(growth).to.be.below(max);
}

const max = 12e6; // all of them are 48 MB

describe("uplink: long topics that publishers choose", () => {
  it("do not fill the RAM by what is remembered of topics, nor by aliases", async () => {
    const style = { version: 5 as const, gatewayId: "g1", envelope: "none" as const, meta: [] };
    const writer = new ForwardWriter(style, 1);
    const aliases = new TopicAliases(65_535, { value: 0 });
    const limits = {
      receiveMaximum: 9,
      maximumPacketSize: 1e6,
      maximumQos: 1,
      retainAvailable: true,
      aliases,
    } as const;
    const wire = { qos: 1 as const, packetId: 1, dup: false };
    const send = (topic: string): unknown => {
      const message = { topic, payload: Buffer.from("x"), qos: 1 as const, retain: false, source: "test" };
      const ids = { position: 1, lane: 1, priority: 0, seq: 1, rule: 1, acceptedAtMs: 0, wallMs: 0 };
      return writer.write({ ...ids, message }, rule, false, wire, 0, limits);
    };
    await growsLittle(send);
    expect(send(longTopic(0))).to.be.below(1000); // the first ones have an alias
    expect(send(longTopic(700))).to.be.above(60_000);
  });

  it("nor by what may come back", async () => {
    const echoes = new Echoes(uplinkOptions({ version: 4 }), ["plant/#"], new MovedClock());
    await growsLittle((topic) => echoes.sent(rule, topic, Buffer.from("x")));
    expect(echoes.isOurs(longTopic(5), Buffer.from("x"))).to.equal(true);
  });
});
