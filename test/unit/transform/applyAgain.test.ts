import { expect } from "chai";
import type { PublishResult, Routing } from "../../../src/base/contracts.ts";
import type { RouteFailure } from "../../../src/base/deadLetters.ts";
import { silentLog } from "../../../src/base/log.ts";
import type { Message } from "../../../src/base/message.ts";
import { Meter } from "../../../src/base/meter.ts";
import { applyAgain } from "../../../src/transform/applyAgain.ts";
import { createCodecs } from "../../../src/transform/codecs/registry.ts";
import { createRouting, type RouteDefinition } from "../../../src/transform/routes.ts";
import { MemoryPublisher } from "../../helpers/memoryUplink.ts";

const routingOf = (more: Partial<RouteDefinition>): Routing =>
  createRouting(
    [{ name: "meters", from: "raw/+", to: "cooked/{1}", steps: [{ decode: "json" }], onError: "dead-letter", ...more }],
    createCodecs({}),
    { log: silentLog, meter: new Meter() },
  );
const message = (payload: string, topic = "raw/a"): Message => ({
  ...{ topic, payload: Buffer.from(payload), qos: 1, retain: false, source: "mqtt:a" },
});

describe("transform/dead letters", () => {
  const failuresOf = (routing: Routing, payload: string): RouteFailure[] => {
    const failures: RouteFailure[] = [];
    for (const route of routing.routesFor("raw/a"))
      expect(route.apply(message(payload), (failure) => failures.push(failure))).to.deep.equal([]);
    return failures;
  };

  it("a step that fails gives the message as it came, with the kind of step and why", () => {
    const [failure, ...others] = failuresOf(routingOf({}), "{");
    expect(others).to.deep.equal([]);
    expect(failure).to.deep.include({ route: "meters", code: "decode", message: message("{") });
    expect(failure?.text).to.match(/JSON/);
  });

  it("so does a topic that cannot be made", () => {
    const [failure] = failuresOf(routingOf({ to: "cooked/{serial}" }), '{"other":1}');
    expect(failure).to.deep.include({ code: "topic", message: message('{"other":1}') });
    expect(failure?.text).to.contain("serial");
  });

  it("only where the route says so", () => {
    expect(failuresOf(routingOf({ onError: "drop" }), "{")).to.deep.equal([]);
  });

  it("again: what the route makes is published, and the group is that of the last", () => {
    const publisher = new MemoryPublisher();
    publisher.result = { accepted: true, group: 7 };
    expect(applyAgain(routingOf({}), publisher, "meters", message('{"a":1}'))).to.deep.equal({ ok: true, group: 7 });
    expect(publisher.messages.map(({ topic, source }) => [topic, source])).to.deep.equal([
      ["cooked/a", "route:meters"],
    ]);
  });

  it("again: why not", () => {
    const publisher = new MemoryPublisher();
    const codeOf = (routing: Routing, route: string, of: Message): string => {
      const result = applyAgain(routing, publisher, route, of);
      return result.ok ? "ok" : result.code;
    };
    expect(codeOf(routingOf({}), "meters", message("{"))).to.equal("refused_again");
    expect(codeOf(routingOf({}), "other", message("{}"))).to.equal("no_route");
    expect(codeOf(routingOf({}), "meters", message("{}", "elsewhere"))).to.equal("no_route");
    expect(codeOf(routingOf({ onError: "drop" }), "meters", message("{"))).to.equal("nothing_made");
    expect(publisher.messages).to.deep.equal([]);
    publisher.result = { accepted: false, reason: "full" } satisfies PublishResult;
    expect(codeOf(routingOf({}), "meters", message("{}"))).to.equal("full");
  });
});
