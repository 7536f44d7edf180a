import { expect } from "chai";
import { type Log, silentLog } from "../../../src/base/log.ts";
import type { Message } from "../../../src/base/message.ts";
import { Meter } from "../../../src/base/meter.ts";
import { createCodecs } from "../../../src/transform/codecs/registry.ts";
import { createRouting, type RouteDefinition } from "../../../src/transform/routes.ts";
import { boiler, bytes, thrown } from "./support.ts";

const codecs = createCodecs(boiler.codecs);
const status = bytes("01 3412 6908 02760f00 09");
const meters: RouteDefinition = {
  name: "meters",
  from: "legacy/+/bin",
  steps: [{ decode: "boiler-status" }],
  to: "meters/{1}/{kind}",
  onError: "drop",
};

const message = (more: Partial<Message> = {}): Message => ({
  topic: "legacy/7/bin",
  payload: status,
  qos: 1,
  retain: false,
  source: "mqtt:old",
  ...more,
});

function run(definition: Partial<RouteDefinition>, incoming: Partial<Message> = {}) {
  const meter = new Meter();
  const lines: unknown[] = [];
  const log: Log = { ...silentLog, warn: (fields) => lines.push(fields) };
  const routing = createRouting([{ ...meters, ...definition }], codecs, { log, meter });
  const whole = message(incoming);
  const apply = () => routing.routesFor(whole.topic).flatMap((route) => [...route.apply(whole, () => {})]);
  return { made: apply(), apply, lines, metrics: () => meter.expose() };
}

