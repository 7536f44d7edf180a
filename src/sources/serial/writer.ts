import type { Clock, Timer } from "../../base/clock.ts";
import { Ring } from "../../base/ring.ts";
import type { KeptCommand } from "./keptCommands.ts";
import type { Port } from "./port.ts";

/**
 * Why something never reached the device.
 * - ackOverflow: the device does not read; too many bytes of acknowledgements wait
 * - ackPortGone: the port was lost (or is another one by now) before the acknowledgement went out
 * - commandQueueFull, commandExpired · commandPortGone: lost while it was being written · commandStopped: the source was stopped
 */
export type WriteDrop =
  | "ackOverflow"
  | "ackPortGone"
  | "commandQueueFull"
  | "commandExpired"
  | "commandPortGone"
  | "commandStopped";

export interface WriterOptions {
  readonly clock: Clock;
  /** Bytes of acknowledgements that may wait behind the write in flight. */
  readonly ackBytesMax: number;
  readonly commandsMax: number;
  dropped(reason: WriteDrop, count: number): void;
  commandWritten(): void;
  /** Makes a command that has to wait outlive this process. Undefined: it cannot. */
  keep?(frame: Uint8Array, expiryMs: number): KeptCommand | undefined;
  /** It waits no longer. */
  forget?(keys: readonly string[]): void;
  /** The port refused a write, or does not get rid of one in time: it must be closed, its output thrown away. */
  failed(why: string): void;
}

interface Command {
  readonly bytes: Uint8Array;
  readonly expiresAtMs: number;
  /** Set when it had to wait, and the store took it. */
  kept: KeptCommand | undefined;
  /** It went to a port. */
  written: boolean;
}

/** What the write in flight carries, and until when the port may take to pass it on. */
interface Job {
  readonly acks: number;
  readonly command: Command | undefined;
  readonly deadlineMs: number;
}

/**
 * While a write waits for a device that does not read (flow control holds it), serialport 13 does not read either: its poller watches
 * for one thing at a time. So such a port is given up after this long.
 */
const stallMsMax = 10_000;

/**
 * Writes to one device after the other as it is plugged in and out. At most one write is with the port at any time, because what was
 * handed over cannot be called back: everything else waits here, where it is bounded, can expire, and is not sent to the next device.
 *
 *   acks      [ a a a ]  of this port only; all that wait go out as one write
 *   commands  [ c c ]    one a write, turn about with acks; they outlive the port, and this process (`keep`), until they expire
 */
