import { crc32 } from "node:zlib";
import { expect } from "chai";
import { checksum } from "../../../src/journal/checksum.ts";

describe("checksum", () => {
  const bytes = Buffer.from(Array.from({ length: 700 }, (_, at) => (at * 131 + (at >> 3) * 17 + 5) & 0xff));

  it("is that of zlib for every length, at every offset within a step, from any seed", () => {
    for (const seed of [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
      for (let from = 0; from < 9; from += 1) {
        for (let length = 0; length < 400; length += 1)
          expect(checksum(bytes, from, from + length, seed)).to.equal(
            crc32(bytes.subarray(from, from + length), seed),
            `${length} bytes from ${from}, seed ${seed}`,
          );
      }
    }
  });

  it("reads a view's own bytes, not those of the memory that it lies in", () => {
    const view = bytes.subarray(300);
    for (const length of [20, 300])
      expect(checksum(view, 7, 7 + length, 9)).to.equal(crc32(view.subarray(7, 7 + length), 9));
  });
});
