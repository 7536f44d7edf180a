/**
 * The boiler's program, without its wire: makes readings, keeps each until its ACK, sends it again when the ACK does not come, obeys
 * setpoint commands. What it has seen acknowledged is what the gateway promised to keep: the demo compares that with the cloud.
 */
import { type BoilerReading, decodeDownlink, encodeReading, FrameReader, frameOf } from "./codec/boiler.ts";
import { Random } from "./random.ts";
import type { SimClock } from "./simClock.ts";

export interface FirmwareOptions {
  readonly clock: SimClock;
  /** Puts one whole frame on the wire. */
  readonly send: (frame: Buffer) => void;
  readonly seed?: number;
  /** Between two readings; default 100. */
  readonly periodMs?: number;
  /** A reading without its ACK goes out again after this; default 500. */
  readonly resendMs?: number;
  /** Readings kept without ACK; default 256. When they are that many no new one is made. */
  readonly unacknowledgedMax?: number;
  /** Acknowledged readings remembered for the comparison; default 100,000. */
  readonly acceptedMax?: number;
  /** The first reading's number; 65,000 makes seq wrap soon. Default 0. */
  readonly firstNumber?: number;
}

/** A reading by its own number, which does not wrap: seq is its low 16 bits. */
export interface NumberedReading extends BoilerReading {
  readonly number: number;
}

export interface FirmwareStats {
  readonly produced: number;
  /** Readings that were due while `unacknowledgedMax` waited: never made, so never lost. */
  readonly held: number;
  readonly unacknowledged: number;
  readonly accepted: number;
  readonly resent: number;
  /** ACKs for readings that had one already (it was resent while the first ACK was on its way), or were never sent. */
  readonly strayAcks: number;
  readonly commands: number;
  /** In Cel. */
  readonly setpoint: number;
  /** Frames from the gateway that were cut, had a wrong CRC or no known kind. */
  readonly badFrames: number;
}

interface Waiting {
  readonly reading: NumberedReading;
  readonly frame: Buffer;
  sentMs: number;
}

const tickMs = 10;
/** Readings made in one tick at most: a machine that stood still does not answer with a flood. */
const catchUpMax = 32;

export class BoilerFirmware {
  /** What was acknowledged, in the order of the ACKs, each once. */
  readonly accepted: NumberedReading[] = [];
  readonly #clock: SimClock;
  readonly #send: (frame: Buffer) => void;
  readonly #random: Random;
  readonly #periodMs: number;
  readonly #resendMs: number;
  readonly #unacknowledgedMax: number;
  readonly #acceptedMax: number;
  readonly #waiting = new Map<number, Waiting>(); // by seq; a Map keeps the order of production
  readonly #reader = new FrameReader();
  #cancelTick: (() => void) | undefined;
  #producing = false;
  #nextDueMs = 0;
  #number: number;
  #produced = 0;
  #held = 0;
  #acknowledged = 0;
  #resent = 0;
  #strayAcks = 0;
  #commands = 0;
  #unknown = 0;
  #setpoint = 6000; // 0.01 Cel
  #temperature = 5500; // 0.01 Cel

  constructor(options: FirmwareOptions) {
    this.#clock = options.clock;
    this.#send = options.send;
    this.#random = new Random(options.seed ?? 1);
    this.#periodMs = options.periodMs ?? 100;
    this.#resendMs = options.resendMs ?? 500;
    this.#unacknowledgedMax = options.unacknowledgedMax ?? 256;
    if (this.#unacknowledgedMax < 1 || this.#unacknowledgedMax > 32_768) {
      throw new RangeError("unacknowledgedMax must be 1 to 32768: seq has 16 bits");
    }
    this.#acceptedMax = options.acceptedMax ?? 100_000;
    this.#number = options.firstNumber ?? 0;
  }

  start(): void {
    if (this.#cancelTick !== undefined) return;
    this.#producing = true;
    this.#nextDueMs = this.#clock.nowMs();
    this.#cancelTick = this.#clock.every(tickMs, () => this.#tick());
  }

  /** Makes no new readings; what waits for its ACK is still resent. */
  stopProducing(): void {
    this.#producing = false;
  }

  stop(): void {
    this.#producing = false;
    this.#cancelTick?.();
    this.#cancelTick = undefined;
  }

  /** Bytes from the gateway. */
  receive(chunk: Uint8Array): void {
    this.#reader.push(chunk, (payload) => {
      const message = decodeDownlink(payload);
      if (message === undefined) this.#unknown += 1;
      else if (message.kind === "ack") this.#acknowledge(message.seq);
      else {
        this.#setpoint = message.setpoint;
        this.#commands += 1;
      }
    });
  }

  stats(): FirmwareStats {
    return {
      produced: this.#produced,
      held: this.#held,
      unacknowledged: this.#waiting.size,
      accepted: this.#acknowledged,
      resent: this.#resent,
      strayAcks: this.#strayAcks,
      commands: this.#commands,
      setpoint: this.#setpoint / 100,
      badFrames: this.#reader.bad + this.#unknown,
    };
  }

  #tick(): void {
    const nowMs = this.#clock.nowMs();
    for (let made = 0; this.#producing && this.#nextDueMs <= nowMs && made < catchUpMax; made += 1) {
      this.#nextDueMs += this.#periodMs;
      if (this.#waiting.size < this.#unacknowledgedMax) this.#produce(nowMs);
      else this.#held += 1;
    }
    if (this.#nextDueMs <= nowMs) this.#nextDueMs = nowMs + this.#periodMs;
    this.#resend(nowMs);
  }

  #produce(nowMs: number): void {
    this.#temperature += Math.round((this.#setpoint - this.#temperature) * 0.05) + this.#random.below(11) - 5;
    this.#temperature = Math.max(-32_768, Math.min(32_767, this.#temperature));
    const door = this.#random.chance(0.02) ? 1 : 0;
    const number = this.#number++;
    const reading: NumberedReading = {
      number,
      kind: door === 1 ? 2 : 1,
      seq: number & 0xffff,
      temperature: this.#temperature,
      pressure: 1_013_250 + this.#random.below(2000),
      flags: door | (this.#temperature < this.#setpoint ? 2 : 0) | (this.#random.below(4) << 2),
    };
    const frame = frameOf(encodeReading(reading));
    this.#waiting.set(reading.seq, { reading, frame, sentMs: nowMs });
    this.#produced += 1;
    this.#send(frame);
  }

  /** Oldest first. As many a tick as it takes to get through a full store within one `resendMs`, so none starves, nor do new ones. */
  #resend(nowMs: number): void {
    let left = Math.ceil((this.#unacknowledgedMax * tickMs) / this.#resendMs) + 1;
    for (const waiting of this.#waiting.values()) {
      if (nowMs - waiting.sentMs < this.#resendMs) continue;
      if (left-- <= 0) return;
      waiting.sentMs = nowMs;
      this.#resent += 1;
      this.#send(waiting.frame);
    }
  }

  #acknowledge(seq: number): void {
    const waiting = this.#waiting.get(seq);
    if (waiting === undefined) {
      this.#strayAcks += 1;
      return;
    }
    this.#waiting.delete(seq);
    this.#acknowledged += 1;
    if (this.accepted.length < this.#acceptedMax) this.accepted.push(waiting.reading);
  }
}
