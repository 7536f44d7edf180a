/**
 * A microcontroller on a serial line: BoilerFirmware on a pseudo-terminal, with a bad cable, a plug that comes out and a radio silence.
 * Its path is a symbolic link, `<dir>/boiler`, that follows the device from one PTY to the next as /dev/serial/by-id follows a plug.
 */
import { renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { BoilerFirmware, type FirmwareOptions, type FirmwareStats, type NumberedReading } from "./boilerFirmware.ts";
import { type FaultOptions, LineFaults } from "./lineFaults.ts";
import { type OpenSerialLink, openPtyLink, type SerialLink } from "./ptyLink.ts";
import { Random } from "./random.ts";
import { type SimClock, systemSimClock } from "./simClock.ts";

export interface SerialDeviceOptions extends Omit<FirmwareOptions, "clock" | "send">, FaultOptions {
  /** Folder of the symbolic link; must exist. */
  readonly dir: string;
  /** Name of the symbolic link; default "boiler". */
  readonly name?: string;
  /** Unplugged this often; 0 (default) never. */
  readonly unplugEveryMs?: number;
  /** ... and for so long; default 1000. */
  readonly unplugForMs?: number;
  /** Sends nothing this often, though it listens; 0 (default) never. */
  readonly silenceEveryMs?: number;
  /** ... and for so long; default 2000. */
  readonly silenceForMs?: number;
  readonly clock?: SimClock;
  readonly openLink?: OpenSerialLink;
}

export interface SerialDeviceStats extends FirmwareStats {
  readonly plugged: boolean;
  readonly unplugs: number;
  readonly noisyFrames: number;
  readonly tornFrames: number;
  readonly flippedFrames: number;
  /** Bytes that found no room: nobody read the port. */
  readonly lostBytes: number;
}

export class SerialDevice {
  /** What the gateway opens. Dangling (removed) while unplugged. */
  readonly path: string;
  readonly #options: SerialDeviceOptions;
  readonly #clock: SimClock;
  readonly #openLink: OpenSerialLink;
  readonly #firmware: BoilerFirmware;
  readonly #faults: LineFaults;
  readonly #timers = new Set<() => void>();
  #link: SerialLink | undefined;
  /** Plugging and unplugging one after the other, whoever asks. */
  #turn: Promise<void> = Promise.resolve();
  #running = false;
  #silent = false;
  #unplugs = 0;
  #lostBytes = 0;

  constructor(options: SerialDeviceOptions) {
    this.#options = options;
    this.path = join(options.dir, options.name ?? "boiler");
    this.#clock = options.clock ?? systemSimClock;
    this.#openLink = options.openLink ?? openPtyLink;
    // A stream of chance of its own: readings stay the same whatever the cable does.
    this.#faults = new LineFaults(new Random((options.seed ?? 1) ^ 0x5eed), options);
    this.#firmware = new BoilerFirmware({ ...options, clock: this.#clock, send: (frame) => this.#transmit(frame) });
  }

  /** Acknowledged readings in the order of the ACKs. */
  get accepted(): readonly NumberedReading[] {
    return this.#firmware.accepted;
  }

  /** @throws Error where no pseudo-terminal can be opened. */
  async start(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      await this.replug();
    } catch (error) {
      this.#running = false;
      throw error;
    }
    this.#firmware.start();
    this.#schedule(this.#options.unplugEveryMs ?? 0, this.#options.unplugForMs ?? 1000, (away) =>
      away ? this.unplug() : this.replug(),
    );
    this.#schedule(this.#options.silenceEveryMs ?? 0, this.#options.silenceForMs ?? 2000, (away) => {
      this.#silent = away;
    });
  }

  /** No new readings, no more unplugging and silence (plugged in again if it is out); unacknowledged readings go on being resent. */
  async stopProducing(): Promise<void> {
    this.#firmware.stopProducing();
    this.#cancelTimers();
    this.#silent = false;
    if (this.#running) await this.replug();
  }

  async stop(): Promise<void> {
    this.#running = false;
    this.#cancelTimers();
    this.#firmware.stop();
    await this.unplug();
  }

  /** Pulls the plug; harmless when it is out. */
  unplug(): Promise<void> {
    return this.#inTurn(async () => {
      const link = this.#link;
      if (link === undefined) return;
      this.#link = undefined;
      this.#unplugs += 1;
      rmSync(this.path, { force: true });
      await link.close();
    });
  }

  /** Plugs in, as another PTY under the same path; harmless when it is in. */
  replug(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#link !== undefined || !this.#running) return;
      const link = await this.#openLink({
        onData: (chunk) => this.#firmware.receive(chunk),
        onLost: () => this.#lost(),
      });
      this.#link = link;
      const staged = `${this.path}.${process.pid}.new`;
      rmSync(staged, { force: true });
      symlinkSync(link.path, staged);
      renameSync(staged, this.path); // atomic: whoever opens sees the old port or the new one
    });
  }

  stats(): SerialDeviceStats {
    return {
      ...this.#firmware.stats(),
      plugged: this.#link !== undefined,
      unplugs: this.#unplugs,
      noisyFrames: this.#faults.noisy,
      tornFrames: this.#faults.torn,
      flippedFrames: this.#faults.flipped,
      lostBytes: this.#lostBytes,
    };
  }

  #transmit(frame: Buffer): void {
    if (this.#link === undefined || this.#silent) return;
    const wire = this.#faults.pass(frame);
    this.#lostBytes += wire.length - this.#link.write(wire);
  }

  /** Somebody killed the shell that holds the port: for the gateway an unplug like any other. */
  #lost(): void {
    this.#link = undefined;
    this.#unplugs += 1;
    rmSync(this.path, { force: true });
    if (this.#running) this.#later(this.#options.unplugForMs ?? 1000, () => this.replug());
  }

  #schedule(everyMs: number, forMs: number, apply: (away: boolean) => unknown): void {
    if (everyMs <= 0) return;
    const leave = (): void =>
      this.#later(everyMs, () => {
        this.#later(forMs, () => {
          leave();
          return apply(false);
        });
        return apply(true);
      });
    leave();
  }

  #later(ms: number, act: () => unknown): void {
    const cancel = this.#clock.after(ms, () => {
      this.#timers.delete(cancel);
      // A plug that cannot be put back (no PTY left) shows as `plugged: false`; the schedule tries again.
      Promise.resolve(act()).catch(() => {});
    });
    this.#timers.add(cancel);
  }

  #cancelTimers(): void {
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
  }

  #inTurn(act: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(act);
    this.#turn = done.catch(() => {});
    return done;
  }
}
