import type { QueuedMessage } from "../base/contracts.ts";
import type { Window } from "./window.ts";

/** For an answer to the message that waits for one longest. Far more than any cloud takes, for what is sent again may arrive twice. */
const waitMsMax = 5 * 60_000;
/** And what a message may take to go out beside it, on a link slower than GPRS. */
const bytesPerSecondMin = 256;
/** Time between two looks counts up to here: after a process or a machine stood still, answers may be there unread. */
const stepMsMax = 10_000;

export interface Overdue {
  readonly answer: "PUBACK" | "PUBREC" | "PUBCOMP";
  readonly waitedMs: number;
  /** Undefined: only its identifier is left of it. */
  readonly message: QueuedMessage | undefined;
}

/** One that may be waited for: the same for as long as `is` and `times` are. */
interface Head {
  readonly answer: Overdue["answer"];
  readonly is: { readonly message: QueuedMessage | undefined; readonly bytes: number };
  readonly times: number;
}

/**
 * Notices a cloud that answers pings and not messages. What counts is how long the same message has been first among those unanswered, not when it was
 * sent: a full window on a slow link takes its time, and the first of it moves on all the same. So one answer that is left out is noticed as well.
 */
export class AnswerWatch {
  readonly #window: Window;
  readonly #waits: Array<{ head: Head | undefined; ms: number }> = [];
  #lookedMs: number | undefined;

  constructor(window: Window) {
    this.#window = window;
  }

  /** Another connection, or answers are not read: all waits begin anew. */
  restart(): void {
    this.#waits.length = 0;
    this.#lookedMs = undefined;
  }

  /** Time up to now counts for nothing: an answer may lie behind what is coming in. */
  pass(nowMs: number): void {
    this.#lookedMs = nowMs;
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

  #heads(): ReadonlyArray<Head | undefined> {
    const slot = this.#window.oldestOnWire();
    const release = this.#window.oldestReleased();
    return [
      slot && { answer: slot.qos === 2 ? "PUBREC" : "PUBACK", is: slot, times: slot.refusals },
      release && { answer: "PUBCOMP", is: release, times: 0 },
    ];
  }
}
