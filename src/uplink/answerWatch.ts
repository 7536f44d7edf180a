import type { QueuedMessage } from "../base/contracts.ts";
import type { Window } from "./window.ts";

/** For an answer to the message that waits for one longest. Far more than any cloud takes, for what is sent again may arrive twice. */
const waitMsMax = 5 * 60_000;
/** And what a message may take to go out beside it, on a link slower than GPRS. */
const bytesPerSecondMin = 256;
/** Time between two looks counts up to here: after a process or a machine stood still, answers may be there unread. */
const stepMsMax = 10_000;

export interface Overdue {
  readonly answer: "PUBACK" | "PUBREC" | "PUBCOMP" | "SUBACK";
  readonly waitedMs: number;
  /** Undefined: it is none, or only its identifier is left of it. */
  readonly message: QueuedMessage | undefined;
}

/** What is known of a connection. */
export interface Heard {
  /** False: answers may have come, and are not looked at now. */
  readonly reading: boolean;
  /** A packet comes in that is not whole yet: answers may lie behind it. */
  readonly midPacket: boolean;
}

/** One that may be waited for: the same for as long as `is` and `times` are. */
export interface Head {
  readonly answer: Overdue["answer"];
  readonly is: { readonly message: QueuedMessage | undefined; readonly bytes: number };
  readonly times: number;
}

/**
 * Notices a cloud that answers pings and not messages. What counts is how long the same message has been first among those unanswered, not when it was
 * sent: a full window on a slow link takes its time, and the first of it moves on all the same. So one answer that is left out is noticed as well.
 */
export class AnswerWatch {
  readonly #heads: () => ReadonlyArray<Head | undefined>;
  readonly #waits: Array<{ head: Head | undefined; ms: number }> = [];
  #lookedMs: number | undefined;

  /** @param heads what waits for an answer, each kind at its place */
  constructor(heads: () => ReadonlyArray<Head | undefined>) {
    this.#heads = heads;
  }

  /** Another connection, or answers are not read: all waits begin anew. */
  restart(): void {
    this.#waits.length = 0;
    this.#lookedMs = undefined;
  }

  /** `look` while it may be heard: over no connection or one that is not read all waits begin anew; behind a packet that is coming in they stand still. */
  lookOver(link: Heard | undefined, nowMs: number): Overdue | undefined {
    if (link?.reading !== true) this.restart();
    else if (link.midPacket) this.#lookedMs = nowMs;
    else return this.look(nowMs);
    return undefined;
  }

  /** To be called every few seconds while there is a connection that is read. @param nowMs monotonic @returns what should have been answered by now */
  look(nowMs: number): Overdue | undefined {
    const stepMs = Math.min(stepMsMax, nowMs - (this.#lookedMs ?? nowMs));
    this.#lookedMs = nowMs;
    for (const [at, head] of this.#heads().entries()) {
      const before = this.#waits[at];
      const same = head !== undefined && before?.head?.is === head.is && before.head.times === head.times;
      const ms = same ? before.ms + stepMs : 0;
      this.#waits[at] = { head, ms };
      if (head === undefined || ms < waitMsMax + (head.is.bytes / bytesPerSecondMin) * 1000) continue;
      return { answer: head.answer, waitedMs: ms, message: head.is.message };
    }
    return undefined;
  }
}

/** The first of the window that waits for an answer to PUBLISH, and to PUBREL. */
export function windowHeads(window: Window): ReadonlyArray<Head | undefined> {
  const slot = window.oldestOnWire();
  const release = window.oldestReleased();
  return [
    slot && { answer: slot.qos === 2 ? "PUBREC" : "PUBACK", is: slot, times: slot.refusals },
    release && { answer: "PUBCOMP", is: release, times: 0 },
  ];
}