describe("transform/routes", () => {
  it("derives a JSON message, with what the + matched and a decoded field in its topic", () => {
    const { made, metrics } = run({});
    expect(made).to.have.length(1);
    const { payload, ...rest } = made[0] as Message;
    expect(rest).to.deep.equal({
      topic: "meters/7/status",
      qos: 1,
      retain: false,
      properties: { contentType: "application/json", payloadFormat: 1 },
      source: "route:meters",
    });
    expect(JSON.parse(Buffer.from(payload).toString())).to.deep.equal(boiler.vectors[0]?.value);
    expect(metrics()).to.contain('tidegate_route_messages_total{route="meters"} 1');
    expect(metrics()).to.contain('tidegate_route_errors_total{reason="decode",route="meters"} 0');
  });

  it("fills {rest}, {topic} and several +", () => {
    const topics = (from: string, to: string | undefined, topic: string) =>
      run({ from, to }, { topic }).made.map((made) => made.topic);
    expect(topics("a/+/+/#", "{2}/{1}/{rest}", "a/b/c/d/e")).to.deep.equal(["c/b/d/e"]);
    expect(topics("a/#", "x/{topic}/{seq}", "a/b")).to.deep.equal(["x/a/b/4660"]);
    expect(topics("a/#", undefined, "a/b")).to.deep.equal(["a/b"]);
    expect(topics("b/#", "x", "a/b")).to.deep.equal([]);
  });

  it("keeps the message's properties but for those of the payload, and its qos and retain unless set", () => {
    const properties = {
      payloadFormat: 0,
      contentType: "application/x-boiler",
      messageExpirySeconds: 9,
      correlationData: bytes("01"),
      userProperties: [["a", "b"]],
    } as const;
    const [kept] = run({}, { properties, qos: 2, retain: true }).made;
    expect(kept?.properties).to.deep.equal({ ...properties, payloadFormat: 1, contentType: "application/json" });
    expect([kept?.qos, kept?.retain]).to.deep.equal([2, true]);
    const [set] = run({ qos: 0, retain: false }, { qos: 2, retain: true }).made;
    expect([set?.qos, set?.retain]).to.deep.equal([0, false]);
  });

  it("never takes its own output, but another route's", () => {
    expect(run({}, { source: "route:meters" }).made).to.deep.equal([]);
    expect(run({}, { source: "route:other" }).made).to.have.length(1);
  });

  it("drops and counts what does not decode; the log is limited and holds no payload", () => {
    const { made, apply, lines, metrics } = run({}, { payload: bytes("01") });
    expect(made).to.deep.equal([]);
    apply();
    expect(metrics()).to.contain('tidegate_route_errors_total{reason="decode",route="meters"} 2');
    expect(metrics()).to.contain('tidegate_route_messages_total{route="meters"} 0');
    expect(lines).to.deep.equal([
      { route: "meters", reason: "decode", why: "boiler-status: field seq at offset 1 wants 2 bytes, 0 left of 1" },
    ]);
  });

  it("passes what does not decode on unchanged when told to", () => {
    const properties = { contentType: "x/y" };
    const { made, metrics } = run({ onError: "pass", to: "failed/{1}" }, { payload: bytes("01"), properties });
    expect(made).to.deep.equal([
      { ...message({ properties, payload: bytes("01") }), topic: "failed/7", source: "route:meters" },
    ]);
    expect(metrics()).to.contain('tidegate_route_errors_total{reason="decode",route="meters"} 1');
    expect(metrics()).to.contain('tidegate_route_messages_total{route="meters"} 1');
  });

  it("counts topics that cannot be filled or are none", () => {
    const passed = run({ onError: "pass" }, { payload: bytes("01") }); // {kind} is not known then
    expect(passed.made).to.deep.equal([]);
    expect(passed.metrics()).to.contain('tidegate_route_errors_total{reason="topic",route="meters"} 1');
    const missing = run({ to: "x/{nothing}" });
    expect(missing.made).to.deep.equal([]);
    expect(missing.metrics()).to.contain('tidegate_route_errors_total{reason="topic",route="meters"} 1');
    const system = run(
      { from: "+/x", to: "{kind}", steps: [{ decode: "json" }] },
      { topic: "a/x", payload: Buffer.from('{"kind":"$SYS"}') },
    );
    expect(system.made).to.deep.equal([]);
  });

  it("changes only the topic when it has no steps", () => {
    const [made] = run({ steps: [], to: "copy/{1}" }).made;
    expect(made).to.deep.equal({ ...message(), topic: "copy/7", source: "route:meters", properties: undefined });
  });

  it("passes on that a retained value is deleted", () => {
    const empty = { payload: Buffer.alloc(0), retain: true };
    const { made, metrics } = run({ to: "meters/{1}" }, empty);
    expect(made.map(({ topic, payload, retain }) => [topic, payload.length, retain])).to.deep.equal([
      ["meters/7", 0, true],
    ]);
    expect(metrics()).to.contain('tidegate_route_errors_total{reason="decode",route="meters"} 0');
    expect(run({}, empty).made).to.deep.equal([]);
  });

  it("decodes by content type", () => {
    const auto = { steps: [{ decode: "auto" }], to: "t" };
    const text = (contentType: string | undefined, hex: string) =>
      run(auto, {
        payload: bytes(hex),
        ...(contentType === undefined ? {} : { properties: { contentType } }),
      }).made.map(({ payload }) => Buffer.from(payload).toString());
    expect(text("application/cbor", "a1616101")).to.deep.equal(['{"a":1}']);
    expect(text("Text/Plain; charset=utf-8", "3132")).to.deep.equal(['"12"']);
    expect(text(undefined, "3132")).to.deep.equal(["12"]);
    expect(text("image/png", "3132")).to.deep.equal([]);
  });

  it("lets every matching route take a message", () => {
    const routing = createRouting(
      [
        meters,
        { ...meters, name: "raw", steps: [{ decode: "hex" }], to: "raw" },
        { ...meters, name: "none", from: "x/+" },
      ],
      codecs,
      { log: silentLog, meter: new Meter() },
    );
    expect(routing.routesFor("legacy/7/bin").map((route) => route.name)).to.deep.equal(["meters", "raw"]);
    expect(routing.routesFor("elsewhere")).to.deep.equal([]);
  });

  const wrong: Array<[string, Partial<RouteDefinition>, string]> = [
    ["filter", { from: "a/#/b" }, "from"],
    ["shared subscription", { from: "$share/g/a" }, "shared"],
    ["capture", { to: "x/{2}" }, "{2}"],
    ["capture 0", { to: "x/{0}" }, "{0}"],
    ["rest", { to: "x/{rest}" }, "{rest}"],
    ["codec", { steps: [{ decode: "nothing" }] }, "step 1"],
    ["second decode", { steps: [{ decode: "hex" }, { decode: "hex" }] }, "step 2"],
    ["kind of step", { steps: [{ shout: "x" } as unknown as { decode: string }] }, "wants one of decode"],
    ["two kinds in a step", { steps: [{ decode: "hex", map: "x" } as { decode: string }] }, "wants one of decode"],
    ["template", { to: "x/{" }, "brace"],
  ];
  for (const [what, definition, says] of wrong) {
    it(`refuses a wrong ${what}`, () => {
      expect(thrown("TG_CONFIG", () => run(definition)).message)
        .to.contain("route meters")
        .and.to.contain(says);
    });
  }

  it("refuses two routes of one name", () => {
    thrown("TG_CONFIG", () => createRouting([meters, meters], codecs, { log: silentLog, meter: new Meter() }));
  });
});
