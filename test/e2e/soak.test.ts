import { expect } from "chai";
import { runSoak } from "../soak/runSoak.ts";

describe("soak, in short", function () {
  this.timeout(240_000);

  it("80 clients that vanish and take each other over for 12 s: nothing acknowledged is missing, nobody is left behind", async () => {
    const { faults, book } = await runSoak({ seconds: 12, clients: 80, seed: 4, say: () => {}, compareMemory: false });
    expect(faults).to.deep.equal([]);
    expect(book.acknowledged(1) + book.acknowledged(2)).to.be.above(200);
    expect(book.counts.vanished).to.be.above(0);
    expect(book.counts.takenOver).to.be.above(0);
  });
});
