/**
 * What V8 leaves undone until there is work. Measured, idle with HTTP on: 59 MB resident in every start, instead of 63 to 70; a start takes no longer.
 *
 * 1. The optimizing compiler: the first function that it compiles maps 4 MB of its code into the process and leaves memory with the threads that
 *    help. A start needs none of it; it compiled four functions, which ran for that moment only.
 * 2. Keeping garbage for the sake of speed: 7 MB of it after a start. V8 collects an idle heap by itself, but looks each 8 s whether it is idle enough,
 *    and on a busy machine did not find so within a minute. Where size goes before speed it collects at its first look.
 *
 * Work is what passes a socket, in either direction; and who has much to do without one calls `workBegins`.
 */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { setFlagsFromString } from "node:v8";

/** Node's: a connection came in, one is to be made, a UDP socket was made. */
const sockets = ["net.server.socket", "net.client.socket", "udp.socket"];

let frugal = false;

/** For the beginning of a program: what has run hot before is compiled already. */
export function frugalUntilWork(): void {
  frugal = true;
  setFlagsFromString("--no-opt");
  setFlagsFromString("--optimize-for-size");
  for (const channel of sockets) subscribe(channel, workBegins);
}

/** From here on V8 is as it always is: what has been hot meanwhile is compiled when it runs next. Nothing happens where that is so already. */
export function workBegins(): void {
  if (!frugal) return;
  frugal = false;
  setFlagsFromString("--opt");
  setFlagsFromString("--no-optimize-for-size");
  for (const channel of sockets) unsubscribe(channel, workBegins);
}
