import { expect } from "chai";
import fc from "fast-check";
import { type Reference, References } from "../../../src/journal/references.ts";

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
    else if (kind === "compact") this.queue.compact();
    else if (kind === "drain") for (const reference of all.slice(pick % 3)) this.release(reference);
    else if (one !== undefined) {
      this.release(one);
      if (kind === "undo release") {
        this.queue.undoRelease(one.ordinal, one.position);
        this.waiting.set(one.ordinal, one);
      } else if (pick % 4 > 0) this.queue.compact();
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
        model.queue.compact();
      }
      model.compare();
    }
  });
});
