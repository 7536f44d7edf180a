import type { Message } from "../base/message.ts";
import type { Will } from "../wire/mqtt/packet.ts";
import type { Session } from "./session.ts";

interface Delayed {
  readonly will: Will;
  readonly dueMs: number;
}

/** Last wills: published when a connection ends without a normal DISCONNECT, at once or after their delay (MQTT 5 section 3.1.3.2.2). */
export class Wills {
  readonly #delayed = new Map<Session, Delayed>();
  readonly #publish: (message: Message, session: Session) => void;

  constructor(publish: (message: Message, session: Session) => void) {
    this.#publish = publish;
  }

  /** The connection ended abnormally. */
  left(session: Session, nowMs: number): void {
    const will = session.will;
    session.will = undefined;
    if (will === undefined) return;
    // The session's end comes first if it is earlier [MQTT-3.1.3-9].
    const delayMs = Math.min((will.willDelaySeconds ?? 0) * 1000, session.durable ? session.expiryMs : 0);
    if (delayMs <= 0) this.#send(session, will);
    else this.#delayed.set(session, { will, dueMs: nowMs + delayMs });
  }

  /** The client is back before the delay was over. */
  resumed(session: Session): void {
    this.#delayed.delete(session);
  }

  /** The session is over: a will still waiting goes out now. */
  ended(session: Session): void {
    const delayed = this.#delayed.get(session);
    if (delayed === undefined) return;
    this.#delayed.delete(session);
    this.#send(session, delayed.will);
  }

  tick(nowMs: number): void {
    for (const [session, { will, dueMs }] of this.#delayed) {
      if (nowMs < dueMs) continue;
      this.#delayed.delete(session);
      this.#send(session, will);
    }
  }

  #send(session: Session, will: Will): void {
    const { topic, payload, qos, retain, properties } = will;
    this.#publish({ topic, payload, qos, retain, properties, source: session.source }, session);
  }
}