export class PortWriter {
  readonly #options: WriterOptions;
  readonly #commands: Ring<Command>;
  #acks: Uint8Array[] = [];
  #ackBytes = 0;
  #port: Port | undefined;
  #job: Job | undefined;
  #commandsTurn = false;
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #stopped = false;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#commands = new Ring(options.commandsMax);
  }

  /** True while bytes are with the port that it has not passed on. */
  get busy(): boolean {
    return this.#job !== undefined;
  }

  /** Commands that wait. */
  get queued(): number {
    return this.#commands.size;
  }

  /** A port opened. */
  attach(port: Port): void {
    this.#port = port;
    this.#pump();
  }

  /** The port is lost: what was meant for it goes nowhere, waiting commands stay until they expire. */
  detach(): void {
    const acks = this.#acks.length + (this.#job?.acks ?? 0);
    const command = this.#job?.command;
    this.#port = undefined;
    this.#job = undefined;
    this.#acks = [];
    this.#ackBytes = 0;
    if (acks > 0) this.#options.dropped("ackPortGone", acks);
    if (command !== undefined) this.#options.dropped("commandPortGone", 1);
  }

  /** Sends an acknowledgement, in the order of the calls. */
  ack(bytes: Uint8Array): void {
    if (this.#port === undefined) this.#options.dropped("ackPortGone", 1);
    else if (this.#ackBytes + bytes.length > this.#options.ackBytesMax) this.#options.dropped("ackOverflow", 1);
    else {
      this.#acks.push(bytes);
      this.#ackBytes += bytes.length;
      this.#pump();
    }
  }

  /**
   * Sends a command, now or until `expiryMs` from now. @param kept of an earlier run
   * @returns how it is kept when it has to wait
   */
  command(bytes: Uint8Array, expiryMs: number, kept?: KeptCommand): KeptCommand | undefined {
    if (this.#stopped) return undefined;
    const expiresAtMs = this.#options.clock.monotonicMs() + expiryMs;
    const command: Command = { bytes, expiresAtMs, kept, written: false };
    if (!this.#commands.push(command)) {
      this.#forget([command]);
      this.#options.dropped("commandQueueFull", 1);
      return undefined;
    }
    this.#pump();
    if (!command.written) command.kept ??= this.#options.keep?.(bytes, expiryMs);
    this.#armTimer(expiresAtMs);
    return command.kept;
  }

  #forget(commands: readonly Command[]): void {
    const keys = commands.flatMap(({ kept }) => (kept === undefined ? [] : [kept.key]));
    if (keys.length > 0) this.#options.forget?.(keys);
  }

  /** Drops everything but what is kept for the next start; nothing is called back later. The port is the caller's to close. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.detach();
    let lost = 0;
    for (let command = this.#commands.shift(); command !== undefined; command = this.#commands.shift())
      if (command.kept === undefined) lost += 1;
    if (lost > 0) this.#options.dropped("commandStopped", lost);
  }

  #pump(): void {
    const port = this.#port;
    if (port === undefined || this.#job !== undefined) return;
    const command = this.#commandsTurn || this.#acks.length === 0 ? this.#nextCommand() : undefined;
    if (command === undefined && this.#acks.length === 0) return;
    const deadlineMs = Math.min(
      this.#options.clock.monotonicMs() + stallMsMax,
      command?.expiresAtMs ?? Number.POSITIVE_INFINITY,
    );
    const job: Job = { acks: command === undefined ? this.#acks.length : 0, command, deadlineMs };
    const bytes =
      command?.bytes ?? (this.#acks.length === 1 ? this.#acks[0]! : Buffer.concat(this.#acks, this.#ackBytes));
    if (command === undefined) {
      this.#acks = [];
      this.#ackBytes = 0;
    }
    this.#commandsTurn = command === undefined;
    this.#job = job;
    // Before it is written: a device should rather miss a command in a crash than obey it twice.
    if (command !== undefined) {
      command.written = true;
      this.#forget([command]);
    }
    port.write(bytes, (error) => {
      if (this.#job !== job) return; // the port was lost meanwhile; counted there
      if (error) {
        this.#options.failed(error.message);
        return;
      }
      this.#job = undefined;
      if (command !== undefined) this.#options.commandWritten();
      this.#pump();
    });
    this.#armTimer(deadlineMs);
  }

  #nextCommand(): Command | undefined {
    const nowMs = this.#options.clock.monotonicMs();
    for (let command = this.#commands.shift(); command !== undefined; command = this.#commands.shift()) {
      if (nowMs <= command.expiresAtMs) return command;
      this.#forget([command]);
      this.#options.dropped("commandExpired", 1);
    }
    return undefined;
  }

  /** One timer for all, and it is left running: a timer a write would cost more than the write. */
  #armTimer(atMs: number): void {
    if (atMs >= this.#timerAtMs || (this.#commands.size === 0 && this.#job === undefined)) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#options.clock.setTimer(Math.ceil(atMs - this.#options.clock.monotonicMs()) + 1, () => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.#expire();
    });
  }

  #expire(): void {
    const nowMs = this.#options.clock.monotonicMs();
    let earliestMs = Number.POSITIVE_INFINITY;
    const dead: Command[] = [];
    for (let left = this.#commands.size; left > 0; left -= 1) {
      const command = this.#commands.shift()!;
      if (nowMs > command.expiresAtMs) dead.push(command);
      else {
        this.#commands.push(command); // once round: the order stays
        earliestMs = Math.min(earliestMs, command.expiresAtMs);
      }
    }
    this.#forget(dead);
    let expired = dead.length;
    const job = this.#job;
    const stuck = job !== undefined && nowMs > job.deadlineMs;
    if (job !== undefined && !stuck) earliestMs = Math.min(earliestMs, job.deadlineMs);
    if (stuck && job.command !== undefined && nowMs > job.command.expiresAtMs) {
      this.#job = undefined; // counted here, so not as lost with the port
      expired += 1;
    }
    if (expired > 0) this.#options.dropped("commandExpired", expired);
    if (earliestMs < Number.POSITIVE_INFINITY) this.#armTimer(earliestMs);
    if (stuck) this.#options.failed("the device does not read what is sent to it");
  }
}
