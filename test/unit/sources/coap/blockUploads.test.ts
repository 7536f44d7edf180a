import { expect } from "chai";
import { BlockUploads } from "../../../../src/sources/coap/blockUploads.ts";
import { FakeClock } from "./support.ts";

describe("unfinished block-wise uploads", () => {
  it("stay within their bytes together: the one that waits longest ends first", () => {
    const ended: string[] = [];
    const uploads = new BlockUploads({
      clock: new FakeClock(),
      limits: { maxPayloadBytes: 10_000, maxUploads: 100, maxUploadBytes: 6000 },
      onDropped: (reason) => ended.push(reason),
    });
    const add = (key: string, num: number) =>
      uploads.add(key, { num, more: true, szx: 6 }, Buffer.alloc(1024), undefined).kind;
    for (const key of ["a", "b", "c", "d"]) expect(add(key, 0)).to.equal("continue");
    expect(add("a", 1)).to.equal("continue"); // now b waits longest, and there is no room for five blocks
    expect(ended).to.deep.equal(["block-evicted"]);
    expect(add("b", 1)).to.equal("gap");
    expect(add("a", 2)).to.equal("continue");
    expect(uploads.bytes).to.be.at.most(6000);
    expect(ended).to.have.length(2);
    uploads.clear();
    expect([uploads.size, uploads.bytes]).to.deep.equal([0, 0]);
  });
});
