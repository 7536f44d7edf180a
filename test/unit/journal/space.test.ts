/** How often the disk is asked what it has, which wakes two threads: each second where its answer may matter, else now and then. */
import { expect } from "chai";
import type { Files } from "../../../src/base/files.ts";
import { Space } from "../../../src/journal/space.ts";

const gib = 1024 ** 3;
const limits = { maxBytes: 8 * gib, minFreeBytes: gib };

class Disk {
  asked = 0;
  free: number;
  #nowMs = 0;
  readonly space: Space;

  constructor(free: number) {
    this.free = free;
    const freeBytes = async (): Promise<number> => {
      this.asked += 1;
      return this.free;
    };
    this.space = new Space({ freeBytes } as unknown as Files, "/data", limits);
  }

  /** Looks at it each second. @returns how often it was asked */
  async seconds(count: number, usedBytes: (second: number) => number): Promise<number> {
    const before = this.asked;
    for (let second = 0; second < count; second += 1) {
      this.#nowMs += 1000;
      await this.space.check(this.#nowMs, usedBytes(second));
    }
    return this.asked - before;
  }
}

describe("journal/space", () => {
  it("asks each second while we take of it", async () => {
    const disk = new Disk(10 * gib);
    expect(await disk.seconds(60, (second) => second * 1e6)).to.equal(60);
  });

  it("asks now and then while we take nothing and there is plenty", async () => {
    const disk = new Disk(10 * gib);
    await disk.seconds(1, () => 1e6);
    expect(await disk.seconds(60, () => 1e6)).to.equal(6);
    expect(await disk.seconds(1, () => 2e6), "we took of it").to.equal(1);
  });

  it("asks each second while there is little more than minFreeBytes, whoever has the rest", async () => {
    const disk = new Disk(2 * gib - 1e6);
    await disk.seconds(1, () => gib);
    expect(await disk.seconds(60, () => gib)).to.equal(60);
  });

  it("sees within ten seconds what others took, and within one that they gave it back", async () => {
    const disk = new Disk(10 * gib);
    await disk.seconds(30, () => gib);
    disk.free = gib / 2;
    await disk.seconds(10, () => gib);
    expect(disk.space.room(0)).to.deep.include({ limit: gib, by: "minFreeBytes" });
    disk.free = 10 * gib;
    await disk.seconds(1, () => gib);
    expect(disk.space.room(0).by).to.equal("maxBytes");
  });
});
