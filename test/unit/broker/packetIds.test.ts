import { expect } from "chai";
import fc from "fast-check";
import { PacketIds } from "../../../src/broker/packetIds.ts";

/** What an id is given to next: one that follows on the last, one that shares its low bits with it, or any. */
const ids = fc.oneof(
  { weight: 6, arbitrary: fc.constant("next" as const) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 1023 }).map((step) => (64 * step) % 65_535) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 65_535 }) },
);
const steps = fc.array(
  fc.record({
    id: ids,
    does: fc.constantFrom("set", "add", "add", "delete oldest", "delete newest", "delete it"),
    value: fc.nat(9),
  }),
  { maxLength: 400 },
);

function checkEqual(table: PacketIds<number>, model: ReadonlyMap<number, number>): void {
  expect(table.size).to.equal(model.size);
  expect([...table.keys()].sort((a, b) => a - b)).to.deep.equal([...model.keys()].sort((a, b) => a - b));
  for (const [id, value] of model) expect([table.has(id), table.get(id)]).to.deep.equal([true, value]);
}

describe("packet ids in use", () => {
  it("are what a map would say they are, whatever ids a client takes", () => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 65_535 }), (all, first) => {
        const table = new PacketIds<number>();
        const model = new Map<number, number>();
        let last = first;
        for (const { id, does, value } of all) {
          const known = [...model.keys()];
          const one = id === "next" ? 1 + (last % 65_535) : id || 1;
          if (does === "set") {
            last = one;
            table.set(one, value);
            model.set(one, value);
          } else if (does === "add") {
            last = one;
            expect(table.add(one, value)).to.equal(!model.has(one));
            if (!model.has(one)) model.set(one, value);
          } else {
            const gone = (does === "delete oldest" ? known[0] : does === "delete newest" ? known.at(-1) : one) ?? one;
            expect(table.delete(gone)).to.equal(model.delete(gone));
            expect([table.has(gone), table.get(gone)]).to.deep.equal([false, undefined]);
          }
          expect([table.has(one), table.get(one)]).to.deep.equal([model.has(one), model.get(one)]);
        }
        checkEqual(table, model);
        table.clear();
        checkEqual(table, new Map());
      }),
    );
  });

  it("may be all that there are, and then none", () => {
    const table = new PacketIds<string>();
    const all = Array.from({ length: 65_535 }, (_, at) => 1 + ((at * 7919) % 65_535));
    for (const id of all) table.set(id, String(id));
    expect(table.size).to.equal(65_535);
    expect(all.filter((id) => table.get(id) !== String(id))).to.deep.equal([]);
    expect(all.filter((id) => !table.delete(id))).to.deep.equal([]);
    expect([table.size, ...table.keys()]).to.deep.equal([0]);
  });
});
