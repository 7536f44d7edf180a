import { expect } from "chai";
import { Rate, secondsUntil } from "../../../src/base/rate.ts";
import { Flow } from "../../../src/uplink/flow.ts";

const queueOf = (messages: number) => ({
  ...{
    messages,
    bytes: messages * 100,
    oldestAcceptedAtMs: 0,
    taken: 0,
    takenBytes: 0,
    dropped: {},
    droppedByRule: {},
  },
});

describe("base/rate", () => {
  it("is right from the second look on, whatever lies between the looks, and never before", () => {
    const rate = new Rate(60_000);
    expect(rate.perSecond).to.equal(undefined);
    rate.look(1000, 5000);
    expect(rate.perSecond).to.equal(undefined);
    let [nowMs, count] = [5000, 1000];
    for (const ms of [10, 5000, 1, 90_000, 777, 600_000]) {
      nowMs += ms;
      count += ms / 20; // 50 a second
      rate.look(count, nowMs);
      expect(rate.perSecond).to.be.closeTo(50, 1e-6);
    }
  });

  it("forgets with time: after tau of silence about a third is left", () => {
    const rate = new Rate(60_000);
    for (let second = 0; second <= 600; second += 1) rate.look(second * 100, second * 1000);
    rate.look(60_000, 660_000);
    expect(rate.perSecond).to.be.closeTo(100 / Math.E, 1);
    rate.restart();
    expect(rate.perSecond).to.equal(undefined);
  });

  it("tells how long something lasts, and nothing where it lasts for ever", () => {
    expect(secondsUntil(100, 20)).to.equal(5);
    for (const rate of [undefined, 0, -3, 1e-12]) expect(secondsUntil(100, rate)).to.equal(null);
    expect(secondsUntil(0, 5)).to.equal(0);
  });
});

describe("uplink/flow", () => {
  const passed = { messagesIn: 0, bytesIn: 0, messagesOut: 0, bytesOut: 0 };

  it("an ETA from what goes out beyond what comes in, and honestly none", () => {
    const flow = new Flow();
    flow.look(passed, 0);
    expect(flow.eta("up", false, queueOf(0))).to.deep.equal({ state: "drained", seconds: 0 });
    expect(flow.eta("backoff", false, queueOf(9))).to.deep.equal({ state: "down", seconds: null });
    expect(flow.eta("up", true, queueOf(9))).to.deep.equal({ state: "paused", seconds: null });
    expect(flow.eta("up", false, queueOf(9))).to.deep.equal({ state: "measuring", seconds: null });
    flow.look({ messagesIn: 100, bytesIn: 1e4, messagesOut: 300, bytesOut: 5e4 }, 10_000); // 10/s in, 30/s out
    expect(flow.eta("up", false, queueOf(200))).to.deep.equal({ state: "draining", seconds: 10 });
    expect(flow.roomSeconds(50_000)).to.equal(50);
    expect(flow.rates()).to.deep.equal({
      ...{ inPerSecond1m: 10, inPerSecond5m: 10, inBytesPerSecond5m: 1000 },
      ...{ outPerSecond1m: 30, outPerSecond5m: 30, outBytesPerSecond1m: 5000 },
    });
    const full = new Flow();
    full.look(passed, 0);
    full.look({ messagesIn: 300, bytesIn: 1e4, messagesOut: 300, bytesOut: 1 }, 10_000);
    expect(full.eta("up", false, queueOf(200))).to.deep.equal({ state: "never", seconds: null });
  });

  it("measures the drain from when the link is up: an hour of outage does not make it slow", () => {
    const flow = new Flow();
    let nowMs = 0;
    let messagesIn = 0;
    for (; nowMs < 3_600_000; nowMs += 5000) {
      messagesIn += 50; // 10/s
      flow.look({ ...passed, messagesIn }, nowMs);
    }
    flow.linkUp({ ...passed, messagesIn }, nowMs);
    expect(flow.eta("up", false, queueOf(36_000)).state).to.equal("measuring");
    flow.look({ ...passed, messagesIn: messagesIn + 20, messagesOut: 2020 }, nowMs + 2000);
    expect(flow.eta("up", false, queueOf(34_000)).seconds).to.be.within(33, 35);
  });

  it("a burst that is over is forgotten within seconds: the backlog is not said to be endless for a minute", () => {
    const flow = new Flow();
    const burst = { ...passed, messagesIn: 10_000 };
    flow.look(passed, 0);
    flow.look(burst, 5000);
    let atMs = 5000;
    while (flow.eta("up", false, queueOf(10_000)).state !== "draining") {
      atMs += 5000;
      flow.look({ ...burst, messagesOut: (atMs - 5000) / 10 }, atMs); // 100/s
    }
    expect(atMs).to.be.below(50_000);
  });

  it("passes over looks that come too soon after another", () => {
    const flow = new Flow();
    flow.look(passed, 0);
    flow.look({ ...passed, messagesIn: 1000 }, 10);
    expect(flow.rates().inPerSecond1m).to.equal(null);
    expect(flow.roomSeconds(10)).to.equal(null);
  });
});
