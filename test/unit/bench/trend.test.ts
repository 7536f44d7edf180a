import { expect } from "chai";
import { type Sample, trendOf } from "../../bench/trend.ts";

/** Each second for ten minutes; the noise is a wave that no line follows. */
const readings = (value: (minutes: number) => number, noise: number): Sample[] =>
  Array.from({ length: 601 }, (_, second) => {
    const minutes = second / 60;
    return { minutes, value: value(minutes) + noise * Math.sin(second) };
  });

describe("trend of readings", () => {
  it("finds the line that they were made of", () => {
    const { slope, growth, first, last, flat } = trendOf(readings((minutes) => 1000 + 7 * minutes, 0));
    expect(slope).to.be.closeTo(7, 1e-9);
    expect(growth).to.be.closeTo(70, 1e-7);
    expect([first, last]).to.satisfy(([a, b]: number[]) => Math.abs(a! - 1003.5) < 0.2 && Math.abs(b! - 1066.5) < 0.2);
    expect(flat).to.equal(false);
  });

  it("is flat where noise hides the growth, and where it shrinks", () => {
    expect(trendOf(readings(() => 1000, 20)).flat).to.equal(true);
    expect(trendOf(readings((minutes) => 1000 + minutes, 20)).flat).to.equal(true);
    expect(trendOf(readings((minutes) => 1000 - 30 * minutes, 1)).flat).to.equal(true);
  });

  it("is not flat when it grows by more than the noise", () => {
    const { flat, noise } = trendOf(readings((minutes) => 1000 + 3 * minutes, 20));
    expect(noise).to.be.closeTo(20 / Math.SQRT2, 0.2);
    expect(flat).to.equal(false);
  });

  it("needs ten readings", () => {
    expect(() => trendOf(readings(() => 1, 0).slice(0, 9))).to.throw(/too few/);
  });
});
