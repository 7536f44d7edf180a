import { expect } from "chai";
import fc from "fast-check";
import { Trie } from "../../src/broker/trie.ts";

/**
 * Section 4.7 of MQTT 5 word for word, one level at a time; written apart from src/base/topic.ts, so that both cannot be wrong in the same way.
 */
function matches(filter: readonly string[], topic: readonly string[], atStart = true): boolean {
  const [want, ...wanted] = filter;
  const [level, ...levels] = topic;
  const wild = want === "#" || want === "+";
  if (wild && atStart && level?.startsWith("$")) return false; // [MQTT-4.7.2-1]
  if (want === "#") return true; // the parent level, and any number of child levels
  if (want === undefined || level === undefined) return want === undefined && level === undefined;
  if (want !== "+" && want !== level) return false;
  if (levels.length === 0 && wanted.length === 1 && wanted[0] === "#") return true;
  return matches(wanted, levels, false);
}

const level = fc.oneof(
  fc.constantFrom("", "a", "b", "$", "$SYS", "$share", " ", "ä", "__proto__", "constructor"),
  fc.string({ unit: "binary", maxLength: 3 }).map((text) => text.replaceAll(/[/+#\0]/gu, "x")),
);
const topic = fc.array(level, { minLength: 1, maxLength: 6 }).map((levels) => levels.join("/"));
const filter = fc
  .tuple(fc.array(fc.oneof(level, fc.constant("+")), { maxLength: 6 }), fc.boolean())
  .map(([levels, rest]) => (rest || levels.length === 0 ? [...levels, "#"] : levels).join("/"));

type Step =
  | { readonly do: "set"; readonly filter: string; readonly key: string; readonly value: number }
  | { readonly do: "delete"; readonly filter: string; readonly key: string }
  | { readonly do: "delete one that is there"; readonly at: number }
  | { readonly do: "match"; readonly topic: string };

const key = fc.constantFrom("k1", "k2", "k3");
const steps: fc.Arbitrary<Step[]> = fc
  .uniqueArray(
    fc.oneof(
      filter,
      filter,
      topic.filter((one) => one !== ""),
    ),
    { minLength: 1, maxLength: 15 },
  )
  .chain((filters) =>
    fc.array(
      fc.oneof(
        {
          weight: 4,
          arbitrary: fc.record({
            do: fc.constant("set" as const),
            filter: fc.constantFrom(...filters),
            key,
            value: fc.nat(),
          }),
        },
        {
          weight: 1,
          arbitrary: fc.record({ do: fc.constant("delete" as const), filter: fc.constantFrom(...filters), key }),
        },
        { weight: 2, arbitrary: fc.record({ do: fc.constant("delete one that is there" as const), at: fc.nat() }) },
        // Topics that look like the filters, else hardly one would match.
        {
          weight: 5,
          arbitrary: fc
            .tuple(fc.oneof(topic, fc.constantFrom(...filters)), level)
            .map(([name, other]): Step => ({ do: "match", topic: name.replaceAll(/[+#]/g, other) })),
        },
      ),
      { minLength: 1, maxLength: 60, size: "max" },
    ),
  );

describe("subscription trie against a naive matcher", () => {
  it("any sequence of additions, replacements and removals finds what the naive matcher finds", () => {
    let found = 0;
    fc.assert(
      fc.property(steps, (all) => {
        const trie = new Trie<number>();
        const model = new Map<string, { filter: string; key: string; value: number }>();
        for (const step of all) {
          if (step.do === "set") {
            const id = JSON.stringify([step.filter, step.key]);
            expect(trie.set(step.filter, step.key, step.value)).to.equal(model.get(id)?.value);
            model.set(id, step);
          } else if (step.do === "match") {
            const got: number[] = [];
            trie.match(step.topic, got);
            const wanted = [...model.values()].filter((one) => matches(one.filter.split("/"), step.topic.split("/")));
            expect(got.toSorted()).to.deep.equal(wanted.map(({ value }) => value).toSorted());
            found += got.length;
          } else {
            const there = [...model.values()];
            const gone = step.do === "delete" ? step : there[step.at % Math.max(there.length, 1)];
            if (gone === undefined) continue;
            const id = JSON.stringify([gone.filter, gone.key]);
            expect(trie.delete(gone.filter, gone.key)).to.equal(model.delete(id));
          }
          expect(trie.size).to.equal(model.size);
        }
        for (const one of model.values()) expect(trie.get(one.filter, one.key)).to.equal(one.value);
      }),
      { numRuns: 400 },
    );
    expect(found).to.be.above(400); // else it would have compared nothing
  });
});
