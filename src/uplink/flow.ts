import { Rate, secondsUntil } from "../base/rate.ts";
import type { UplinkEta, UplinkQueueStats, UplinkRates, UplinkState } from "../base/uplinkState.ts";

/** Looks that come sooner are passed over: too short a time says little. */
const lookMsMin = 1000;
const minuteMs = 60_000;
/** For what is going on now: a minute after a burst its mean would still say that the backlog never ends. */
const nowMs = 15_000;

/** What has passed since the start of the process. */
interface Passed {
  readonly messagesIn: number;
  readonly bytesIn: number;
  readonly messagesOut: number;
  /** On the wire, with all that MQTT and TLS are asked to carry. */
  readonly bytesOut: number;
}

/** How fast an uplink's queue fills and empties, and what follows from that. */
export class Flow {
  readonly #rates = {
    in1: new Rate(minuteMs),
    in5: new Rate(5 * minuteMs),
    bytesIn5: new Rate(5 * minuteMs),
    out1: new Rate(minuteMs),
    out5: new Rate(5 * minuteMs),
    bytesOut1: new Rate(minuteMs),
    inNow: new Rate(nowMs),
    outNow: new Rate(nowMs),
  };
  #lookedMs = Number.NEGATIVE_INFINITY;

  /** @param atMs monotonic */
  look(passed: Passed, atMs: number): void {
    if (atMs - this.#lookedMs < lookMsMin) return;
    this.#lookedMs = atMs;
    const { in1, in5, inNow, bytesIn5, out1, out5, outNow, bytesOut1 } = this.#rates;
    for (const rate of [in1, in5, inNow]) rate.look(passed.messagesIn, atMs);
    bytesIn5.look(passed.bytesIn, atMs);
    for (const rate of [out1, out5, outNow]) rate.look(passed.messagesOut, atMs);
    bytesOut1.look(passed.bytesOut, atMs);
  }

  /** The link is up: the minutes in which nothing went out say nothing about how fast it drains now. */
  linkUp(passed: Passed, atMs: number): void {
    const { out1, outNow, inNow, bytesOut1 } = this.#rates;
    for (const rate of [out1, outNow, inNow, bytesOut1]) rate.restart();
    this.#lookedMs = Number.NEGATIVE_INFINITY;
    this.look(passed, atMs);
  }

  rates(): UplinkRates {
    const { in1, in5, bytesIn5, out1, out5, bytesOut1 } = this.#rates;
    return {
      inPerSecond1m: shown(in1),
      inPerSecond5m: shown(in5),
      inBytesPerSecond5m: shown(bytesIn5),
      outPerSecond1m: shown(out1),
      outPerSecond5m: shown(out5),
      outBytesPerSecond1m: shown(bytesOut1),
    };
  }

  /** When the backlog is through, honestly: only what the cloud acknowledges beyond what comes in shortens it. */
  eta(link: UplinkState["link"], paused: boolean, { messages }: UplinkQueueStats): UplinkEta {
    if (messages === 0) return { state: "drained", seconds: 0 };
    if (link !== "up") return { state: "down", seconds: null };
    if (paused) return { state: "paused", seconds: null };
    const out = this.#rates.outNow.perSecond;
    if (out === undefined) return { state: "measuring", seconds: null };
    const shrinking = out - (this.#rates.inNow.perSecond ?? 0);
    const seconds = messages / shrinking;
    // A backlog of what is in flight right now is not one that grows.
    return shrinking > 0 && seconds < yearSeconds
      ? { state: "draining", seconds: Math.ceil(seconds) }
      : { state: "never", seconds: null };
  }

  /** How long the queue takes what comes in while nothing goes out; null: nothing comes in. */
  roomSeconds(bytes: number): number | null {
    return secondsUntil(bytes, this.#rates.bytesIn5.perSecond);
  }
}

const yearSeconds = 365 * 86_400;

/** Three digits after the point, and never a minus zero out of rounding. */
const shown = (rate: Rate): number | null =>
  rate.perSecond === undefined ? null : Math.max(0, Math.round(rate.perSecond * 1000) / 1000);
