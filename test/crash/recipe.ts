/** What a seed decides once for all its lives: sizes, tempers, and how it ends. */
import type { Tuning } from "../../src/journal/options.ts";
import { randomOf } from "../unit/journal/support.ts";

export interface Recipe {
  readonly segmentBytes: number;
  /** Lets time pass, settles nearly everything at once: checkpoints come, then segments go. */
  readonly eager: boolean;
  readonly checkpointBytes: number;
  readonly checkpointEveryMs: number;
  /** Of the map "bulk": a checkpoint then takes several slices. */
  readonly keys: number;
  readonly largeBytes: number;
  readonly disturbed: boolean;
  readonly clockJumps: boolean;
  /** Links come up again and again, and what is fresh then shares them with what waited. */
  readonly shares: boolean;
  /** flip: a bit somewhere; drain: everything is settled and released, and the disk given back. */
  readonly ending: "flip" | "drain" | "crash";
}

/** A quarter of all seeds, and none of `regressions`, which are what they are without it. */
const sharing: readonly number[] = [7, 9, 10];

export function recipeOf(seed: number): Recipe {
  const random = randomOf(seed * 7919);
  const oneOf = <T>(...choices: readonly T[]): T => choices[Math.floor(random() * choices.length)]!;
  return {
    segmentBytes: oneOf(1500, 4000, 20_000),
    eager: oneOf(true, false, false),
    checkpointBytes: oneOf(1500, 1500, 6000, 8 * 1024 * 1024),
    checkpointEveryMs: oneOf(200, 10_000),
    keys: oneOf(0, 0, 0, 0, 200),
    largeBytes: 4000,
    disturbed: oneOf(true, false, false),
    clockJumps: oneOf(true, false, false, false),
    shares: sharing.includes(seed % 12) || process.env["TIDEGATE_SHARE"] === "all",
    ending: oneOf("flip", "drain", "crash"),
  };
}

export const tuningOf = ({ checkpointBytes, checkpointEveryMs, shares, disturbed }: Recipe): Partial<Tuning> => ({
  // Both streams are to be read from disk, too. A store that failed keeps no more readable than that.
  ...(shares && !disturbed ? { tailBytes: 2000, tailChunkBytes: 1000 } : {}),
  ...{ checkpointBytes, checkpointEveryMs },
  ...{ sliceMs: 0.01, mergeBytes: 8000, mergeRate: 1e12, spares: 2, lightMs: 0, largeRecordBytes: 3000 },
});
