import { expect } from "chai";
import { Resumption } from "../../../src/uplink/resumption.ts";
import type { SentIds } from "../../../src/uplink/sentIds.ts";
import { Window } from "../../../src/uplink/window.ts";
import { MemoryQueue, MovedClock } from "../../helpers/memoryUplink.ts";

describe("uplink: what an earlier run had in flight far behind others", () => {
  it("is counted as acknowledged once it comes out of the queue, and the cloud has it", async () => {
    const queue = new MemoryQueue(new MovedClock());
    const { lane, position } = queue.add("x");
    queue.recall = () => Promise.resolve({ found: [], ahead: new Set([position]) });
    const ended: number[] = [];
    const id = { packetId: 5, lane, position, order: 1, received: true };
    const ids = { load: () => [id], ended: (packetId: number) => ended.push(packetId) } as unknown as SentIds;
    const settled: Array<[number, number]> = [];
    const window = new Window();
    let resumption: Resumption | undefined;
    await new Promise<void>((ready) => {
      const done = (packetId: number, { seq }: { seq: number }): void => void settled.push([packetId, seq]);
      resumption = new Resumption({ queue, window, ids, inflight: 1, add: () => {}, settled: done, ready });
      resumption.begin();
    });
    expect(resumption?.ended(5)).to.equal(true); // PUBCOMP
    expect(settled).to.deep.equal([]);
    expect(resumption?.take(queue.next()!)).to.equal("done");
    expect(queue.settled).to.deep.equal([{ seq: 1, dropped: undefined }]);
    expect(settled).to.deep.equal([[5, 1]]);
    expect(ended).to.deep.equal([5]);
  });
});
