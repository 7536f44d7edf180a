/**
 * Readings with rising numbers that wait to be accepted, in order. What the posting devices (CoAP, MQTT) share: make one each period,
 * keep it until the gateway said yes, hold production back when too many wait.
 */
export class ReadingQueue {
  /** Numbers that the gateway accepted, in that order. */
  readonly accepted: number[] = [];
  readonly #waiting: number[] = [];
  readonly #waitingMax: number;
  readonly #acceptedMax: number;
  #next = 1;
  #held = 0;
  #acceptedCount = 0;

  /** @param options.acceptedMax numbers remembered for the comparison; later ones are only counted. Default 100,000 */
  constructor(options: { waitingMax?: number; acceptedMax?: number } = {}) {
    this.#waitingMax = options.waitingMax ?? 1000;
    this.#acceptedMax = options.acceptedMax ?? 100_000;
  }

  /** Makes the next reading, or counts it as held when `waitingMax` wait. */
  produce(): void {
    if (this.#waiting.length >= this.#waitingMax) this.#held += 1;
    else this.#waiting.push(this.#next++);
  }

  /** The reading at `position` in the queue, 0 being the oldest. */
  at(position: number): number | undefined {
    return this.#waiting[position];
  }

  /** The gateway has it; false when it was accepted before. */
  accept(number: number): boolean {
    const at = this.#waiting.indexOf(number);
    if (at < 0) return false;
    this.#waiting.splice(at, 1); // the oldest or one of the few in flight, so this is cheap
    this.#acceptedCount += 1;
    if (this.accepted.length < this.#acceptedMax) this.accepted.push(number);
    return true;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  stats(): { produced: number; held: number; waiting: number; accepted: number } {
    return {
      produced: this.#next - 1,
      held: this.#held,
      waiting: this.#waiting.length,
      accepted: this.#acceptedCount,
    };
  }
}
