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

  for (const bytes of [8, 60]) {
    it(`packets of ${bytes} bytes that follow on each other in their buffer have each its own id`, async () => {
      const { all, seen } = outboxes(1, 0);
      const chunk = Buffer.from([..."abcdef"].map((letter) => letter.repeat(bytes)).join(""));
      const packet = (letter: string, id: string): string => `${letter}${id}${letter.repeat(bytes - 3)}`;
      const send = (at: number, id: string): void =>
        all[0]?.appendWithId(chunk, at * bytes, (at + 1) * bytes, 1, Buffer.from(id).readUInt16BE());
      for (const [at, id] of ["11", "12", "13"].entries()) send(at, id);
      all[0]?.appendAck(0x40, 0x4141);
      send(3, "14");
      send(5, "15"); // one is left out
      send(0, "16");
      all[0]?.append(text, 0, 5);
      send(1, "17");
      await turns(1);
      const first = packet("a", "11") + packet("b", "12") + packet("c", "13");
      const then = packet("d", "14") + packet("f", "15") + packet("a", "16");
      expect(seen).to.deep.equal([`0 ${first}@\u0002AA${then}hello${packet("b", "17")}`]);
      expect(chunk.toString()).to.equal([..."abcdef"].map((letter) => letter.repeat(bytes)).join(""));
    });
  }

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
