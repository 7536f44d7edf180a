import { expect } from "chai";
import fc from "fast-check";
import { countPins } from "../../../src/journal/mergeCopy.ts";
import { type Reference, References } from "../../../src/journal/references.ts";
import type { Segment } from "../../../src/journal/segments.ts";
import { State } from "../../../src/journal/state.ts";
import { turn } from "./support.ts";

/** What a step does: by its kind, to the waiting reference that `pick` falls on. */
interface Step {
  readonly kind: "add" | "skip" | "release" | "undo add" | "undo release" | "compact" | "drain";
  readonly pick: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.oneof(
    { weight: 12, arbitrary: fc.constant<Step["kind"]>("add") },
    { weight: 9, arbitrary: fc.constant<Step["kind"]>("release") },
    { weight: 4, arbitrary: fc.constantFrom<Step["kind"]>("skip", "undo add", "undo release", "compact", "drain") },
  ),
  pick: fc.nat(),
});

class Model {
  readonly queue = new References("q");
  readonly waiting = new Map<number, Reference>();
  next = 1;

  take({ kind, pick }: Step): void {
    const all = [...this.waiting.values()];
    const one = all[pick % Math.max(1, all.length)];
    if (kind === "add") this.add(pick);
    else if (kind === "skip") {
      this.next += pick % 3;
      this.queue.skipTo(this.next);
    } else if (kind === "undo add") this.addAndUndo(pick);
    else if (kind === "compact") this.queue.compact(64);
    else if (kind === "drain") for (const reference of all.slice(pick % 3)) this.release(reference);
    else if (one !== undefined) {
      this.release(one);
      if (kind === "undo release") {
        this.queue.undoRelease(one.ordinal, one.position);
        this.waiting.set(one.ordinal, one);
      } else if (pick % 4 > 0) this.queue.compact(64);
    }
  }

  add(pick: number): void {
    const reference = { ordinal: this.next, position: 1 + (pick % 2 ** 40), meta: pick % 256, bytes: pick % 5000 };
    expect(this.queue.add(reference.position, reference.meta, reference.bytes, 1)).to.equal(this.next);
    this.waiting.set(this.next, reference);
    this.next += 1;
  }

  addAndUndo(pick: number): void {
    this.add(pick);
    this.next -= 1;
    this.queue.undoAdd();
    this.waiting.delete(this.next);
  }

  release({ ordinal, position }: Reference): void {
    expect(this.queue.release(ordinal)).to.equal(position);
    expect(this.queue.release(ordinal)).to.equal(0);
    this.waiting.delete(ordinal);
  }

  compare(): void {
    const { queue } = this;
    const all = [...this.waiting.values()].sort((a, b) => a.ordinal - b.ordinal);
    expect(queue.batch(0, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)).to.deep.equal(all);
    expect([...queue.positions()]).to.deep.equal(all.map(({ position }) => position));
    expect([queue.size, queue.nextOrdinal]).to.deep.equal([all.length, this.next]);
    expect(queue.bytes).to.equal(all.reduce((sum, { bytes }) => sum + bytes, 0));
    const seen: number[] = [];
    queue.forEach((_, ordinal) => void seen.push(ordinal));
    expect(seen).to.deep.equal(all.map(({ ordinal }) => ordinal));
    for (let ordinal = Math.max(0, this.next - 100); ordinal <= this.next + 1; ordinal += 1) {
      const known = this.waiting.get(ordinal);
      const { position = 0, meta = 0, bytes = 0 } = known ?? {};
      expect(queue.positionOf(ordinal), `position of ${ordinal}`).to.equal(position);
      if (known !== undefined) expect([queue.metaOf(ordinal), queue.bytesOf(ordinal)]).to.deep.equal([meta, bytes]);
      const after = all.find((one) => one.ordinal > ordinal)?.ordinal ?? 0;
      expect(queue.nextAfter(ordinal), `after ${ordinal}`).to.equal(after);
    }
  }
}

describe("a queue of references", () => {
  it("property: holds what a map would hold, whatever is added, released, taken back and compacted", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 400 }), (steps) => {
        const model = new Model();
        for (const [at, one] of steps.entries()) {
          model.take(one);
          if (at % 50 === 49) model.compare();
        }
        model.compare();
      }),
      { numRuns: 150 },
    );
  });

  it("one that was long and is drained, and goes on", () => {
    const model = new Model();
    for (let round = 0; round < 3; round += 1) {
      for (let at = 0; at < 3000; at += 1) model.add(at * 7919 + 2 ** 33);
      for (const one of [...model.waiting.values()].slice(0, 2990)) {
        model.release(one);
        model.queue.compact(64);
      }
      model.compare();
    }
  });

  it("property: who reads positions meets each that stays, in order, though others go and all are compacted meanwhile", () => {
    const release = fc.record({ at: fc.nat(300), from: fc.nat(300), count: fc.integer({ min: 1, max: 300 }) });
    fc.assert(
      fc.property(fc.integer({ min: 64, max: 300 }), fc.array(release, { maxLength: 10 }), (count, all) => {
        const model = new Model();
        for (let at = 0; at < count; at += 1) model.add(at);
        const seen: number[] = [];
        for (const position of model.queue.positions()) {
          seen.push(position);
          for (const { at, from, count: some } of all) {
            if (at !== seen.length) continue;
            for (const one of [...model.waiting.values()].slice(from, from + some)) model.release(one);
            model.queue.compact(64);
            model.add(1000 + seen.length);
          }
        }
        const staying = [...model.waiting.values()].map(({ position }) => position);
        expect(staying.filter((position) => !seen.includes(position))).to.deep.equal([]);
        expect(seen).to.deep.equal([...seen].sort((a, b) => a - b));
      }),
      { numRuns: 100 },
    );
  });

  it("is counted whole for a merge while a client takes from it: what is not counted is left out of the new file", async () => {
    const state = new State();
    const queue = state.queue("slow");
    const last = 25_000;
    for (let position = 1; position <= last; position += 1) state.reference(queue, position, 1, 10, 1);
    const pins = countPins(state, [{ base: 1, end: last + 1 } as Segment], 10_000);
    const gone = 20_000; // the first 10,000 were looked at
    for (let ordinal = 1; ordinal <= gone; ordinal += 1) state.releaseFrom(queue, ordinal);
    queue.compact(64);
    await turn();
    const counted = await pins;
    const missed: number[] = [];
    for (let position = gone + 1; position <= last; position += 1) if (!counted.has(position)) missed.push(position);
    expect(missed.slice(0, 3)).to.deep.equal([]);
  });
});
