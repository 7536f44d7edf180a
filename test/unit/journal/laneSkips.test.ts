import { expect } from "chai";
import { Lane } from "../../../src/journal/lane.ts";

describe("journal: done intervals of a lane", () => {
  it("stay apart, rising and above the mark, when unread parts are dropped across them", () => {
    const lane = new Lane(1, "cloud", 0);
    lane.skip(50, 120);
    lane.skip(80, 100);
    lane.skip(200, 220);
    lane.skip(121, 130);
    expect(lane.intervals()).to.deep.equal([
      { from: 50, to: 130 },
      { from: 200, to: 220 },
    ]);
    lane.passTo(100); // a part that was dropped ends within the first
    expect(lane.mark).to.equal(100);
    expect(lane.intervals()).to.deep.equal([
      { from: 101, to: 130 },
      { from: 200, to: 220 },
    ]);
  });
});
