/** Lanes and rules that are made while the store runs. */
import type { Lane } from "./lane.ts";
import { writeLane, writeRule } from "./records.ts";
import { ruleKey, type State } from "./state.ts";
import type { GroupWriter } from "./writer.ts";

export class Definitions {
  readonly #state: State;
  readonly #writer: GroupWriter;
  /** Writes those again that were made since a commit began. */
  #made: Array<() => void> = [];

  constructor(state: State, writer: GroupWriter) {
    this.#state = state;
    this.#writer = writer;
  }

  lane(uplink: string, priority: number): Lane {
    const lane = this.#state.defineLane(this.#state.nextLane, uplink, priority);
    this.#define(() => writeLane(this.#writer, lane));
    return lane;
  }

  /** @returns its id; a new one when it is not known */
  rule(uplink: string, definition: string): number {
    const known = this.#state.ruleIds.get(ruleKey(uplink, definition));
    if (known !== undefined) return known;
    const id = this.#state.nextRule;
    this.#state.defineRule(id, uplink, definition);
    this.#define(() => writeRule(this.#writer, id, uplink, definition));
    return id;
  }

  /** A commit begins. */
  begin(): void {
    if (this.#made.length > 0) this.#made = [];
  }

  /** What the commit wrote was cut off: a lane or rule made meanwhile stays made. */
  again(): void {
    for (const write of this.#made) write();
    if (this.#made.length > 0) this.#writer.schedule(true);
  }

  /** Written twice, side by side: a rotten definition would take every message of its lane with it until the next segment repeats it. */
  #define(writeOnce: () => void): void {
    const write = (): void => {
      writeOnce();
      writeOnce();
    };
    write();
    this.#made.push(write);
    this.#writer.schedule(true);
  }
}
