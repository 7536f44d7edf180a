import { Duplex } from "node:stream";
import { expect } from "chai";
import { Flusher, Outbox } from "../../../src/broker/outbox.ts";
import { ManualClock, turns } from "../../helpers/brokerRig.ts";

describe("writes of a turn", () => {
  const text = Buffer.from("hello");

  /** Outboxes on sockets whose writes take `msEach`, and what was written, in order. */
  function outboxes(count: number, msEach: number): { flusher: Flusher; all: Outbox[]; seen: string[] } {
    const clock = new ManualClock();
    const flusher = new Flusher(clock);
    const seen: string[] = [];
    const all = Array.from({ length: count }, (_, n) => {
      const socket = new Duplex({
        read() {},
        write(chunk: Buffer, _encoding, done) {
          clock.advance(msEach);
          seen.push(`${n} ${chunk}`);
          done();
        },
      });
      return new Outbox(socket, flusher, 1000, { value: 0 }, { onRoom() {} });
    });
    return { flusher, all, seen };
  }

  it("that take too long go on in the next turns, in order, and what came for them meanwhile goes with them", async () => {
    const { all, seen } = outboxes(300, 1);
    for (const outbox of all) outbox.append(text, 0, 2);
    await turns(1);
    expect(seen.length).to.equal(128);
    for (const n of [0, 299]) all[n]?.append(text, 2, 5);
    while (seen.length < 301) await turns(1);
    const one = all.map((_, n) => `${n} he`);
    expect(seen).to.deep.equal([...one.slice(0, 299), "299 hello", "0 llo"]);
  });

  it("that take no time are all made in one", async () => {
    const { all, seen } = outboxes(300, 0);
    for (const outbox of all) outbox.append(text, 0, 2);
    await turns(1);
    expect(seen.length).to.equal(300);
  });

  it("have the lists of pieces back for others, and what they wrote is not kept alive by them", async () => {
    const { flusher, all, seen } = outboxes(3, 0);
    const [first, second, third] = all;
    first?.append(text, 0, 2);
    second?.append(text, 2, 5);
    flusher.flush();
    third?.appendAck(0x30, 1);
    first?.appendWithId(text, 0, 5, 0, 0x2a2b);
    first?.close();
    second?.append(text, 0, 5);
    await turns(1);
    first?.append(text, 0, 5);
    first?.flush();
    expect(seen).to.deep.equal(["0 he", "1 llo", "2 0\x02\0\x01", "1 hello"]);
    const lists = [flusher.borrow(), flusher.borrow(), flusher.borrow(), flusher.borrow()];
    for (const list of lists) expect(list.whole()).to.equal(undefined);
    expect(new Set(lists).size).to.equal(4);
    expect(lists.filter(({ room }) => room > 0).length).to.equal(2);
  });
});
