import { expect } from "chai";
import fc from "fast-check";
import { topicMatches } from "../../../src/base/topic.ts";
import { TopicTree } from "../../../src/broker/topicTree.ts";
import { Trie } from "../../../src/broker/trie.ts";

const level = fc.constantFrom("a", "b", "", "$x", "$SYS");
const topic = fc.array(level, { minLength: 1, maxLength: 4 }).map((levels) => levels.join("/"));
const filter = fc
  .tuple(fc.array(fc.oneof(level, fc.constant("+")), { maxLength: 4 }), fc.boolean())
  .map(([levels, rest]) => (rest || levels.length === 0 ? [...levels, "#"] : levels).join("/"));

describe("subscription trie", () => {
  it("matches as the naive matcher does, also after removals", () => {
    fc.assert(
      fc.property(fc.uniqueArray(filter, { maxLength: 12 }), fc.array(topic), fc.integer(), (filters, topics, gone) => {
        const trie = new Trie<string>();
        for (const each of filters) trie.set(each, "key", each);
        const removed = filters.filter((_each, at) => ((gone >> at) & 1) === 1);
        for (const each of removed) expect(trie.delete(each, "key")).to.equal(true);
        const left = filters.filter((each) => !removed.includes(each));
        expect(trie.size).to.equal(left.length);
        for (const each of topics) {
          const found: string[] = [];
          trie.match(each, found);
          expect(found.sort()).to.deep.equal(left.filter((wanted) => topicMatches(wanted, each)).sort());
        }
      }),
      { numRuns: 300 },
    );
  });

  it("says what was there before, and what was not", () => {
    const trie = new Trie<number>();
    expect(trie.set("a/+", "k", 1)).to.equal(undefined);
    expect(trie.set("a/+", "k", 2)).to.equal(1);
    expect(trie.get("a/+", "k")).to.equal(2);
    expect(trie.delete("a", "k")).to.equal(false);
    expect(trie.delete("a/+", "other")).to.equal(false);
    expect(trie.size).to.equal(1);
  });
});

describe("topic tree", () => {
  it("finds as the naive matcher does, also after removals", () => {
    fc.assert(
      fc.property(fc.uniqueArray(topic, { maxLength: 12 }), fc.array(filter), fc.integer(), (topics, filters, gone) => {
        const tree = new TopicTree<string>();
        for (const each of topics) tree.set(each, each);
        const left = topics.filter((_each, at) => ((gone >> at) & 1) === 0);
        for (const each of topics) if (!left.includes(each)) tree.delete(each);
        expect(tree.size).to.equal(left.length);
        for (const each of filters) {
          expect(tree.match(each).sort()).to.deep.equal(left.filter((name) => topicMatches(each, name)).sort());
        }
      }),
      { numRuns: 300 },
    );
  });
});
