/**
 * PUBACKs and PUBRECs in the order in which their PUBLISH came [MQTT-4.6.0-2], [MQTT-4.6.0-3]: a command that nothing durable takes is ready at once and would
 * overtake one that waits for the disk.
 */
export class Answers {
  readonly #send: (packetId: number, reasonCode: number, qos: 1 | 2) => void;
  #waiting: Answer[] = [];
  #head = 0;

  constructor(send: (packetId: number, reasonCode: number, qos: 1 | 2) => void) {
    this.#send = send;
  }

  /** PUBLISH packets that are not answered yet. */
  get size(): number {
    return this.#waiting.length - this.#head;
  }

  /** To be called in the order of arrival. */
  expect(packetId: number, qos: 1 | 2): Answer {
    const answer: Answer = { packetId, qos, reasonCode: undefined };
    this.#waiting.push(answer);
    return answer;
  }

  /** Its answer is known; it goes out as soon as those before it have. @param reasonCode null: it goes unanswered */
  settle(answer: Answer, reasonCode: number | null): void {
    answer.reasonCode = reasonCode;
    for (;;) {
      const first = this.#waiting[this.#head];
      if (first?.reasonCode === undefined) break;
      this.#head += 1;
      if (first.reasonCode !== null) this.#send(first.packetId, first.reasonCode, first.qos);
    }
    if (this.#head === this.#waiting.length || this.#head > 256) {
      this.#waiting = this.#waiting.slice(this.#head);
      this.#head = 0;
    }
  }
}

export interface Answer {
  readonly packetId: number;
  readonly qos: 1 | 2;
  reasonCode: number | null | undefined;
}
