import { expect } from "chai";
import { OldestFirst } from "../../../src/broker/oldestFirst.ts";

describe("OldestFirst", () => {
  it("gives by ordinal whatever the order of coming, also while more come", () => {
    const list = new OldestFirst<{ ordinal: number }>();
    const kept: number[] = [];
    let next = 7;
    for (let step = 0; step < 5000; step += 1) {
      next = (next * 48_271) % 2_147_483_647;
      if (next % 3 > 0 || kept.length === 0) {
        list.add({ ordinal: next });
        kept.push(next);
      } else {
        const least = Math.min(...kept);
        kept.splice(kept.indexOf(least), 1);
        expect(list.peek()?.ordinal).to.equal(least);
        expect(list.shift()?.ordinal).to.equal(least);
      }
      expect(list.size).to.equal(kept.length);
    }
    for (const ordinal of kept.sort((a, b) => a - b)) expect(list.shift()?.ordinal).to.equal(ordinal);
    expect(list.shift()).to.equal(undefined);
    list.add({ ordinal: 1 });
    list.clear();
    expect(list.peek()).to.equal(undefined);
  });
});
