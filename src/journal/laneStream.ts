/**
 * One way through a lane's messages: what was read and not handed out, and where reading goes on. A lane is one itself; while a backlog and fresh
 * readings share the link (`liveShare`) it has a second one, which begins where the backlog ends.
 */
import type { Entry, Lane } from "./lane.ts";
import type { LaneIndex } from "./segmentIndex.ts";
import type { Segment } from "./segments.ts";

/** Where a lane reads in a segment on disk. */
export interface ReadingPlace {
  readonly segment: Segment;
  /** Of the file: everything of the lane before it was read. */
  offset: number;
  /** Undefined: what lies in between is read too. */
  index: LaneIndex | undefined;
}

export abstract class LaneStream {
  abstract readonly lane: Lane;
  /** Nothing before this position is its own. */
  readonly from: number = 0;
  /** Nor anything at or beyond this one. */
  to = Number.POSITIVE_INFINITY;
  /** Everything of its own at or below it is done or was handed out. */
  cursor = 0;
  /** Position from which on reading goes on: where a record began when it was written, or before the first one that matters and before the tail. */
  readAt = 0;
  /** The same on disk, while it is in the middle of a segment there. */
  place: ReadingPlace | undefined;
  /** Read, not handed out; the head is at `aheadHead`. */
  ahead: Entry[] = [];
  aheadHead = 0;
  aheadBytes = 0;
  /** Rises with every rewind; a read that began before is thrown away. */
  generation = 0;
  filling = false;
  /** Resolves when the present reading ahead has ended. */
  filled: Promise<void> = Promise.resolve();
  /** Its segment could not be read for want of descriptors or memory; tried again a second later. */
  blocked = false;

  /** The head of the read-ahead passes the cursor. */
  abstract take(): Entry | undefined;

  /** Where it keeps what was handed out and not settled. */
  abstract readonly out: Map<number, Entry>;

  peek(): Entry | undefined {
    return this.ahead[this.aheadHead];
  }

  get aheadCount(): number {
    return this.ahead.length - this.aheadHead;
  }

  pushAhead(entry: Entry): void {
    this.ahead.push(entry);
    this.aheadBytes += entry.bytes;
  }

  /** Takes the head off the read-ahead. */
  protected shift(): Entry | undefined {
    const entry = this.ahead[this.aheadHead];
    if (entry === undefined) return undefined;
    this.aheadHead += 1;
    if (this.aheadHead === this.ahead.length) {
      this.ahead = [];
      this.aheadHead = 0;
    }
    this.aheadBytes -= entry.bytes;
    return entry;
  }

  /** What was read and not handed out; a read that is under way is thrown away. `readAt` is the caller's. */
  forgetAhead(): void {
    this.ahead = [];
    this.aheadHead = 0;
    this.aheadBytes = 0;
    this.place = undefined;
    this.generation += 1;
  }

  /** Goes on where another stands, which is used no more; a read of that one which is under way is thrown away. */
  protected continueFrom(other: LaneStream): void {
    this.generation += 1;
    this.ahead = other.ahead;
    this.aheadHead = other.aheadHead;
    this.aheadBytes = other.aheadBytes;
    this.readAt = other.readAt;
    this.place = other.place;
    this.blocked = other.blocked;
    other.forgetAhead();
  }
}
