import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect } from "chai";

const source = (path: string): string => JSON.stringify(join(import.meta.dirname, "../../../src", path));

/** A program that runs hot, says "work", does `work` and runs hot again. @returns what V8 said that it optimized before the work, and after it */
async function optimized(work: string): Promise<{ before: number; after: number }> {
  const program = `
    import { workBegins, frugalUntilWork, watchForWork } from ${source("base/frugal.ts")};
    import { Seconds } from ${source("base/seconds.ts")};
    import { TurnShare } from ${source("broker/turnShare.ts")};
    import { FileWalk } from ${source("journal/fileWalk.ts")};
    frugalUntilWork();
    function hot(n) { let sum = 0; for (let at = 0; at < n; at += 1) sum += at & 7; return sum; }
    const runHot = async () => {
      for (let round = 0; round < 1000; round += 1) {
        hot(1000);
        if (round % 100 === 0) await new Promise(setImmediate); // what another thread compiled is taken over
      }
    };
    await runHot();
    process.stdout.write("work\\n");
    ${work}
    await runHot();
  `;
  const args = ["--import", "tsx", "--trace-opt", "--input-type=module", "--eval", program];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  const counted = stdout.split("work\n").map((text) => text.match(/marking .*<JSFunction hot\b/g)?.length ?? 0);
  return { before: counted[0] ?? 0, after: counted[1] ?? 0 };
}

/** Of a file of a megabyte. */
const walk = (byte: number): string => `
  const file = { read: async (target) => target.fill(${byte}).length };
  await new FileWalk().run(file, 0, 1024 * 1024, 0, () => {});
`;
/** A look each second, at a process whose CPU time in each is told. */
const seconds = (...cpuUs: number[]): string => `
  let look;
  const used = ${JSON.stringify(cpuUs)};
  process.cpuUsage = (before) => before === undefined ? { user: 1e6, system: 1e6 } : { user: used.shift() - 1000, system: 1000 };
  const clock = { setTimer: (ms, due) => { look = due; return { cancel() { look = undefined; } }; } };
  const watch = watchForWork(new Seconds(clock));
  while (used.length > 0) look();
  if ((look === undefined) !== ${cpuUs.slice(-2).every((us) => us > 50_000)}) throw new Error("it looks on while there is none, and not any more when there is");
  watch.cancel();
`;
const turn = (ms: number): string => `
  let nowMs = 0;
  const share = new TurnShare({ monotonicMs: () => nowMs }, 1e6, () => {});
  share.spent();
  nowMs += ${ms};
  share.spent();
`;

/** Turns with packets, in each of the seconds. */
const turns = (...perSecond: number[]): string => `
  let look;
  const clock = { monotonicMs: () => 0, setTimer: (ms, due) => { look = due; return { cancel() {} }; } };
  watchForWork(new Seconds(clock));
  const share = new TurnShare(clock, 1e6, () => {});
  for (const count of ${JSON.stringify(perSecond)}) {
    for (let n = 0; n < count; n += 1) {
      share.spent();
      await new Promise(setImmediate);
    }
    look();
  }
`;

describe("V8 optimizes nothing until there is work", () => {
  for (const [name, work] of [
    ["a turn whose share for packets is spent", turn(4)],
    ["a second with more than 500 turns with packets", turns(501)],
    ["two seconds on end with more than 5 % of a core", seconds(50_001, 50_001)],
    ["a long walk through the journal", walk(1)],
    ["whoever says so", "workBegins();"],
  ] as const) {
    it(`${name} is work`, async () => {
      const { before, after } = await optimized(work);
      expect(before).to.equal(0);
      expect(after).to.be.above(0);
    });
  }

  for (const [name, nothing] of [
    ["a turn with few packets", turn(3)],
    ["as many turns over some seconds", turns(300, 300, 300)],
    ["one such second now and then", seconds(60_000, 50_000, 60_000)],
    ["a walk through space that was prepared", walk(0)],
    ["time that passes", "await new Promise(setImmediate);"],
  ] as const) {
    it(`${name} is none`, async () => {
      expect(await optimized(nothing)).to.deep.equal({ before: 0, after: 0 });
    });
  }
});
