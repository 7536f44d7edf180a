import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { compareRuns, machineDifferences, tableOf } from "../../bench/compare.ts";
import { beginRun, type Figure, newestRun, readRun, type StoredRun, storeRun } from "../../bench/record.ts";

const rate = (name: string, ...values: number[]): Figure => ({ name, unit: "msg/s", better: "more", values });
const time = (name: string, ...values: number[]): Figure => ({ name, unit: "ms", better: "less", values });
const runOf = (...figures: Figure[]): StoredRun => beginRun(3, 1)([{ name: "b", figures }]);
const verdicts = (base: Figure[], now: Figure[]): Array<[string, string]> =>
  compareRuns(runOf(...base), runOf(...now)).map(({ name, verdict }) => [name, verdict]);

describe("bench:compare", () => {
  it("marks medians that are further apart than the rounds of either run, by the direction of each figure", () => {
    const base = [
      rate("up", 100, 101, 102),
      rate("down", 100, 101, 102),
      time("slower", 10, 11, 12),
      time("faster", 10, 11, 12),
    ];
    const now = [
      rate("up", 110, 111, 112),
      rate("down", 90, 91, 92),
      time("slower", 20, 21, 22),
      time("faster", 5, 6, 7),
    ];
    expect(verdicts(base, now)).to.deep.equal([
      ["b: up", "better"],
      ["b: down", "worse"],
      ["b: slower", "worse"],
      ["b: faster", "better"],
    ]);
  });

  it("leaves alone what the rounds of either run could have given", () => {
    expect(verdicts([rate("a", 100, 101, 102)], [rate("a", 90, 99, 110)])).to.deep.equal([["b: a", "same"]]);
    expect(verdicts([rate("a", 90, 100, 110)], [rate("a", 85, 86, 87)])).to.deep.equal([["b: a", "same"]]);
    expect(verdicts([rate("a", 100, 101, 102)], [rate("a", 98, 99, 100)])).to.deep.equal([["b: a", "same"]]);
  });

  it("takes a figure that was measured once for moved from a tenth on", () => {
    expect(verdicts([time("a", 100)], [time("a", 109)])).to.deep.equal([["b: a", "same"]]);
    expect(verdicts([time("a", 100)], [time("a", 111)])).to.deep.equal([["b: a", "worse"]]);
  });

  it("tells what only one of them has, or has in another unit", () => {
    const base = [rate("gone", 1), rate("unit", 1), rate("kept", 1)];
    const now = [time("unit", 1), rate("kept", 1), rate("new", 1)];
    expect(verdicts(base, now)).to.deep.equal([
      ["b: gone", "gone"],
      ["b: unit", "gone"],
      ["b: kept", "same"],
      ["b: unit", "new"],
      ["b: new", "new"],
    ]);
  });

  it("has a table with the ratio of the medians, and none where the base is 0", () => {
    const lines = tableOf(
      compareRuns(runOf(rate("a", 100, 200, 300), time("zero", 0)), runOf(rate("a", 450), time("zero", 3))),
    );
    expect(lines).to.deep.equal([
      "         base  now          ratio",
      "b: a      200  450  msg/s  2.25 x  better",
      "b: zero     0    3  ms          -  worse",
    ]);
  });

  it("tells machines apart by all that is stored of them", () => {
    const { machine } = runOf();
    expect(machineDifferences(machine, { ...machine })).to.deep.equal([]);
    expect(machineDifferences(machine, { ...machine, cores: 64, node: "v1" })).to.deep.equal([
      `cores: ${machine.cores}, 64`,
      `node: ${machine.node}, v1`,
    ]);
  });

  describe("with stored runs", () => {
    let dir = "";
    beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "tidegate-compare-"))));
    afterEach(() => rmSync(dir, { recursive: true, force: true }));

    const script = join(import.meta.dirname, "..", "..", "bench", "compareRuns.ts");
    const command = (...args: string[]) =>
      spawnSync(process.execPath, ["--import", "tsx", script, ...args], { encoding: "utf8" });
    const stored = (name: string, run: StoredRun): string => storeRun(run, join(dir, name));

    it("a run is read as it was stored, and what is none is refused by its name", () => {
      const run = runOf(rate("a", 1, 2, 3));
      expect(readRun(stored("run.json", run))).to.deep.equal(run);
      writeFileSync(join(dir, "other.json"), `{"format":"something else"}`);
      writeFileSync(join(dir, "cut.json"), `{"format":`);
      expect(() => readRun(join(dir, "other.json"))).to.throw(/other\.json is not a run/);
      expect(() => readRun(join(dir, "cut.json"))).to.throw(/cut\.json is not JSON/);
    });

    it("the newest is the one whose run began last", () => {
      expect(newestRun(dir)).to.equal(undefined);
      for (const day of [2, 3, 1]) stored(`2026-11-0${day}T00-00-00-aaaaaaaa.json`, runOf());
      expect(newestRun(dir)).to.equal(join(dir, "2026-11-03T00-00-00-aaaaaaaa.json"));
    });

    it("ends with 1 when something is worse, else with 0", () => {
      const base = stored("base.json", runOf(rate("a", 100)));
      const worse = command(base, stored("worse.json", runOf(rate("a", 50))));
      expect([worse.status, worse.stdout]).to.satisfy(
        ([status, text]: [number, string]) => status === 1 && /0\.50 x {2}worse/.test(text),
      );
      expect(command(base, stored("better.json", runOf(rate("a", 200)))).status).to.equal(0);
    });

    it("refuses runs of two machines, unless it is told to", () => {
      const base = stored("base.json", runOf(rate("a", 100)));
      const run = runOf(rate("a", 100));
      const other = stored("other.json", { ...run, machine: { ...run.machine, cpu: "another" } });
      const refused = command(base, other);
      expect(refused.status).to.equal(2);
      expect(refused.stderr).to.match(/cpu: .*, another/);
      expect(refused.stdout).to.equal("");
      expect(command(base, other, "--any-machine").status).to.equal(0);
    });
  });
});
