/**
 * Until there is work V8 optimizes nothing. The first function that its optimizing compiler takes maps 4 MB of that into the process and leaves memory with
 * the threads that help. A start needs none of it: it compiled four functions, which ran for that moment only. Measured, idle with HTTP and an uplink on: 60 MB
 * resident instead of 64 to 67 (without the unit's environment 63 instead of 67 to 70); a start takes no longer. Not `--optimize-for-size` as well: QoS 1 took 5 %
 * more CPU a message after it, though it was off again by then.
 *
 * Work is a turn of the event loop whose share for packets is spent, a second with many turns in which packets came, two seconds on end in each of which the process
 * took more than a few percent of a core, or a long walk through the journal. A handful of clients, an uplink that waits for its cloud and somebody who reads the metrics are none.
 */
import { setFlagsFromString } from "node:v8";
import type { Timer } from "./clock.ts";
import type { Seconds } from "./seconds.ts";

/** CPU time of a second, us: 5 % of a core. In so many seconds on end: what a start leaves to be done is over in one. */
const busyUs = 50_000;
const busySeconds = 2;
/** Turns with packets, in a second. */
const busyTurns = 500;

let frugal = false;
let turns = 0;

/** For the beginning of a program: what has run hot before is compiled already. */
export function frugalUntilWork(): void {
  frugal = true;
  setFlagsFromString("--no-opt");
}

/** From here on V8 is as it always is: what has been hot meanwhile is compiled when it runs next. Nothing happens where that is so already. */
export function workBegins(): void {
  if (!frugal) return;
  frugal = false;
  setFlagsFromString("--opt");
}

/** Packets have come in this turn of the event loop. */
export function turnBegins(): void {
  if (!frugal) return;
  turns += 1;
  if (turns > busyTurns) workBegins();
}

/** Looks each second whether there is work, until there is or the look is cancelled. */
export function watchForWork(seconds: Seconds): Timer {
  let before = process.cpuUsage();
  let busy = 0;
  const looks = seconds.each(() => {
    const { user, system } = process.cpuUsage(before);
    busy = user + system > busyUs ? busy + 1 : 0;
    if (busy === busySeconds) workBegins();
    turns = 0;
    if (!frugal) return looks.cancel();
    before = process.cpuUsage();
  });
  return looks;
}
