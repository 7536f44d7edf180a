import type { Clock, Timer } from "../base/clock.ts";

interface Waiting {
  /** The pause; undefined: it is over, some are offered again. */
  timer: Timer | undefined;
  /** Identifiers of those offered again and not answered. */
  readonly offered: Set<number>;
  /** How many are offered at once: twice as many each time that the cloud took all. */
  burst: number;
}

export interface LaneWaitsDeps {
  readonly clock: Clock;
  /** Holds what of the lane waits for its turn to be sent again: it must not pass the refused one. Returns its identifiers. */
  hold(lane: number): readonly number[];
  /** Identifiers of a lane's held messages, in the order first sent. */
  heldOf(lane: number): Iterable<number>;
  /** Offers this one again. */
  retry(packetId: number): void;
  /** Something can be sent again. */
  ready(): void;
}

const burstMax = 1024;

/**
 * Lanes that wait because the cloud refused one of their messages for now. Nothing new of such a lane is sent. After a pause the oldest refused one is
 * offered alone, then two, then four: so the order within the lane holds, and a cloud whose quota is used up is asked once a pause, not once a message.
 */
export class LaneWaits {
  readonly #deps: LaneWaitsDeps;
  readonly #lanes = new Map<number, Waiting>();

  constructor(deps: LaneWaitsDeps) {
    this.#deps = deps;
  }

  /** Lanes that wait. */
  get size(): number {
    return this.#lanes.size;
  }

  has(lane: number): boolean {
    return this.#lanes.has(lane);
  }

  /**
   * The cloud refused one of the lane's messages for now.
   * @returns whether that counts against it: not when the lane stands still already, for it was sent before that
   */
  refused(lane: number, packetId: number): boolean {
    const waiting = this.#lanes.get(lane);
    waiting?.offered.delete(packetId);
    return waiting?.timer === undefined;
  }

  /** The lane stands still for so long. */
  pause(lane: number, ms: number): void {
    const waiting: Waiting = this.#lanes.get(lane) ?? { timer: undefined, offered: new Set(), burst: 1 };
    this.#lanes.set(lane, waiting);
    waiting.burst = 1;
    for (const packetId of this.#deps.hold(lane)) waiting.offered.delete(packetId);
    waiting.timer?.cancel();
    waiting.timer = this.#deps.clock.setTimer(ms, () => {
      waiting.timer = undefined;
      // Some were on their way when one sent earlier was refused late: none that is younger goes before their answers.
      if (waiting.offered.size === 0) this.#offer(lane, waiting);
    });
  }

  /** The cloud took one of the lane's messages. */
  accepted(lane: number, packetId: number): void {
    const waiting = this.#lanes.get(lane);
    if (waiting === undefined || !waiting.offered.delete(packetId) || !isDone(waiting)) return;
    waiting.burst = Math.min(burstMax, waiting.burst * 2);
    this.#offer(lane, waiting);
  }

  /** One of the lane's messages will not be offered again. */
  gone(lane: number, packetId: number): void {
    const waiting = this.#lanes.get(lane);
    if (waiting === undefined) return;
    waiting.offered.delete(packetId);
    if (isDone(waiting)) this.#offer(lane, waiting);
  }

  /** The connection is gone: the next one sends everything again. */
  clear(): void {
    for (const { timer } of this.#lanes.values()) timer?.cancel();
    this.#lanes.clear();
  }

  /** The oldest of the refused ones; when there are none the lane is free. */
  #offer(lane: number, waiting: Waiting): void {
    const oldest: number[] = [];
    for (const packetId of this.#deps.heldOf(lane)) {
      if (oldest.length === waiting.burst) break;
      oldest.push(packetId);
    }
    for (const packetId of oldest) {
      waiting.offered.add(packetId);
      this.#deps.retry(packetId);
    }
    if (waiting.offered.size === 0) this.#lanes.delete(lane);
    this.#deps.ready();
  }
}

const isDone = ({ timer, offered }: Waiting): boolean => timer === undefined && offered.size === 0;
