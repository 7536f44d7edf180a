/** Which segments are worth merging. Cheap: asked once a second, over the whole table. */
import { headerBytes } from "./format.ts";
import type { Segment } from "./segments.ts";

export interface MergeLimits {
  /** Live bytes of a run. */
  readonly liveBytes: number;
  /** Bytes that the new file may take at all. */
  readonly roomBytes: number;
  /** A full segment. */
  readonly segmentBytes: number;
  /** What every segment begins with besides its header. */
  readonly definitionBytes: number;
  readonly mayMerge: (segment: Segment, before: Segment | undefined) => boolean;
}

/** One merge reads at most so many full segments, so that each gives its space back before the next begins. */
const readSegmentsMax = 8;
/** Many small files are worth merging whatever they give back. */
const manyFiles = 32;
const referencesMax = 64 * 1024;

/** Bytes in it that a merge would keep: too high where one message waits in several lanes. */
export function liveBytesOf(segment: Segment): number {
  let bytes = segment.references * segment.kept.pinnedMean + segment.kept.statements;
  for (const part of segment.parts.values()) bytes += part.bytes;
  return bytes;
}

/** Whether merging may make it smaller. */
export const isSparse = (segment: Segment): boolean => 2 * liveBytesOf(segment) < segment.fileBytes;

/** Sealed segments that only the want of newer checkpoints keeps from being merged, and what that would give back. */
export function sparseBeyond(
  list: readonly Segment[],
  mark: number,
  open: Segment,
): { segments: number; bytes: number } {
  let [segments, bytes] = [0, 0];
  for (let index = list.length - 1; index >= 0; index -= 1) {
    const segment = list[index]!;
    if (segment.end <= mark) break;
    if (segment === open || !segment.pinned || !isSparse(segment)) continue;
    segments += 1;
    bytes += segment.fileBytes - liveBytesOf(segment);
  }
  return { segments, bytes };
}

/** Whether so much is worth a merge of so many files. */
export const worthMerging = (givesBack: number, files: number, segmentBytes: number): boolean =>
  givesBack >= segmentBytes / 8 || (files >= manyFiles && givesBack > 0);

/** The run that gives back most; undefined when none is worth it. */
export function chooseRun(list: readonly Segment[], limits: MergeLimits): Segment[] | undefined {
  const overhead = headerBytes + limits.definitionBytes;
  const liveMax = Math.min(limits.liveBytes, limits.roomBytes - overhead);
  const readMax = readSegmentsMax * limits.segmentBytes;
  let best: { run: Segment[]; givesBack: number } | undefined;
  let run: Segment[] = [];
  let [live, file, references] = [0, 0, 0];
  const settle = (): void => {
    const givesBack = file - live - overhead;
    if (givesBack > (best?.givesBack ?? 0) && worthMerging(givesBack, run.length, limits.segmentBytes))
      best = { run, givesBack };
    run = [];
    [live, file, references] = [0, 0, 0];
  };
  for (const [index, segment] of list.entries()) {
    const bytes = liveBytesOf(segment);
    if (!isSparse(segment) || bytes > liveMax || !limits.mayMerge(segment, list[index - 1])) {
      settle();
      continue;
    }
    if (live + bytes > liveMax || file + segment.fileBytes > readMax || references + segment.references > referencesMax)
      settle();
    run.push(segment);
    live += bytes;
    file += segment.fileBytes;
    references += segment.references;
  }
  settle();
  return best?.run;
}
