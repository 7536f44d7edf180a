import { crc32 } from "node:zlib";
import { expect } from "chai";
import { dataViewOf } from "../../../src/journal/bytes.ts";
import { checksum, checksumIn, joined } from "../../../src/journal/checksum.ts";
import { randomOf } from "./support.ts";

describe("checksum", () => {
  const bytes = Buffer.from(Array.from({ length: 700 }, (_, at) => (at * 131 + (at >> 3) * 17 + 5) & 0xff));

  const view = dataViewOf(bytes);

  it("is that of zlib for every length, at every offset within a step, from any seed", () => {
    for (const seed of [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
      for (let from = 0; from < 9; from += 1) {
        for (let length = 0; length < 400; length += 1)
          expect([
            checksum(bytes, from, from + length, seed),
            checksumIn(view, from, from + length, seed),
          ]).to.deep.equal(
            Array(2).fill(crc32(bytes.subarray(from, from + length), seed)),
            `${length} bytes from ${from}, seed ${seed}`,
          );
      }
    }
  });

  it("reads a view's own bytes, not those of the memory that it lies in", () => {
    const part = bytes.subarray(300);
    for (const length of [20, 300]) {
      const known = crc32(part.subarray(7, 7 + length), 9);
      expect(checksum(part, 7, 7 + length, 9)).to.equal(known);
      expect(checksumIn(dataViewOf(part), 7, 7 + length, 9)).to.equal(known);
    }
  });

  it("in a view it is that of zlib beyond where the loop ends", () => {
    const many = Buffer.from(Array.from({ length: 5000 }, (_, at) => (at * at * 7 + at) & 0xff));
    for (const length of [639, 640, 641, 656, 4990])
      expect(checksumIn(dataViewOf(many), 3, 3 + length, 77)).to.equal(crc32(many.subarray(3, 3 + length), 77));
  });

  it("of two pieces is that of zlib for both, whatever their lengths and where the second one's began", () => {
    const random = randomOf(11);
    const many = Buffer.from(Array.from({ length: 70_000 }, () => Math.floor(random() * 256)));
    for (let round = 0; round < 3000; round += 1) {
      const [cut, to] = [Math.floor(random() * 300), Math.floor(random() ** 6 * 69_000)];
      const [first, second] = [Math.floor(random() * 2 ** 32), Math.floor(random() * 2 ** 32)];
      const crc = crc32(many.subarray(cut, cut + to), second);
      expect(joined(crc32(many.subarray(0, cut), first), crc, to, second)).to.equal(
        crc32(many.subarray(0, cut + to), first),
        `${cut} and ${to} bytes`,
      );
    }
  });

  it("a second piece may be as long as the four bytes of a length can say", () => {
    const random = randomOf(12);
    const zeros = Buffer.alloc(4);
    // Of a piece whose checksum is known to be 0 from 0: what so many bytes make of the first one's.
    const behind = (crc: number, bytes: number): number => joined(crc, 0, bytes, 0);
    for (const exponent of [8, 16, 24, 27, 28, 30, 31]) {
      const [crc, length] = [Math.floor(random() * 2 ** 32), 2 ** exponent - 1];
      const longer = behind(crc, length + 5);
      expect(longer).to.equal(behind(behind(crc, length), 5));
      expect(joined(longer, crc32(zeros, 0), 4, 0)).to.equal(crc32(zeros, longer));
    }
  });
});
