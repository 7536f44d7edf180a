import { crc32 } from "node:zlib";
import { expect } from "chai";
import fc from "fast-check";
import { flippedBit } from "../../../src/journal/flippedBit.ts";

describe("journal: which bit was flipped", () => {
  it("finds any single one, whatever the seed", () => {
    const run = fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 5000 }),
      fc.nat(),
      fc.nat(7),
      fc.nat(),
      (bytes, at, bit, seed) => {
        const byte = at % bytes.length;
        const damaged = Buffer.from(bytes);
        damaged[byte] = damaged[byte]! ^ (1 << bit);
        const difference = crc32(damaged, seed) ^ crc32(bytes, seed);
        expect(flippedBit(difference, bytes.length)).to.deep.equal({ byte, bit });
      },
    );
    fc.assert(run, { numRuns: 300 });
  });

  it("finds none where two were flipped, nearly always", () => {
    let found = 0;
    for (let round = 0; round < 200; round += 1) {
      const bytes = Buffer.alloc(1000, round);
      const damaged = Buffer.from(bytes);
      damaged[round] = damaged[round]! ^ 1;
      damaged[999 - round] = damaged[999 - round]! ^ 4;
      if (flippedBit(crc32(damaged) ^ crc32(bytes), 1000) !== undefined) found += 1;
    }
    expect(found).to.equal(0);
  });
});
