import type { Counter, Meter } from "../../base/meter.ts";

/** Why a datagram or reading was not taken; the label of `tidegate_source_dropped_total`. A closed list, so the series stay few. */
export type DropReason =
  | "malformed"
  | "bad-option"
  | "not-allowed"
  | "too-large"
  | "block-gap"
  | "block-evicted"
  | "block-expired"
  | "busy"
  | "full"
  | "failed"
  | "invalid"
  | "undecodable"
  | "internal"
  | "response-lost"
  | "stale"
  | "superseded"
  | "unknown-token";

/** What one source took and dropped, in the gateway's metrics and for `state()`. */
export class Tally {
  readonly #meter: Meter;
  readonly #source: string;
  readonly #accepted: Counter;
  readonly #dropped = new Map<DropReason, Counter>();

  constructor(meter: Meter, source: string) {
    this.#meter = meter;
    this.#source = source;
    this.#accepted = meter.counter(
      "tidegate_source_accepted_total",
      "Readings that a source took and that are durable.",
      {
        source,
      },
    );
  }

  accept(): void {
    this.#accepted.value += 1;
  }

  drop(reason: DropReason): void {
    let counter = this.#dropped.get(reason);
    if (counter === undefined) {
      counter = this.#meter.counter(
        "tidegate_source_dropped_total",
        "Frames, datagrams or readings that a source did not take.",
        {
          source: this.#source,
          reason,
        },
      );
      this.#dropped.set(reason, counter);
    }
    counter.value += 1;
  }

  get accepted(): number {
    return this.#accepted.value;
  }

  get dropped(): Record<string, number> {
    return Object.fromEntries([...this.#dropped].map(([reason, counter]) => [reason, counter.value]));
  }
}
