import { Backoff } from "../../base/backoff.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import type { Intake, Publisher, ReadingOutcome, Source, SourceState } from "../../base/contracts.ts";
import { messageOf } from "../../base/errors.ts";
import { type Log, LogLimiter } from "../../base/log.ts";
import type { Message } from "../../base/message.ts";
import type { Counter, Meter } from "../../base/meter.ts";
import { Ring } from "../../base/ring.ts";
import { createFramer, type FrameFault, type Framer } from "../../wire/frame/framer.ts";
import { parseUsbPath } from "./devicePath.ts";
import { KeptCommands } from "./keptCommands.ts";
import { type AckOptions, type SerialSourceOptions, serialDefaults } from "./options.ts";
import { type OpenPort, openSerialPort, type Port, type PortSettings } from "./port.ts";
import { PortWriter, type WriteDrop } from "./writer.ts";

export interface SerialSourceDeps {
  readonly intake: Intake;
  readonly publisher: Publisher;
  /** Its lines carry the source's name already. */
  readonly log: Log;
  readonly clock: Clock;
  readonly meter: Meter;
  /** Where commands wait for a device that is away; without it they wait in memory. */
  readonly store?: ConstructorParameters<typeof KeptCommands>[0] | undefined;
  /** Default: the serialport package. */
  readonly openPort?: OpenPort | undefined;
}

/** Why a frame, an acknowledgement or a command went no further. The refusals are those of the broker. */
export type SerialDrop =
  | FrameFault
  | WriteDrop
  | "overload"
  | "undecodable"
  | "full"
  | "failed"
  | "invalid"
  | "internal"
  | "ackEncode"
  | "commandEncode";

/**
 * A serial device as a source: frames become readings, durable readings are acknowledged, commands are written. It opens the port again
 * by itself until `stop`.
 * @throws TidegateError TG_CONFIG for framing options or a usb: path that cannot work.
 */
export function createSerialSource(options: SerialSourceOptions, deps: SerialSourceDeps): Source {
  parseUsbPath(options.path);
  return new SerialSource(options, deps, createFramer(options.framing));
}

/** Each port opened is one generation: an acknowledgement belongs to the device that was plugged in when its reading came. */
type Link =
  | { readonly state: "idle" | "stopped" }
  | { readonly state: "opening" }
  | { readonly state: "up"; readonly port: Port; readonly sinceMs: number; proven: boolean }
  | { readonly state: "waiting"; readonly timer: Timer };

/** A reading that was handed in, kept in the order of arrival until it and all before it are settled. */
interface Pending {
  readonly generation: number;
  outcome: ReadingOutcome | { readonly kind: "refused"; readonly reason: "internal" } | undefined;
}

/** A port that stayed open this long was no false start, even if it said nothing. */
const provenMs = 10_000;
/** stop() waits this long for the operating system. */
const closeMsMax = 2000;

class SerialSource implements Source {
  readonly name: string;
  readonly #options: SerialSourceOptions;
  readonly #deps: SerialSourceDeps;
  readonly #settings: PortSettings;
  readonly #framer: Framer;
  readonly #writer: PortWriter;
  readonly #kept: KeptCommands | undefined;
  readonly #backoff: Backoff;
  readonly #limiter: LogLimiter;
  readonly #pending: Ring<Pending>;
  readonly #accepted: Counter;
  readonly #frames: Counter;
  readonly #commandsWritten: Counter;
  readonly #dropCounters = new Map<string, Counter>();
  /** Of this source since it was made; the meter's counters outlive it. */
  readonly #dropped = new Map<string, number>();
  readonly #faultsSeen: Record<FrameFault, number>;
  #acceptedCount = 0;
  #generation = 0;
  #link: Link = { state: "idle" };
  #problem: string | undefined;
  #paused = false;
  #unsubscribe: (() => void) | undefined;
  /** The attempt to open, and the closing of ports, that stop() waits for. */
  readonly #closing = new Set<Promise<void>>();
  #stopping: Promise<void> | undefined;

