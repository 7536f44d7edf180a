import { Rate, secondsUntil } from "../base/rate.ts";
import type { UplinkEta, UplinkQueueStats, UplinkRates, UplinkState } from "../base/uplinkState.ts";

/** Looks that come sooner are passed over: too short a time says little. */
const lookMsMin = 1000;
const minuteMs = 60_000;

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
  };
  #lookedMs = Number.NEGATIVE_INFINITY;

  /** @param nowMs monotonic */
  look(passed: Passed, nowMs: number): void {
    if (nowMs - this.#lookedMs < lookMsMin) return;
    this.#lookedMs = nowMs;
    const { in1, in5, bytesIn5, out1, out5, bytesOut1 } = this.#rates;
    for (const rate of [in1, in5]) rate.look(passed.messagesIn, nowMs);
    bytesIn5.look(passed.bytesIn, nowMs);
    for (const rate of [out1, out5]) rate.look(passed.messagesOut, nowMs);
    bytesOut1.look(passed.bytesOut, nowMs);
  }

  /** The link is up: the minutes in which nothing went out say nothing about how fast it drains now. */
  linkUp(passed: Passed, nowMs: number): void {
    const { out1, bytesOut1 } = this.#rates;
    out1.restart();
    bytesOut1.restart();
    this.#lookedMs = Number.NEGATIVE_INFINITY;
    this.look(passed, nowMs);
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
    const out = this.#rates.out1.perSecond;
    if (out === undefined) return { state: "measuring", seconds: null };
    const shrinking = out - (this.#rates.in1.perSecond ?? 0);
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
