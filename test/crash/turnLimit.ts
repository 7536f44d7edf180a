/** A seed that does not end names itself: by turns of the event loop, which a busy machine does not change, not by time. */
import { Worker } from "node:worker_threads";

/** The longest of some thousands took a hundredth of it. */
const turnsMax = 1_000_000;
/** Of processor time, in one turn; the longest takes a fraction of one. */
const turnSecondsMax = 60;

/** The seed that runs, and how many turns have been taken: seen by `Sentry`'s thread, too. */
const progress = new Int32Array(new SharedArrayBuffer(8));

/** @throws when `work` has not ended after `most` turns; what it still does goes on */
export async function withinTurns<T>(seed: number, work: Promise<T>, most = turnsMax): Promise<T> {
  progress[0] = seed;
  let ended = false;
  const limit = async (): Promise<never> => {
    for (let turns = 0; turns < most && !ended; turns += 1) {
      Atomics.add(progress, 1, 1);
      await new Promise((resolve) => setImmediate(resolve));
    }
    throw new Error(`does not end: ${most} turns`);
  };
  try {
    return await Promise.race([work, limit()]);
  } finally {
    ended = true;
  }
}

/** Runs in a thread of its own, since a turn that does not end lets nothing else happen in this one. */
const sentry = `
const { writeSync } = require("node:fs");
const { progress, secondsMax } = require("node:worker_threads").workerData;
const seconds = () => process.cpuUsage().user / 1e6;
let [turns, since] = [-1, seconds()];
setInterval(() => {
  const now = Atomics.load(progress, 1);
  if (now !== turns) [turns, since] = [now, seconds()];
  else if (seconds() - since > secondsMax) {
    writeSync(1, "seed " + progress[0] + ": one turn does not end\\n");
    process.kill(process.pid, "SIGKILL");
  }
}, 500);
`;

/** Ends the process when a turn takes too much processor time, and says in which seed. */
export function watchTurns(secondsMax = turnSecondsMax): void {
  new Worker(sentry, { eval: true, execArgv: [], workerData: { progress, secondsMax } }).unref();
}