  constructor(options: SerialSourceOptions, deps: SerialSourceDeps, framer: Framer) {
    const { name, path, baudRate } = options;
    this.name = name;
    this.#options = options;
    this.#deps = deps;
    this.#settings = {
      source: name,
      path,
      baudRate,
      dataBits: options.dataBits ?? serialDefaults.dataBits,
      stopBits: options.stopBits ?? serialDefaults.stopBits,
      parity: options.parity ?? serialDefaults.parity,
      rtscts: options.rtscts ?? serialDefaults.rtscts,
    };
    this.#framer = framer;
    this.#faultsSeen = { ...framer.counters };
    this.#backoff = new Backoff(options.reopen ?? serialDefaults.reopen);
    this.#limiter = new LogLimiter({ nowMs: () => deps.clock.monotonicMs() });
    this.#pending = new Ring(options.maxPending ?? serialDefaults.maxPending);
    const { meter } = deps;
    const labels = { source: name };
    this.#accepted = meter.counter("tidegate_source_accepted_total", "Readings that became durable.", labels);
    this.#frames = meter.counter("tidegate_source_frames_total", "Good frames received.", labels);
    this.#commandsWritten = meter.counter("tidegate_source_commands_total", "Commands written to a device.", labels);
    this.#writer = new PortWriter({
      clock: deps.clock,
      ackBytesMax: options.maxAckBytes ?? serialDefaults.maxAckBytes,
      commandsMax: options.commands?.maxQueued ?? serialDefaults.maxQueued,
      dropped: (reason, count) => this.#drop(reason, count),
      commandWritten: () => {
        this.#commandsWritten.value += 1;
      },
      failed: (why) => this.#lost(this.#generation, why, true),
      keep: (frame, expiryMs) => this.#kept?.keep(frame, expiryMs),
      forget: (keys) => this.#kept?.forget(keys),
    });
    if (deps.store !== undefined) this.#kept = new KeptCommands(deps.store, () => deps.clock.wallMs(), name);
  }

  async start(): Promise<void> {
    if (this.#link.state !== "idle") return;
    const { publisher, meter } = this.#deps;
    const up = (): number => (this.#link.state === "up" ? 1 : 0);
    meter.gauge("tidegate_source_up", "1 while the source's device or endpoint is there.", up, { source: this.name });
    const { commands } = this.#options;
    if (commands !== undefined) {
      const expired = this.#kept?.load((frame, leftMs, kept) => this.#writer.command(frame, leftMs, kept)) ?? 0;
      if (expired > 0) this.#drop("commandExpired", expired);
      this.#unsubscribe = publisher.subscribe(commands.topic, (message) => this.#onCommand(message));
    }
    this.#open();
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  state(): SourceState {
    const links = { idle: "idle", opening: "connecting", up: "up", waiting: "down", stopped: "stopped" } as const;
    const { state } = this.#link;
    return {
      name: this.name,
      type: "serial",
      // Looking again for a device that is away is still being down.
      link: state === "opening" && this.#problem !== undefined ? "down" : links[state],
      problem: state === "stopped" ? undefined : this.#problem,
      accepted: this.#acceptedCount,
      dropped: Object.fromEntries(this.#dropped),
    };
  }

  // ---------------------------------------------------------------- the port

  #open(): void {
    const generation = ++this.#generation;
    this.#link = { state: "opening" };
    this.#framer.reset();
    const open = this.#deps.openPort ?? openSerialPort;
    const events = {
      data: (chunk: Uint8Array) => this.#onData(generation, chunk),
      gone: (why: string) => this.#lost(generation, why, false),
    };
    const opened = open(this.#settings, events).then(
      (port) => this.#opened(generation, port),
      (error: unknown) => this.#down(generation, messageOf(error)),
    );
    this.#track(opened);
  }

  #opened(generation: number, port: Port): Promise<void> | undefined {
    // Stopped, or lost before this was known.
    if (generation !== this.#generation || this.#link.state !== "opening") return port.close(true);
    this.#link = { state: "up", port, sinceMs: this.#deps.clock.monotonicMs(), proven: false };
    this.#problem = undefined;
    this.#paused = false;
    this.#deps.log.info({ path: this.#settings.path }, "serial port open");
    this.#writer.attach(port);
    this.#pauseIfBehind();
    return undefined;
  }

  /** The port of that generation is lost, or of no more use. */
  #lost(generation: number, why: string, discardOutput: boolean): void {
    if (generation !== this.#generation) return;
    const link = this.#link;
    if (link.state === "up") {
      this.#track(link.port.close(discardOutput || this.#writer.busy));
      if (link.proven || this.#deps.clock.monotonicMs() - link.sinceMs >= provenMs) this.#backoff.reset();
      this.#writer.detach();
    } else if (link.state !== "opening") return;
    this.#down(generation, `the connection to ${this.#settings.path} was lost: ${why}`);
  }

  #down(generation: number, problem: string): void {
    if (generation !== this.#generation || this.#link.state === "stopped") return;
    this.#generation += 1; // late events and acknowledgements of that port find nobody
    if (problem !== this.#problem) {
      this.#problem = problem;
      this.#deps.log.warn({ code: "TG_SOURCE", path: this.#settings.path, problem }, "serial port down, trying again");
    }
    const timer = this.#deps.clock.setTimer(this.#backoff.nextMs(), () => this.#open());
    this.#link = { state: "waiting", timer };
  }

  async #stop(): Promise<void> {
    const link = this.#link;
    this.#generation += 1;
    this.#link = { state: "stopped" };
    this.#unsubscribe?.();
    this.#deps.meter.dropGauge("tidegate_source_up", { source: this.name });
    const { busy } = this.#writer;
    this.#writer.stop();
    this.#pending.clear();
    if (link.state === "waiting") link.timer.cancel();
    if (link.state === "up") this.#track(link.port.close(busy));
    if (this.#closing.size === 0) return;
    // A driver may hold open() or close() for long; the gateway's own stop must not wait for that.
    let timer: Timer | undefined;
    const tooLong = new Promise<void>((resolve) => {
      timer = this.#deps.clock.setTimer(closeMsMax, resolve);
    });
    await Promise.race([Promise.all(this.#closing), tooLong]);
    timer?.cancel();
  }

  #track(work: Promise<void>): void {
    const tracked = work.finally(() => this.#closing.delete(tracked));
    this.#closing.add(tracked);
  }

  // ---------------------------------------------------------------- readings

  #onData(generation: number, chunk: Uint8Array): void {
    if (generation !== this.#generation) return;
    this.#framer.push(chunk, this.#onFrame);
    const { counters } = this.#framer;
    for (const fault of ["badCrc", "malformed", "tooLong", "tooShort"] as const) {
      const count = counters[fault] - this.#faultsSeen[fault];
      if (count === 0) continue;
      this.#faultsSeen[fault] = counters[fault];
      this.#drop(fault, count);
      if (this.#limiter.due(fault)) {
        this.#deps.log.warn(
          { fault, count },
          "bytes that are no good frame; if it goes on, check baudRate and framing",
        );
      }
    }
    this.#pauseIfBehind();
  }

  readonly #onFrame = (payload: Uint8Array): void => {
    if (this.#link.state === "stopped") return; // stopped from within the frame before
    this.#frames.value += 1;
    if (this.#link.state === "up") this.#link.proven = true;
    const pending: Pending = { generation: this.#generation, outcome: undefined };
    if (!this.#pending.push(pending)) {
      this.#drop("overload", 1);
      if (this.#limiter.due("overload")) {
        this.#deps.log.warn({ waiting: this.#pending.size }, "readings come faster than they become durable; dropped");
      }
      return;
    }
    const settle = (outcome: Pending["outcome"]): void => {
      pending.outcome ??= outcome;
      this.#settle();
    };
    try {
      this.#deps.intake.take({ source: this.name, payload }, settle);
    } catch (error) {
      // The contract says that it does not throw; a frame must not be able to end the gateway all the same, nor to hold up the next.
      if (this.#limiter.due("internal")) this.#deps.log.error({ why: messageOf(error) }, "the intake threw");
      settle({ kind: "refused", reason: "internal" });
    }
  };

  /** Goes on in the order of arrival: a reading that nothing durable took must not be acknowledged before one that still waits. */
  #settle(): void {
    for (let head = this.#pending.peek(); head?.outcome !== undefined; head = this.#pending.peek()) {
      this.#pending.shift();
      this.#conclude(head.generation, head.outcome);
    }
    if (this.#paused && this.#pending.size <= this.#pending.capacity / 2) {
      this.#paused = false;
      if (this.#link.state === "up") this.#link.port.resume();
    }
  }

  #conclude(generation: number, outcome: NonNullable<Pending["outcome"]>): void {
    const { log } = this.#deps;
    switch (outcome.kind) {
      case "durable":
        this.#accepted.value += 1;
        this.#acceptedCount += 1;
        if (this.#options.ack !== undefined) this.#acknowledge(generation, outcome.value, this.#options.ack);
        break;
      case "refused":
        this.#drop(outcome.reason, 1);
        if (this.#limiter.due(outcome.reason)) {
          log.warn({ reason: outcome.reason }, "reading refused, not acknowledged to the device");
        }
        break;
      case "undecodable":
        this.#drop("undecodable", 1);
        if (this.#limiter.due("undecodable")) log.warn({ why: outcome.why }, "reading cannot be decoded, dropped");
        break;
      default:
        outcome satisfies never;
    }
  }

  #acknowledge(generation: number, value: unknown, ack: AckOptions): void {
    if (generation !== this.#generation || this.#link.state !== "up") {
      this.#drop("ackPortGone", 1);
      return;
    }
    const frame = this.#encodeFrame("ackEncode", () => ack.encode(value));
    if (frame !== undefined) this.#writer.ack(frame);
  }

  /** Only hardware flow control can hold a device off; without it the kernel would drop bytes where nobody counts them. */
  #pauseIfBehind(): void {
    if (!this.#settings.rtscts || this.#paused || this.#link.state !== "up") return;
    if (this.#pending.size <= this.#pending.capacity * 0.75) return;
    this.#paused = true;
    this.#link.port.pause();
  }

  // ---------------------------------------------------------------- commands

  /** @returns what has to be durable before its sender is told that it was taken */
  #onCommand(message: Message): { readonly group: number } | undefined {
    const { commands } = this.#options;
    if (commands === undefined || this.#link.state === "stopped") return undefined;
    const frame = this.#encodeFrame("commandEncode", () => commands.encode(message));
    if (frame === undefined) return undefined;
    const ownMs = (message.properties?.messageExpirySeconds ?? Number.POSITIVE_INFINITY) * 1000;
    return this.#writer.command(frame, Math.min(commands.expiryMs, ownMs));
  }

  #encodeFrame(reason: "ackEncode" | "commandEncode", encode: () => Uint8Array): Uint8Array | undefined {
    try {
      return this.#framer.encode(encode());
    } catch (error) {
      this.#drop(reason, 1);
      if (this.#limiter.due(reason)) {
        this.#deps.log.warn({ reason, why: messageOf(error) }, "nothing sent to the device: it cannot be encoded");
      }
      return undefined;
    }
  }

  #drop(reason: SerialDrop, count: number): void {
    let counter = this.#dropCounters.get(reason);
    if (counter === undefined) {
      const help = "Frames, readings, acknowledgements and commands that went no further, by reason.";
      counter = this.#deps.meter.counter("tidegate_source_dropped_total", help, { source: this.name, reason });
      this.#dropCounters.set(reason, counter);
    }
    counter.value += count;
    this.#dropped.set(reason, (this.#dropped.get(reason) ?? 0) + count);
  }
}
