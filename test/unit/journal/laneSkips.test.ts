import { expect } from "chai";
import { Lane } from "../../../src/journal/lane.ts";
import { UplinkAccount } from "../../../src/journal/state.ts";

describe("journal: done intervals of a lane", () => {
  it("stay apart, rising and above the mark, when unread parts are dropped across them", () => {
    const lane = new Lane(1, new UplinkAccount("cloud"), 0);
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

  it("are one where what was dropped unread lies within what was taken ahead of the backlog", () => {
    const lane = new Lane(1, new UplinkAccount("cloud"), 0);
    lane.waiting = 10;
    lane.split(100);
    lane.skip(150, 170);
    lane.skip(300, 310);
    lane.fresh!.cursor = 200;
    expect(lane.intervals()).to.deep.equal([
      { from: 100, to: 200 },
      { from: 300, to: 310 },
    ]);
    lane.fold();
    expect(lane.skips).to.deep.equal(lane.intervals());
  });

  it("are the widest where there are too many to be written", () => {
    const lane = new Lane(1, new UplinkAccount("cloud"), 0);
    for (let from = 10; from < 100; from += 10) lane.skip(from, from + (from === 40 || from === 70 ? 5 : 1));
    expect(lane.widestIntervals(2)).to.deep.equal([
      { from: 40, to: 45 },
      { from: 70, to: 75 },
    ]);
    expect(lane.widestIntervals(9)).to.have.length(9);
  });
});
