import { expect } from "chai";
import { floorsOf, growthOf, type Sample, trendOf, type Verdict } from "../../bench/trend.ts";

/** Each second for ten minutes. */
const readings = (value: (minutes: number) => number): Sample[] =>
  Array.from({ length: 601 }, (_, second) => ({ minutes: second / 60, value: value(second / 60) }));

/** Up and down, `most` at most, once in so many minutes. */
const wave = (minutes: number, period: number, most: number): number =>
  most * Math.sin((2 * Math.PI * minutes) / period);

describe("trend of readings", () => {
  it("finds the line that they were made of", () => {
    const { slope, uncertainty, first, last } = trendOf(readings((minutes) => 1000 + 7 * minutes));
    expect(slope).to.be.closeTo(7, 1e-9);
    expect(uncertainty).to.be.closeTo(0, 1e-9);
    expect([first, last]).to.satisfy(([a, b]: number[]) => Math.abs(a! - 1003.5) < 0.2 && Math.abs(b! - 1066.5) < 0.2);
  });

  it("knows no growth where it only goes up and down, fast or slowly", () => {
    for (const period of [0.1, 1, 2.7, 4]) {
      const { slope, uncertainty } = trendOf(readings((minutes) => 1000 + wave(minutes, period, 20)));
      expect(Math.abs(slope), `each ${period} minutes`).to.be.at.most(uncertainty);
    }
  });

  it("sees a growth far below what readings differ by from each other, and one above a slow up and down", () => {
    const grown = [
      trendOf(readings((minutes) => 1000 + minutes + wave(minutes, 0.1, 20))),
      trendOf(readings((minutes) => 1000 + 10 * minutes + wave(minutes, 2.7, 20))),
    ];
    for (const { slope, uncertainty } of grown) expect(slope).to.be.above(uncertainty);
  });

  it("needs three readings for each stretch", () => {
    expect(() => trendOf(readings(() => 1).slice(0, 29))).to.throw(/too few/);
  });
});

/** Evenly spread over -1 to 1, the same each time for a seed. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** What resident memory looks like under load, kB, each second: garbage that rises and goes, never by the same, and a level of its own for each collection. */
function memory(minutes: number, seed: number, more: (minutes: number) => number): Sample[] {
  const random = randomOf(seed);
  const samples: Sample[] = [];
  let [garbage, rest, length] = [0, 0, 10];
  for (let second = 0; second <= minutes * 60; second += 1) {
    garbage += 3000 / length;
    if (garbage > 3000) [garbage, rest, length] = [0, 400 * random(), 10 + 5 * random()];
    const at = second / 60;
    samples.push({ minutes: at, value: 110_000 + garbage + rest + 100 * random() + more(at) });
  }
  return samples;
}

describe("verdict on memory", () => {
  const leak = 20;
  const warmUp = 20;
  const judged = (samples: readonly Sample[]): Verdict =>
    growthOf(
      floorsOf(
        samples.filter(({ minutes }) => minutes >= warmUp),
        2 / 3,
      ),
      leak,
    ).verdict;
  /** Of a hundred runs of an hour. */
  const verdicts = (more: (minutes: number) => number): Record<Verdict, number> => {
    const counts = { flat: 0, grows: 0, unknown: 0 };
    for (let seed = 1; seed <= 100; seed += 1) counts[judged(memory(60, seed, more))] += 1;
    return counts;
  };

  it("is flat where nothing grows; by chance it is wrong once in forty", () => {
    expect(verdicts(() => 0).flat).to.be.at.least(95);
    expect(verdicts((minutes) => -30 * minutes).flat).to.equal(100);
  });

  it("tells a leak of 20 kB a minute, and never says flat to it", () => {
    const counts = verdicts((minutes) => 20 * minutes);
    expect(counts.grows).to.be.at.least(95);
    expect(counts.flat).to.be.at.most(2);
    expect(verdicts((minutes) => 60 * minutes).grows).to.equal(100);
  });

  it("is flat after a step in the warm-up, and after a growth that came to its end there", () => {
    expect(verdicts((minutes) => (minutes < 12 ? 0 : 5000)).flat).to.be.at.least(95);
    expect(verdicts((minutes) => 4000 * (1 - Math.exp(-minutes / 4))).flat).to.be.at.least(95);
  });

  it("a step afterwards is growth", () => {
    expect(verdicts((minutes) => (minutes < 40 ? 0 : 2000)).grows).to.equal(100);
  });

  it("a slow saw-tooth is not growth, and hides a leak at most as unknown", () => {
    const tooth = (minutes: number): number => 1500 * ((minutes / 7) % 1);
    expect(verdicts(tooth).grows).to.be.at.most(5);
    expect(verdicts((minutes) => tooth(minutes) + 20 * minutes).flat).to.be.at.most(2);
  });

  it("growth that the kernel does not count exactly is none", () => {
    const exact = Array.from({ length: 60 }, (_, at): Sample => ({ minutes: (at * 2) / 3, value: 5 * ((at * 2) / 3) }));
    expect(growthOf(exact, leak).verdict).to.equal("flat");
    expect(
      growthOf(
        exact.map(({ minutes, value }) => ({ minutes, value: 2 * value })),
        leak,
      ).verdict,
    ).to.equal("grows");
  });

  it("takes the lowest of each whole stretch", () => {
    const samples = [5, 3, 4, 9, 8, 7, 1].map((value, at): Sample => ({ minutes: 10 + at, value }));
    expect(floorsOf(samples, 3).map(({ value }) => value)).to.deep.equal([3, 7]);
    expect(floorsOf([], 3)).to.deep.equal([]);
  });
});
