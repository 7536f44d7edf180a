/** Single reads of a lane's records, where its index says they are; neighbours with one read. */
import { FieldError } from "./bytes.ts";
import { recordHeaderBytes } from "./format.ts";
import type { LaneIndex } from "./segmentIndex.ts";

/** Records this near to each other are read together with what lies between. */
const nearBytes = 16 * 1024;
/** Reads in flight for one lane: libuv has four threads, and the journal's syncs need one of them. */
const readsMax = 8;
/** A lane with longer records is walked instead. */
export const pickMaxBytes = 32 * 1024;

/** One read: offsets in the file, and where its bytes go. */
export interface Span {
  readonly from: number;
  to: number;
  target: Buffer;
  /** Bytes that were read. */
  count: number;
}

const nothing = Buffer.alloc(0);

/** @returns the next reads, none when the index is at its end; undefined when it makes no sense */
export function planPicks(index: LaneIndex, from: number, end: number, gulp: Buffer): Span[] | undefined {
  try {
    while (index.offset > 0 && index.offset < from) index.next();
    const { at, offset } = index;
    const spans = gather(index, end, gulp.length);
    index.reset(at, offset);
    let used = 0;
    for (const span of spans ?? []) {
      span.target = gulp.subarray(used, used + span.to - span.from);
      used += span.to - span.from;
    }
    return spans;
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    return undefined;
  }
}

function gather(index: LaneIndex, end: number, bytesMax: number): Span[] | undefined {
  const spans: Span[] = [];
  let bytes = 0;
  let last: Span | undefined;
  for (; index.offset > 0; index.next()) {
    const { offset } = index;
    if (offset + recordHeaderBytes > end) return undefined;
    const to = Math.min(offset + index.longest, end);
    if (last !== undefined && offset <= last.to + nearBytes) {
      const more = Math.max(0, to - last.to);
      if (bytes + more > bytesMax) break;
      bytes += more;
      last.to += more;
    } else {
      if (spans.length === readsMax || bytes + to - offset > bytesMax) break;
      bytes += to - offset;
      last = { from: offset, to, target: nothing, count: 0 };
      spans.push(last);
    }
  }
  return spans;
}
