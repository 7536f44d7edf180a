/**
 * What V8 leaves undone until there is work. Measured, idle with HTTP on: 59 MB resident in every start, instead of 63 to 70; a start takes no longer.
 *
 * 1. The optimizing compiler: the first function that it compiles maps 4 MB of its code into the process and leaves memory with the threads that
 *    help. A start needs none of it; it compiled four functions, which ran for that moment only.
 * 2. Keeping garbage for the sake of speed: 7 MB of it after a start. V8 collects an idle heap by itself, but looks each 8 s whether it is idle enough,
 *    and on a busy machine did not find so within a minute. Where size goes before speed it collects at its first look.
 *
 * Work is a turn of the event loop whose share for packets is spent, two seconds in each of which the process took more than a few percent of a core, or a long
 * walk through the journal. A handful of clients, an uplink that waits for its cloud and somebody who reads the metrics are none.
 */
import { setFlagsFromString } from "node:v8";
import type { Timer } from "./clock.ts";
import type { Seconds } from "./seconds.ts";

/** CPU time of a second, us: 5 % of a core. In so many seconds on end: what a start leaves to be done is over in one. */
const busyUs = 50_000;
const busySeconds = 2;

let frugal = false;

/** For the beginning of a program: what has run hot before is compiled already. */
export function frugalUntilWork(): void {
  frugal = true;
  setFlagsFromString("--no-opt");
  setFlagsFromString("--optimize-for-size");
}

/** From here on V8 is as it always is: what has been hot meanwhile is compiled when it runs next. Nothing happens where that is so already. */
export function workBegins(): void {
  if (!frugal) return;
  frugal = false;
  setFlagsFromString("--opt");
  setFlagsFromString("--no-optimize-for-size");
}

/** Looks each second whether there is work, until there is or the look is cancelled. */
export function watchForWork(seconds: Seconds): Timer {
  let before = process.cpuUsage();
  let busy = 0;
  const looks = seconds.each(() => {
    const { user, system } = process.cpuUsage(before);
    busy = user + system > busyUs ? busy + 1 : 0;
    if (busy === busySeconds) workBegins();
    if (!frugal) return looks.cancel();
    before = process.cpuUsage();
  });
  return looks;
}
