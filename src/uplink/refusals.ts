import type { Clock, Timer } from "../base/clock.ts";
import type { QueuedMessage, Store, UplinkQueue } from "../base/contracts.ts";
import type { LetterReason, UplinkFailure, UplinkLetters } from "../base/deadLetters.ts";
import type { Log, LogLimiter } from "../base/log.ts";
import type { AckPacket } from "../wire/mqtt/packet.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { LaneWaits } from "./laneWaits.ts";
import { hexCode, refusedMessageText } from "./texts.ts";
import type { Window } from "./window.ts";

/** Codes after which offering the same message again cannot help. */
const forGood = new Set<number>([
  reason.notAuthorized,
  reason.topicNameInvalid,
  reason.packetTooLarge,
  reason.payloadFormatInvalid,
]);
const roomRetryMs = 1000;

export interface RefusalDeps {
  readonly store: Pick<Store, "ruleDefinition">;
  readonly queue: UplinkQueue;
  readonly letters: UplinkLetters;
  readonly clock: Clock;
  readonly log: Log;
  readonly limiter: LogLimiter;
  readonly window: Window;
  /** It leaves the window without having been taken by the cloud. */
  leave(packetId: number): void;
  /** Something can be sent again. */
  ready(): void;
}

/** What becomes of messages that the cloud does not take: offered again after a pause of their lane, or made dead letters. */
export class Refusals {
  readonly lanes: LaneWaits;
  readonly #uplink: string;
  readonly #retries: number;
  readonly #deps: RefusalDeps;
  /** Refused for good, and the store has no room for a letter now: by identifier. As many as the window has, at most. */
  readonly #doomed = new Map<number, { failure: UplinkFailure; dropped: "refused" | "too-large" }>();
  #timer: Timer | undefined;
  #last = "";

  constructor(options: { name: string; refusedRetries: number }, deps: RefusalDeps) {
    this.#uplink = options.name;
    this.#retries = options.refusedRetries;
    this.#deps = deps;
    const { window, clock } = deps;
    this.lanes = new LaneWaits({
      clock,
      hold: (lane) => window.hold(lane),
      heldOf: (lane) => window.heldOf(lane),
      retry: (packetId) => window.retry(packetId),
      ready: () => deps.ready(),
    });
  }

  /** What keeps messages waiting, for people. */
  get problem(): string | undefined {
    const doomed = this.#doomed.size;
    if (doomed > 0)
      return `messages that the cloud refused wait for room among the dead letters, the store takes none now: ${doomed}`;
    return this.lanes.size > 0 ? `${this.#last}; offered again after a pause` : undefined;
  }

  /** The cloud took it. Looks at two numbers, usually. */
  acknowledged(packetId: number, { lane, position }: QueuedMessage): void {
    if (this.lanes.size > 0) this.lanes.accepted(lane, packetId);
    this.#deps.letters.acknowledged(position);
  }

  /** The cloud refused it (PUBACK, PUBREC), with a code of 0x80 or above. False: it cannot know that identifier. */
  refused({ kind, packetId, reasonCode, properties }: AckPacket): boolean {
    const { window, clock, limiter, log } = this.#deps;
    const nowMs = clock.wallMs();
    const times = window.refused(packetId, kind === "pubrec" ? 2 : 1, nowMs);
    const slot = window.at(packetId);
    if (times === 0 || slot === undefined) return false;
    const { lane } = slot.message;
    const why = refusedMessageText(reasonCode, properties);
    this.#last = `the cloud refused a message: ${why}`;
    const counts = this.lanes.refused(lane, packetId);
    const strikes = !forGood.has(reasonCode) && counts ? window.strike(packetId) : 0;
    if (forGood.has(reasonCode) || strikes > this.#retries) {
      const text = times > 1 ? `the cloud refused it ${times} times: ${why}` : `the cloud refused it: ${why}`;
      this.#giveUp(packetId, { code: hexCode(reasonCode), text }, "refused");
    } else if (counts) {
      if (limiter.due("refused")) log.warn({ reasonCode, why, strikes }, "the cloud refuses a message for now");
      this.lanes.pause(lane, Math.min(30_000, 250 * 2 ** strikes));
    }
    return true;
  }

  /** It can never be sent to this cloud. */
  unsendable(packetId: number, why: "too-large" | "refused", bytesMax: number): void {
    const failure =
      why === "too-large"
        ? { code: "too-large", text: `larger than the ${bytesMax} bytes that the cloud takes, or than MQTT can write` }
        : { code: "no-topic", text: "its rule makes no topic of it that MQTT allows" };
    this.#giveUp(packetId, failure, why);
  }

  /** The connection is gone: what waits in the window is sent again by the next one. */
  detach(): void {
    this.lanes.clear();
    this.#doomed.clear();
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #giveUp(packetId: number, { code, text }: LetterReason, dropped: "refused" | "too-large"): void {
    const { window, clock, limiter, log } = this.#deps;
    const message = window.doom(packetId);
    const slot = window.at(packetId);
    if (message === undefined || slot === undefined) return;
    const lastMs = clock.wallMs();
    const firstMs = slot.refusals > 0 ? slot.firstRefusedMs : lastMs;
    const failure = { code, text, attempts: Math.max(1, slot.refusals), firstMs, lastMs };
    if (!this.#bury(packetId, message, failure, dropped)) {
      this.#doomed.set(packetId, { failure, dropped });
      this.#arm();
      if (limiter.due("no room"))
        log.warn({ code, text }, "no room for a dead letter; the message is kept where it is");
    }
    this.lanes.gone(message.lane, packetId);
  }

  /** False: not now. */
  #bury(packetId: number, message: QueuedMessage, failure: UplinkFailure, dropped: "refused" | "too-large"): boolean {
    const { leave, letters, store, queue, limiter, log } = this.#deps;
    const rule = store.ruleDefinition(message.rule) ?? "";
    const kept = letters.keep(message, this.#uplink, rule, failure);
    if (kept === "later") return false;
    leave(packetId);
    if (kept === "kept") return true;
    queue.settle(message, dropped);
    const { seq } = message;
    const { topic } = message.message;
    if (limiter.due(`discard ${failure.code}`))
      log.error(
        { code: failure.code, why: failure.text, topic, seq },
        "a message was given up: no dead letter was kept",
      );
    return true;
  }

  #arm(): void {
    this.#timer ??= this.#deps.clock.setTimer(roomRetryMs, () => {
      this.#timer = undefined;
      for (const [packetId, { failure, dropped }] of [...this.#doomed]) {
        const message = this.#deps.window.at(packetId)?.message;
        if (message !== undefined && !this.#bury(packetId, message, failure, dropped)) break;
        this.#doomed.delete(packetId);
      }
      if (this.#doomed.size > 0) this.#arm();
      this.#deps.ready();
    });
  }
}
