import { expect } from "chai";
import { type LinkFaultCode, linkFault, linkFaults } from "../../../src/base/linkFaults.ts";
import { Endpoints } from "../../../src/uplink/endpoints.ts";

const fault = (code: LinkFaultCode) => linkFault(code, "it happened");
const most = { minMs: 1000, maxMs: 60_000, random: () => 1 };

describe("base/linkFaults", () => {
  it("every code says how to mend it, or what happened does", () => {
    for (const code of Object.keys(linkFaults) as LinkFaultCode[]) {
      expect(code).to.match(/^[a-z-]+$/);
      expect(fault(code).text, code).to.match(code === "version-refused" ? /^it happened$/ : /^it happened; .{10}/);
    }
  });
});

describe("uplink/endpoints", () => {
  it("doubles the pause up to backoff.max, with full jitter, and begins anew after a link that stood", () => {
    const endpoints = new Endpoints(["a"], most);
    const waits = Array.from({ length: 8 }, () => endpoints.failed(fault("unreachable"), false, 0));
    expect(waits).to.deep.equal([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    expect(endpoints.failed(fault("connection-lost"), true, 0)).to.equal(1000);
    for (const random of [0, 0.25, 0.5]) {
      const jittered = new Endpoints(["a"], { ...most, random: () => random });
      for (let n = 0; n < 5; n += 1) jittered.failed(fault("unreachable"), false, 0);
      expect(jittered.failed(fault("unreachable"), false, 0)).to.equal(1000 + random * 31_000);
    }
  });

  it("waits long for what only a person can mend: from backoff.max on, up to ten minutes", () => {
    const endpoints = new Endpoints(["a"], most);
    const waits = Array.from({ length: 6 }, () => endpoints.failed(fault("bad-credentials"), false, 0));
    expect(waits).to.deep.equal([60_000, 120_000, 240_000, 480_000, 600_000, 600_000]);
    endpoints.accepted();
    expect(endpoints.failed(fault("bad-credentials"), false, 0)).to.equal(60_000);
  });

  it("tries the others meanwhile, and not that one before its time", () => {
    const endpoints = new Endpoints(["a", "b", "c"], { ...most, random: () => 0 });
    const tried: string[] = [];
    let nowMs = 0;
    while (nowMs < 130_000) {
      tried.push(endpoints.url);
      nowMs += endpoints.failed(fault(endpoints.url === "b" ? "tls-expired" : "unreachable"), false, nowMs);
    }
    expect(tried.slice(0, 6)).to.deep.equal(["a", "b", "c", "a", "c", "a"]);
    expect(tried.filter((url) => url === "b")).to.have.length(3); // at 1, 61 and 121 s
  });

  it("goes by their order, and back to the first after a link that stood", () => {
    const endpoints = new Endpoints(["a", "b", "c"], most);
    const next = (stood = false): string => {
      endpoints.failed(fault("unreachable"), stood, 0);
      return endpoints.url;
    };
    expect([endpoints.url, next(), next(), next(), next(), next(true)]).to.deep.equal(["a", "b", "c", "a", "b", "a"]);
  });

  it("when all wait for a person, the first whose time comes is next", () => {
    const endpoints = new Endpoints(["a", "b"], { ...most, random: () => 0 });
    expect(endpoints.failed(fault("banned"), false, 0)).to.equal(1000); // b is due
    expect(endpoints.url).to.equal("b");
    expect(endpoints.failed(fault("banned"), false, 1000)).to.equal(59_000);
    expect(endpoints.url).to.equal("a");
  });

  it("after somebody mended something all may be tried, in their order", () => {
    const endpoints = new Endpoints(["a", "b"], { ...most, random: () => 0 });
    endpoints.failed(fault("bad-credentials"), false, 0);
    expect(endpoints.url).to.equal("b");
    endpoints.mended();
    expect(endpoints.url).to.equal("a");
    endpoints.failed(fault("unreachable"), false, 0);
    expect(endpoints.url).to.equal("b");
    endpoints.failed(fault("unreachable"), false, 0);
    expect(endpoints.url).to.equal("a");
  });

  it("and if an attempt was under way, another follows at once, and only one", () => {
    const endpoints = new Endpoints(["a", "b"], most);
    endpoints.again();
    expect(endpoints.failed(fault("bad-credentials"), false, 0)).to.equal(0);
    expect(endpoints.url).to.equal("a");
    expect(endpoints.failed(fault("bad-credentials"), false, 0)).to.be.greaterThan(0);
    endpoints.again();
    endpoints.accepted();
    expect(endpoints.failed(fault("connection-lost"), false, 0)).to.be.greaterThan(0);
  });
});
