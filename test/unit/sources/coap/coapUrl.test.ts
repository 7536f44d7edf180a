import { expect } from "chai";
import { TidegateError } from "../../../../src/base/errors.ts";
import { parseCoapUrl } from "../../../../src/sources/coap/coapUrl.ts";
import { isFresher } from "../../../../src/sources/coap/freshness.ts";

describe("coap URLs", () => {
  const taken = (url: string) => {
    const { host, port, options } = parseCoapUrl(url);
    return [host, port, ...options.map(({ number, value }) => `${number}=${value}`)];
  };

  it("are taken apart as RFC 7252 section 6.4 says", () => {
    expect(taken("coap://127.0.0.1")).to.deep.equal(["127.0.0.1", 5683]);
    expect(taken("coap://127.0.0.1:61616/")).to.deep.equal(["127.0.0.1", 61616]);
    expect(taken("coap://[::1]:1/a//b/")).to.deep.equal(["::1", 1, "11=a", "11=", "11=b", "11="]);
    expect(taken("coap://Sensor.local/%7Ehut%2Fa?x=1&y=%26")).to.deep.equal([
      "sensor.local",
      5683,
      "3=sensor.local",
      "11=~hut/a",
      "15=x=1",
      "15=y=&",
    ]);
  });

  for (const [url, code] of [
    ["nonsense", "TG_CONFIG"],
    ["http://host/", "TG_CONFIG"],
    ["coap:///path", "TG_CONFIG"],
    ["coap://host/%zz", "TG_CONFIG"],
    ["coap://host/a#b", "TG_CONFIG"],
    [`coap://host/${"a".repeat(256)}`, "TG_CONFIG"],
    ["coaps://host/a", "TG_NOT_AVAILABLE"],
  ] as const) {
    it(`refuse ${url.slice(0, 30)}`, () => {
      expect(() => parseCoapUrl(url))
        .to.throw(TidegateError)
        .with.property("code", code);
    });
  }
});

describe("freshness of notifications (RFC 7641 section 3.4)", () => {
  const fresher = (last: number, next: number, laterMs = 0) =>
    isFresher({ sequence: last, arrivedMs: 5 }, { sequence: next, arrivedMs: 5 + laterMs });

  it("follows the wrapping 24-bit sequence, or 128 s", () => {
    expect([fresher(1, 2), fresher(2, 1), fresher(1, 1)]).to.deep.equal([true, false, false]);
    expect([fresher(2 ** 24 - 1, 0), fresher(0, 2 ** 24 - 1)]).to.deep.equal([true, false]);
    expect([fresher(0, 2 ** 23 - 1), fresher(0, 2 ** 23)]).to.deep.equal([true, false]);
    expect([fresher(9, 1, 128_000), fresher(9, 1, 128_001)]).to.deep.equal([false, true]);
  });
});
