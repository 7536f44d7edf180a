import { execFile } from "node:child_process";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";

/**
 * Tells systemd how we are, when it asked (NOTIFY_SOCKET): Node has no unix datagram sockets, so `systemd-notify` does it; 14 ms a call.
 * Failure is a warning: the gateway works without.
 */
export class SystemdNotifier {
  readonly #log: Log;
  readonly #env: NodeJS.ProcessEnv;
  #watchdog: NodeJS.Timeout | undefined;
  #warned = false;

  constructor(log: Log, env: NodeJS.ProcessEnv = process.env) {
    this.#log = log;
    this.#env = env;
  }

  /**
   * READY=1, then WATCHDOG=1 each half of WatchdogSec. The timer is the event loop's own: a loop that hangs stops it, and systemd restarts us.
   */
  ready(status: string): void {
    if (!this.#asked()) return;
    this.#send(["--ready", `--status=${status}`]);
    const usec = Number(this.#env["WATCHDOG_USEC"] ?? 0);
    if (!(usec > 0)) return;
    this.#watchdog = setInterval(() => this.#send(["WATCHDOG=1"]), Math.max(100, usec / 2000));
    this.#watchdog.unref();
  }

  stopping(): void {
    clearInterval(this.#watchdog);
    if (this.#asked()) this.#send(["STOPPING=1"]);
  }

  #asked(): boolean {
    return (this.#env["NOTIFY_SOCKET"] ?? "") !== "";
  }

  #send(args: string[]): void {
    const failed = (error: unknown): void => {
      if (this.#warned) return;
      this.#warned = true;
      this.#log.warn({ err: messageOf(error) }, "systemd-notify failed; with Type=notify the unit will be stopped");
    };
    try {
      const options = { timeout: 5_000 };
      const child = execFile("systemd-notify", [`--pid=${process.pid}`, ...args], options, (error) => {
        if (error !== null) failed(error);
      });
      child.unref();
    } catch (error) {
      failed(error); // a fork that finds no memory throws at once
    }
  }
}
