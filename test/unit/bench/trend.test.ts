import { expect } from "chai";
import { type Sample, trendOf } from "../../bench/trend.ts";

/** Each second for ten minutes. */
const readings = (value: (minutes: number) => number): Sample[] =>
  Array.from({ length: 601 }, (_, second) => ({ minutes: second / 60, value: value(second / 60) }));

/** Up and down, `most` at most, once in so many minutes. */
const wave = (minutes: number, period: number, most: number): number =>
  most * Math.sin((2 * Math.PI * minutes) / period);

describe("trend of readings", () => {
  it("finds the line that they were made of", () => {
    const { slope, uncertainty, first, last, flat } = trendOf(readings((minutes) => 1000 + 7 * minutes));
    expect(slope).to.be.closeTo(7, 1e-9);
    expect(uncertainty).to.be.closeTo(0, 1e-9);
    expect([first, last]).to.satisfy(([a, b]: number[]) => Math.abs(a! - 1003.5) < 0.2 && Math.abs(b! - 1066.5) < 0.2);
    expect(flat).to.equal(false);
  });

  it("is flat where it shrinks, and where it only goes up and down, fast or slowly", () => {
    expect(trendOf(readings((minutes) => 1000 - 30 * minutes)).flat).to.equal(true);
    for (const period of [0.1, 1, 2.7, 4]) {
      const { flat, slope, uncertainty } = trendOf(readings((minutes) => 1000 + wave(minutes, period, 20)));
      expect(flat, `each ${period} minutes`).to.equal(true);
      expect(Math.abs(slope)).to.be.at.most(uncertainty);
    }
  });

  it("sees a growth far below what readings differ by from each other, and one above a slow up and down", () => {
    expect(trendOf(readings((minutes) => 1000 + minutes + wave(minutes, 0.1, 20))).flat).to.equal(false);
    expect(trendOf(readings((minutes) => 1000 + 10 * minutes + wave(minutes, 2.7, 20))).flat).to.equal(false);
  });

  it("needs three readings for each stretch", () => {
    expect(() => trendOf(readings(() => 1).slice(0, 29))).to.throw(/too few/);
  });
});
