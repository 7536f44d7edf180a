import { expect } from "chai";
import fc from "fast-check";
import { formatDuration, formatSize, parseDuration, parseSize } from "../../../src/config/units.ts";

describe("config: sizes and durations", () => {
  it("reads sizes", () => {
    const sizes: Array<[string | number, number]> = [
      ["16 MiB", 16 * 2 ** 20],
      ["256KiB", 256 * 2 ** 10],
      ["1 GiB", 2 ** 30],
      ["1.5 kib", 1536],
      ["2 TiB", 2 * 2 ** 40],
      ["3 MB", 3_000_000],
      ["12 B", 12],
      ["12", 12],
      [12, 12],
      [0, 0],
    ];
    for (const [text, bytes] of sizes) expect(parseSize(text), String(text)).to.equal(bytes);
    for (const wrong of [
      "",
      "MiB",
      "-1",
      "1 XB",
      "1 MiBs",
      "1e3",
      "0x10",
      "1 2",
      -1,
      1.5,
      Number.NaN,
      "99999999 TiB",
    ]) {
      expect(parseSize(wrong), String(wrong)).to.equal(undefined);
    }
  });

  it("reads durations", () => {
    const durations: Array<[string | number, number]> = [
      ["500ms", 500],
      ["10s", 10_000],
      ["5m", 300_000],
      ["2 h", 7_200_000],
      ["7d", 604_800_000],
      ["1.5s", 1500],
      ["0", 0],
      [0, 0],
    ];
    for (const [text, ms] of durations) expect(parseDuration(text), String(text)).to.equal(ms);
    for (const wrong of ["", "10", 10, "s", "-1s", "10S", "1h30m", "1 week", "1e3s"]) {
      expect(parseDuration(wrong), String(wrong)).to.equal(undefined);
    }
  });

  it("writes what it reads back", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 44 }), fc.constantFrom(1, 1000, 1024, 60_000), (amount, factor) => {
        const value = Math.floor(amount / factor) * factor;
        expect(parseSize(formatSize(value))).to.equal(value);
        expect(parseDuration(formatDuration(value))).to.equal(value);
      }),
      { numRuns: 300 },
    );
    expect(formatSize(16 * 2 ** 20)).to.equal("16 MiB");
    expect(formatDuration(90_000)).to.equal("90s");
  });
});
