import { expect } from "chai";
import type { Reading, ReadingOutcome } from "../../../../src/base/contracts.ts";
import { ackOf, makeBench } from "./fakes.ts";

describe("serial source: an intake that throws", () => {
  it("does not end the gateway, acknowledges nothing, and does not hold up what comes after", async () => {
    const bench = makeBench({ ack: ackOf });
    const { take } = bench.intake;
    bench.intake.take = (reading: Reading, settle: (outcome: ReadingOutcome) => void) => {
      if (Buffer.from(reading.payload).toString() === "bad") throw new TypeError("a fault of ours");
      take(reading, settle);
    };
    await bench.source.start();
    await bench.flush();
    expect(() => bench.port().send("bad\ngood\n")).to.not.throw();
    bench.taken[0]?.settle({ kind: "durable", value: "good" });
    expect(bench.port().written).to.equal("ack good\n");
    expect(bench.dropped()).to.deep.equal({ internal: 1 });
    expect(bench.lines.map(({ message }) => message)).to.include("the intake threw");
    await bench.source.stop();
  });
});
