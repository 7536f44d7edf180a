/** What a disk does besides losing power, one disturbance at a time. */
import type { Fault, Operation } from "../helpers/faultyFiles.ts";

type Decide = (operation: Operation, path: string, step: number) => Fault;

export interface Disturbance {
  readonly name: string;
  /** Whether the store may end up failed. */
  readonly mayFail: boolean;
  readonly decide: Decide;
}

/** The operations that match fail, from step `from` on, so many times. */
function failing(fault: Fault, operations: readonly Operation[], from: number, times: number): Decide {
  let left = times;
  return (operation, _path, step) => {
    if (left === 0 || step < from || !operations.includes(operation)) return undefined;
    left -= 1;
    return fault;
  };
}

/** A sync that takes its time, and then fails: what came meanwhile is in the next group, or in none. */
export const failingSync = (below: (limit: number) => number, steps: number): Disturbance => ({
  name: "a slow sync fails",
  mayFail: false,
  decide: failing("EIO", ["datasync"], steps + 1 + below(6), 1),
});

/** @param steps operations done so far */
export function disturbance(below: (limit: number) => number, steps: number): Disturbance {
  const from = steps + 1 + below(30);
  const kinds: readonly (() => Disturbance)[] = [
    () => ({
      name: "short writes",
      mayFail: false,
      decide: (operation, _path, step) => (operation === "write" && step % 3 === 0 ? "short" : undefined),
    }),
    () => ({ name: "EIO once", mayFail: false, decide: failing("EIO", ["write", "datasync"], from, 1) }),
    () => ({ name: "EIO twice", mayFail: true, decide: failing("EIO", ["write", "datasync"], from, 2 + below(3)) }),
    () => ({
      name: "no space for a while",
      mayFail: false,
      decide: failing("ENOSPC", below(2) === 0 ? ["write"] : ["write", "create"], from, 1 + below(6)),
    }),
    () => ({
      name: "EIO on a name",
      mayFail: true,
      decide: failing("EIO", [(["rename", "unlink", "syncDir", "create"] as const)[below(4)]!], from, 1 + below(2)),
    }),
    () => ({
      name: "no descriptors",
      mayFail: true,
      decide: failing("EMFILE", ["open", "create"], from, 1 + below(3)),
    }),
  ];
  return kinds[below(kinds.length)]!();
}
