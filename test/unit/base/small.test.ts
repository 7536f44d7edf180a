import { expect } from "chai";
import { Backoff } from "../../../src/base/backoff.ts";
import { LogLimiter } from "../../../src/base/log.ts";
import { Meter } from "../../../src/base/meter.ts";
import { resolveHost } from "../../../src/base/resolve.ts";
import { Ring } from "../../../src/base/ring.ts";
import { Scope } from "../../../src/base/scope.ts";
import { parseTemplate, topicLevel } from "../../../src/base/template.ts";

describe("base/ring", () => {
  it("keeps order over many wraps, and refuses beyond its capacity", () => {
    const ring = new Ring<number>(5);
    let pushed = 0;
    let taken = 0;
    for (let round = 0; round < 100; round += 1) {
      while (ring.push(pushed)) pushed += 1;
      expect(ring.size).to.equal(5);
      for (let n = 0; n < 3; n += 1) expect(ring.shift()).to.equal(taken++);
    }
    expect(ring.peek()).to.equal(taken);
    ring.clear();
    expect(ring.shift()).to.equal(undefined);
  });

  it("refuses a capacity that is no capacity", () => {
    for (const capacity of [0, -1, 1.5, Number.NaN]) expect(() => new Ring(capacity)).to.throw(RangeError);
  });
});

describe("base/scope", () => {
  it("undoes in reverse, all of it, and reports every failure", async () => {
    const order: number[] = [];
    const scope = new Scope();
    scope.defer(() => order.push(1));
    scope.defer(() => {
      order.push(2);
      throw new Error("two");
    });
    scope.defer(async () => order.push(3));
    const error = await scope.close().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(order).to.deep.equal([3, 2, 1]);
    expect(error).to.be.instanceOf(AggregateError);
    await scope.close(); // twice does no harm
    expect(order).to.have.length(3);
  });
});

describe("base/backoff", () => {
  it("stays within its bounds, and doubles its ceiling", () => {
    const backoff = new Backoff({ minMs: 100, maxMs: 1000, random: () => 1 });
    expect([1, 2, 3, 4, 5, 6].map(() => backoff.nextMs())).to.deep.equal([100, 200, 400, 800, 1000, 1000]);
    backoff.reset();
    expect(backoff.nextMs()).to.equal(100);
    const low = new Backoff({ minMs: 100, maxMs: 1000, random: () => 0 });
    expect([1, 2, 3].map(() => low.nextMs())).to.deep.equal([100, 100, 100]);
  });
});

describe("base/log limiter", () => {
  it("lets one line a key through per interval, with a bounded number of keys", () => {
    let nowMs = 0;
    const limiter = new LogLimiter({ intervalMs: 100, keysMax: 2, nowMs: () => nowMs });
    expect(["a", "a", "b"].map((key) => limiter.due(key))).to.deep.equal([true, false, true]);
    nowMs = 100;
    expect(limiter.due("a")).to.equal(true);
    expect(limiter.due("c")).to.equal(true); // forgets b, the oldest
    expect(limiter.due("a")).to.equal(false);
  });
});

describe("base/meter", () => {
  it("writes Prometheus text", () => {
    const meter = new Meter();
    meter.counter("x_total", "how many", { kind: 'a"\\\n' }).value += 2;
    meter.counter("x_total", "how many", { kind: 'a"\\\n' }).value += 1;
    meter.gauge("y", "now", () => 7);
    const histogram = meter.histogram("z_seconds", "how long", [0.1, 1]);
    for (const value of [0.05, 0.5, 5]) histogram.observe(value);
    expect(meter.expose().split("\n")).to.deep.equal([
      "# HELP x_total how many",
      "# TYPE x_total counter",
      'x_total{kind="a\\"\\\\\\n"} 3',
      "# HELP y now",
      "# TYPE y gauge",
      "y 7",
      "# HELP z_seconds how long",
      "# TYPE z_seconds histogram",
      'z_seconds_bucket{le="0.1"} 1',
      'z_seconds_bucket{le="1"} 2',
      'z_seconds_bucket{le="+Inf"} 3',
      "z_seconds_sum 5.55",
      "z_seconds_count 3",
      "",
    ]);
  });

  it("bounds the label sets of a name", () => {
    const meter = new Meter();
    for (let n = 0; n < 1500; n += 1) meter.counter("x_total", "", { n: String(n) }).value += 1;
    const lines = meter.expose().split("\n");
    expect(lines).to.have.length(1001 + 2 + 1);
    expect(lines).to.include('x_total{overflow="true"} 500');
  });
});

describe("base/template", () => {
  it("fills names, and says when one has no value", () => {
    const template = parseTemplate("gw/{gateway}/{topic}/{1}");
    expect(template.names).to.deep.equal(["gateway", "topic", "1"]);
    expect(template.fill((name) => `<${name}>`)).to.equal("gw/<gateway>/<topic>/<1>");
    expect(template.fill((name) => (name === "1" ? undefined : name))).to.equal(undefined);
    expect(parseTemplate("plain").fill(() => undefined)).to.equal("plain");
  });

  it("refuses stray braces", () => {
    for (const text of ["{", "a}", "{}", "{a b}", "{{a}}"])
      expect(() => parseTemplate(text), text).to.throw(RangeError);
  });

  it("makes a device's value safe as one level", () => {
    expect(topicLevel("a/b+c#\u0000")).to.equal("a_b_c__");
    expect(topicLevel("")).to.equal("_");
    expect(topicLevel(12.5)).to.equal("12.5");
    expect(topicLevel("x".repeat(500))).to.have.length(128);
    expect(topicLevel("\ud800")).to.equal("_");
  });
});

describe("base/resolve", () => {
  it("returns addresses as they are, and knows localhost without asking anybody", async () => {
    expect(await resolveHost("192.0.2.7")).to.deep.equal({ address: "192.0.2.7", family: 4 });
    expect(await resolveHost("::1")).to.deep.equal({ address: "::1", family: 6 });
    expect(await resolveHost("localhost")).to.deep.equal({ address: "127.0.0.1", family: 4 });
  });
});
