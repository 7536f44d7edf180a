import { expect } from "chai";
import { Seconds } from "../../../src/base/seconds.ts";
import { ManualClock } from "../../helpers/brokerRig.ts";

describe("base/seconds", () => {
  it("does the work of all in one wake-up, each second, in order", () => {
    const clock = new ManualClock();
    let timers = 0;
    const setTimer = clock.setTimer.bind(clock);
    clock.setTimer = (ms, callback) => {
      timers += 1;
      return setTimer(ms, callback);
    };
    const seconds = new Seconds(clock);
    const done: string[] = [];
    seconds.each(() => done.push("a"));
    clock.advance(400);
    seconds.each(() => done.push("b"));
    clock.advance(600);
    expect(done).to.deep.equal(["a", "b"]);
    clock.advance(9000);
    expect(done).to.have.length(20);
    expect(timers).to.equal(11);
  });

  it("ends with the last that asked, and begins again", () => {
    const clock = new ManualClock();
    const seconds = new Seconds(clock);
    let done = 0;
    const work = (): void => {
      done += 1;
    };
    const [one, other] = [seconds.each(work), seconds.each(work)];
    clock.advance(1000);
    expect(done, "the same work twice").to.equal(2);
    one.cancel();
    one.cancel();
    clock.advance(1000);
    expect(done).to.equal(3);
    const last = seconds.each(() => {
      other.cancel();
      last.cancel(); // while it is being called
    });
    clock.advance(5000);
    expect(done).to.equal(4);
    seconds.each(work);
    clock.advance(1000);
    expect(done).to.equal(5);
  });
});
